//! Mapped memory, as its one writer and its readers share it.
//!
//! A segment is written by one [`Tail`] and read through [`Mapped`] by any thread. The bytes below `written` never change again,
//! the bytes above it are never lent out, so readers and the writer never touch the same byte.

use crate::journal::disk::Disk;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A disk whose files can be mapped.
pub trait MapDisk: Disk {
    type Map: SegmentMap;

    /// Maps the first `len` bytes of `file`, which must be at least that long. The first `written` are final, what the others read as until
    /// they are written has no meaning. There is room for a mark behind the first.
    /// The mapping stays usable when `file` is removed or truncated behind what is read.
    fn map(&self, file: Self::File, len: usize, written: usize) -> io::Result<Self::Map>;

    /// Cuts `file` to `len` bytes and gives back the blocks behind.
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
}

/// The bytes of a mapped file.
///
/// # Safety
///
/// As long as the value lives, `base` returns one and the same pointer, valid for reads of `size` bytes and for writes of those that were
/// populated for writing, and nobody but the holder of the value changes these bytes. `release` and `populate` leave the content as it is.
pub unsafe trait SegmentMap: Send + Sync + 'static {
    fn base(&self) -> *mut u8;
    /// In bytes.
    fn size(&self) -> usize;
    /// Told after bytes in `range` changed in memory.
    fn wrote(&self, range: Range<usize>);
    /// Makes the content of `range` durable, all of which must be final, and may let its whole pages go as `release` does. Never retried
    /// after an error: the kernel may have dropped the pages.
    fn flush(&self, range: Range<usize>) -> io::Result<()>;
    /// Brings `range` into memory, blocking, so that touching it afterwards does not block. For writing, and what lies before it too.
    fn populate(&self, range: Range<usize>, access: Access) -> io::Result<()>;
    /// Lets the whole pages of `range`, all of which must be final, go from this process; their content is in the file then.
    fn release(&self, range: Range<usize>);
    /// Whether every page of `range` can be read, or appended to, without the disk.
    fn resident(&self, range: Range<usize>) -> bool;
}

/// What populated pages are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// To be appended to: before that nothing may be written there.
    Write,
}

/// A mapping whose first `written` bytes are final and readable.
pub struct Mapped<M> {
    map: M,
    /// Only grows; `written ≤ map.size()`.
    written: AtomicUsize,
}

/// The single writer of a [`Mapped`]: appends where its written bytes end.
pub struct Tail<M> {
    mapped: Arc<Mapped<M>>,
}

impl<M: SegmentMap> Mapped<M> {
    /// A mapping that nobody will write: its first `written` bytes are readable.
    pub fn read_only(map: M, written: u32) -> Arc<Self> {
        assert!(written as usize <= map.size(), "written bytes reach beyond the mapping");
        Arc::new(Self { map, written: AtomicUsize::new(written as usize) })
    }

    /// The bytes of `range`, which must have been written.
    pub fn bytes(&self, range: Range<u32>) -> &[u8] {
        let (start, end) = (range.start as usize, range.end as usize);
        let written = self.written.load(Ordering::Acquire);
        assert!(start <= end && end <= written, "{start}..{end} of a mapping with {written} written bytes");
        // SAFETY: `start ≤ end ≤ written ≤ size`, so the bytes lie in the mapping, which lives as long as `self`;
        // bytes below `written` do not change any more.
        unsafe { std::slice::from_raw_parts(self.map.base().add(start), end - start) }
    }

    /// How many bytes can be read.
    pub fn written(&self) -> u32 {
        self.written.load(Ordering::Acquire) as u32
    }

    /// The mapping itself, for advice and flushing.
    pub fn map(&self) -> &M {
        &self.map
    }
}

impl<M: SegmentMap> Tail<M> {
    /// Takes over writing of `map`, the first `written` bytes of which are final.
    pub fn new(map: M, written: u32) -> Self {
        Self { mapped: Mapped::read_only(map, written) }
    }

    /// The mapping for readers.
    pub fn mapped(&self) -> &Arc<Mapped<M>> {
        &self.mapped
    }

    /// Size of the mapping in bytes.
    pub fn capacity(&self) -> u32 {
        self.mapped.map.size() as u32
    }

    /// Appends `bytes` and then zeros up to `end`, publishes both, and puts `mark` zero bytes behind them as far as
    /// there is room. `end` must be in the mapping and not before the end of `bytes`; everything up to the mark was populated.
    pub fn append(&mut self, bytes: &[u8], end: u32, mark: u32) {
        let start = self.mapped.written() as usize;
        let (filled, end) = (start + bytes.len(), end as usize);
        let map = &self.mapped.map;
        assert!(filled <= end && end <= map.size(), "{start}..{end} of a mapping of {} bytes", map.size());
        let marked = map.size().min(end + mark as usize);
        // SAFETY: `start ≤ filled ≤ end ≤ marked ≤ size`; nobody reads at or above `written`, which is `start`, and `&mut self`
        // makes this the only writer: a `Tail` cannot be cloned and every mapping has at most one. `bytes` cannot overlap,
        // because no slice of these bytes was ever lent out.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), map.base().add(start), bytes.len());
            ptr::write_bytes(map.base().add(filled), 0, marked - filled);
        }
        map.wrote(start..marked);
        self.mapped.written.store(end, Ordering::Release);
    }
}

/// The size of a page in bytes, a power of two.
pub fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    // SAFETY: the call has no preconditions.
    *BYTES.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::{DiskFile, RealDisk};
    use crate::partition::FileMap;

    /// A mapping of a file that is full of something else.
    fn mapped(bytes: u64, written: usize) -> (tempfile::TempDir, FileMap) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        file.write_at(&vec![0xee; bytes as usize], 0).unwrap();
        let map = RealDisk.map(file, bytes as usize, written).unwrap();
        map.populate(written..bytes as usize, Access::Write).unwrap();
        (dir, map)
    }

    #[test]
    fn what_is_appended_is_read_with_zeros_up_to_the_end_and_the_mark_behind() {
        let (dir, map) = mapped(4096, 0);
        let memory = map.base();
        // SAFETY: the mapping has 4096 bytes, and nobody else has it yet.
        unsafe { ptr::write_bytes(memory, 0xee, 4096) };
        let mut tail = Tail::new(map, 0);
        tail.append(b"abc", 8, 8);
        assert_eq!(tail.mapped().bytes(0..8), b"abc\0\0\0\0\0");
        // SAFETY: `tail` keeps the mapping, and nobody writes to it.
        let behind = unsafe { std::slice::from_raw_parts(memory.add(8), 9) };
        assert_eq!((&behind[..8], behind[8]), (&[0; 8][..], 0xee));
        tail.mapped().map().flush(0..8).unwrap();
        let file = std::fs::read(dir.path().join("f")).unwrap();
        assert_eq!(file[8..16], [0; 8]);
    }

    #[test]
    fn the_mark_is_cut_at_the_end_of_the_mapping() {
        let mut tail = Tail::new(mapped(4096, 4080).1, 4080);
        tail.append(b"0123456789", 4096, 8);
        assert_eq!(tail.mapped().bytes(4088..4096), b"89\0\0\0\0\0\0");
    }

    #[test]
    fn readers_on_other_threads_see_whole_appends_only() {
        const APPENDS: u32 = 2000;
        let mut tail = Tail::new(mapped(u64::from(APPENDS) * 64, 0).1, 0);
        let mapped = tail.mapped().clone();
        let reader = std::thread::spawn(move || {
            while mapped.written() < APPENDS * 64 {
                let written = mapped.written();
                assert!(mapped.bytes(0..written).iter().all(|byte| *byte == 7));
            }
        });
        (1..=APPENDS).for_each(|n| tail.append(&[7; 64], n * 64, 8));
        reader.join().unwrap();
    }
}

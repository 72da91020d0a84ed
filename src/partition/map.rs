//! Mapped memory: the one place of the storage code with `unsafe`.
//!
//! A segment is written by one [`Tail`] and read through [`Mapped`] by any thread. The bytes below `written` never change again,
//! the bytes above it are never lent out, so readers and the writer never touch the same byte.

use crate::journal::disk::{Disk, RealDisk};
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Memory that the kernel is asked to write or let go of at a time. It does not let go of the processor meanwhile where it was built
/// without preemption, and the next sync of the journal waits for all that was written before it: in one call for a whole segment,
/// the journal stood still for 30 ms.
const PIECE_BYTES: usize = 1 << 20;

/// Memory that is read from the disk at a time. A write of the journal waits behind what is being read: with a catching-up consumer beside
/// it an event took up to 9 ms (p99) in pieces of 1 MiB and 5 ms in these, which are read just as fast.
const READ_BYTES: usize = 256 << 10;

/// A disk whose files can be mapped.
pub trait MapDisk: Disk {
    type Map: SegmentMap;

    /// Maps the first `len` bytes of `file`, shared, for reading and writing. The file must be at least that long.
    /// The mapping stays usable when `file` is closed, removed or truncated behind what is read.
    fn map(&self, file: Self::File, len: usize) -> io::Result<Self::Map>;

    /// Cuts `file` to `len` bytes and gives back the blocks behind.
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
}

/// The bytes of a mapped file.
///
/// # Safety
///
/// As long as the value lives, `base` returns one and the same pointer, valid for reads and writes of `size` bytes, and nobody
/// but the holder of the value changes these bytes. `release` and `populate` leave the content as it is.
pub unsafe trait SegmentMap: Send + Sync + 'static {
    fn base(&self) -> *mut u8;
    /// In bytes.
    fn size(&self) -> usize;
    /// Told after bytes in `range` changed in memory. A mapping that the kernel watches needs nothing here.
    fn wrote(&self, range: Range<usize>);
    /// Makes the content of `range` durable, and may let its whole pages go as `release` does. Never retried after an error: the kernel may
    /// have dropped the pages.
    fn flush(&self, range: Range<usize>) -> io::Result<()>;
    /// Brings `range` into memory, blocking, so that touching it afterwards does not block.
    fn populate(&self, range: Range<usize>, access: Access) -> io::Result<()>;
    /// Lets the pages of `range` go from this process; their content stays in the file.
    fn release(&self, range: Range<usize>);
    /// Whether every page of `range` can be read without the disk.
    fn resident(&self, range: Range<usize>) -> bool;
}

/// What populated pages are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// Also makes the pages writable: the file system has done its part of a first write before the writer comes.
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
    /// there is room. `end` must be in the mapping and not before the end of `bytes`.
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

/// A file mapped by the kernel.
pub struct FileMap {
    raw: MmapRaw,
    file: File,
}

impl MapDisk for RealDisk {
    type Map = FileMap;

    fn map(&self, file: File, len: usize) -> io::Result<FileMap> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let raw = MmapOptions::new().len(len).map_raw(&file)?;
        // Payloads do not belong into a core dump. Refusal of the advice changes nothing else.
        let _ = raw.advise(Advice::DontDump);
        Ok(FileMap { raw, file })
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
}

// SAFETY: the kernel keeps the mapping in place until `raw` is dropped. Other processes are kept away from the files by
// the lock on the data directory; a file is only truncated behind the bytes that were written.
unsafe impl SegmentMap for FileMap {
    fn base(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    fn size(&self) -> usize {
        self.raw.len()
    }

    fn wrote(&self, _: Range<usize>) {}

    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        for piece in pieces(range.clone(), PIECE_BYTES) {
            // Each page that is still mapped when it is written interrupts the cores to take back their right to write to it; pages
            // that are let go of together do so once.
            let whole = piece.start..piece.end / page_bytes() * page_bytes();
            self.release(whole);
            self.write_back(piece)?;
        }
        self.raw.flush_range(range.start, range.len())
    }

    fn populate(&self, range: Range<usize>, access: Access) -> io::Result<()> {
        match access {
            Access::Read => {
                // Each piece is asked for at once; page by page, the disk would have one small read at a time.
                pieces(range, READ_BYTES).try_for_each(|piece| {
                    let _ = self.raw.advise_range(Advice::WillNeed, piece.start, piece.len());
                    self.raw.advise_range(Advice::PopulateRead, piece.start, piece.len())
                })
            }
            Access::Write => {
                // Without this advice the kernel takes large folios for what is read in order. A folio is written whole whenever
                // a byte of it has changed, so each sync wrote the last one again, up to 2 MiB a partition: batches took 2.7 bytes
                // of disk for each of their own instead of 2.2, at a p99 of 32 ms instead of 6. So the pages are asked for all at once
                // first, or each would be read, which is filled with zeros, by itself.
                let _ = self.raw.advise_range(Advice::Random, range.start, self.size() - range.start);
                let _ = self.raw.advise_range(Advice::WillNeed, range.start, range.len());
                self.raw.advise_range(Advice::PopulateWrite, range.start, range.len())
            }
        }
    }

    fn release(&self, range: Range<usize>) {
        for piece in pieces(range, PIECE_BYTES) {
            // SAFETY: the mapping is shared and backed by a file, so dropped pages come back with the same content.
            // Advice that is refused costs memory, nothing else.
            let _ = unsafe {
                self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, piece.start, piece.len())
            };
        }
    }

    fn resident(&self, range: Range<usize>) -> bool {
        /// Pages asked for in one call; the answer lies on the stack.
        const PAGES: usize = 256;
        let end = range.end.min(self.size());
        let mut at = range.start - range.start % page_bytes();
        while at < end {
            let len = (end - at).min(PAGES * page_bytes());
            let mut pages = [0u8; PAGES];
            // SAFETY: `at` is page-aligned as is the base, `at + len ≤ self.size()`, and `pages` has a byte for each page.
            let code = unsafe { libc::mincore(self.base().add(at).cast(), len, pages.as_mut_ptr()) };
            if code != 0 || pages[..len.div_ceil(page_bytes())].iter().any(|page| page & 1 == 0) {
                return false;
            }
            at += len;
        }
        true
    }
}

impl FileMap {
    /// Writes what changed in `range` and waits for it, which does not make it durable yet.
    fn write_back(&self, range: Range<usize>) -> io::Result<()> {
        let how = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        let (start, len) = (range.start as i64, range.len() as i64);
        // SAFETY: the call takes numbers only.
        match unsafe { libc::sync_file_range(self.file.as_raw_fd(), start, len, how) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Cuts `range` where multiples of `bytes` are.
fn pieces(range: Range<usize>, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((at / bytes + 1) * bytes);
        (at < end).then(|| std::mem::replace(&mut at, end)..end)
    })
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
    use crate::journal::disk::DiskFile;

    fn mapped(bytes: u64) -> (tempfile::TempDir, FileMap) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        file.allocate(bytes).unwrap();
        (dir, RealDisk.map(file, bytes as usize).unwrap())
    }

    #[test]
    fn what_is_appended_is_read_with_zeros_up_to_the_end_and_the_mark_behind() {
        let (dir, map) = mapped(4096);
        // SAFETY: nothing reads or writes this mapping meanwhile.
        unsafe { ptr::write_bytes(map.base(), 0xee, 4096) };
        let mut tail = Tail::new(map, 0);
        tail.append(b"abc", 8, 8);
        assert_eq!(tail.mapped().bytes(0..8), b"abc\0\0\0\0\0");
        tail.mapped().map().flush(0..16).unwrap();
        let file = std::fs::read(dir.path().join("f")).unwrap();
        assert_eq!((&file[8..16], file[16]), (&[0; 8][..], 0xee));
    }

    #[test]
    fn the_mark_is_cut_at_the_end_of_the_mapping() {
        let mut tail = Tail::new(mapped(4096).1, 4080);
        tail.append(b"0123456789", 4096, 8);
        assert_eq!(tail.mapped().bytes(4088..4096), b"89\0\0\0\0\0\0");
    }

    #[test]
    fn readers_on_other_threads_see_whole_appends_only() {
        const APPENDS: u32 = 2000;
        let mut tail = Tail::new(mapped(u64::from(APPENDS) * 64).1, 0);
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

    #[test]
    fn a_file_shorter_than_the_mapping_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        file.allocate(4096).unwrap();
        let error = RealDisk.map(file, 4097).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn pieces_cover_a_range_once_and_end_at_multiples() {
        let all: Vec<_> = pieces(5..27, 10).collect();
        assert_eq!(all, [5..10, 10..20, 20..27]);
        assert_eq!(pieces(3..3, 10).count(), 0);
    }

    #[test]
    fn released_pages_keep_their_content_and_are_resident_again_when_populated() {
        let (_dir, map) = mapped(1 << 20);
        let mut tail = Tail::new(map, 0);
        tail.append(&vec![5; 1 << 20], 1 << 20, 0);
        let map = tail.mapped().map();
        map.release(0..1 << 20);
        map.populate(0..1 << 20, Access::Read).unwrap();
        assert!(map.resident(0..1 << 20) && map.resident(5000..5001));
        assert!(tail.mapped().bytes(0..1 << 20).iter().all(|byte| *byte == 5));
    }

    #[test]
    fn what_is_flushed_in_parts_within_pages_is_in_the_file_and_still_read() {
        const BYTES: usize = PIECE_BYTES + 10_000;
        let (dir, map) = mapped(2 * PIECE_BYTES as u64);
        let content: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
        let (first, second) = content.split_at(5000);
        let mut tail = Tail::new(map, 0);
        tail.append(first, 5000, 0);
        tail.mapped().map().flush(0..5000).unwrap();
        tail.append(second, BYTES as u32, 0);
        tail.mapped().map().flush(5000..BYTES).unwrap();
        assert!(tail.mapped().bytes(0..BYTES as u32) == content);
        assert!(std::fs::read(dir.path().join("f")).unwrap()[..BYTES] == content);
    }

    #[test]
    fn pages_that_were_never_read_are_not_resident_until_populated() {
        let (dir, map) = mapped(1 << 20);
        if is_in_memory(dir.path()) {
            return;
        }
        assert!(!map.resident(0..1 << 20) && !map.resident(8192..8193));
        map.populate(8192..12_288, Access::Read).unwrap();
        assert!(map.resident(8192..12_288));
    }

    /// Whether `dir` is on a file system whose files are always in memory.
    fn is_in_memory(dir: &std::path::Path) -> bool {
        let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: an all-zero `statfs` is a valid value, `path` is NUL-terminated, and both outlive the call.
        let stat = unsafe {
            let mut stat: libc::statfs = std::mem::zeroed();
            assert_eq!(libc::statfs(path.as_ptr(), &mut stat), 0);
            stat
        };
        stat.f_type == libc::TMPFS_MAGIC
    }
}

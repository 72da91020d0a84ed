//! Mapped files: what is read comes from the file, what was just written lies in plain memory, from where the disk gets it.
//!
//! To append to mapped pages of the file itself, each page has to be read, though it is new, and to be made writable by the file system, and
//! the executor meets pages that are being written back. Plain memory is there before it is needed. The disk takes it from there without
//! a copy in the kernel's memory (direct I/O), and when nobody is expected to read it any more the file's own pages take its place, with
//! the same content at the same address.

use super::map::{Access, MapDisk, SegmentMap, page_bytes};
use super::memory::{CHUNK_BYTES, Chunk};
use super::segment::MARK_BYTES;
use crate::journal::disk::RealDisk;
use crate::journal::frame::BLOCK;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory that is written at a time: a write of the journal waits behind it.
const PIECE_BYTES: usize = 1 << 20;

/// Memory that is read from the disk at a time. A write of the journal waits behind what is being read: with a catching-up consumer beside
/// it an event took up to 9 ms (p99) in pieces of 1 MiB and 5 ms in these, which are read just as fast.
const READ_BYTES: usize = 256 << 10;

/// A file mapped by the kernel.
pub struct FileMap {
    raw: MmapRaw,
    file: File,
    /// Everything before is in the file. Held by helper threads while they write, never by an executor.
    written: Mutex<usize>,
    /// The pages before are the file's or about to be, those from here up to `ready` are plain memory. A multiple of the page size unless it
    /// is the end. Changed by who holds `written`.
    mapped: AtomicUsize,
    /// Where the memory for appends ends. Changed by who holds `memory`.
    ready: AtomicUsize,
    /// Dropped after the mapping, in which it is.
    memory: Mutex<Memory>,
}

/// The memory for appends, up to `FileMap::ready`; nothing of it is before `FileMap::mapped`, but for the rest of a chunk.
struct Memory {
    /// One after the other, from `start` on.
    chunks: VecDeque<Chunk>,
    start: usize,
}

impl MapDisk for RealDisk {
    type Map = FileMap;

    fn map(&self, file: File, len: usize, written: usize) -> io::Result<FileMap> {
        if file.metadata()?.len() < len as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let raw = MmapOptions::new().len(len).map_raw(&file)?;
        let mapped = if written < len { whole(written, page_bytes()) } else { len };
        let map = FileMap {
            raw,
            file,
            written: Mutex::new(written),
            mapped: AtomicUsize::new(mapped),
            ready: AtomicUsize::new(mapped),
            memory: Mutex::new(Memory { chunks: VecDeque::new(), start: mapped }),
        };
        if mapped < len {
            map.add_memory(written + MARK_BYTES as usize)?;
            map.fill(mapped..written)?;
            // A file system that does not know it has its own way to the disk.
            let _ = map.ask_for_direct_writes();
            map.write_end(written)?;
        }
        // Payloads do not belong into a core dump. Refusal of the advice changes nothing else.
        let _ = map.raw.advise(Advice::DontDump);
        Ok(map)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
}

// SAFETY: the kernel keeps the mapping in place until `raw` is dropped; what is put over parts of it stands at the same addresses, with the
// same content. Other processes are kept away from the files by the lock on the data directory; a file is only truncated behind the
// bytes that were written.
unsafe impl SegmentMap for FileMap {
    fn base(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    fn size(&self) -> usize {
        self.raw.len()
    }

    fn wrote(&self, _: Range<usize>) {}

    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        let mut written = self.written();
        if range.end > *written {
            self.write(&mut written, whole(range.end, BLOCK))?;
            self.write_end(range.end)?;
            *written = range.end;
        }
        drop(written);
        self.file.sync_data()
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
            Access::Write => self.add_memory(range.end),
        }
    }

    fn release(&self, range: Range<usize>) {
        let mut written = self.written();
        // What cannot be written stays in memory; the flush that needs it tries again and says why.
        if self.write(&mut written, whole(range.end, BLOCK)).is_ok() {
            self.replace(&written, whole(range.end, page_bytes()));
        }
        let end = range.end.min(self.mapped());
        drop(written);
        // In one call, though the kernel finds little to let go of in most parts: it gives way in between by itself.
        // SAFETY: this part of the mapping is shared and backed by the file, so dropped pages come back with the same content.
        // Advice that is refused costs memory, nothing else.
        let _ = unsafe {
            self.raw.unchecked_advise_range(
                UncheckedAdvice::DontNeed,
                range.start,
                end.saturating_sub(range.start),
            )
        };
    }

    fn resident(&self, range: Range<usize>) -> bool {
        /// Pages asked for in one call; the answer lies on the stack.
        const PAGES: usize = 256;
        if range.end > self.ready.load(Ordering::Acquire) {
            return false;
        }
        // Plain memory is there. The system is not asked: it would have to wait while a helper changes what is mapped.
        let end = range.end.min(self.mapped());
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
    fn written(&self) -> MutexGuard<'_, usize> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Acquire)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts memory in the place of what lies before `end` and has not been appended to.
    fn add_memory(&self, end: usize) -> io::Result<()> {
        let mut memory = self.memory();
        let mut at = self.ready.load(Ordering::Acquire);
        while at < end.min(self.size()) {
            let (chunk, len) = (Chunk::take()?, CHUNK_BYTES.min(self.size() - at));
            // SAFETY: the range is within the mapping and begins at a page, as all chunks do; nothing was written to it yet.
            unsafe { chunk.map_at(self.base().add(at), len)? };
            let _ = self.raw.advise_range(Advice::DontDump, at, len);
            memory.chunks.push_back(chunk);
            at += len;
            self.ready.store(at, Ordering::Release);
        }
        Ok(())
    }

    /// Has what comes go to the disk without a stop in the kernel's memory: from blocks to blocks.
    fn ask_for_direct_writes(&self) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        // SAFETY: the calls take numbers only.
        let code = unsafe { libc::fcntl(fd, libc::F_SETFL, libc::fcntl(fd, libc::F_GETFL) | libc::O_DIRECT) };
        if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Writes whole blocks of what was appended before `end` and is not in the file yet.
    fn write(&self, written: &mut usize, end: usize) -> io::Result<()> {
        for piece in pieces(whole(*written, BLOCK)..end, PIECE_BYTES) {
            // SAFETY: bytes before `end` were appended and do not change any more; they lie in the mapping, which lives as long as `self`.
            let bytes = unsafe { std::slice::from_raw_parts(self.base().add(piece.start), piece.len()) };
            self.file.write_all_at(bytes, piece.start as u64)?;
            *written = piece.end;
        }
        Ok(())
    }

    /// Writes what was appended before `end` in its last block, and the mark of the last record behind it.
    fn write_end(&self, end: usize) -> io::Result<()> {
        let start = whole(end, BLOCK);
        let behind = (end + MARK_BYTES as usize).next_multiple_of(BLOCK).min(self.size());
        let mut blocks = Blocks([0; 2 * BLOCK]);
        // SAFETY: as above; appends go on behind `end` meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(self.base().add(start), end - start) };
        blocks.0[..bytes.len()].copy_from_slice(bytes);
        self.file.write_all_at(&blocks.0[..behind - start], start as u64)
    }

    /// Puts the file's pages in the place of the memory before `end`, which must be in the file: before `written`, whose lock is held.
    fn replace(&self, written: &usize, end: usize) {
        debug_assert!(end <= *written);
        let before = self.mapped();
        if before >= end {
            return;
        }
        // Told first: whoever reads it meanwhile must not take it for memory that is there.
        self.mapped.store(end, Ordering::Release);
        if self.put_file(before..end).is_err() {
            // Where the kernel has no room for it the memory stays until more is let go of.
            return self.mapped.store(before, Ordering::Release);
        }
        let mut memory = self.memory();
        while memory.start + CHUNK_BYTES <= end {
            memory.chunks.pop_front();
            memory.start += CHUNK_BYTES;
        }
    }

    /// Puts the pages of the file in the place of `range`, which must have the same content. The kernel does it at once: who reads meanwhile
    /// finds the old or the new pages.
    fn put_file(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.start.is_multiple_of(page_bytes()) && range.end <= self.size());
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let (fd, position) = (self.file.as_raw_fd(), range.start as libc::off_t);
        // SAFETY: `range` begins at a page and lies in the mapping of `raw`, which nothing but `self` arranges, and which is
        // unmapped as a whole. Nobody's bytes change by it.
        let put = unsafe {
            libc::mmap(self.base().add(range.start).cast(), range.len(), access, kind, fd, position)
        };
        if put == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let _ = self.raw.advise_range(Advice::DontDump, range.start, range.len());
        Ok(())
    }

    /// Reads `range` of the file into the memory that stands in its place.
    fn fill(&self, range: Range<usize>) -> io::Result<()> {
        // SAFETY: the bytes lie in the mapping, and nobody else has it yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.base().add(range.start), range.len()) };
        self.file.read_exact_at(bytes, range.start as u64)
    }
}

/// Memory for the end of a file, where blocks of the disk begin.
#[repr(align(4096))]
struct Blocks([u8; 2 * BLOCK]);

/// The end of the last whole unit of `bytes` before `end`.
fn whole(end: usize, bytes: usize) -> usize {
    end / bytes * bytes
}

/// Cuts `range` where multiples of `bytes` are.
fn pieces(range: Range<usize>, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((at / bytes + 1) * bytes);
        (at < end).then(|| std::mem::replace(&mut at, end)..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::{Disk, DiskFile};
    use crate::partition::map::{Mapped, Tail};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn mapped(bytes: u64) -> (tempfile::TempDir, FileMap) {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        file.allocate(bytes).unwrap();
        let map = RealDisk.map(file, bytes as usize, 0).unwrap();
        map.populate(0..bytes as usize, Access::Write).unwrap();
        (dir, map)
    }

    fn content(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|n| (n % 251) as u8).collect()
    }

    fn file_in(dir: &tempfile::TempDir) -> Vec<u8> {
        std::fs::read(dir.path().join("f")).unwrap()
    }

    #[test]
    fn a_file_shorter_than_the_mapping_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.create(&dir.path().join("f")).unwrap();
        file.allocate(4096).unwrap();
        let error = RealDisk.map(file, 4097, 0).err().unwrap();
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
        let (dir, map) = mapped(1 << 20);
        let mut tail = Tail::new(map, 0);
        tail.append(&vec![5; 1 << 20], 1 << 20, 0);
        let map = tail.mapped().map();
        map.release(0..1 << 20);
        assert!(is_in_memory(dir.path()) || !map.resident(0..1 << 20));
        map.populate(0..1 << 20, Access::Read).unwrap();
        assert!(map.resident(0..1 << 20) && map.resident(5000..5001));
        assert!(tail.mapped().bytes(0..1 << 20).iter().all(|byte| *byte == 5));
    }

    #[test]
    fn what_is_flushed_in_parts_within_pages_is_in_the_file_and_still_read() {
        const BYTES: usize = PIECE_BYTES + 10_000;
        let (dir, map) = mapped(2 * PIECE_BYTES as u64);
        let content = content(BYTES);
        let (first, second) = content.split_at(5000);
        let mut tail = Tail::new(map, 0);
        tail.append(first, 5000, 0);
        tail.mapped().map().flush(0..5000).unwrap();
        tail.append(second, BYTES as u32, 0);
        tail.mapped().map().flush(5000..BYTES).unwrap();
        assert!(tail.mapped().bytes(0..BYTES as u32) == content);
        assert!(file_in(&dir)[..BYTES] == content);
    }

    #[test]
    fn pages_that_were_never_read_are_not_resident_until_populated() {
        let (dir, map) = mapped(1 << 20);
        drop(map);
        let map = RealDisk.map(RealDisk.open(&dir.path().join("f")).unwrap(), 1 << 20, 1 << 20).unwrap();
        if is_in_memory(dir.path()) {
            return;
        }
        assert!(!map.resident(0..1 << 20) && !map.resident(8192..8193));
        map.populate(8192..12_288, Access::Read).unwrap();
        assert!(map.resident(8192..12_288));
    }

    #[test]
    fn what_is_released_is_in_the_file_as_far_as_pages_are_whole() {
        let (dir, map) = mapped(2 << 20);
        let content = content((1 << 20) + 100);
        let mut tail = Tail::new(map, 0);
        tail.append(&content, content.len() as u32, 0);
        tail.mapped().map().release(0..content.len());
        let file = file_in(&dir);
        assert!(file[..1 << 20] == content[..1 << 20] && file[1 << 20..].iter().all(|byte| *byte == 0));
        assert!(tail.mapped().bytes(0..content.len() as u32) == content);
        tail.mapped().map().flush(0..content.len()).unwrap();
        assert!(file_in(&dir)[..content.len()] == content);
    }

    #[test]
    fn a_file_is_written_on_within_a_page_and_gets_its_mark_when_it_is_opened() {
        let (dir, map) = mapped(1 << 20);
        let (bytes, written) = (content(20_000), 5000);
        drop(map);
        RealDisk.open(&dir.path().join("f")).unwrap().write_all_at(&bytes, 0).unwrap();
        let map = RealDisk.map(RealDisk.open(&dir.path().join("f")).unwrap(), 1 << 20, written).unwrap();
        assert!(file_in(&dir)[written..written + 8] == [0; 8]);
        let mut tail = Tail::new(map, written as u32);
        assert!(*tail.mapped().bytes(0..written as u32) == bytes[..written]);
        tail.append(&[7; 100], written as u32 + 104, 8);
        tail.mapped().map().flush(written..written + 104).unwrap();
        let zeros = [0; 2 * BLOCK - 5100];
        let expected = [&bytes[..written], &[7; 100], &zeros, &bytes[2 * BLOCK..]].concat();
        assert!(file_in(&dir)[..expected.len()] == expected);
    }

    #[test]
    fn readers_find_the_same_bytes_while_pages_change_places() {
        const APPENDS: u32 = 3000;
        const BYTES: u32 = 1000;
        let (dir, map) = mapped(u64::from(APPENDS * BYTES).next_multiple_of(4096));
        let mut tail = Tail::new(map, 0);
        let (mapped, done) = (tail.mapped().clone(), Arc::new(AtomicBool::new(false)));
        let meanwhile = |work: fn(&Mapped<FileMap>)| {
            let (mapped, done) = (mapped.clone(), done.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    work(&mapped);
                }
                work(&mapped);
            })
        };
        let threads = [
            meanwhile(|mapped| mapped.map().release(0..mapped.written() as usize)),
            meanwhile(|mapped| mapped.map().flush(0..mapped.written() as usize).unwrap()),
            meanwhile(|mapped| {
                let bytes = mapped.bytes(0..mapped.written());
                assert!(bytes.chunks(BYTES as usize).enumerate().all(|(n, part)| part[0] == n as u8));
            }),
        ];
        (0..APPENDS).for_each(|n| tail.append(&[n as u8; BYTES as usize], (n + 1) * BYTES, 8));
        done.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (file, bytes) = (file_in(&dir), mapped.bytes(0..APPENDS * BYTES));
        assert!(file[..bytes.len()] == *bytes);
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

//! A mapping on the heap, for disks without real files: what a simulation runs on.

use super::map::{Access, SegmentMap};
use crate::journal::disk::DiskFile;
use std::cell::UnsafeCell;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes whose residency is kept as one.
const PAGE_BYTES: usize = 4096;

/// The content of a file in memory. Every change is written through at once, unsynced, so that the disk behind decides
/// what of it survives a crash; `flush` is the sync of that file.
///
/// Pages are resident when written or populated and cold when loaded or released, so that the ways of cold memory are walked
/// the same in every run.
pub struct HeapMap<F> {
    bytes: Box<[UnsafeCell<u8>]>,
    resident: Box<[AtomicBool]>,
    file: F,
    /// The first write-through that failed: reported by the next flush, as a kernel reports failed write-back.
    failed: Mutex<Option<io::Error>>,
}

// SAFETY: the cells are only reached by `base`, whose users keep writers and readers apart (see `Mapped` and `Tail`).
unsafe impl<F: DiskFile> Sync for HeapMap<F> {}

impl<F: DiskFile> HeapMap<F> {
    /// Reads the first `len` bytes of `file`.
    pub fn load(file: F, len: usize) -> io::Result<Self> {
        let mut bytes = vec![0; len];
        file.read_at(&mut bytes, 0)?;
        let bytes = bytes.into_iter().map(UnsafeCell::new).collect();
        let resident = (0..len.div_ceil(PAGE_BYTES)).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { bytes, resident, file, failed: Mutex::new(None) })
    }

    fn pages(&self, range: Range<usize>) -> &[AtomicBool] {
        let end = range.end.min(self.bytes.len()).div_ceil(PAGE_BYTES);
        &self.resident[(range.start / PAGE_BYTES).min(end)..end]
    }
}

// SAFETY: the boxed bytes neither move nor shrink while the value lives, and `UnsafeCell<u8>` has the layout of `u8`.
unsafe impl<F: DiskFile> SegmentMap for HeapMap<F> {
    fn base(&self) -> *mut u8 {
        self.bytes.as_ptr().cast_mut().cast()
    }

    fn size(&self) -> usize {
        self.bytes.len()
    }

    fn wrote(&self, range: Range<usize>) {
        self.pages(range.clone()).iter().for_each(|page| page.store(true, Ordering::Relaxed));
        // SAFETY: `range` was just written by the only writer, which waits for this call to return.
        let bytes = unsafe { std::slice::from_raw_parts(self.base().add(range.start), range.len()) };
        if let Err(error) = self.file.write_at(bytes, range.start as u64) {
            self.failed.lock().expect("not poisoned").get_or_insert(error);
        }
    }

    fn flush(&self, _: Range<usize>) -> io::Result<()> {
        match self.failed.lock().expect("not poisoned").take() {
            Some(error) => Err(error),
            None => self.file.sync(),
        }
    }

    fn populate(&self, range: Range<usize>, _: Access) -> io::Result<()> {
        self.pages(range).iter().for_each(|page| page.store(true, Ordering::Relaxed));
        Ok(())
    }

    fn release(&self, range: Range<usize>) {
        self.pages(range).iter().for_each(|page| page.store(false, Ordering::Relaxed));
    }

    fn resident(&self, range: Range<usize>) -> bool {
        self.pages(range).iter().all(|page| page.load(Ordering::Relaxed))
    }
}

//! Memory for what is appended, which is used again and again: new memory costs the kernel a page fault, a search and a clearing for each
//! page. It is a file without a name (memfd_create(2)), chunks of which are mapped where they are needed.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that nobody uses and that keep their memory; what others had is given back to the kernel.
const SPARE_CHUNKS_MAX: usize = 64;

/// The memory of this process.
static MEMORY: Mutex<Chunks> = Mutex::new(Chunks { file: None, count: 0, free: VecDeque::new() });

/// A chunk of the memory, given back when it is dropped: it must not be mapped any more then.
pub(super) struct Chunk {
    number: usize,
}

/// The file, and which chunks of it are in use.
#[derive(Default)]
struct Chunks {
    /// Made when it is first needed.
    file: Option<File>,
    count: usize,
    /// Those without memory in front, those with it behind.
    free: VecDeque<usize>,
}

impl Chunk {
    /// A chunk that nobody else uses. What is in it has no meaning.
    pub fn take() -> io::Result<Self> {
        memory().take().map(|number| Self { number })
    }

    /// Maps the first `len` bytes of the chunk at `at`, in place of what was mapped there.
    ///
    /// # Safety
    ///
    /// `at` must be at a page of a mapping of the caller's with `len` bytes from there on, of which nobody uses any.
    pub unsafe fn map_at(&self, at: *mut u8, len: usize) -> io::Result<()> {
        assert!(len <= CHUNK_BYTES);
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE);
        let fd = memory().file()?.as_raw_fd();
        let offset = (self.number * CHUNK_BYTES) as libc::off_t;
        // SAFETY: the caller has the range, and the file is as long as its chunks.
        let mapped = unsafe { libc::mmap(at.cast(), len, access, kind, fd, offset) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        memory().give_back(self.number);
    }
}

fn memory() -> MutexGuard<'static, Chunks> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chunks {
    fn take(&mut self) -> io::Result<usize> {
        if let Some(number) = self.free.pop_back() {
            return Ok(number);
        }
        let len = (self.count + 1) * CHUNK_BYTES;
        self.file()?.set_len(len as u64)?;
        self.count += 1;
        Ok(self.count - 1)
    }

    fn give_back(&mut self, number: usize) {
        if self.free.len() < SPARE_CHUNKS_MAX {
            return self.free.push_back(number);
        }
        let (start, len) = ((number * CHUNK_BYTES) as libc::off_t, CHUNK_BYTES as libc::off_t);
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        if let Some(file) = &self.file {
            // SAFETY: the call takes numbers only. Where it fails the memory stays until the chunk is used again.
            unsafe { libc::fallocate(file.as_raw_fd(), how, start, len) };
        }
        self.free.push_front(number);
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            // SAFETY: the name is NUL-terminated.
            let fd = unsafe { libc::memfd_create(c"appends".as_ptr(), libc::MFD_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is new, and nobody else has it.
            self.file = Some(unsafe { File::from_raw_fd(fd) });
        }
        Ok(self.file.as_ref().expect("made above"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_used_again_and_those_in_use_are_not() {
        let mut chunks = Chunks::default();
        let taken: Vec<_> = (0..3).map(|_| chunks.take().unwrap()).collect();
        assert_eq!(taken, [0, 1, 2]);
        chunks.give_back(1);
        assert_eq!((chunks.take().unwrap(), chunks.take().unwrap()), (1, 3));
        assert_eq!(chunks.file().unwrap().metadata().unwrap().len(), 4 * CHUNK_BYTES as u64);
    }

    #[test]
    fn memory_of_many_unused_chunks_is_given_back() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let mut chunks = Chunks::default();
        let taken: Vec<_> = (0..SPARE_CHUNKS_MAX + 10).map(|_| chunks.take().unwrap()).collect();
        for number in &taken {
            chunks.file().unwrap().write_all_at(&[1; CHUNK_BYTES], (number * CHUNK_BYTES) as u64).unwrap();
        }
        taken.into_iter().for_each(|number| chunks.give_back(number));
        let kept = chunks.file().unwrap().metadata().unwrap().blocks() * 512;
        assert_eq!(kept, (SPARE_CHUNKS_MAX * CHUNK_BYTES) as u64);
        assert!(chunks.take().unwrap() < SPARE_CHUNKS_MAX, "those with memory come first");
    }
}

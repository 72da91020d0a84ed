//! The file system as the storage code sees it: blocking calls, made at start and on helper threads, never on an executor.
//!
//! The simulation puts a disk behind the same trait that loses what was not synced, tears sectors, flips bits and fails.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file system.
pub trait Disk: Clone + Send + Sync + 'static {
    type File: DiskFile;

    /// Names in `dir`, in no order. A missing directory is an error.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn exists(&self, path: &Path) -> bool;
    /// Makes `dir` and its parents; existing ones are fine.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a new file for reading and writing; it must not exist.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames within one directory, replacing the target atomically. Durable after `sync_dir`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes `dir` if it is missing; its name is durable afterwards.
    fn create_dir_durably(&self, dir: &Path) -> io::Result<()> {
        self.create_dir(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }
    /// Bytes an unprivileged process may still write to the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
#[allow(clippy::len_without_is_empty)] // Asking for the length may fail, and nobody asks for emptiness.
pub trait DiskFile: Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `pos`, or fails with `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()>;
    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()>;
    /// Reserves blocks so that later writes up to `len` cannot run out of space; sets the length. New bytes read as zero.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`: content and length are durable afterwards.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
        // SAFETY: an all-zero `statvfs` is a valid value, and the call fills it in.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is a NUL-terminated string and `stat` outlives the call.
        match unsafe { libc::statvfs(path.as_ptr(), &mut stat) } {
            0 => Ok(stat.f_bavail * stat.f_frsize),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        self.read_exact_at(buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        self.write_all_at(buf, pos)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        match unsafe { libc::posix_fallocate(self.as_raw_fd(), 0, len as i64) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

//! The directory lock: one process at a time uses a data directory.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Held for as long as the process uses the directory; the system releases it when the process dies, however it dies.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it; its number, as far as it can be read.
    InUse {
        process: Option<u32>,
    },
    Disk(io::Error),
}

impl DirectoryLock {
    /// Takes the lock of `dir`, which is made if it is missing.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        std::fs::create_dir_all(dir)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                write!(file, "{}", std::process::id())?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { process: holder(&mut file) }),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// The process number that the holder wrote down.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { process: Some(process) } => {
                write!(f, "the data directory is in use by process {process}")
            }
            Self::InUse { process: None } => f.write_str("the data directory is in use by another process"),
            Self::Disk(error) => write!(f, "the data directory cannot be locked: {error}"),
        }
    }
}

impl std::error::Error for LockError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_is_refused_with_the_process_that_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(dir.path()).unwrap();
        let refused = DirectoryLock::acquire(dir.path()).unwrap_err();
        let LockError::InUse { process } = refused else { panic!("{refused}") };
        assert_eq!(process, Some(std::process::id()));
        drop(held);
        assert!(DirectoryLock::acquire(dir.path()).is_ok());
    }
}

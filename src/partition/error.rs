//! What can go wrong with a partition's files.

use crate::id::Offset;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a partition could not do what it was asked. For the operator: names files and bytes.
#[derive(Debug)]
pub enum Error {
    /// The disk refused: full, failing, or a file out of reach.
    Disk { doing: &'static str, file: PathBuf, cause: io::Error },
    /// The disk did not make written data durable. The kernel may have dropped it already, so a second try that succeeds
    /// would be a lie: the process must end and recover.
    Sync { file: PathBuf, cause: io::Error },
    /// The disk holds other bytes than were written.
    Corrupt { file: PathBuf, at: u64, what: String },
    /// The operator put a file of another data directory, partition or format version here.
    Foreign { file: PathBuf, what: String },
    /// Events that must be here are not: files were removed, or the checkpoint does not belong to this directory.
    Missing { dir: PathBuf, from: Offset, to: Offset },
}

impl Error {
    /// Whether freeing disk space helps. Everything else does not pass by itself.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Disk { cause, .. } if matches!(cause.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether the process must end. Everything else can be lived with: reported, or tried again later.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Sync { .. })
    }

    /// `cause` with what was being done to which file, for `map_err`.
    pub(super) fn disk<'a>(doing: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |cause| Self::Disk { doing, file: file.to_owned(), cause }
    }

    pub(super) fn corrupt(file: &Path, at: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), at, what: what.into() }
    }

    pub(super) fn foreign(file: &Path, what: impl Into<String>) -> Self {
        Self::Foreign { file: file.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { doing, file, cause } => write!(f, "cannot {doing} {}: {cause}", file.display()),
            Self::Sync { file, cause } => write!(f, "{} could not be made durable: {cause}", file.display()),
            Self::Corrupt { file, at, what } => {
                write!(f, "{} is corrupt at byte {at}: {what}", file.display())
            }
            Self::Foreign { file, what } => write!(f, "{} does not belong here: {what}", file.display()),
            Self::Missing { dir, from, to } => {
                write!(f, "{} lacks the events from offset {from} up to, not including, {to}", dir.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { cause, .. } | Self::Sync { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match &error {
            Error::Disk { cause, .. } | Error::Sync { cause, .. } => Self::new(cause.kind(), error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

//! The files of the journal: their names, their first block, and the blocking work of making, recycling and removing.
//!
//! A file is written with zeros once and then used again and again, because a file system commits its own journal at
//! every sync of blocks that were never written. Its first block says which life it is in:
//!
//! ```text
//!  0  8 bytes  magic     "NISTRUJ\0"
//!  8  u32      version   1
//! 12  u32      reserved  0
//! 16  u64      number    as in the file's name
//! 24  u64      nonce     random, drawn for each life of the file
//! 32  16       cluster
//! 48  u64      bytes     length of the file
//! 56  u32      reserved  0
//! 60  u32      crc       CRC-32 (IEEE) of bytes 0 .. 60
//! 64  …        zeros up to 4096, where the first frame starts
//! ```

use super::ClusterId;
use super::disk::{Disk, DiskFile};
use super::frame::BLOCK;
use super::layout::{bytes, is_zero, put, u32_at, u64_at};
use crate::fault::{Fault, planted};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Position of the first frame of a file.
pub const FIRST_FRAME: u64 = BLOCK as u64;

const MAGIC: &[u8; 8] = b"NISTRUJ\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
/// Zeros are written and synced in pieces of this many bytes: a sync of the file in use waits for what was written before it.
const ZERO_BYTES: usize = 1 << 20;

/// Counts journal files from 1 in the order in which frames go into them; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub u64);

/// What the first block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    pub number: FileNumber,
    pub nonce: u64,
    pub cluster: ClusterId,
    /// Length of the file: the first block and the room for frames.
    pub bytes: u64,
}

/// Why a first block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileHeaderError {
    /// Not a journal file, or damaged.
    Damaged,
    /// A file of another format version.
    Version(u32),
}

impl FileNumber {
    /// The number that follows.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Name of the file in the journal's directory.
    pub fn name(self) -> String {
        format!("{:08}.jrn", self.0)
    }

    /// The number that `name` stands for, if it is the name of a journal file.
    pub fn of(name: &str) -> Option<Self> {
        let number = Self(name.strip_suffix(".jrn")?.parse().ok()?);
        (number.name() == name).then_some(number)
    }

    /// The path of the file in the journal's directory.
    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// Where the file is made before it gets its name.
    fn unfinished_path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:08}.new", self.0))
    }
}

/// Whether `name` is a file that was being made when the process died.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new")
}

impl fmt::Display for FileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}.jrn", self.0)
    }
}

impl FileHeader {
    /// Reads a first block.
    pub fn read(block: &[u8]) -> Result<Self, FileHeaderError> {
        let header = block.get(..HEADER_BYTES).ok_or(FileHeaderError::Damaged)?;
        if &header[..8] != MAGIC {
            return Err(FileHeaderError::Damaged);
        }
        if crc32fast::hash(&header[..60]) != u32_at(header, 60) {
            return Err(FileHeaderError::Damaged);
        }
        if u32_at(header, 8) != VERSION {
            return Err(FileHeaderError::Version(u32_at(header, 8)));
        }
        if !is_zero(&header[12..16]) || !is_zero(&header[56..60]) {
            return Err(FileHeaderError::Damaged);
        }
        Ok(Self {
            number: FileNumber(u64_at(header, 16)),
            nonce: u64_at(header, 24),
            cluster: ClusterId(bytes(header, 32)),
            bytes: u64_at(header, 48),
        })
    }

    /// The first block of the file.
    pub fn block(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        put(&mut block, 0, MAGIC);
        put(&mut block, 8, &VERSION.to_le_bytes());
        put(&mut block, 16, &self.number.0.to_le_bytes());
        put(&mut block, 24, &self.nonce.to_le_bytes());
        put(&mut block, 32, &self.cluster.0);
        put(&mut block, 48, &self.bytes.to_le_bytes());
        let crc = crc32fast::hash(&block[..60]);
        put(&mut block, 60, &crc.to_le_bytes());
        block
    }
}

/// A piece of work on files that the sequencer asks for. One at a time, in the order asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileWork {
    /// Make the file `header` speaks of, out of a file that is no longer needed if there is one.
    Prepare { header: FileHeader, recycled: Option<FileNumber> },
    /// Remove a file that is no longer needed.
    Remove(FileNumber),
}

/// [`FileWork`] with all it needs to run on a helper thread.
pub struct FileJob<D> {
    disk: D,
    dir: PathBuf,
    work: FileWork,
}

/// What a [`FileJob`] did; goes back to the sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDone {
    Prepared(FileHeader),
    Removed(FileNumber),
}

/// Why a file was not made.
#[derive(Debug)]
pub enum FileJobError {
    /// No room, and nothing is lost: try again later. Until then the journal cannot go on past its present file.
    Full(io::Error),
    /// The disk failed. The process must end: what a failed sync left behind cannot be known.
    Broken(io::Error),
}

impl From<io::Error> for FileJobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for FileJobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => write!(f, "no room for the next journal file: {error}"),
            Self::Broken(error) => write!(f, "the journal's disk failed: {error}"),
        }
    }
}

impl std::error::Error for FileJobError {}

impl<D: Disk> FileJob<D> {
    /// Binds `work` to the journal's directory.
    pub fn new(disk: &D, dir: &Path, work: FileWork) -> Self {
        Self { disk: disk.clone(), dir: dir.to_owned(), work }
    }

    /// Does the work; blocks. When it returns, the outcome is durable.
    pub fn run(self) -> Result<FileDone, FileJobError> {
        match self.work {
            FileWork::Prepare { header, recycled } => self.prepare(&header, recycled),
            FileWork::Remove(number) => {
                self.disk.remove(&number.path(&self.dir))?;
                self.disk.sync_dir(&self.dir).map_err(FileJobError::Broken)?;
                Ok(FileDone::Removed(number))
            }
        }
    }

    /// The file gets its name only when its content is durable, so a file of that name is always whole.
    fn prepare(&self, header: &FileHeader, recycled: Option<FileNumber>) -> Result<FileDone, FileJobError> {
        let unfinished = header.number.unfinished_path(&self.dir);
        self.discard(&unfinished)?;
        let file = match recycled {
            Some(old) => self.take_over(&old.path(&self.dir), &unfinished)?,
            None => self.make(&unfinished, header.bytes)?,
        };
        file.write_at(&header.block(), 0)?;
        file.sync().map_err(FileJobError::Broken)?;
        self.disk.rename(&unfinished, &header.number.path(&self.dir))?;
        if !planted(Fault::UnsyncedName) {
            self.disk.sync_dir(&self.dir).map_err(FileJobError::Broken)?;
        }
        Ok(FileDone::Prepared(*header))
    }

    /// Renames the old file durably before its first block is overwritten: under its old name it stays whole.
    fn take_over(&self, old: &Path, unfinished: &Path) -> Result<D::File, FileJobError> {
        self.disk.rename(old, unfinished)?;
        self.disk.sync_dir(&self.dir).map_err(FileJobError::Broken)?;
        Ok(self.disk.open(unfinished)?)
    }

    /// Makes a file of zeros; takes it back when there is no room for it.
    fn make(&self, unfinished: &Path, bytes: u64) -> Result<D::File, FileJobError> {
        let file = self.disk.create(unfinished)?;
        match fill(&file, bytes) {
            Ok(()) => Ok(file),
            Err(error) => {
                drop(file);
                self.discard(unfinished)?;
                Err(error.into())
            }
        }
    }

    fn discard(&self, path: &Path) -> io::Result<()> {
        if self.disk.exists(path) { self.disk.remove(path) } else { Ok(()) }
    }
}

/// Reserves the blocks, then writes every one of them.
fn fill(file: &impl DiskFile, bytes: u64) -> io::Result<()> {
    file.allocate(bytes)?;
    let zeros = vec![0; ZERO_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = (bytes - at).min(ZERO_BYTES as u64);
        file.write_at(&zeros[..piece as usize], at)?;
        at += piece;
        if at < bytes {
            file.sync()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::*;

    fn header(number: u64, nonce: u64) -> FileHeader {
        FileHeader { number: FileNumber(number), nonce, cluster: ClusterId([7; 16]), bytes: 3 << 20 }
    }

    fn run(dir: &Path, work: FileWork) -> FileDone {
        FileJob::new(&RealDisk, dir, work).run().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names = RealDisk.list(dir).unwrap();
        names.sort();
        names
    }

    #[test]
    fn names_are_read_back_and_nothing_else_is_taken_for_one() {
        assert_eq!(FileNumber::of("00000042.jrn"), Some(FileNumber(42)));
        assert_eq!(FileNumber::of("123456789.jrn"), Some(FileNumber(123_456_789)));
        for name in ["42.jrn", "00000042.new", "+0000042.jrn", ".jrn", "00000042.jrn.bak"] {
            assert_eq!(FileNumber::of(name), None, "{name}");
        }
    }

    #[test]
    fn a_first_block_reads_back_and_any_flipped_bit_is_noticed() {
        let block = header(3, 99).block();
        assert_eq!(FileHeader::read(&block), Ok(header(3, 99)));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_is_made_with_its_full_length() {
        let dir = tempfile::tempdir().unwrap();
        let done = run(dir.path(), FileWork::Prepare { header: header(1, 5), recycled: None });
        assert_eq!(done, FileDone::Prepared(header(1, 5)));
        assert_eq!(names(dir.path()), ["00000001.jrn"]);
        let bytes = std::fs::read(FileNumber(1).path(dir.path())).unwrap();
        assert_eq!(bytes.len() as u64, 3 << 20);
        assert!(is_zero(&bytes[HEADER_BYTES..]));
    }

    #[test]
    fn a_recycled_file_keeps_its_blocks_and_gets_a_new_first_one() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), FileWork::Prepare { header: header(1, 5), recycled: None });
        let old = RealDisk.open(&FileNumber(1).path(dir.path())).unwrap();
        old.write_at(b"stale", FIRST_FRAME).unwrap();
        run(dir.path(), FileWork::Prepare { header: header(4, 6), recycled: Some(FileNumber(1)) });
        assert_eq!(names(dir.path()), ["00000004.jrn"]);
        let bytes = std::fs::read(FileNumber(4).path(dir.path())).unwrap();
        assert_eq!(FileHeader::read(&bytes), Ok(header(4, 6)));
        assert_eq!(&bytes[4096..4101], b"stale");
    }

    #[test]
    fn an_unfinished_file_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("00000001.new"), b"half").unwrap();
        run(dir.path(), FileWork::Prepare { header: header(1, 5), recycled: None });
        assert_eq!(names(dir.path()), ["00000001.jrn"]);
    }

    #[test]
    fn no_room_is_told_apart_from_a_broken_disk() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(matches!(FileJobError::from(full), FileJobError::Full(_)));
        let broken = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(FileJobError::from(broken), FileJobError::Broken(_)));
    }
}

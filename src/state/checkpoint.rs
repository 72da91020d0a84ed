//! Checkpoints: the state at one frame, written down so that the journal before it is no longer needed.
//!
//! A file is written whole under another name, synced and renamed. The two newest are kept, and the journal back to the
//! older of them, so that one damaged checkpoint costs nothing but a longer replay. Until the next one is made nothing stands in for
//! the one that is left then: should it be damaged, too, the start is refused, because the journal before it is gone.
//!
//! ```text
//!  0  8 bytes  magic     "NISTRUC\0"
//!  8  u32      version   1
//! 12  u32      reserved  0
//! 16  u64      index     of the last frame applied, as in the file's name
//! 24  16       cluster
//! 40  u64      length    of the payload
//! 48  u32      crc       CRC-32 (IEEE) of the payload
//! 52  8        reserved  0
//! 60  u32      crc       CRC-32 of bytes 0 .. 60
//! 64  …        payload   an rkyv archive (format 0.8: little-endian, aligned, 32-bit relative pointers)
//! ```

use super::snapshot::{PartitionEnd, Snapshot, from_bytes};
use super::{State, genesis::Genesis};
use crate::id::{FrameIndex, Offset};
use crate::journal::ClusterId;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::layout::{bytes, put, u32_at, u64_at};
use rkyv::util::AlignedVec;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"NISTRUC\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
/// Checkpoints that are kept.
const KEPT: usize = 2;

/// Why checkpoints cannot be used. A damaged one is no error: the one before it is used.
#[derive(Debug)]
pub enum CheckpointError {
    /// No room: try again later.
    Full(io::Error),
    /// The disk failed.
    Broken(io::Error),
    /// Written by another version.
    Version { file: String, version: u32 },
    /// Of another data directory.
    Foreign { file: String, cluster: ClusterId },
}

/// What [`load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// The state to replay the journal into: of the newest sound checkpoint, or the one before the first frame.
    pub state: State,
    /// Where each partition's files end at that state; `None` without a checkpoint.
    pub ends: Option<Vec<PartitionEnd>>,
    /// Frames up to this one are needed by no checkpoint that is kept.
    pub safe: FrameIndex,
    /// Names of damaged checkpoints, which were set aside.
    pub damaged: Vec<String>,
}

/// Writes a checkpoint on a helper thread.
pub struct CheckpointJob<D> {
    disk: D,
    dir: PathBuf,
    cluster: ClusterId,
    snapshot: Snapshot,
    ends: Vec<PartitionEnd>,
}

/// A durable checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointDone {
    /// The last frame it covers.
    pub applied: FrameIndex,
    /// Frames up to this one are needed by no checkpoint that is kept: their journal files may be used again, and
    /// what they expired may be removed.
    pub safe: FrameIndex,
}

/// What a file turned out to be.
enum Content {
    Sound(Box<(State, Vec<PartitionEnd>)>),
    Damaged,
}

impl<D: Disk> CheckpointJob<D> {
    /// A checkpoint of `snapshot`. The partitions' owners have made their files durable up to `ends`, which lie at the
    /// same frame.
    pub fn new(
        disk: &D,
        dir: &Path,
        cluster: ClusterId,
        snapshot: Snapshot,
        ends: Vec<PartitionEnd>,
    ) -> Self {
        let offsets: Vec<Offset> = ends.iter().map(|end| end.offset).collect();
        assert_eq!(offsets, snapshot.ends, "the partitions' ends at frame {}", snapshot.applied.index);
        Self { disk: disk.clone(), dir: dir.to_owned(), cluster, snapshot, ends }
    }

    /// Writes it; blocks. When it returns, the checkpoint is durable.
    pub fn run(self) -> Result<CheckpointDone, CheckpointError> {
        self.disk.create_dir_durably(&self.dir)?;
        let index = self.snapshot.applied.index;
        let payload = self.snapshot.to_bytes(&self.ends);
        let header = header(index, self.cluster, &payload);
        let unfinished = self.dir.join("checkpoint.new");
        if self.disk.exists(&unfinished) {
            self.disk.remove(&unfinished)?;
        }
        if let Err(error) = self.write(&unfinished, &header, &payload) {
            let _ = self.disk.remove(&unfinished);
            return Err(error);
        }
        self.disk.rename(&unfinished, &self.dir.join(name(index)))?;
        self.disk.sync_dir(&self.dir).map_err(CheckpointError::Broken)?;
        Ok(CheckpointDone { applied: index, safe: keep_newest(&self.disk, &self.dir)? })
    }

    fn write(&self, path: &Path, header: &[u8], payload: &[u8]) -> Result<(), CheckpointError> {
        let file = self.disk.create(path)?;
        file.allocate((header.len() + payload.len()) as u64)?;
        file.write_at(header, 0)?;
        file.write_at(payload, header.len() as u64)?;
        file.sync().map_err(CheckpointError::Broken)
    }
}

/// Loads the newest sound checkpoint in `dir`. Damaged ones are renamed, so that they are not counted among those kept, and those
/// that a dead process was about to remove are removed.
pub fn load<D: Disk>(disk: &D, dir: &Path, genesis: &Genesis) -> Result<Loaded, CheckpointError> {
    disk.create_dir_durably(dir)?;
    let mut damaged = Vec::new();
    for index in list(disk, dir)? {
        match read(disk, &dir.join(name(index)), index, genesis)? {
            Content::Damaged => {
                set_aside(disk, dir, &name(index))?;
                damaged.push(name(index));
            }
            Content::Sound(content) => {
                let (state, ends) = *content;
                let safe = keep_newest(disk, dir)?;
                return Ok(Loaded { state, ends: Some(ends), safe, damaged });
            }
        }
    }
    let state = State::new(genesis.all_partitions());
    Ok(Loaded { state, ends: None, safe: FrameIndex(0), damaged })
}

/// Indices of the checkpoints in `dir`, newest first.
fn list<D: Disk>(disk: &D, dir: &Path) -> io::Result<Vec<FrameIndex>> {
    let names = disk.list(dir)?;
    let mut indices: Vec<FrameIndex> = names.iter().filter_map(|name| index_of(name)).collect();
    indices.sort_unstable_by(|a, b| b.cmp(a));
    Ok(indices)
}

/// Removes all but the newest checkpoints. Returns what those that stay do not need: everything before the oldest of them. With
/// fewer than are kept, the start of the journal is what stands in for the missing one.
///
/// The removal is durable first. The journal before the kept ones may be used again from then on, and a checkpoint that came back with a
/// power failure would pass for one to fall back on.
fn keep_newest<D: Disk>(disk: &D, dir: &Path) -> Result<FrameIndex, CheckpointError> {
    let indices = list(disk, dir)?;
    for index in indices.iter().skip(KEPT) {
        disk.remove(&dir.join(name(*index)))?;
    }
    disk.sync_dir(dir).map_err(CheckpointError::Broken)?;
    Ok(indices.get(KEPT - 1).copied().unwrap_or_default())
}

fn set_aside<D: Disk>(disk: &D, dir: &Path, name: &str) -> io::Result<()> {
    disk.rename(&dir.join(name), &dir.join(format!("{name}.damaged")))?;
    disk.sync_dir(dir)
}

fn read<D: Disk>(
    disk: &D,
    path: &Path,
    index: FrameIndex,
    genesis: &Genesis,
) -> Result<Content, CheckpointError> {
    let file = disk.open(path)?;
    file.sync()?;
    let length = file.len()?;
    let mut head = [0; HEADER_BYTES];
    if length < HEADER_BYTES as u64 {
        return Ok(Content::Damaged);
    }
    file.read_at(&mut head, 0)?;
    if &head[..8] != MAGIC || crc32fast::hash(&head[..60]) != u32_at(&head, 60) {
        return Ok(Content::Damaged);
    }
    check_origin(&head, index, genesis)?;
    if u64_at(&head, 16) != index.0 || u64_at(&head, 40) != length - HEADER_BYTES as u64 {
        return Ok(Content::Damaged);
    }
    let mut payload = AlignedVec::<16>::new();
    payload.resize((length - HEADER_BYTES as u64) as usize, 0);
    file.read_at(&mut payload, HEADER_BYTES as u64)?;
    if crc32fast::hash(&payload) != u32_at(&head, 48) {
        return Ok(Content::Damaged);
    }
    let content =
        from_bytes(&payload, genesis.all_partitions()).filter(|(state, _)| state.applied().index == index);
    Ok(content.map_or(Content::Damaged, |content| Content::Sound(Box::new(content))))
}

/// A sound header of another version or another data directory is no damage: falling back would lose what it covers.
fn check_origin(head: &[u8], index: FrameIndex, genesis: &Genesis) -> Result<(), CheckpointError> {
    let (version, cluster) = (u32_at(head, 8), ClusterId(bytes(head, 24)));
    if version != VERSION {
        Err(CheckpointError::Version { file: name(index), version })
    } else if cluster != genesis.cluster {
        Err(CheckpointError::Foreign { file: name(index), cluster })
    } else {
        Ok(())
    }
}

fn header(index: FrameIndex, cluster: ClusterId, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut head = [0; HEADER_BYTES];
    put(&mut head, 0, MAGIC);
    put(&mut head, 8, &VERSION.to_le_bytes());
    put(&mut head, 16, &index.0.to_le_bytes());
    put(&mut head, 24, &cluster.0);
    put(&mut head, 40, &(payload.len() as u64).to_le_bytes());
    put(&mut head, 48, &crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&head[..60]);
    put(&mut head, 60, &crc.to_le_bytes());
    head
}

/// Name of the checkpoint that covers frames up to `index`.
fn name(index: FrameIndex) -> String {
    format!("{:020}.ckp", index.0)
}

fn index_of(file: &str) -> Option<FrameIndex> {
    let index = FrameIndex(file.strip_suffix(".ckp")?.parse().ok()?);
    (name(index) == file).then_some(index)
}

impl From<io::Error> for CheckpointError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Broken(error),
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(error) => write!(f, "no room for a checkpoint: {error}"),
            Self::Broken(error) => write!(f, "the disk of the checkpoints failed: {error}"),
            Self::Version { file, version } => {
                write!(f, "checkpoint {file} has format version {version}, this version reads {VERSION}")
            }
            Self::Foreign { file, cluster } => {
                write!(f, "checkpoint {file} belongs to another data directory, of cluster {cluster}")
            }
        }
    }
}

impl std::error::Error for CheckpointError {}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;

//! A partition's directory: how its files are made, opened, read and removed. Blocking; used at start and by jobs.

use super::error::Error;
use super::index::{HEAD_BYTES, Index, Summary};
use super::map::{Access, MapDisk, Mapped, SegmentMap};
use super::segment::{self, FileKind, HEADER_BYTES, HeadError, Identity, SegmentHeader};
use crate::event::record::{Record, RecordError};
use crate::id::Offset;
use crate::journal::disk::DiskFile;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes brought into memory at a time while a segment is scanned.
const SCAN_BYTES: usize = 1 << 20;

/// Where a partition lives.
#[derive(Clone)]
pub(super) struct Site<D> {
    pub disk: D,
    pub dir: Arc<Path>,
    pub identity: Identity,
}

/// What is needed to read a sealed segment.
pub(super) struct Loaded<M> {
    pub mapped: Arc<Mapped<M>>,
    pub index: Arc<Index>,
}

impl<D: MapDisk> Site<D> {
    pub fn path(&self, number: u64, kind: FileKind) -> PathBuf {
        segment::path_of(&self.dir, number, kind)
    }

    /// Makes an unused segment of `bytes` whose space and name are durable. Leaves nothing behind when it fails.
    pub fn make_segment(&self, number: u64, bytes: u32) -> Result<D::Map, Error> {
        let path = self.path(number, FileKind::Segment);
        self.remove_file(&path)?;
        self.fill_segment(&path, bytes).map_err(|cause| {
            // The first failure is the one to report; an orphan is removed when the partition is opened again.
            let _ = self.disk.remove(&path);
            Error::disk("make the segment", &path)(cause)
        })
    }

    fn fill_segment(&self, path: &Path, bytes: u32) -> io::Result<D::Map> {
        let file = self.disk.create(path)?;
        file.allocate(u64::from(bytes))?;
        file.sync()?;
        self.disk.sync_dir(&self.dir)?;
        self.disk.map(file, bytes as usize, 0)
    }

    /// Opens a segment in use and checks its header.
    pub fn open_segment(&self, number: u64) -> Result<(D::File, SegmentHeader), Error> {
        let path = self.path(number, FileKind::Segment);
        let file = self.disk.open(&path).map_err(Error::disk("open", &path))?;
        let mut head = [0; HEADER_BYTES as usize];
        read_head(&file, &mut head).map_err(Error::disk("read", &path))?;
        let header = SegmentHeader::decode(&head, &self.identity, number).map_err(|e| blame(&path, e))?;
        Ok((file, header))
    }

    /// Maps the first `data_end` bytes of a sealed segment for reading.
    pub fn map_sealed(&self, number: u64, data_end: u32) -> Result<Arc<Mapped<D::Map>>, Error> {
        let path = self.path(number, FileKind::Segment);
        let (file, _) = self.open_segment(number)?;
        let length = file.len().map_err(Error::disk("read the length of", &path))?;
        if length < u64::from(data_end) {
            return Err(Error::corrupt(&path, length, format!("the file ends, {data_end} bytes expected")));
        }
        let bytes = data_end as usize;
        let map = self.disk.map(file, bytes, bytes).map_err(Error::disk("map", &path))?;
        Ok(Mapped::read_only(map, data_end))
    }

    /// Reads the index of a sealed segment, or makes it again from the segment, and maps the segment.
    pub fn load(&self, number: u64, base: Offset, summary: &Summary) -> Result<Loaded<D::Map>, Error> {
        let mapped = self.map_sealed(number, summary.data_end)?;
        let index = match self.read_index(number)? {
            Some((of, index)) if of == base && index.summary() == *summary => index,
            _ => {
                let index = self.scan(number, &mapped, summary.records)?;
                self.write_index(number, base, &index)?;
                index
            }
        };
        Ok(Loaded { mapped, index: Arc::new(index) })
    }

    /// The index of a segment; `None` when it is not there or damaged.
    fn read_index(&self, number: u64) -> Result<Option<(Offset, Index)>, Error> {
        let path = self.path(number, FileKind::Index);
        if !self.disk.exists(&path) {
            return Ok(None);
        }
        let read = || {
            let file = self.disk.open(&path)?;
            let mut bytes = vec![0; file.len()? as usize];
            file.read_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let bytes = read().map_err(Error::disk("read", &path))?;
        usable(&path, Index::decode(&bytes, &self.identity, number))
    }

    /// The summary of a sealed segment from its index file; `None` when that is not there or damaged.
    pub fn read_summary(&self, number: u64) -> Result<Option<(Offset, Summary)>, Error> {
        let path = self.path(number, FileKind::Index);
        if !self.disk.exists(&path) {
            return Ok(None);
        }
        let read = || {
            let file = self.disk.open(&path)?;
            let mut head = [0; HEAD_BYTES];
            read_head(&file, &mut head)?;
            let mut bytes = vec![0; (file.len()? as usize).min(Summary::bytes_in(&head))];
            file.read_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let bytes = read().map_err(Error::disk("read", &path))?;
        usable(&path, Summary::decode(&bytes, &self.identity, number))
    }

    /// Writes the index of a segment: whole and durable under its name, or not at all.
    pub fn write_index(&self, number: u64, base: Offset, index: &Index) -> Result<(), Error> {
        let (path, unfinished) =
            (self.path(number, FileKind::Index), self.path(number, FileKind::Unfinished));
        self.remove_file(&unfinished)?;
        let bytes = index.encode(&self.identity, number, base);
        let write = || {
            let file = self.disk.create(&unfinished)?;
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.disk.rename(&unfinished, &path)?;
            self.disk.sync_dir(&self.dir)
        };
        write().map_err(Error::disk("write", &path))
    }

    /// Makes the index of the first `records` records of a segment, checking every one of them.
    pub fn scan(&self, number: u64, mapped: &Mapped<D::Map>, records: u32) -> Result<Index, Error> {
        let path = self.path(number, FileKind::Segment);
        let bytes = mapped.bytes(0..mapped.written());
        let (mut index, mut populated) = (Index::default(), 0);
        while index.records() < records {
            let at = index.data_end() as usize;
            if at >= populated {
                let ahead = populated..bytes.len().min(at + SCAN_BYTES);
                mapped.map().populate(ahead.clone(), Access::Read).map_err(Error::disk("read", &path))?;
                mapped.map().release(0..populated);
                populated = ahead.end;
            }
            let record = self.check_record(&path, bytes, at)?;
            index.push(record.stride() as u32, record.header().type_id, record.header().time_ms);
        }
        mapped.map().release(0..populated);
        Ok(index)
    }

    /// The record at `at` of a segment's bytes, its checksum verified.
    pub fn check_record<'a>(&self, path: &Path, bytes: &'a [u8], at: usize) -> Result<Record<'a>, Error> {
        let what = match Record::read(bytes.get(at..).unwrap_or_default()) {
            Ok(record) if record.header().partition == self.identity.partition => return Ok(record),
            Ok(_) => "the record is of another partition",
            Err(RecordError::Checksum) => "the checksum of the record does not match",
            Err(RecordError::Malformed) => "there is no record",
            Err(RecordError::Short) => "the record is cut off",
        };
        Err(Error::corrupt(path, at as u64, what))
    }

    /// Removes all files of segment `number` that exist. The caller syncs the directory.
    pub fn remove_segment(&self, number: u64) -> Result<(), Error> {
        // The index goes first: a segment without index is whole, an index without segment is nothing.
        self.remove_file(&self.path(number, FileKind::Unfinished))?;
        self.remove_file(&self.path(number, FileKind::Index))?;
        self.remove_file(&self.path(number, FileKind::Segment))
    }

    pub fn remove_file(&self, path: &Path) -> Result<(), Error> {
        match self.disk.remove(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::disk("remove", path)(cause)),
            _ => Ok(()),
        }
    }

    pub fn sync_dir(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))
    }
}

/// Fills `head` from the start of `file`; what a shorter file lacks stays zero.
fn read_head<F: DiskFile>(file: &F, head: &mut [u8]) -> io::Result<()> {
    let length = file.len()?.min(head.len() as u64) as usize;
    file.read_at(&mut head[..length], 0)
}

/// Damage to an index costs time, not data, so it counts as absent. A foreign one is the operator's matter.
fn usable<T>(path: &Path, read: Result<T, HeadError>) -> Result<Option<T>, Error> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(HeadError::Damaged(what)) => {
            tracing::warn!(file = %path.display(), what, "an index is damaged and is made again");
            Ok(None)
        }
        Err(error) => Err(blame(path, error)),
    }
}

fn blame(path: &Path, error: HeadError) -> Error {
    match error {
        HeadError::Foreign(what) => Error::foreign(path, what),
        HeadError::Damaged(what) => Error::corrupt(path, 0, what),
    }
}

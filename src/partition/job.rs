//! What a partition cannot do itself because it may block. The broker runs each job on a helper thread and brings the outcome back to
//! [`Partition::finish`](super::Partition::finish) or [`Partition::failed`](super::Partition::failed).

use super::error::Error;
use super::index::Summary;
use super::log::{End, Spare};
use super::map::{Access, MapDisk, Mapped, SegmentMap};
use super::segment::FileKind;
use super::site::{Loaded, Site};
use crate::fault::{Fault, planted};
use crate::id::Offset;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Names what a reader waits for; see [`Status::Cold`](super::Status::Cold).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ColdId(pub u64);

/// A piece of blocking work. `Send`, owns what it needs, and never waits for another job.
pub struct Job<D: MapDisk>(pub(super) Work<D>);

pub(super) enum Work<D: MapDisk> {
    Prepare { site: Site<D>, number: u64, bytes: u32, window: u32 },
    Populate { site: Site<D>, part: Part<D::Map> },
    Seal { site: Site<D>, number: u64, base: Offset, loaded: Loaded<D::Map> },
    Flush { site: Site<D>, parts: Vec<Part<D::Map>>, end: End },
    Load { site: Site<D>, number: u64, base: Offset, summary: Summary, cold: ColdId },
    Warm { site: Site<D>, number: u64, mapped: Arc<Mapped<D::Map>>, records: Vec<Range<u32>>, cold: ColdId },
    Tidy { release: Vec<(Arc<Mapped<D::Map>>, u32)>, unload: Vec<Loaded<D::Map>> },
    Remove { site: Site<D>, numbers: Vec<u64>, unload: Vec<Loaded<D::Map>> },
}

/// A range of a segment.
pub(super) struct Part<M> {
    pub number: u64,
    pub mapped: Arc<Mapped<M>>,
    pub range: Range<u32>,
}

/// Which job it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    /// Makes the next segment. Fails when the disk is full: appends stop when the current segment is.
    Prepare,
    /// Makes memory for the next appends.
    Populate,
    /// Makes a full segment durable, writes its index and cuts the file.
    Seal,
    /// Makes everything up to an [`End`] durable.
    Flush,
    /// Opens a sealed segment for a reader.
    Load(ColdId),
    /// Brings pages into memory for a reader and verifies the checksums of what came from the disk.
    Warm(ColdId),
    /// Lets go of memory that is no longer read.
    Tidy,
    /// Removes expired segments.
    Remove,
}

impl JobKind {
    /// Whether the job waits for the disk to read what a consumer wants.
    pub fn reads(self) -> bool {
        matches!(self, Self::Load(_) | Self::Warm(_))
    }
}

/// What a job brought. For [`Partition::finish`](super::Partition::finish).
pub struct Done<M>(pub(super) Outcome<M>);

pub(super) enum Outcome<M> {
    Prepared(Spare<M>),
    Populated { number: u64, end: u32 },
    Sealed { number: u64 },
    Flushed(End),
    Loaded { number: u64, loaded: Loaded<M>, cold: ColdId },
    Warmed(ColdId),
    Tidied,
    Removed(Vec<u64>),
}

/// A job that failed.
#[derive(Debug)]
pub struct JobError {
    pub kind: JobKind,
    pub error: Error,
}

impl<D: MapDisk> Job<D> {
    pub fn kind(&self) -> JobKind {
        match &self.0 {
            Work::Prepare { .. } => JobKind::Prepare,
            Work::Populate { .. } => JobKind::Populate,
            Work::Seal { .. } => JobKind::Seal,
            Work::Flush { .. } => JobKind::Flush,
            Work::Load { cold, .. } => JobKind::Load(*cold),
            Work::Warm { cold, .. } => JobKind::Warm(*cold),
            Work::Tidy { .. } => JobKind::Tidy,
            Work::Remove { .. } => JobKind::Remove,
        }
    }

    /// Does the work. Blocks.
    pub fn run(self) -> Result<Done<D::Map>, JobError> {
        let kind = self.kind();
        self.0.run().map(Done).map_err(|error| JobError { kind, error })
    }
}

impl<D: MapDisk> Work<D> {
    fn run(self) -> Result<Outcome<D::Map>, Error> {
        match self {
            Self::Prepare { site, number, bytes, window } => prepare(&site, number, bytes, window),
            Self::Populate { site, part } => populate(&site, &part),
            Self::Seal { site, number, base, loaded } => seal(&site, number, base, &loaded),
            Self::Flush { site, parts, end } => flush(&site, &parts, end),
            Self::Load { site, number, base, summary, cold } => {
                let loaded = site.load(number, base, &summary)?;
                Ok(Outcome::Loaded { number, loaded, cold })
            }
            Self::Warm { site, number, mapped, records, cold } => {
                warm(&site, number, &mapped, &records)?;
                Ok(Outcome::Warmed(cold))
            }
            Self::Tidy { release, unload } => {
                drop(unload);
                release.iter().for_each(|(mapped, end)| mapped.map().release(0..*end as usize));
                Ok(Outcome::Tidied)
            }
            Self::Remove { site, numbers, unload } => {
                drop(unload);
                remove(&site, numbers)
            }
        }
    }
}

fn prepare<D: MapDisk>(
    site: &Site<D>,
    number: u64,
    bytes: u32,
    window: u32,
) -> Result<Outcome<D::Map>, Error> {
    let map = site.make_segment(number, bytes)?;
    let populated = window.min(bytes);
    get_memory(site, number, &map, 0..populated as usize)?;
    Ok(Outcome::Prepared(Spare { number, map, populated }))
}

fn populate<D: MapDisk>(site: &Site<D>, part: &Part<D::Map>) -> Result<Outcome<D::Map>, Error> {
    get_memory(site, part.number, part.mapped.map(), part.bytes())?;
    Ok(Outcome::Populated { number: part.number, end: part.range.end })
}

fn get_memory<D: MapDisk>(
    site: &Site<D>,
    number: u64,
    map: &D::Map,
    range: Range<usize>,
) -> Result<(), Error> {
    let path = site.path(number, FileKind::Segment);
    map.populate(range, Access::Write).map_err(Error::disk("get memory for", &path))
}

/// The segment is durable before its index says so, and is cut only when both are.
fn seal<D: MapDisk>(
    site: &Site<D>,
    number: u64,
    base: Offset,
    loaded: &Loaded<D::Map>,
) -> Result<Outcome<D::Map>, Error> {
    let path = site.path(number, FileKind::Segment);
    let data_end = loaded.index.data_end();
    if !planted(Fault::UnsyncedSeal) {
        let flushed = loaded.mapped.map().flush(0..data_end as usize);
        flushed.map_err(|cause| Error::Sync { file: path.clone(), cause })?;
    }
    site.write_index(number, base, &loaded.index)?;
    let (file, _) = site.open_segment(number)?;
    let page = super::map::page_bytes() as u64;
    let kept = u64::from(data_end).next_multiple_of(page).min(loaded.mapped.map().size() as u64);
    site.disk.truncate(&file, kept).map_err(Error::disk("cut", &path))?;
    Ok(Outcome::Sealed { number })
}

fn flush<D: MapDisk>(site: &Site<D>, parts: &[Part<D::Map>], end: End) -> Result<Outcome<D::Map>, Error> {
    for part in parts.iter().filter(|_| !planted(Fault::UnsyncedFlush)) {
        let file = || site.path(part.number, FileKind::Segment);
        let flushed = part.mapped.map().flush(part.bytes());
        flushed.map_err(|cause| Error::Sync { file: file(), cause })?;
    }
    Ok(Outcome::Flushed(end))
}

impl<M> Part<M> {
    fn bytes(&self) -> Range<usize> {
        self.range.start as usize..self.range.end as usize
    }
}

/// Populates and verifies the records at `records`, ascending and whole.
fn warm<D: MapDisk>(
    site: &Site<D>,
    number: u64,
    mapped: &Mapped<D::Map>,
    records: &[Range<u32>],
) -> Result<(), Error> {
    let path = site.path(number, FileKind::Segment);
    for run in runs(records, u32::MAX) {
        let run = run.start as usize..run.end as usize;
        mapped.map().populate(run, Access::Read).map_err(Error::disk("read", &path))?;
    }
    let bytes = mapped.bytes(0..mapped.written());
    records.iter().try_for_each(|record| site.check_record(&path, bytes, record.start as usize).map(drop))
}

fn remove<D: MapDisk>(site: &Site<D>, numbers: Vec<u64>) -> Result<Outcome<D::Map>, Error> {
    numbers.iter().try_for_each(|number| site.remove_segment(*number))?;
    site.sync_dir()?;
    Ok(Outcome::Removed(numbers))
}

/// Joins ascending ranges that lie on the same or on neighbouring pages, until a run has `bytes` bytes.
pub(super) fn runs(ranges: &[Range<u32>], bytes: u32) -> impl Iterator<Item = Range<u32>> {
    let page = super::map::page_bytes() as u32;
    let mut rest = ranges;
    std::iter::from_fn(move || {
        let (first, mut later) = rest.split_first()?;
        let mut run = first.clone();
        while let Some((next, after)) = later.split_first() {
            if next.start / page > run.end / page + 1 || run.end - run.start >= bytes {
                break;
            }
            (run.end, later) = (next.end, after);
        }
        rest = later;
        Some(run)
    })
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for JobError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

//! The log of one partition: sealed segments, the one being written, and the one made ahead.

use super::error::Error;
use super::filter::TypeFilter;
use super::index::{Index, Summary};
use super::job::ColdId;
use super::map::{MapDisk, SegmentMap, Tail};
use super::segment::{HEADER_BYTES, Identity, MARK_BYTES, SegmentHeader};
use super::site::{Loaded, Site};
use super::upkeep::Upkeep;
use crate::event::record::Record;
use crate::id::Offset;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// How much behind the appends of a partition stays in memory, unless a test wants it otherwise.
pub const RECENT_BYTES: u32 = 2 << 20;

/// Sizes of a partition. All bytes.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Size of a segment file. Rounded up to whole pages. A record that is larger gets a segment of its own size.
    pub segment_bytes: u32,
    /// A segment whose oldest record is older than this many milliseconds is sealed though not full, so that it can expire.
    pub segment_ms: u64,
    /// How far ahead of the first append memory is made ready. Later it is between half of that and twice as far.
    pub window_bytes: u32,
    /// How much behind the appends stays in memory, for consumers that are nearly up to date; others read the disk.
    pub recent_bytes: u32,
    /// How much is brought into memory at a time for a reader of cold data.
    pub warm_bytes: u32,
    /// Memory is let go after this much was appended or read.
    pub release_bytes: u64,
    /// Appends wait for the disk when they are this far ahead of what is being written to it.
    pub unwritten_bytes_max: u64,
    /// How many sealed segments keep their index in memory, beyond those that are being sealed.
    pub loaded_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_ms: 12 * 3_600_000,
            window_bytes: 512 << 10,
            recent_bytes: RECENT_BYTES,
            warm_bytes: 1 << 20,
            release_bytes: 2 << 20,
            unwritten_bytes_max: 16 << 20,
            loaded_max: 8,
        }
    }
}

/// How far a partition reaches, as a checkpoint keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct End {
    /// Of the next event.
    pub offset: Offset,
    /// Number of the last segment in use; 0 when there never was one.
    pub segment: u64,
    /// Behind the last record in that segment; 0 when no segment is in use.
    pub position: u32,
}

/// There is no room for the record, or the disk is too far behind: run the partition's jobs, bring back their outcome, and append again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// A number of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    pub events: u64,
    /// Whether it is the true number. It is not when a limit lies inside a sealed segment whose index is not in memory: then
    /// the segment's events are taken to be spread evenly.
    pub exact: bool,
}

/// The events of one partition in order, with the indexes to find those of a few types.
///
/// Owned by one core. No method blocks, except where its name or documentation says so; what would block comes out as a
/// [`Job`](super::Job).
pub struct Partition<D: MapDisk> {
    pub(super) site: Site<D>,
    pub(super) config: Config,
    /// The first event that has not expired; `start ≤ end`.
    pub(super) start: Offset,
    /// Of the next event.
    pub(super) end: Offset,
    /// By ascending number and base; each begins where the one before ends.
    pub(super) sealed: VecDeque<Sealed>,
    /// The sealed segments whose index is in memory, by number: the ones that are not durable yet, and the ones read lately.
    pub(super) open: BTreeMap<u64, Open<D::Map>>,
    /// None before the first append.
    pub(super) active: Option<Active<D::Map>>,
    pub(super) spare: Option<Spare<D::Map>>,
    /// Of the next segment to be begun.
    pub(super) next_number: u64,
    pub(super) upkeep: Upkeep<D::Map>,
}

/// A segment that takes no more records.
pub(super) struct Sealed {
    pub number: u64,
    pub base: Offset,
    pub summary: Summary,
    /// Who waits for its index to come into memory.
    pub loading: Option<ColdId>,
}

/// A sealed segment whose index is in memory.
pub(super) struct Open<M> {
    pub loaded: Loaded<M>,
    /// Whether the segment and its index file are durable. Until then it stays open.
    pub durable: bool,
    /// Value of the use counter at the last read.
    pub used: u64,
}

/// The segment that is being written.
pub(super) struct Active<M> {
    pub number: u64,
    pub base: Offset,
    pub tail: Tail<M>,
    pub index: Index,
    /// There is memory for appends before this position.
    pub populated: u32,
    /// What lies before this position was written by an earlier process and may not be in memory.
    pub fresh: u32,
}

/// A segment made ahead.
pub(super) struct Spare<M> {
    pub number: u64,
    pub map: M,
    /// There is memory for appends before this position.
    pub populated: u32,
}

impl<D: MapDisk> Partition<D> {
    /// The first event that has not expired.
    pub fn start(&self) -> Offset {
        self.start
    }

    /// The offset of the next event.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// How far the partition reaches now.
    pub fn reach(&self) -> End {
        match &self.active {
            Some(active) => {
                End { offset: self.end, segment: active.number, position: active.index.data_end() }
            }
            None => End { offset: self.end, segment: self.next_number - 1, position: 0 },
        }
    }

    /// Bytes of records, headers included.
    pub fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|segment| u64::from(segment.summary.data_end)).sum();
        sealed + self.active.as_ref().map_or(0, |active| u64::from(active.index.data_end()))
    }

    /// Appends a record of this partition, whose checksum was verified, and returns its offset.
    pub fn append(&mut self, record: &Record<'_>) -> Result<Offset, NoRoom> {
        debug_assert_eq!(record.header().partition, self.site.identity.partition);
        if self.upkeep.is_behind(self.config.unwritten_bytes_max) {
            return Err(NoRoom);
        }
        let stride = record.stride() as u32;
        if !self.active.as_ref().is_some_and(|active| active.fits(stride)) {
            self.roll(stride)?;
        }
        let active = self.active.as_mut().expect("rolled to a segment with room");
        if !active.has_memory(stride) {
            self.upkeep.wanted_memory = active.index.data_end() + stride + MARK_BYTES;
            return Err(NoRoom);
        }
        active.append(record);
        let offset = self.end;
        self.end = offset.next();
        self.upkeep.touched += u64::from(stride);
        self.upkeep.appended += u64::from(stride);
        Ok(offset)
    }

    /// Appends as above, making the next segment in place when there is no room, and letting go of memory when much was appended. Blocks:
    /// for replay at start. Full segments are sealed once the broker serves; to write and sync each of them here would take most of the time.
    pub fn append_blocking(&mut self, record: &Record<'_>) -> Result<Offset, Error> {
        loop {
            match self.append(record) {
                Ok(offset) => return self.let_go().map(|()| offset),
                Err(NoRoom) => self.make_room()?,
            }
        }
    }

    /// Begins the segment made ahead, if it has room for a record of `stride` bytes.
    pub(super) fn roll(&mut self, stride: u32) -> Result<(), NoRoom> {
        let Some(spare) = self.spare.take_if(|spare| spare.fits(stride)) else {
            self.spare = None;
            self.upkeep.wanted_bytes = self.upkeep.wanted_bytes.max(HEADER_BYTES + stride);
            return Err(NoRoom);
        };
        (self.upkeep.wanted_bytes, self.upkeep.wanted_memory) = (0, 0);
        self.next_number = spare.number + 1;
        let begun = spare.begin(self.site.identity, self.end);
        if let Some(full) = self.active.replace(begun) {
            self.upkeep.uses += 1;
            let (sealed, open) = full.seal(self.upkeep.uses);
            self.open.insert(sealed.number, open);
            self.sealed.push_back(sealed);
        }
        self.drop_expired();
        Ok(())
    }

    /// Makes `start` the first event: what is before is gone for readers at once, and whole segments of it for good.
    /// Never goes back.
    pub fn expire(&mut self, start: Offset) {
        self.start = self.start.max(start.min(self.end));
        self.drop_expired();
    }

    fn drop_expired(&mut self) {
        while let Some(first) = self.sealed.pop_front_if(|first| first.end() <= self.start) {
            self.upkeep.expired.push(first.number);
            self.upkeep.unload.extend(self.open.remove(&first.number).map(|open| open.loaded));
        }
    }

    /// Up to which offset all events are older than `before_ms`, Unix milliseconds; whole segments only. The oldest
    /// segments come first, so one young event keeps all that is behind it.
    pub fn expirable(&self, before_ms: u64) -> Option<Offset> {
        let old = self.sealed.iter().take_while(|segment| segment.summary.last_ms < before_ms).count();
        let active = self.active.as_ref().filter(|active| active.index.records() > 0);
        let upto =
            match active.filter(|active| old == self.sealed.len() && active.index.last_ms() < before_ms) {
                Some(_) => self.end,
                None => self.sealed.get(old.checked_sub(1)?)?.end(),
            };
        (upto > self.start).then_some(upto)
    }

    /// That all events from `start` on are here. Called after replay with the start that the journal tells: before,
    /// segments may lack that expired after the checkpoint.
    pub fn require(&mut self, start: Offset) -> Result<(), Error> {
        if self.start > start {
            return Err(Error::Missing { dir: self.site.dir.to_path_buf(), from: start, to: self.start });
        }
        self.upkeep.expired.append(&mut self.upkeep.unreachable);
        Ok(())
    }

    /// How many events of `filter`'s types are in `range`, as far as they have not expired.
    pub fn count(&self, filter: &TypeFilter, range: Range<Offset>) -> Counted {
        let range = range.start.max(self.start)..range.end.min(self.end);
        let mut counted = Counted { events: 0, exact: true };
        let first = self.sealed.partition_point(|segment| segment.end() <= range.start);
        for segment in self.sealed.range(first..).take_while(|segment| segment.base < range.end) {
            let inside = within(&range, segment.base, segment.summary.records);
            let (events, exact) = match self.open.get(&segment.number) {
                _ if inside.len() == segment.summary.records as usize => {
                    (segment.summary.count(filter), true)
                }
                Some(open) => (open.loaded.index.count(filter, inside), true),
                None => (segment.summary.estimate(filter, inside), false),
            };
            counted.events += events;
            counted.exact &= exact;
        }
        if let Some(active) = &self.active {
            let inside = within(&range, active.base, active.index.records());
            counted.events += active.index.count(filter, inside);
        }
        counted
    }
}

/// Ordinals of a segment's records that lie in `range`.
fn within(range: &Range<Offset>, base: Offset, records: u32) -> Range<u32> {
    let ordinal = |offset: Offset| offset.0.saturating_sub(base.0).min(u64::from(records)) as u32;
    ordinal(range.start)..ordinal(range.end)
}

impl Sealed {
    /// Offset behind the last record.
    pub fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.summary.records))
    }
}

impl<M: SegmentMap> Active<M> {
    fn fits(&self, stride: u32) -> bool {
        self.tail.capacity() - self.index.data_end() >= stride
    }

    fn has_memory(&self, stride: u32) -> bool {
        let marked = self.index.data_end() + stride + MARK_BYTES;
        marked.min(self.tail.capacity()) <= self.populated
    }

    fn append(&mut self, record: &Record<'_>) {
        let stride = record.stride() as u32;
        let header = record.header();
        self.tail.append(record.bytes(), self.index.data_end() + stride, MARK_BYTES);
        self.index.push(stride, header.type_id, header.time_ms);
    }

    fn seal(self, used: u64) -> (Sealed, Open<M>) {
        let summary = self.index.summary();
        let sealed = Sealed { number: self.number, base: self.base, summary, loading: None };
        let loaded = Loaded { mapped: self.tail.mapped().clone(), index: Arc::new(self.index) };
        (sealed, Open { loaded, durable: false, used })
    }
}

impl<M: SegmentMap> Spare<M> {
    fn fits(&self, stride: u32) -> bool {
        self.map.size() as u64 >= u64::from(HEADER_BYTES) + u64::from(stride)
    }

    fn begin(self, identity: Identity, base: Offset) -> Active<M> {
        let header = SegmentHeader { identity, number: self.number, base };
        let index = Index::with_room(self.map.size() as u32);
        let mut tail = Tail::new(self.map, 0);
        tail.append(&header.encode(), HEADER_BYTES, MARK_BYTES);
        Active { number: self.number, base, tail, index, populated: self.populated, fresh: 0 }
    }
}

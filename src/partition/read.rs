//! Reading: events of wanted types from an offset on, as slices of mapped memory.

use super::filter::TypeFilter;
use super::index::Index;
use super::job::{ColdId, Job, Work, runs};
use super::log::Partition;
use super::map::{Access, MapDisk, Mapped, SegmentMap};
use crate::event::record::{HEADER_BYTES, Record};
use crate::id::Offset;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Segments without a wanted event that one read may skip.
const SKIPPED_MAX: usize = 256;
/// Records that one warm job may verify.
const WARM_RECORDS_MAX: usize = 4096;
/// Bytes that are in memory or not as one. What is warmed at a time is never less, so a reader of cold data always gets on.
const RUN_BYTES: u32 = 32 << 10;

/// How much one read may bring.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub events: usize,
    /// Bytes of records. Reached, not exceeded, but for a first event that alone is larger.
    pub bytes: usize,
}

/// What a read brought.
pub struct Read<D: MapDisk> {
    /// By ascending offset.
    pub slices: Vec<Slice<D::Map>>,
    /// Where to read on: all wanted events before it have been given or have expired.
    pub next: Offset,
    pub status: Status<D>,
}

/// Why a read ended.
pub enum Status<D: MapDisk> {
    /// The budget is used up, or enough was looked through for one turn: read on.
    More,
    /// Everything there is was given.
    AtEnd,
    /// What comes next is not in memory. Read on when [`Finished::Warm`](super::Finished::Warm) or a failed job names `wait`;
    /// `job` brings it, unless the job is under way for another reader.
    Cold { wait: ColdId, job: Option<Job<D>> },
}

/// One stored event. Cheap to clone and to send to other cores; keeps its memory valid, also after the event has expired.
/// Dereferences to the event as delivered, without the closing brace.
pub struct Slice<M> {
    mapped: Arc<Mapped<M>>,
    start: u32,
    end: u32,
    offset: Offset,
}

/// The end of a turn within one segment.
enum Turn<D: MapDisk> {
    NextSegment,
    Full,
    Cold(ColdId, Option<Job<D>>),
}

/// A segment as a reader sees it.
struct View<'a, M> {
    number: u64,
    base: Offset,
    mapped: &'a Arc<Mapped<M>>,
    index: &'a Index,
    /// What lies at or behind this position is in memory: it was just written.
    recent: u32,
}

impl<D: MapDisk> Partition<D> {
    /// Events of `filter`'s types from `from` on. What expired is passed over. Never touches memory that may not be there.
    pub fn read(&mut self, from: Offset, filter: &TypeFilter, budget: Budget) -> Read<D> {
        let mut read = Read { slices: Vec::new(), next: from.max(self.start), status: Status::More };
        let mut room = budget;
        for _ in 0..SKIPPED_MAX {
            if read.next >= self.end {
                read.status = Status::AtEnd;
                return read;
            }
            match self.read_segment(&mut read, filter, &mut room) {
                Turn::NextSegment => {}
                Turn::Full => return read,
                Turn::Cold(wait, job) => {
                    read.status = Status::Cold { wait, job };
                    return read;
                }
            }
        }
        read
    }

    fn read_segment(&mut self, read: &mut Read<D>, filter: &TypeFilter, room: &mut Budget) -> Turn<D> {
        let place = self.sealed.partition_point(|segment| segment.end() <= read.next);
        if let Some(segment) = self.sealed.get(place) {
            if !segment.summary.wants(filter, (read.next.0 - segment.base.0) as u32) {
                read.next = segment.end();
                return Turn::NextSegment;
            }
            let Some(open) = self.open.get_mut(&segment.number) else {
                let (wait, job) = self.load(place);
                return Turn::Cold(wait, job);
            };
            self.upkeep.uses += 1;
            open.used = self.upkeep.uses;
        }
        let view = self.view(place).expect("the offset is below the end and its segment is loaded");
        let before = read.slices.len();
        let full = view.take(read, filter, room);
        let run_bytes = RUN_BYTES.min(self.config.warm_bytes);
        let cold = first_cold(&read.slices[before..], view.recent, run_bytes);
        let taken: u64 = read.slices[before..].iter().map(Slice::stride).sum();
        match cold {
            None => {
                self.upkeep.touched += taken;
                if full { Turn::Full } else { Turn::NextSegment }
            }
            Some(cold) => {
                read.next = read.slices[before + cold].offset;
                read.slices.truncate(before + cold);
                let (number, mapped) = (view.number, view.mapped.clone());
                let records = view.records_to_warm(filter, read.next, self.config.warm_bytes);
                let (wait, job) = self.warm(number, mapped, records);
                Turn::Cold(wait, job)
            }
        }
    }

    fn view(&self, place: usize) -> Option<View<'_, D::Map>> {
        if let Some(segment) = self.sealed.get(place) {
            let (loaded, recent) = (&self.open.get(&segment.number)?.loaded, u32::MAX);
            let (number, base) = (segment.number, segment.base);
            return Some(View { number, base, mapped: &loaded.mapped, index: &loaded.index, recent });
        }
        let active = self.active.as_ref()?;
        let recent = active.index.data_end().saturating_sub(self.config.recent_bytes).max(active.fresh);
        let (number, base) = (active.number, active.base);
        Some(View { number, base, mapped: active.tail.mapped(), index: &active.index, recent })
    }

    /// The id to wait for until `records` are in memory, and the job unless one is under way for the first of them.
    fn warm(
        &mut self,
        number: u64,
        mapped: Arc<Mapped<D::Map>>,
        records: Vec<Range<u32>>,
    ) -> (ColdId, Option<Job<D>>) {
        let first = records[0].start;
        let same =
            |(_, other, range): &&(ColdId, u64, Range<u32>)| *other == number && range.contains(&first);
        if let Some((cold, ..)) = self.upkeep.warming.iter().find(same) {
            return (*cold, None);
        }
        let cold = self.upkeep.next_cold();
        let span = first..records[records.len() - 1].end;
        self.upkeep.warming.push((cold, number, span));
        (cold, Some(Job(Work::Warm { site: self.site.clone(), number, mapped, records, cold })))
    }
}

impl<M: SegmentMap> View<'_, M> {
    /// Adds slices to `read` until `room` is used up (true) or the segment is at its end (false), and moves its `next`.
    fn take<D: MapDisk<Map = M>>(&self, read: &mut Read<D>, filter: &TypeFilter, room: &mut Budget) -> bool {
        for ordinal in self.index.matches(filter, self.ordinal(read.next)) {
            let Range { start, end } = self.index.range(ordinal);
            let offset = Offset(self.base.0 + u64::from(ordinal));
            let bytes = (end - start) as usize;
            if room.events == 0 || (bytes > room.bytes && !read.slices.is_empty()) {
                read.next = offset;
                return true;
            }
            room.events -= 1;
            room.bytes = room.bytes.saturating_sub(bytes);
            read.slices.push(Slice { mapped: self.mapped.clone(), start, end, offset });
        }
        read.next = Offset(self.base.0 + u64::from(self.index.records()));
        false
    }

    /// Where the wanted records from `from` on lie, `bytes` of them or a little more.
    fn records_to_warm(&self, filter: &TypeFilter, from: Offset, bytes: u32) -> Vec<Range<u32>> {
        let mut taken = 0;
        let matches = self.index.matches(filter, self.ordinal(from)).take(WARM_RECORDS_MAX);
        let enough = |range: &Range<u32>| {
            let more = taken < bytes;
            taken += range.end - range.start;
            more
        };
        matches.map(|ordinal| self.index.range(ordinal)).take_while(enough).collect()
    }

    fn ordinal(&self, offset: Offset) -> u32 {
        (offset.0 - self.base.0) as u32
    }
}

/// The first of `slices`, all of one segment, that may not be in memory. Asked for in runs of about `run_bytes`, so it may be
/// a few records early.
fn first_cold<M: SegmentMap>(slices: &[Slice<M>], recent: u32, run_bytes: u32) -> Option<usize> {
    let old = slices.partition_point(|slice| slice.start < recent);
    let ranges: Vec<_> = slices[..old].iter().map(|slice| slice.start..slice.end).collect();
    let map = slices.first()?.mapped.map();
    let cold = runs(&ranges, run_bytes).find(|run| !map.resident(run.start as usize..run.end as usize))?;
    Some(slices.partition_point(|slice| slice.start < cold.start))
}

impl<M: SegmentMap> Slice<M> {
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// The whole record.
    pub fn record(&self) -> Record<'_> {
        Record::read_unverified(self.mapped.bytes(self.start..self.end))
            .expect("records were checked when written")
    }

    /// The event's bytes, less than [`ALIGN`](crate::event::record::ALIGN) too many: told without touching them.
    pub fn bytes_bound(&self) -> usize {
        (self.end - self.start) as usize - HEADER_BYTES
    }

    /// Bytes of its segment that were appended behind the event.
    pub fn bytes_behind(&self) -> u32 {
        self.mapped.written() - self.end
    }

    /// Whether the event can be touched without the disk. To be asked of an event that waited for long; if not, drop it and read again.
    pub fn is_resident(&self) -> bool {
        self.mapped.map().resident(self.start as usize..self.end as usize)
    }

    /// Brings the event into memory. Blocks.
    pub fn populate(&self) -> io::Result<()> {
        self.mapped.map().populate(self.start as usize..self.end as usize, Access::Read)
    }

    fn stride(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

impl<M> Clone for Slice<M> {
    fn clone(&self) -> Self {
        Self { mapped: self.mapped.clone(), ..*self }
    }
}

impl<M: SegmentMap> Deref for Slice<M> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.record().event()
    }
}

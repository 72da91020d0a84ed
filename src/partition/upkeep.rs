//! The jobs of a partition: which are due, and what their outcome changes.

use super::error::Error;
use super::job::{ColdId, Done, Job, JobError, JobKind, Outcome, Part, Work};
use super::log::{End, Open, Partition};
use super::map::{MapDisk, Mapped};
use super::site::Loaded;
use crate::id::Offset;
use std::ops::Range;
use std::sync::Arc;

/// What is under way and what is to be cleaned up.
pub(super) struct Upkeep<M> {
    preparing: bool,
    populating: bool,
    sealing: bool,
    tidying: bool,
    removing: bool,
    /// Failed jobs whose marks above stay until the next tick, so that they are not tried in a circle.
    failed: Vec<JobKind>,
    /// Capacity that the next segment must have at least, in bytes; 0 when nobody was refused.
    pub wanted_bytes: u32,
    /// Where memory must reach for the record that was refused last.
    pub wanted_memory: u32,
    /// Everything before is durable. Offset is not looked at.
    flushed: End,
    /// Numbers of segments whose files are to be removed.
    pub expired: Vec<u64>,
    /// Numbers of segments found in front of a gap. They expired if the journal says so, otherwise events are missing.
    pub unreachable: Vec<u64>,
    /// Dropped by the next job, because unmapping takes time.
    pub unload: Vec<Loaded<M>>,
    /// Bytes appended or read since memory was last let go.
    pub touched: u64,
    /// Bytes appended since then.
    pub appended: u64,
    tidy_due: bool,
    /// Counts reads of sealed segments, to tell which was not read for long.
    pub uses: u64,
    /// The use counter at the last two ticks, older one first.
    uses_at_tick: [u64; 2],
    /// Ids given to readers so far.
    colds: u64,
    /// Load jobs under way.
    loads: u32,
    /// What is being brought into memory: segment and positions.
    pub warming: Vec<(ColdId, u64, Range<u32>)>,
}

/// What the outcome of a job means to the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finished {
    /// Nothing that anybody waits for.
    Upkeep,
    /// There is a new segment or more memory, or the disk keeps up again: refused appends may find room.
    Room,
    /// Readers that wait for this can read again.
    Warm(ColdId),
    /// Everything before the end is durable.
    Flushed(End),
}

impl<M> Upkeep<M> {
    pub fn new(flushed: End, unreachable: Vec<u64>) -> Self {
        Self {
            preparing: false,
            populating: false,
            sealing: false,
            tidying: false,
            removing: false,
            failed: Vec::new(),
            wanted_bytes: 0,
            wanted_memory: 0,
            flushed,
            expired: Vec::new(),
            unreachable,
            unload: Vec::new(),
            touched: 0,
            appended: 0,
            tidy_due: false,
            uses: 0,
            uses_at_tick: [0; 2],
            colds: 0,
            loads: 0,
            warming: Vec::new(),
        }
    }

    /// Whether `bytes` or more were appended since what is being written was taken.
    pub fn is_behind(&self, bytes: u64) -> bool {
        self.tidying && self.appended >= bytes
    }

    pub fn next_cold(&mut self) -> ColdId {
        self.colds += 1;
        ColdId(self.colds)
    }
}

impl<D: MapDisk> Partition<D> {
    /// A job that is due and not yet under way. Asked for again and again until there is none: at the start, after appends and
    /// reads, after a job finished, and at each tick.
    pub fn job(&mut self) -> Option<Job<D>> {
        let work = self
            .prepare()
            .or_else(|| self.populate())
            .or_else(|| self.seal())
            .or_else(|| self.remove())
            .or_else(|| self.tidy());
        work.map(Job)
    }

    /// Takes in what a job brought.
    pub fn finish(&mut self, done: Done<D::Map>) -> Finished {
        match done.0 {
            Outcome::Prepared(spare) => {
                self.upkeep.preparing = false;
                self.spare = Some(spare);
                return Finished::Room;
            }
            Outcome::Populated { number, end } => {
                self.upkeep.populating = false;
                if let Some(active) = self.active.as_mut().filter(|active| active.number == number) {
                    active.populated = end;
                }
                return Finished::Room;
            }
            Outcome::Sealed { number } => {
                self.upkeep.sealing = false;
                if let Some(open) = self.open.get_mut(&number) {
                    open.durable = true;
                }
            }
            Outcome::Flushed(end) => {
                self.upkeep.flushed = self.upkeep.flushed.max(end);
                return Finished::Flushed(end);
            }
            Outcome::Loaded { number, loaded, cold } => {
                self.loaded(number, loaded);
                return Finished::Warm(cold);
            }
            Outcome::Warmed(cold) => {
                self.upkeep.warming.retain(|(id, ..)| *id != cold);
                return Finished::Warm(cold);
            }
            Outcome::Tidied => {
                self.upkeep.tidying = false;
                return Finished::Room;
            }
            Outcome::Removed(numbers) => {
                self.upkeep.removing = false;
                self.upkeep.expired.retain(|number| !numbers.contains(number));
            }
        }
        Finished::Upkeep
    }

    /// Takes in that a job failed. `Load` and `Warm` can be asked for again at once, the others come again after the next tick;
    /// `Flush` must not: see [`JobKind::Flush`].
    pub fn failed(&mut self, error: &JobError) {
        match error.kind {
            JobKind::Load(cold) => {
                self.upkeep.loads -= 1;
                let waited_for = self.sealed.iter_mut().find(|segment| segment.loading == Some(cold));
                waited_for.into_iter().for_each(|segment| segment.loading = None);
            }
            JobKind::Warm(cold) => self.upkeep.warming.retain(|(id, ..)| *id != cold),
            kind => self.upkeep.failed.push(kind),
        }
    }

    /// To be called every second or so with the broker's clock: seals a segment that is old, lets go of memory that is no longer used, and
    /// lets failed jobs be tried again.
    pub fn tick(&mut self, now_ms: u64) {
        self.rest_failed();
        self.upkeep.tidy_due |= self.upkeep.touched > 0 || self.open.values().any(|open| self.is_idle(open));
        self.upkeep.uses_at_tick = [self.upkeep.uses_at_tick[1], self.upkeep.uses];
        if self.is_old(now_ms) {
            // Refused while no segment is ready; then one is made now and the next tick succeeds.
            let _ = self.roll(0);
        }
    }

    /// Makes everything up to the present end durable. The outcome is [`Finished::Flushed`] with that end.
    pub fn flush_job(&self) -> Job<D> {
        let (flushed, end) = (self.upkeep.flushed, self.reach());
        let mut parts = Vec::new();
        for (number, open) in self.open.iter().filter(|(_, open)| !open.durable) {
            let range = flushed.position_in(*number)..open.loaded.index.data_end();
            parts.push(Part { number: *number, mapped: open.loaded.mapped.clone(), range });
        }
        if let Some(active) = &self.active {
            let range = flushed.position_in(active.number)..active.index.data_end();
            parts.push(Part { number: active.number, mapped: active.tail.mapped().clone(), range });
        }
        Job(Work::Flush { site: self.site.clone(), parts, end })
    }

    /// Loads the index of the sealed segment that holds `at`, unless it is in memory or on its way. Afterwards a count that begins
    /// or ends there is exact.
    pub fn load_job(&mut self, at: Offset) -> Option<Job<D>> {
        let place = self.sealed.partition_point(|segment| segment.end() <= at);
        self.sealed.get(place).filter(|segment| !self.open.contains_key(&segment.number))?;
        self.load(place).1
    }

    /// The id to wait for until a sealed segment is loaded, and the job when it is not under way.
    pub(super) fn load(&mut self, place: usize) -> (ColdId, Option<Job<D>>) {
        let segment = &mut self.sealed[place];
        if let Some(cold) = segment.loading {
            return (cold, None);
        }
        let cold = self.upkeep.next_cold();
        segment.loading = Some(cold);
        self.upkeep.loads += 1;
        let (number, base, summary) = (segment.number, segment.base, segment.summary.clone());
        (cold, Some(Job(Work::Load { site: self.site.clone(), number, base, summary, cold })))
    }

    /// Makes the segment or the memory in place that a refused append asks for. Blocks.
    pub(super) fn make_room(&mut self) -> Result<(), Error> {
        self.prepare().or_else(|| self.populate()).map_or(Ok(()), |work| self.run_here(work))
    }

    /// Lets go of memory if that is due. Blocks.
    pub(super) fn let_go(&mut self) -> Result<(), Error> {
        self.tidy().map_or(Ok(()), |work| self.run_here(work))
    }

    fn run_here(&mut self, work: Work<D>) -> Result<(), Error> {
        let done = Job(work).run().map_err(|failed| failed.error)?;
        self.finish(done);
        Ok(())
    }

    /// Runs all due jobs in place. Blocks.
    #[cfg(test)]
    pub(super) fn run_jobs(&mut self) -> Result<(), Error> {
        while let Some(job) = self.job() {
            self.run_here(job.0)?;
        }
        Ok(())
    }

    fn prepare(&mut self) -> Option<Work<D>> {
        if self.upkeep.preparing || self.spare.is_some() || !self.wants_spare() {
            return None;
        }
        self.upkeep.preparing = true;
        let page = super::map::page_bytes() as u32;
        let bytes = self.config.segment_bytes.max(self.upkeep.wanted_bytes).next_multiple_of(page);
        let (number, window) = (self.next_number, self.config.window_bytes);
        Some(Work::Prepare { site: self.site.clone(), number, bytes, window })
    }

    fn wants_spare(&self) -> bool {
        let half_full = |capacity: u32, end: u32| end > capacity / 2;
        let active = self.active.as_ref();
        active.is_none_or(|active| half_full(active.tail.capacity(), active.index.data_end()))
            || self.upkeep.wanted_bytes > 0
    }

    /// Keeps at least half a window of memory ready, and makes ready more than one at a time: waking the helper costs as much as 20 pages.
    fn populate(&mut self) -> Option<Work<D>> {
        let active = self.active.as_ref().filter(|_| !self.upkeep.populating)?;
        let (end, capacity) = (active.index.data_end(), active.tail.capacity());
        let wanted = self.upkeep.wanted_memory;
        let ahead = |bytes: u32| end.saturating_add(bytes).max(wanted).min(capacity);
        if ahead(self.config.window_bytes / 2) <= active.populated {
            return None;
        }
        let range = active.populated.max(end)..ahead(2 * self.config.window_bytes);
        let part = Part { number: active.number, mapped: active.tail.mapped().clone(), range };
        (self.upkeep.populating, self.upkeep.wanted_memory) = (true, 0);
        Some(Work::Populate { site: self.site.clone(), part })
    }

    fn seal(&mut self) -> Option<Work<D>> {
        let next = self.open.iter().find(|(_, open)| !open.durable);
        let (number, open) = next.filter(|_| !self.upkeep.sealing)?;
        let (number, base, loaded) =
            (*number, self.sealed[self.place_of(*number)?].base, open.loaded.clone());
        self.upkeep.sealing = true;
        Some(Work::Seal { site: self.site.clone(), number, base, loaded })
    }

    /// Waits for jobs that may yet open a file which is to be removed.
    fn remove(&mut self) -> Option<Work<D>> {
        let busy = self.upkeep.removing || self.upkeep.sealing || self.upkeep.loads > 0;
        if self.upkeep.expired.is_empty() || busy {
            return None;
        }
        self.upkeep.removing = true;
        let (numbers, unload) = (self.upkeep.expired.clone(), std::mem::take(&mut self.upkeep.unload));
        Some(Work::Remove { site: self.site.clone(), numbers, unload })
    }

    fn tidy(&mut self) -> Option<Work<D>> {
        let due = self.upkeep.tidy_due || self.upkeep.touched >= self.config.release_bytes;
        if self.upkeep.tidying || !due {
            return None;
        }
        (self.upkeep.tidying, self.upkeep.tidy_due) = (true, false);
        (self.upkeep.touched, self.upkeep.appended) = (0, 0);
        self.unload_idle();
        let unload = std::mem::take(&mut self.upkeep.unload);
        Some(Work::Tidy { release: self.releasable(), unload })
    }

    /// Gives up indexes and mappings that were not used for two ticks, and the longest unused ones beyond the limit.
    fn unload_idle(&mut self) {
        let durable = self.open.iter().filter(|(_, open)| open.durable);
        let mut by_use: Vec<_> = durable.map(|(number, open)| (open.used, *number)).collect();
        by_use.sort_unstable();
        let excess = by_use.len().saturating_sub(self.config.loaded_max);
        for (place, (used, number)) in by_use.into_iter().enumerate() {
            if place < excess || used <= self.upkeep.uses_at_tick[0] {
                self.upkeep.unload.extend(self.open.remove(&number).map(|open| open.loaded));
            }
        }
    }

    /// What lies behind the recent end: mappings and how much of each. Whole pages, lest a part of a recent one goes with them.
    fn releasable(&self) -> Vec<(Arc<Mapped<D::Map>>, u32)> {
        let page = super::map::page_bytes() as u32;
        let mut recent = self.config.recent_bytes;
        let mut behind = |mapped: &Arc<Mapped<D::Map>>, end: u32| {
            let kept = recent.min(end);
            recent -= kept;
            (mapped.clone(), (end - kept) / page * page)
        };
        let active = self.active.iter().map(|a| (a.tail.mapped(), a.index.data_end()));
        let sealed = self.open.values().rev().map(|o| (&o.loaded.mapped, o.loaded.index.data_end()));
        active.chain(sealed).map(|(mapped, end)| behind(mapped, end)).collect()
    }

    fn loaded(&mut self, number: u64, loaded: Loaded<D::Map>) {
        self.upkeep.loads -= 1;
        self.upkeep.uses += 1;
        let used = self.upkeep.uses;
        // The segment may have expired meanwhile.
        if let Some(place) = self.place_of(number) {
            self.sealed[place].loading = None;
            self.open.insert(number, Open { loaded, durable: true, used });
        }
        let unloadable = self.open.values().filter(|open| open.durable).count();
        self.upkeep.tidy_due |= unloadable > self.config.loaded_max;
    }

    /// Where segment `number` is among the sealed ones, whose numbers have no gaps.
    fn place_of(&self, number: u64) -> Option<usize> {
        let place = number.checked_sub(self.sealed.front()?.number)? as usize;
        (place < self.sealed.len()).then_some(place)
    }

    /// Whether the active segment is due to be sealed for its age.
    fn is_old(&self, now_ms: u64) -> bool {
        let old = |first_ms: u64| first_ms.saturating_add(self.config.segment_ms) <= now_ms;
        let used = self.active.as_ref().filter(|active| active.index.records() > 0);
        used.is_some_and(|active| old(active.index.first_ms()) || self.start == self.end)
    }

    fn is_idle(&self, open: &Open<D::Map>) -> bool {
        open.durable && open.used <= self.upkeep.uses_at_tick[0]
    }

    fn rest_failed(&mut self) {
        for kind in std::mem::take(&mut self.upkeep.failed) {
            match kind {
                JobKind::Prepare => self.upkeep.preparing = false,
                JobKind::Populate => self.upkeep.populating = false,
                JobKind::Seal => self.upkeep.sealing = false,
                JobKind::Tidy => self.upkeep.tidying = false,
                JobKind::Remove => self.upkeep.removing = false,
                JobKind::Flush | JobKind::Load(_) | JobKind::Warm(_) => {}
            }
        }
    }
}

impl End {
    /// Where this end lies as seen from segment `number`, which is not before it.
    fn position_in(&self, number: u64) -> u32 {
        if self.segment == number { self.position } else { 0 }
    }
}

impl<M> Clone for Loaded<M> {
    fn clone(&self) -> Self {
        Self { mapped: self.mapped.clone(), index: self.index.clone() }
    }
}

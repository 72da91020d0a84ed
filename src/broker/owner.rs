//! The partitions of this core: append what the journal committed, answer fetches, keep the files in order.
//!
//! Nothing here waits: what a partition cannot do now comes out as a job for a helper thread, and goes on when the job is done.

use super::message::{Applied, ExpiredCursor, Fetch, GroupCursor, HEAD, Message};
use super::store::PartitionLog;
use super::{Core, Slice, abort};
use crate::delivery::session::{Event, FetchId};
use crate::event::record::Record;
use crate::id::{FrameIndex, Offset, Partition, PrivateLog, SessionId};
use crate::ingress::Span;
use crate::journal::disk::RealDisk;
use crate::metrics::PartitionGauge;
use crate::partition::{Budget, ColdId, Finished, Job, JobKind, NoRoom, Status, Waiters};
use crate::rt;
use crate::rt::notify::Notify;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU8;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Most events that one fetch brings.
const FETCH_EVENTS_MAX: usize = 512;
/// Cursors that are measured before other tasks of the core get their turn. Most are at the end, where there is nothing to count.
const LAGS_AT_ONCE: usize = 16;
/// Appended bytes that the head need not hear of yet: each report may wake its core. All cores together keep back less than it waits for.
const UNREPORTED_BYTES_MAX: usize = 256 << 10;
/// What is more is appended after the producers' answers and the next write of the journal: 4 producers of batches of 100 had to wait for
/// it and got 5 to 10 % fewer events through. For less, the pause costs more than the wait.
const DEFERRED_BYTES_MIN: usize = 32 << 10;
/// Appended bytes after which other tasks of the core get their turn.
const TURN_BYTES: usize = 256 << 10;
/// Time between two looks at age and memory.
const TICK: Duration = Duration::from_secs(1);

/// A fetch by name.
type FetchKey = (SessionId, FetchId);

/// Everything this core knows of its partitions.
pub struct Owner {
    cores: usize,
    /// Partition `p` is at `p / cores`.
    owned: RefCell<Vec<Owned>>,
    /// What the head sent, in order.
    tasks: RefCell<VecDeque<Task>>,
    /// There is much to append, or more after others had their turn.
    deferred: Notify,
    /// Somebody works on `tasks`, or waits for a segment to go on.
    busy: Cell<bool>,
    /// Bytes that were appended and not reported to the head.
    unreported: Cell<usize>,
}

/// One partition.
pub(super) struct Owned {
    id: Partition,
    pub(super) log: PartitionLog,
    /// Fetches that are not answered yet.
    fetches: HashMap<FetchKey, Fetch, ahash::RandomState>,
    waiters: Waiters<FetchKey>,
    /// Fetches that wait until something is in memory.
    cold: HashMap<ColdId, Vec<FetchKey>>,
    /// Fetches whose data could not be read; tried again at the next tick.
    failed: Vec<FetchKey>,
}

enum Task {
    /// Append the events that are this core's, from this record on.
    Append { applied: Arc<Applied>, next: Next, bytes: usize },
    /// Make what is here now durable and report how far it reaches.
    Mark(FrameIndex),
}

/// A record of a frame: block and span.
type Next = (usize, usize);

/// Why not all of a frame was appended.
enum Stopped {
    /// A partition has no room.
    NoRoom,
    /// Others are to have their turn.
    TurnOver,
}

impl Owner {
    pub fn new(logs: Vec<(Partition, PartitionLog)>, cores: usize) -> Self {
        let owned = logs.into_iter().map(|(id, log)| Owned {
            id,
            log,
            fetches: HashMap::default(),
            waiters: Waiters::default(),
            cold: HashMap::new(),
            failed: Vec::new(),
        });
        let owned = RefCell::new(owned.collect());
        let (tasks, deferred) = (RefCell::default(), Notify::default());
        let (busy, unreported) = (Cell::default(), Cell::default());
        Self { cores, owned, tasks, deferred, busy, unreported }
    }

    /// Runs `act` on a partition of this core.
    pub(super) fn with<R>(&self, partition: Partition, act: impl FnOnce(&mut Owned) -> R) -> R {
        let owned = &mut self.owned.borrow_mut()[usize::from(partition.0) / self.cores];
        debug_assert_eq!(owned.id, partition);
        act(owned)
    }

    /// How many events lie behind the cursor. An estimate when it lies in a segment whose index is not in memory.
    pub(super) fn count_from(&self, cursor: &GroupCursor) -> u64 {
        let count = |owned: &mut Owned| owned.log.count(&cursor.types, cursor.at..owned.log.end());
        self.with(cursor.partition, count).events
    }

    fn ids(&self) -> Vec<Partition> {
        self.owned.borrow().iter().map(|owned| owned.id).collect()
    }

    pub fn gauges(&self, shared: NonZeroU8) -> Vec<PartitionGauge> {
        let gauge = |owned: &Owned| PartitionGauge {
            partition: PrivateLog::of(owned.id, shared)
                .map_or_else(|| owned.id.to_string(), |log| log.name().to_owned()),
            start: owned.log.start().0,
            end: owned.log.end().0,
        };
        self.owned.borrow().iter().map(gauge).collect()
    }
}

impl Core {
    /// Starts the upkeep of this core's partitions.
    pub fn start_upkeep(self: &Rc<Self>) {
        let core = self.clone();
        rt::spawn(async move {
            loop {
                for partition in core.owner.ids() {
                    core.look_after(partition);
                    rt::breathe().await;
                }
                rt::sleep(TICK).await;
            }
        });
    }

    fn retention_of(&self, partition: Partition) -> Duration {
        self.config.storage.retention_of(PrivateLog::of(partition, self.partitions))
    }

    fn look_after(self: &Rc<Self>, partition: Partition) {
        let now_ms = self.now_ms();
        let oldest_ms = now_ms.saturating_sub(self.retention_of(partition).as_millis() as u64);
        let (expirable, again) = self.owner.with(partition, |owned| {
            owned.log.tick(now_ms);
            (owned.log.expirable(oldest_ms), std::mem::take(&mut owned.failed))
        });
        if let Some(start) = expirable {
            self.post(HEAD, Message::Expirable { partition, start });
        }
        self.pump(partition);
        self.answer_all(partition, again);
        self.work();
    }

    /// The head committed events for this core.
    pub(super) fn take_applied(self: &Rc<Self>, applied: Arc<Applied>) {
        let bytes = applied.bytes_for(|partition| self.owner_of(partition) == self.id);
        self.owner.tasks.borrow_mut().push_back(Task::Append { applied, next: (0, 0), bytes });
        if bytes < DEFERRED_BYTES_MIN { self.work() } else { self.owner.deferred.notify() }
    }

    /// Appends what is much, for ever, a turn at a time: once those who wait to hear that it is durable were told and the journal's next
    /// frame is on its way.
    pub(super) async fn append_deferred(self: Rc<Self>) {
        loop {
            self.owner.deferred.notified().await;
            rt::breathe().await;
            self.work();
        }
    }

    /// The head wants everything up to here durable.
    pub(super) fn mark(self: &Rc<Self>, index: FrameIndex) {
        self.owner.tasks.borrow_mut().push_back(Task::Mark(index));
        self.work();
    }

    /// Works on the head's tasks in order, until one must wait for a segment or the turn is over.
    fn work(self: &Rc<Self>) {
        if self.owner.busy.replace(true) {
            return;
        }
        let mut left = TURN_BYTES;
        loop {
            let task = self.owner.tasks.borrow_mut().pop_front();
            match task {
                None => break,
                Some(Task::Mark(index)) => self.flush(index),
                Some(Task::Append { applied, next, bytes }) => {
                    if let Err((next, stopped)) = self.append(&applied, next, &mut left) {
                        self.owner.tasks.borrow_mut().push_front(Task::Append { applied, next, bytes });
                        if let Stopped::TurnOver = stopped {
                            self.owner.deferred.notify();
                        }
                        break;
                    }
                    self.report_appended(bytes);
                }
            }
        }
        self.owner.busy.set(false);
    }

    fn report_appended(&self, bytes: usize) {
        let unreported = self.owner.unreported.get() + bytes;
        if unreported <= UNREPORTED_BYTES_MAX {
            return self.owner.unreported.set(unreported);
        }
        self.owner.unreported.set(0);
        self.post(HEAD, Message::Appended { bytes: unreported });
    }

    /// Appends what is this core's, from `next` on, as far as `left` bytes reach. Fails with where to go on.
    fn append(
        self: &Rc<Self>,
        applied: &Applied,
        next: Next,
        left: &mut usize,
    ) -> Result<(), (Next, Stopped)> {
        let mut woken = Vec::new();
        let mut touched = 0u64;
        let mut outcome = Ok(());
        'all: for (at, block) in applied.blocks.iter().enumerate().skip(next.0) {
            let first = if at == next.0 { next.1 } else { 0 };
            for (place, span) in block.spans.iter().enumerate().skip(first) {
                if self.owner_of(span.partition) != self.id {
                    continue;
                }
                if *left == 0 {
                    outcome = Err(((at, place), Stopped::TurnOver));
                    break 'all;
                }
                touched |= 1 << span.partition.0;
                if self.append_one(block.record(*span), span, &mut woken).is_err() {
                    outcome = Err(((at, place), Stopped::NoRoom));
                    break 'all;
                }
                *left = left.saturating_sub(span.len as usize);
            }
        }
        for partition in (0..64).filter(|bit| touched >> bit & 1 == 1) {
            self.pump(Partition(partition));
        }
        for (partition, key) in woken {
            self.answer(partition, key);
        }
        outcome
    }

    fn append_one(
        &self,
        bytes: &[u8],
        span: &Span,
        woken: &mut Vec<(Partition, FetchKey)>,
    ) -> Result<(), NoRoom> {
        let record = Record::read_unverified(bytes)
            .unwrap_or_else(|error| abort(&format!("a committed record is not sound: {error:?}")));
        self.owner.with(span.partition, |owned| {
            owned.log.append(&record)?;
            let mut keys = Vec::new();
            owned.waiters.appended(record.header().type_id, &mut keys);
            woken.extend(keys.into_iter().map(|key| (span.partition, key)));
            Ok(())
        })
    }

    /// Flushes every partition and reports how far each reaches.
    fn flush(self: &Rc<Self>, index: FrameIndex) {
        let jobs: Vec<_> =
            self.owner.owned.borrow().iter().map(|owned| (owned.id, owned.log.flush_job())).collect();
        let core = self.clone();
        rt::spawn(async move {
            let mut ends = Vec::with_capacity(jobs.len());
            for (partition, job) in jobs {
                if let Some(Finished::Flushed(end)) = core.run_job(partition, job).await {
                    ends.push((partition, end));
                }
            }
            core.post(HEAD, Message::Marked { index, ends });
        });
    }

    /// Starts every job of a partition that is due.
    fn pump(self: &Rc<Self>, partition: Partition) {
        while let Some(job) = self.owner.with(partition, |owned| owned.log.job()) {
            self.start_job(partition, job);
        }
    }

    fn start_job(self: &Rc<Self>, partition: Partition, job: Job<RealDisk>) {
        let core = self.clone();
        rt::spawn(async move {
            match core.run_job(partition, job).await {
                Some(Finished::Room) => core.work(),
                Some(Finished::Warm(cold)) => core.warmed(partition, cold),
                Some(Finished::Upkeep | Finished::Flushed(_)) | None => {}
            }
            core.pump(partition);
        });
    }

    /// Runs a job on a helper thread and takes in what it brought; `None` when it failed.
    pub(super) async fn run_job(
        self: &Rc<Self>,
        partition: Partition,
        job: Job<RealDisk>,
    ) -> Option<Finished> {
        let kind = job.kind();
        let pool = if kind.reads() { &self.readers } else { &self.pool };
        match pool.run(move || job.run()).await {
            Ok(done) => Some(self.owner.with(partition, |owned| owned.log.finish(done))),
            // A sync that failed is never tried again, whichever job it was part of: sealing a segment syncs it too.
            Err(failed) if kind == JobKind::Flush || failed.error.is_fatal() => {
                abort(&format!("partition {partition} cannot be made durable: {}", failed.error))
            }
            Err(failed) => {
                tracing::error!(%partition, ?kind, error = %failed.error, "upkeep of a partition failed; it is tried again");
                self.owner.with(partition, |owned| {
                    owned.log.failed(&failed);
                    if let JobKind::Load(cold) | JobKind::Warm(cold) = kind {
                        owned.failed.extend(owned.cold.remove(&cold).unwrap_or_default());
                    }
                });
                None
            }
        }
    }

    /// Asks the owner of a partition for events.
    pub fn fetch(&self, fetch: Fetch) {
        self.metrics.numbers.fetches.add(1);
        self.post(self.owner_of(fetch.partition), Message::Fetch(fetch));
    }

    /// The answer to a fetch is not wanted any more.
    pub fn cancel_fetch(&self, session: SessionId, partition: Partition, fetch: FetchId) {
        self.post(self.owner_of(partition), Message::CancelFetch { session, partition, fetch });
    }

    pub(super) fn take_fetch(self: &Rc<Self>, fetch: Fetch) {
        let (partition, key) = (fetch.partition, (fetch.session, fetch.fetch));
        self.owner.with(partition, |owned| owned.fetches.insert(key, fetch));
        self.answer(partition, key);
    }

    pub(super) fn forget_fetch(&self, session: SessionId, partition: Partition, fetch: FetchId) {
        self.owner.with(partition, |owned| {
            if let Some(fetch) = owned.fetches.remove(&(session, fetch)) {
                owned.waiters.cancel((session, fetch.fetch), &fetch.types);
            }
        });
    }

    fn answer_all(self: &Rc<Self>, partition: Partition, keys: Vec<FetchKey>) {
        for key in keys {
            self.answer(partition, key);
        }
    }

    pub(super) fn warmed(self: &Rc<Self>, partition: Partition, cold: ColdId) {
        let keys = self.owner.with(partition, |owned| owned.cold.remove(&cold)).unwrap_or_default();
        self.answer_all(partition, keys);
    }

    /// Answers a fetch if there is something, or leaves it where it will be found when there is.
    fn answer(self: &Rc<Self>, partition: Partition, key: FetchKey) {
        match self.owner.with(partition, |owned| owned.look(key)) {
            Looked::Nothing => {}
            Looked::Events { fetch, next, events, ahead } => {
                self.post(
                    fetch.session.core(),
                    Message::Fetched { session: fetch.session, fetch: fetch.fetch, next, events },
                );
                if let Some(job) = ahead {
                    self.start_cold_read(partition, job);
                }
            }
            Looked::Job(job) => self.start_cold_read(partition, job),
            Looked::GoOn => {
                let core = self.clone();
                rt::spawn(async move {
                    rt::breathe().await;
                    core.answer(partition, key);
                });
            }
        }
    }

    fn start_cold_read(self: &Rc<Self>, partition: Partition, job: Job<RealDisk>) {
        self.metrics.numbers.cold_reads.add(1);
        self.start_job(partition, job);
    }

    /// The journal says that everything before `start` is gone; first count who loses what.
    pub(super) fn expire(self: &Rc<Self>, partition: Partition, start: Offset, cursors: Vec<ExpiredCursor>) {
        let core = self.clone();
        rt::spawn(async move {
            for cursor in cursors {
                let events = core.count_exactly(partition, &cursor, start).await;
                core.post(HEAD, Message::Lost { cursor, events });
            }
            core.owner.with(partition, |owned| owned.log.expire(start));
            core.pump(partition);
        });
    }

    async fn count_exactly(
        self: &Rc<Self>,
        partition: Partition,
        cursor: &ExpiredCursor,
        start: Offset,
    ) -> u64 {
        for edge in [cursor.at, start] {
            if let Some(job) = self.owner.with(partition, |owned| owned.log.load_job(edge))
                && let Some(Finished::Warm(cold)) = self.run_job(partition, job).await
            {
                self.warmed(partition, cold);
            }
        }
        self.owner.with(partition, |owned| owned.log.count(&cursor.types, cursor.at..start)).events
    }

    /// How many events each of the groups has not confirmed in this core's partitions. One after the other, so that many groups
    /// with many types delay nobody.
    pub(super) fn tell_lag(self: &Rc<Self>, number: u64, cursors: Vec<GroupCursor>) {
        let core = self.clone();
        rt::spawn(async move {
            let mut lags = Vec::with_capacity(cursors.len());
            for (place, cursor) in cursors.iter().enumerate() {
                lags.push((cursor.group, core.owner.count_from(cursor)));
                if place % LAGS_AT_ONCE == LAGS_AT_ONCE - 1 {
                    rt::breathe().await;
                }
            }
            core.post(HEAD, Message::Lagged { number, lags });
        });
    }
}

/// What came of looking for a fetch's events.
enum Looked {
    /// The fetch is gone, or waits.
    Nothing,
    Events {
        fetch: Fetch,
        next: Offset,
        events: Vec<Slice>,
        /// Brings what comes next. It must run though nobody waits for it: the partition takes it to be under way, and
        /// whoever reads there next would wait for it for ever.
        ahead: Option<Job<RealDisk>>,
    },
    /// The fetch waits for this job.
    Job(Job<RealDisk>),
    /// Much was looked through and nothing found so far.
    GoOn,
}

impl Owned {
    fn look(&mut self, key: FetchKey) -> Looked {
        let Some(fetch) = self.fetches.get_mut(&key) else { return Looked::Nothing };
        let budget = Budget { events: FETCH_EVENTS_MAX, bytes: fetch.bytes_max };
        let read = self.log.read(fetch.from, &fetch.types, budget);
        fetch.from = read.next;
        if !read.slices.is_empty() {
            let Some(fetch) = self.fetches.remove(&key) else { return Looked::Nothing };
            let ahead = match read.status {
                Status::Cold { job, .. } => job,
                Status::More | Status::AtEnd => None,
            };
            return Looked::Events { fetch, next: read.next, events: read.slices, ahead };
        }
        match read.status {
            Status::More => Looked::GoOn,
            Status::AtEnd => {
                self.waiters.park(key, &fetch.types);
                Looked::Nothing
            }
            Status::Cold { wait, job } => {
                self.cold.entry(wait).or_default().push(key);
                job.map_or(Looked::Nothing, Looked::Job)
            }
        }
    }
}

impl Event for Slice {
    fn offset(&self) -> Offset {
        Slice::offset(self)
    }

    fn bytes(&self) -> usize {
        self.bytes_bound()
    }
}

//! The core that owns a partition: applies frames to it in order, answers fetches, and has its blocking jobs run elsewhere.

use crate::consumers::{Piece, Reader};
use crate::disk::SimDisk;
use crate::history::History;
use nistru::delivery::session::FetchId;
use nistru::event::record::Record;
use nistru::id::{FrameIndex, Offset, Partition as PartitionId, TypeId};
use nistru::partition::{
    Budget, ColdId, End, Error, Finished, Job, JobError, JobKind, Partition, Read, Status, TypeFilter,
    Waiters,
};
use std::collections::{BTreeMap, VecDeque};

/// What core 0 tells the owner, in frame order.
pub enum Apply {
    /// One record of a committed frame.
    Record(Vec<u8>),
    Expire(Offset),
    /// Everything up to a frame was sent: a checkpoint asks where the partition ends now, once that is durable.
    Flush(FrameIndex),
}

/// An answer to a fetch.
pub struct Answer {
    pub reader: Reader,
    pub next: Offset,
    pub events: Vec<Piece>,
}

struct Fetch {
    from: Offset,
    filter: TypeFilter,
    bytes_max: usize,
}

pub struct Owner {
    pub id: PartitionId,
    pub log: Partition<SimDisk>,
    pub inbox: VecDeque<Apply>,
    pub answers: VecDeque<Answer>,
    pub jobs: Vec<Job<SimDisk>>,
    /// Durable ends, for the checkpoint that asked.
    pub flushed: Vec<(FrameIndex, End)>,
    flushing: VecDeque<(FrameIndex, End)>,
    fetches: BTreeMap<Reader, Fetch>,
    waiters: Waiters<Reader>,
    cold: BTreeMap<ColdId, Vec<Reader>>,
}

impl Owner {
    pub fn new(id: PartitionId, log: Partition<SimDisk>) -> Self {
        Self {
            id,
            log,
            inbox: VecDeque::new(),
            answers: VecDeque::new(),
            jobs: Vec::new(),
            flushed: Vec::new(),
            flushing: VecDeque::new(),
            fetches: BTreeMap::new(),
            waiters: Waiters::default(),
            cold: BTreeMap::new(),
        }
    }

    /// Applies the oldest message, if it can be.
    pub fn apply(&mut self, history: &History) {
        match self.inbox.front() {
            Some(Apply::Record(bytes)) => {
                let record = Record::read(bytes).expect("frames hold sound records");
                let type_id = record.header().type_id;
                // Without room it stays where it is until a job has brought some.
                if let Ok(offset) = self.log.append(&record) {
                    history.check_stored(self.id, offset, &record);
                    self.inbox.pop_front();
                    self.appended(type_id);
                }
            }
            Some(Apply::Expire(start)) => {
                self.log.expire(*start);
                self.inbox.pop_front();
            }
            Some(Apply::Flush(index)) => {
                self.flushing.push_back((*index, self.log.reach()));
                self.jobs.push(self.log.flush_job());
                self.inbox.pop_front();
            }
            None => {}
        }
        self.collect_jobs();
    }

    fn appended(&mut self, type_id: TypeId) {
        let mut woken = Vec::new();
        self.waiters.appended(type_id, &mut woken);
        woken.into_iter().for_each(|reader| self.read(reader));
    }

    /// Runs the job at `at` to its end.
    pub fn run_job(&mut self, at: usize) -> Result<(), JobError> {
        match self.jobs.remove(at).run() {
            Ok(done) => {
                let finished = self.log.finish(done);
                self.finished(finished);
            }
            Err(error) => self.failed(error)?,
        }
        self.collect_jobs();
        Ok(())
    }

    fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Upkeep | Finished::Room => {}
            Finished::Warm(cold) => self.warm(cold),
            Finished::Flushed(_) => self.flushed.extend(self.flushing.pop_front()),
        }
    }

    /// A failed sync and corruption end the process; everything else is tried again later.
    fn failed(&mut self, error: JobError) -> Result<(), JobError> {
        let corrupt = matches!(error.error, Error::Corrupt { .. });
        if error.error.is_fatal() || corrupt || error.kind == JobKind::Flush {
            return Err(error);
        }
        self.log.failed(&error);
        if let JobKind::Load(cold) | JobKind::Warm(cold) = error.kind {
            self.warm(cold);
        }
        Ok(())
    }

    fn warm(&mut self, cold: ColdId) {
        for reader in self.cold.remove(&cold).unwrap_or_default() {
            self.read(reader);
        }
    }

    pub fn collect_jobs(&mut self) {
        while let Some(job) = self.log.job() {
            self.jobs.push(job);
        }
    }

    pub fn tick(&mut self, now_ms: u64) {
        self.log.tick(now_ms);
        self.collect_jobs();
    }

    /// A session asks for events.
    pub fn fetch(&mut self, reader: Reader, from: Offset, filter: TypeFilter, bytes_max: usize) {
        self.fetches.insert(reader, Fetch { from, filter, bytes_max });
        self.read(reader);
    }

    /// A session does not wait any more.
    pub fn cancel(&mut self, session: u64, fetch: FetchId) {
        if let Some(Fetch { filter, .. }) = self.fetches.remove(&(session, fetch)) {
            self.waiters.cancel((session, fetch), &filter);
        }
    }

    fn read(&mut self, reader: Reader) {
        let Some(fetch) = self.fetches.get_mut(&reader) else { return };
        let budget = Budget { events: 8, bytes: fetch.bytes_max };
        let Read { slices, next, status } = self.log.read(fetch.from, &fetch.filter, budget);
        fetch.from = next;
        if let Status::Cold { job, wait } = status {
            self.jobs.extend(job);
            if slices.is_empty() {
                self.cold.entry(wait).or_default().push(reader);
                return;
            }
        } else if slices.is_empty() {
            match status {
                Status::AtEnd => self.waiters.park(reader, &fetch.filter),
                _ => self.read(reader),
            }
            return;
        }
        self.fetches.remove(&reader);
        self.answers.push_back(Answer { reader, next, events: slices.into_iter().map(Piece).collect() });
    }
}

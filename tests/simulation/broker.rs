//! One life of the broker process: the real journal, state, partitions, coordinator and sessions, with their effects carried out
//! one at a time, in the order in which the schedule asks.

use crate::consumers::{Consumer, FromCoordinator, ToCoordinator, ToOwner};
use crate::disk::SimDisk;
use crate::history::{History, Move};
use crate::owner::{Apply, Owner};
use crate::random::Random;
use crate::rounds::{Flight, Pending};
use crate::start::{JOURNAL, Started};
use nistru::delivery::coordinator::{Coordinator, Effect};
use nistru::id::{FrameIndex, GroupId, Partition, SessionId, TypeId};
use nistru::journal::files::{FileJob, FileJobError};
use nistru::journal::sequencer::Sequencer;
use nistru::partition::{End, TypeFilter};
use nistru::state::State;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// The process must end: what it stands on cannot be trusted any more.
#[derive(Debug)]
pub struct Abort;

/// A checkpoint that waits for the partitions.
pub struct Checkpointing {
    pub index: FrameIndex,
    pub snapshot: nistru::state::Snapshot,
}

pub struct Broker {
    pub disk: SimDisk,
    pub random: Random,
    pub sequencer: Sequencer,
    pub state: State,
    pub owners: Vec<Owner>,
    pub coordinator: Coordinator,
    pub consumers: Vec<Consumer>,
    pub queue: VecDeque<Pending>,
    /// Frames on their way to the disk, oldest first.
    pub flights: VecDeque<Flight>,
    file_job: Option<FileJob<SimDisk>>,
    pub checkpointing: Option<Checkpointing>,
    pub filters: BTreeMap<GroupId, BTreeSet<TypeId>>,
    /// Requests answered in this life.
    pub answered: u64,
}

impl Broker {
    pub fn new(
        disk: SimDisk,
        random: Random,
        started: Started,
        filters: BTreeMap<GroupId, BTreeSet<TypeId>>,
    ) -> Self {
        let Started { sequencer, state, logs } = started;
        let owners =
            logs.into_iter().enumerate().map(|(id, log)| Owner::new(Partition(id as u8), log)).collect();
        Self {
            coordinator: Coordinator::new(state.partitions()),
            disk,
            random,
            sequencer,
            state,
            owners,
            consumers: Vec::new(),
            queue: VecDeque::new(),
            flights: VecDeque::new(),
            file_job: None,
            checkpointing: None,
            filters,
            answered: 0,
        }
    }

    /// Starts or finishes a piece of work on journal files.
    pub fn file_step(&mut self) -> Result<(), Abort> {
        match self.file_job.take() {
            None => {
                let random = &mut self.random;
                let work = self.sequencer.file_work(|| random.next());
                self.file_job = work.map(|work| FileJob::new(&self.disk, Path::new(JOURNAL), work));
            }
            Some(job) => match job.run() {
                Ok(done) => self.sequencer.file_done(done),
                Err(FileJobError::Full(_)) => self.sequencer.file_refused(),
                Err(FileJobError::Broken(_)) => return Err(Abort),
            },
        }
        Ok(())
    }

    /// Begins a checkpoint at the last frame applied.
    pub fn begin_checkpoint(&mut self) {
        if self.checkpointing.is_none() {
            let index = self.state.applied().index;
            self.owners.iter_mut().for_each(|owner| owner.inbox.push_back(Apply::Flush(index)));
            self.checkpointing = Some(Checkpointing { index, snapshot: self.state.snapshot() });
        }
    }

    /// The checkpoint under way with the partitions' ends, when all of them are durable.
    pub fn ripe_checkpoint(&mut self) -> Option<(Checkpointing, Vec<End>)> {
        let index = self.checkpointing.as_ref()?.index;
        let end = |owner: &Owner| owner.flushed.iter().find(|(at, _)| *at == index).map(|(_, end)| *end);
        let ends = self.owners.iter().map(end).collect::<Option<Vec<_>>>()?;
        self.owners.iter_mut().for_each(|owner| owner.flushed.clear());
        Some((self.checkpointing.take()?, ends))
    }

    pub fn join(&mut self, consumer: Consumer) {
        let (id, group) = (SessionId(consumer.id), consumer.group);
        self.consumers.push(consumer);
        let state = &self.state;
        self.coordinator
            .join(id, group, |partition| state.cursor(group, partition).expect("the group is defined"));
    }

    /// An operator's order.
    pub fn reset(&mut self, group: GroupId, partition: Partition, history: &mut History) {
        let (start, end) = (self.state.start(partition), self.state.end(partition));
        let offset = nistru::id::Offset(start.0 + self.random.below(end.0 - start.0 + 1));
        history.reset(group, partition, offset);
        let state = &self.state;
        let cursors = |partition| state.cursor(group, partition).expect("the group is defined");
        self.coordinator.reset(group, partition, offset, cursors);
    }

    /// Whether a reset is on its way to the journal, or was not applied yet.
    pub fn is_resetting(&self) -> bool {
        !self.flights.is_empty()
            || self.queue.iter().any(|pending| matches!(pending, Pending::Move(Move::Reset(..))))
    }

    /// Core 0 hears the oldest message of the consumer at `at`.
    pub fn coordinator_hears(&mut self, at: usize) {
        let consumer = &mut self.consumers[at];
        let session = SessionId(consumer.id);
        match consumer.to_coordinator.pop_front() {
            Some(ToCoordinator::Confirm(confirms)) => self.coordinator.confirm(session, &confirms),
            Some(ToCoordinator::Revoked { partition, epoch }) => {
                self.coordinator.revoked(session, partition, epoch);
            }
            Some(ToCoordinator::Leave) => self.coordinator.leave(session),
            None => {}
        }
    }

    /// Carries out what the coordinator wants done.
    pub fn coordinate(&mut self, history: &mut History) {
        while let Some(effect) = self.coordinator.poll() {
            match effect {
                Effect::Assign { session, partition, epoch, from } => {
                    let Some(consumer) = self.consumers.iter_mut().find(|it| it.id == session.0) else {
                        continue;
                    };
                    history.assigned(consumer.group, partition, session.0, epoch, from);
                    consumer.from_coordinator.push_back(FromCoordinator::Assign { partition, epoch, from });
                }
                Effect::Revoke { session, partition, epoch } => {
                    let consumer = self.consumers.iter_mut().find(|it| it.id == session.0);
                    let revoke = FromCoordinator::Revoke { partition, epoch };
                    consumer.expect("readers are members").from_coordinator.push_back(revoke);
                }
                Effect::Confirmed { group, partition, offset } => {
                    history.check_consumed(group, partition, offset);
                    self.queue.push_back(Pending::Move(Move::Cursor(group, partition, offset)));
                }
                Effect::Reset { group, partition, offset } => {
                    self.queue.push_back(Pending::Move(Move::Reset(group, partition, offset)));
                }
            }
        }
    }

    /// The oldest message of the consumer at `at` reaches the owner it is for.
    pub fn owner_hears(&mut self, at: usize) {
        let consumer = &mut self.consumers[at];
        let (id, group) = (consumer.id, consumer.group);
        match consumer.to_owners.pop_front() {
            Some(ToOwner::Fetch { partition, fetch, from, bytes_max }) => {
                let filter: TypeFilter = self.filters[&group].iter().copied().collect();
                let owner = &mut self.owners[usize::from(partition.0)];
                owner.fetch((id, fetch), from, filter, bytes_max);
                owner.collect_jobs();
            }
            Some(ToOwner::Cancel { partition, fetch }) => {
                self.owners[usize::from(partition.0)].cancel(id, fetch);
            }
            None => {}
        }
    }

    /// The oldest answer of the owner at `at` reaches the session that asked.
    pub fn answer(&mut self, at: usize) {
        let Some(answer) = self.owners[at].answers.pop_front() else { return };
        let (session, fetch) = answer.reader;
        if let Some(consumer) = self.consumers.iter_mut().find(|it| it.id == session && !it.closed) {
            consumer.fetched(fetch, answer.next, answer.events);
        }
    }

    /// Forgets connections that are gone and were heard out.
    pub fn bury(&mut self) {
        let alive = |it: &Consumer| !it.closed || !it.to_coordinator.is_empty() || !it.to_owners.is_empty();
        self.consumers.retain(alive);
    }

    pub fn expire(&mut self, partition: Partition, before_ms: u64) {
        if let Some(start) = self.owners[usize::from(partition.0)].log.expirable(before_ms) {
            self.queue.push_back(Pending::Move(Move::Start(partition, start)));
        }
    }
}

//! One life of the broker process: the real journal, state, partitions, coordinator and sessions, with their effects carried out
//! one at a time, in the order in which the schedule asks.

use crate::consumers::{Consumer, FromCoordinator, ToCoordinator, ToOwner};
use crate::disk::SimDisk;
use crate::history::{History, Move, Note, Number};
use crate::owner::{Apply, Owner};
use crate::random::Random;
use crate::start::{JOURNAL, Started};
use nistru::delivery::coordinator::{Coordinator, Effect};
use nistru::event::record::records;
use nistru::id::{FrameIndex, GroupId, Partition, SessionId, TypeId};
use nistru::journal::command::{Body, Command};
use nistru::journal::disk::{Disk, DiskFile};
use nistru::journal::files::{FileJob, FileJobError};
use nistru::journal::frame::{FrameHeader, HEADER_BYTES, frame_bytes};
use nistru::journal::sequencer::{Place, Round, Sequencer};
use nistru::partition::{End, TypeFilter};
use nistru::state::{GroupName, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// The process must end: what it stands on cannot be trusted any more.
#[derive(Debug)]
pub struct Abort;

/// Something that waits for a frame.
pub enum Pending {
    /// One request.
    Events {
        block: Vec<u8>,
        numbers: Vec<Number>,
    },
    DefineType {
        id: TypeId,
        name: String,
    },
    DefineGroup {
        id: GroupId,
        group: GroupName,
    },
    Move(Move),
}

/// A frame on its way to the disk.
struct Flight {
    round: Round,
    bytes: Vec<u8>,
    written: bool,
    /// Requests that the frame answers.
    requests: Vec<Vec<Number>>,
}

/// A checkpoint that waits for the partitions.
pub struct Checkpointing {
    pub index: FrameIndex,
    pub snapshot: nistru::state::Snapshot,
}

pub struct Broker {
    pub disk: SimDisk,
    random: Random,
    pub sequencer: Sequencer,
    pub state: State,
    pub owners: Vec<Owner>,
    coordinator: Coordinator,
    pub consumers: Vec<Consumer>,
    pub queue: VecDeque<Pending>,
    flight: Option<Flight>,
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
            flight: None,
            file_job: None,
            checkpointing: None,
            filters,
            answered: 0,
        }
    }

    /// Moves the frame in flight one step on, or fills in the next one.
    pub fn journal_step(&mut self, now_ms: u64, history: &mut History) -> Result<(), Abort> {
        match &mut self.flight {
            None => self.fill_frame(now_ms, history),
            Some(flight) if !flight.written => {
                flight.written = true;
                let file = self.disk.open(&flight.round.file.path(Path::new(JOURNAL))).map_err(|_| Abort)?;
                file.write_at(&flight.bytes[..flight.round.bytes], flight.round.position)
                    .map_err(|_| Abort)?;
            }
            Some(flight) => {
                let file = self.disk.open(&flight.round.file.path(Path::new(JOURNAL))).map_err(|_| Abort)?;
                file.sync().map_err(|_| Abort)?;
                self.commit(history);
            }
        }
        Ok(())
    }

    /// Whether the journal has nothing to do.
    pub fn is_quiet(&self) -> bool {
        self.flight.is_none() && self.queue.is_empty()
    }

    /// Packs some of what waits into the next frame.
    fn fill_frame(&mut self, now_ms: u64, history: &mut History) {
        let now_ms = now_ms.max(self.sequencer.tip().time_ms);
        let covering = self.queue.is_empty() && self.sequencer.uncovered() && self.random.chance(1, 4);
        let (take, waiting) = self.choose();
        if take == 0 && !covering || !matches!(self.sequencer.place(waiting), Place::At(_)) {
            return;
        }
        let mut taken: Vec<_> = self.queue.drain(..take).collect();
        for pending in &mut taken {
            self.screen(now_ms, pending);
        }
        let mut body = Body::default();
        taken.iter().for_each(|pending| pending.push(&mut body));
        let mut bytes = vec![0xee; frame_bytes(body.bytes())];
        let round = self.sequencer.frame(now_ms, &body, &mut bytes);
        history.framed(round.index, note(now_ms, &taken));
        let requests = taken.into_iter().filter_map(Pending::into_numbers).collect();
        self.flight = Some(Flight { round, bytes, written: false, requests });
    }

    /// How many of the waiting go into the next frame, and their bytes.
    fn choose(&mut self) -> (usize, usize) {
        let (most, room) = (1 + self.random.index(6), self.sequencer.body_bytes_max());
        let sums = self.queue.iter().take(most).scan(0, |sum, pending| {
            *sum += pending.bytes();
            Some(*sum)
        });
        (1..).zip(sums.take_while(|sum| *sum <= room)).last().unwrap_or((0, 0))
    }

    /// Requests that were not answered.
    pub fn unanswered(&self) -> Vec<Number> {
        let waiting = self.queue.iter().filter_map(|pending| match pending {
            Pending::Events { numbers, .. } => Some(numbers),
            _ => None,
        });
        let in_flight = self.flight.iter().flat_map(|flight| &flight.requests);
        in_flight.chain(waiting).flatten().copied().collect()
    }

    /// Leaves repeats out of a request.
    fn screen(&mut self, now_ms: u64, pending: &mut Pending) {
        if let Pending::Events { block, .. } = pending
            && let Some(kept) = self.state.dedup().screen(now_ms, block)
        {
            *block = kept;
        }
    }

    /// The frame in flight is durable: it is applied, and its requests are answered.
    fn commit(&mut self, history: &mut History) {
        let Flight { round, bytes, requests, .. } = self.flight.take().expect("a frame is in flight");
        self.sequencer.synced(round.index);
        history.acknowledge(round.index);
        let header = FrameHeader::read(&bytes).expect("a sound header");
        let body = &bytes[HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize];
        self.state.apply(&header, body).expect("the frame applies");
        for command in nistru::journal::command::commands(body) {
            self.distribute(command.expect("a sound command"));
        }
        for request in requests {
            self.answered += 1;
            assert!(request.iter().all(|number| history.is_stored(*number)), "answered and not stored");
        }
    }

    /// Tells those whom a committed command concerns.
    fn distribute(&mut self, command: Command<'_>) {
        match command {
            Command::Events(block) => {
                for (_, record) in records(block).map(|record| record.expect("a sound record")) {
                    let owner = &mut self.owners[usize::from(record.header().partition.0)];
                    owner.inbox.push_back(Apply::Record(record.bytes().to_vec()));
                }
            }
            Command::Expire { partition, start } => {
                self.owners[usize::from(partition.0)].inbox.push_back(Apply::Expire(start));
                self.coordinator.expired(partition, start);
            }
            _ => {}
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
        self.flight.is_some()
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

impl Pending {
    fn bytes(&self) -> usize {
        let mut body = Body::default();
        self.push(&mut body);
        body.bytes()
    }

    fn push<'a>(&'a self, body: &mut Body<'a>) {
        let command = match self {
            Self::Events { block, .. } if block.is_empty() => return,
            Self::Events { block, .. } => Command::Events(block),
            Self::DefineType { id, name } => Command::DefineType { id: *id, name },
            Self::DefineGroup { id, group } => {
                Command::DefineGroup { id: *id, client: group.client, name: &group.name }
            }
            Self::Move(step) => step.command(),
        };
        body.push(&command);
    }

    fn into_numbers(self) -> Option<Vec<Number>> {
        match self {
            Self::Events { numbers, .. } => Some(numbers),
            _ => None,
        }
    }
}

impl Move {
    fn command(self) -> Command<'static> {
        match self {
            Self::Cursor(group, partition, offset) => Command::Confirm { group, partition, offset },
            Self::Start(partition, start) => Command::Expire { partition, start },
            Self::Reset(group, partition, offset) => Command::ResetCursor { group, partition, offset },
        }
    }
}

/// What the history is to know of a frame.
fn note(time_ms: u64, taken: &[Pending]) -> Note {
    let mut note = Note { time_ms, ..Note::default() };
    for pending in taken {
        match pending {
            Pending::Events { block, .. } => note.events.extend(numbers_in(block)),
            Pending::Move(step) => note.moves.push(*step),
            Pending::DefineType { .. } | Pending::DefineGroup { .. } => {}
        }
    }
    note
}

fn numbers_in(block: &[u8]) -> impl Iterator<Item = Number> {
    records(block).map(|record| crate::history::number_of(record.expect("a sound record").1.event()))
}

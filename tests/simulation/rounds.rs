//! The journal's rounds, as the head of the broker makes them: frames are filled, written and synced, two of them in any order, and
//! applied and answered in theirs.

use crate::broker::{Abort, Broker};
use crate::disk::SimDisk;
use crate::history::{History, Move, Note, Number, number_of};
use crate::owner::Apply;
use crate::start::JOURNAL;
use nistru::event::record::records;
use nistru::id::{GroupId, TypeId};
use nistru::journal::command::{Body, Command, commands};
use nistru::journal::disk::{Disk, DiskFile};
use nistru::journal::frame::{FrameHeader, HEADER_BYTES, frame_bytes};
use nistru::journal::sequencer::{Place, ROUNDS_IN_FLIGHT_MAX, Round};
use nistru::state::GroupName;
use std::io;
use std::path::Path;

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
pub struct Flight {
    round: Round,
    bytes: Vec<u8>,
    stage: Stage,
    /// Whether it must be the only one.
    alone: bool,
    /// Requests that the frame answers.
    requests: Vec<Vec<Number>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Placed,
    Written,
    Durable,
}

impl Flight {
    /// Comes one step nearer to the disk.
    fn proceed(&mut self, disk: &SimDisk) -> io::Result<()> {
        let file = disk.open(&self.round.file.path(Path::new(JOURNAL)))?;
        self.stage = match self.stage {
            Stage::Placed => {
                file.write_at(&self.bytes[..self.round.bytes], self.round.position)?;
                Stage::Written
            }
            Stage::Written => {
                file.sync()?;
                Stage::Durable
            }
            Stage::Durable => Stage::Durable,
        };
        Ok(())
    }
}

impl Broker {
    /// Moves a frame in flight one step on, or fills in the next one.
    pub fn journal_step(&mut self, now_ms: u64, history: &mut History) -> Result<(), Abort> {
        let choices = self.flights.len() + usize::from(self.may_place());
        let at = self.random.index(choices);
        match self.flights.get_mut(at) {
            None => self.fill_frame(now_ms, history),
            Some(flight) => {
                flight.proceed(&self.disk).map_err(|_| Abort)?;
                while let Some(flight) = self.flights.pop_front_if(|flight| flight.stage == Stage::Durable) {
                    self.commit(flight, history);
                }
            }
        }
        Ok(())
    }

    /// Whether the journal has nothing to do.
    pub fn is_quiet(&self) -> bool {
        self.flights.is_empty() && self.queue.is_empty()
    }

    /// Whether the next frame may be filled in now.
    fn may_place(&self) -> bool {
        let Some(last) = self.flights.back() else { return true };
        let room = (self.flights.len() as u64) < ROUNDS_IN_FLIGHT_MAX;
        room && !last.alone && !self.queue.iter().any(Pending::is_own)
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
        let alone = taken.iter().any(Pending::is_own);
        let requests = taken.into_iter().filter_map(Pending::into_numbers).collect();
        self.flights.push_back(Flight { round, bytes, stage: Stage::Placed, alone, requests });
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
        let in_flight = self.flights.iter().flat_map(|flight| &flight.requests);
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

    /// The first frame in flight is durable: it is applied, and its requests are answered.
    fn commit(&mut self, flight: Flight, history: &mut History) {
        let Flight { round, bytes, requests, .. } = flight;
        self.sequencer.synced(round.index);
        history.acknowledge(round.index);
        let header = FrameHeader::read(&bytes).expect("a sound header");
        let body = &bytes[HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize];
        self.state.apply(&header, body).expect("the frame applies");
        for command in commands(body) {
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

    /// Whether it is a command of the broker's own. The broker numbers those by what is applied, so their frame is alone in flight.
    fn is_own(&self) -> bool {
        !matches!(self, Self::Events { .. } | Self::Move(Move::Cursor(..)))
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
    records(block).map(|record| number_of(record.expect("a sound record").1.event()))
}

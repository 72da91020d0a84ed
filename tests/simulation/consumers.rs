//! Consumers and the sessions that the broker keeps for them, with the queues between the session's core and core 0.

use crate::disk::SimFile;
use crate::history::History;
use crate::random::Random;
use nistru::delivery::Confirm;
use nistru::delivery::session::{self, Effect, Event, FetchId, Limits, Session};
use nistru::id::{Epoch, GroupId, Offset, Partition};
use nistru::partition::Slice;
use nistru::partition::heap::HeapMap;
use std::collections::VecDeque;

/// A stored event on its way to a consumer.
pub struct Piece(pub Slice<HeapMap<SimFile>>);

impl Event for Piece {
    fn offset(&self) -> Offset {
        self.0.offset()
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// From the session's core to core 0.
#[derive(Clone, Debug)]
pub enum ToCoordinator {
    Confirm(Vec<Confirm>),
    Revoked { partition: Partition, epoch: Epoch },
    Leave,
}

/// From core 0 to the session's core.
#[derive(Clone, Copy, Debug)]
pub enum FromCoordinator {
    Assign { partition: Partition, epoch: Epoch, from: Offset },
    Revoke { partition: Partition, epoch: Epoch },
}

/// From the session's core to the owner of a partition.
#[derive(Clone, Copy, Debug)]
pub enum ToOwner {
    Fetch { partition: Partition, fetch: FetchId, from: Offset, bytes_max: usize },
    Cancel { partition: Partition, fetch: FetchId },
}

/// One connection: the consumer at its far end, and its session.
pub struct Consumer {
    pub id: u64,
    pub group: GroupId,
    session: Session<Piece>,
    pub to_coordinator: VecDeque<ToCoordinator>,
    pub from_coordinator: VecDeque<FromCoordinator>,
    pub to_owners: VecDeque<ToOwner>,
    /// What the consumer received, by session offset minus 1.
    received: Vec<(Partition, Epoch, Offset)>,
    /// Assignments as the session knows them.
    epochs: Vec<(Partition, Epoch)>,
    /// Set once it has disconnected.
    pub closed: bool,
}

impl Consumer {
    pub fn new(id: u64, group: GroupId, random: &mut Random) -> Self {
        let limits = Limits {
            window_events: 1 + random.index(12),
            window_bytes: 200 + random.index(4000),
            fetch_bytes: 1 + random.index(2000),
            grace_ms: random.below(2000),
        };
        Self {
            id,
            group,
            session: Session::new(limits),
            to_coordinator: VecDeque::new(),
            from_coordinator: VecDeque::new(),
            to_owners: VecDeque::new(),
            received: Vec::new(),
            epochs: Vec::new(),
            closed: false,
        }
    }

    /// The oldest message from the coordinator arrives.
    pub fn hear(&mut self, now_ms: u64) {
        match self.from_coordinator.pop_front() {
            Some(FromCoordinator::Assign { partition, epoch, from }) => {
                self.epochs.push((partition, epoch));
                self.session.assigned(partition, epoch, from);
            }
            Some(FromCoordinator::Revoke { partition, epoch }) => {
                self.session.revoke(partition, epoch, now_ms)
            }
            None => {}
        }
        self.poll();
    }

    /// An owner's answer arrives.
    pub fn fetched(&mut self, fetch: FetchId, next: Offset, events: Vec<Piece>) {
        self.session.fetched(fetch, next, events);
        self.poll();
    }

    /// The socket takes up to `count` events.
    pub fn receive(&mut self, count: usize, history: &mut History) {
        for _ in 0..count {
            let Some((number, event)) = self.session.next_event() else { break };
            assert_eq!(number, self.received.len() as u64 + 1, "session offsets count from 1");
            let partition = event.0.record().header().partition;
            let held = self.epochs.iter().find(|(held, _)| *held == partition);
            let (_, epoch) = *held.expect("events come from assigned partitions");
            history.delivered((self.group, self.id), (partition, epoch), event.offset(), &event.0);
            self.received.push((partition, epoch, event.offset()));
        }
        self.poll();
    }

    /// The consumer confirms a random first part of what it received, or all of it.
    pub fn confirm(&mut self, all: bool, random: &mut Random, history: &mut History) {
        let received = self.received.len();
        if received == 0 {
            return;
        }
        let upto = if all { received } else { 1 + random.index(received) };
        for &(partition, epoch, offset) in &self.received[..upto] {
            history.consumed(self.group, partition, epoch, offset);
        }
        self.session.confirm(upto as u64).expect("it was sent");
        self.poll();
    }

    /// The consumer is done with one event ahead of others.
    pub fn done(&mut self, random: &mut Random, history: &mut History) {
        if self.received.is_empty() {
            return;
        }
        let at = random.index(self.received.len());
        let (partition, epoch, offset) = self.received[at];
        history.consumed(self.group, partition, epoch, offset);
        self.session.done(at as u64 + 1).expect("it was sent");
        self.poll();
    }

    /// The consumer confirms what it never received.
    pub fn confirm_nonsense(&mut self) {
        let never = self.received.len() as u64 + 1;
        assert!(self.session.confirm(never).is_err() && self.session.confirm(0).is_err());
    }

    pub fn reread(&mut self) {
        self.session.reread();
        self.poll();
    }

    pub fn tick(&mut self, now_ms: u64) {
        self.session.tick(now_ms);
        self.poll();
    }

    /// The connection breaks: what it waits for is cancelled, and the coordinator hears of it after all that it was told before.
    pub fn close(&mut self) {
        let outstanding: Vec<_> = self.session.outstanding().collect();
        for (partition, fetch) in outstanding {
            self.to_owners.push_back(ToOwner::Cancel { partition, fetch });
        }
        self.to_coordinator.push_back(ToCoordinator::Leave);
        self.closed = true;
    }

    fn poll(&mut self) {
        while let Some(effect) = self.session.poll() {
            match effect {
                Effect::Confirm(confirms) => self.to_coordinator.push_back(ToCoordinator::Confirm(confirms)),
                Effect::Revoked { partition, epoch } => {
                    self.epochs.retain(|held| *held != (partition, epoch));
                    self.to_coordinator.push_back(ToCoordinator::Revoked { partition, epoch });
                }
                Effect::Cancel { partition, fetch } => {
                    self.to_owners.push_back(ToOwner::Cancel { partition, fetch })
                }
                Effect::Fetch { partition, fetch, from, bytes_max } => {
                    self.to_owners.push_back(ToOwner::Fetch { partition, fetch, from, bytes_max });
                }
            }
        }
    }
}

/// The name of a fetch at its owner.
pub type Reader = (u64, session::FetchId);

//! Properties of a session under any sequence of inputs, against a history that is kept the obvious way.

use super::Confirm;
use super::session::{Effect, Event, FetchId, Limits, Session};
use crate::id::{Epoch, Offset, Partition};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { window_events: 4, window_bytes: 1000, fetch_bytes: 100, grace_ms: 500 };

/// An event that says for which assignment it was fetched.
#[derive(Clone, Copy, Debug)]
struct Sample {
    partition: Partition,
    epoch: Epoch,
    offset: Offset,
}

impl Event for Sample {
    fn offset(&self) -> Offset {
        self.offset
    }

    fn bytes(&self) -> usize {
        10
    }
}

impl Sample {
    fn lane(&self) -> (Partition, Epoch) {
        (self.partition, self.epoch)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assign(u8),
    Revoke(usize),
    Answer { fetch: usize, skip: u64, count: u64 },
    Send(usize),
    Confirm(u64),
    Done(u64),
    Reread,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..5u8).prop_map(Step::Assign),
        1 => any::<usize>().prop_map(Step::Revoke),
        6 => (any::<usize>(), 0..3u64, 0..4u64).prop_map(|(fetch, skip, count)| Step::Answer { fetch, skip, count }),
        6 => (0..5usize).prop_map(Step::Send),
        3 => any::<u64>().prop_map(Step::Confirm),
        2 => any::<u64>().prop_map(Step::Done),
        1 => Just(Step::Reread),
        1 => (0..400u64).prop_map(Step::Pass),
    ]
}

/// The session with its whole history, kept the obvious way.
struct World {
    session: Session<Sample>,
    now_ms: u64,
    /// Partitions held, with epoch and whether they drain.
    held: BTreeMap<Partition, (Epoch, bool)>,
    epochs: u64,
    /// Fetches that were not answered, cancelled ones too: the owner may have answered before it heard of the cancel.
    fetches: Vec<(FetchId, Sample)>,
    /// Every event sent, at session offset minus 1.
    sent: Vec<Sample>,
    /// Session offsets that were confirmed or done.
    consumed: BTreeSet<u64>,
    cursors: BTreeMap<(Partition, Epoch), Offset>,
}

impl World {
    fn new() -> Self {
        Self {
            session: Session::new(LIMITS),
            now_ms: 0,
            held: BTreeMap::new(),
            epochs: 0,
            fetches: Vec::new(),
            sent: Vec::new(),
            consumed: BTreeSet::new(),
            cursors: BTreeMap::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Assign(partition) => self.assign(Partition(partition)),
            Step::Revoke(at) => self.revoke(at),
            Step::Answer { fetch, skip, count } => self.answer(fetch, skip, count),
            Step::Send(count) => (0..count).for_each(|_| self.send()),
            Step::Confirm(offset) => self.confirm(offset % (self.sent.len() as u64 + 2)),
            Step::Done(offset) => self.done(offset % (self.sent.len() as u64 + 2)),
            Step::Reread => self.session.reread(),
            Step::Pass(ms) => {
                self.now_ms += ms;
                self.session.tick(self.now_ms);
            }
        }
        while let Some(effect) = self.session.poll() {
            self.apply(effect);
        }
        self.check_cursors();
    }

    fn assign(&mut self, partition: Partition) {
        if !self.held.contains_key(&partition) {
            self.epochs += 1;
            self.held.insert(partition, (Epoch(self.epochs), false));
            self.session.assigned(partition, Epoch(self.epochs), Offset(0));
        }
    }

    fn revoke(&mut self, at: usize) {
        if let Some((&partition, (epoch, draining))) = self.held.iter_mut().nth(at % 5) {
            *draining = true;
            self.session.revoke(partition, *epoch, self.now_ms);
        }
    }

    fn answer(&mut self, at: usize, skip: u64, count: u64) {
        if !self.fetches.is_empty() {
            let (fetch, from) = self.fetches.remove(at % self.fetches.len());
            let first = from.offset.0 + skip;
            let events = (first..first + count).map(|offset| Sample { offset: Offset(offset), ..from });
            self.session.fetched(fetch, Offset(first + count), events.collect());
        }
    }

    fn send(&mut self) {
        let Some((offset, event)) = self.session.next_event() else { return };
        assert!(self.session.unconfirmed() <= LIMITS.window_events);
        assert_eq!(self.held[&event.partition], (event.epoch, false), "sent of a partition it may not read");
        let before = self.sent.iter().rfind(|sent| sent.lane() == event.lane());
        assert!(before.is_none_or(|before| before.offset < event.offset), "out of order");
        self.sent.push(event);
        assert_eq!(offset, self.sent.len() as u64);
    }

    fn confirm(&mut self, offset: u64) {
        let known = (1..=self.sent.len() as u64).contains(&offset);
        assert_eq!(self.session.confirm(offset).is_ok(), known);
        if known {
            self.consumed.extend(1..=offset);
        }
    }

    fn done(&mut self, offset: u64) {
        let known = (1..=self.sent.len() as u64).contains(&offset);
        assert_eq!(self.session.done(offset).is_ok(), known);
        if known {
            self.consumed.insert(offset);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Confirm(confirms) => {
                for Confirm { partition, epoch, offset } in confirms {
                    assert_eq!(self.held[&partition].0, epoch);
                    let before = self.cursors.insert((partition, epoch), offset);
                    assert!(before.is_none_or(|before| before < offset));
                }
            }
            Effect::Revoked { partition, epoch } => {
                assert_eq!(self.held.remove(&partition), Some((epoch, true)))
            }
            Effect::Cancel { partition, fetch } => {
                assert!(!self.session.outstanding().any(|it| it == (partition, fetch)));
            }
            Effect::Fetch { partition, fetch, from, .. } => {
                let (epoch, draining) = self.held[&partition];
                assert!(!draining);
                self.fetches.push((fetch, Sample { partition, epoch, offset: from }));
            }
        }
    }

    /// Each reported cursor is exactly behind the unbroken run of consumed events of its assignment.
    fn check_cursors(&self) {
        for (&partition, &(epoch, _)) in &self.held {
            let of_lane = self.sent.iter().zip(1..).filter(|(sent, _)| sent.lane() == (partition, epoch));
            let consumed = of_lane.take_while(|(_, offset)| self.consumed.contains(offset));
            let expected = consumed.last().map(|(sent, _)| sent.offset.next());
            assert_eq!(self.cursors.get(&(partition, epoch)), expected.as_ref());
        }
    }
}

proptest! {
    #[test]
    fn order_window_and_cursors_hold_whatever_happens(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
    }
}

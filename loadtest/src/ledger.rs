//! Which events were delivered to a group, and what that says about the broker's promises.
//!
//! Each partition key belongs to one producer, which has one request in flight: an event of a key was acknowledged
//! before the next one was sent. So in a group, when an event arrives for the first time, everything of the same key
//! and the group's types before it must have arrived, unless it was refused. An event may come again only when a member of
//! the group came or went: delivery is at least once, and repeats have a reason.
//!
//! What is kept does not grow with the events: two numbers for each producer and key, and what is irregular, bounded.

use crate::report::Flow;
use crate::scenario::{Mix, TypeSet};
use crate::sent::{Sent, Unanswered};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Overtaken events told apart; more are counted as lost even if they come later.
const OVERTAKEN_MAX: usize = 1 << 20;

/// What the consumers of one group have received.
pub struct Ledger {
    mix: Arc<Mix>,
    types: TypeSet,
    keys: u64,
    /// For each producer and key.
    streams: Vec<Stream>,
    first_time: AtomicU64,
    repeated: AtomicU64,
    unexcused: AtomicU64,
    /// Whether a member came or went so recently that any event may come again.
    is_unsettled: AtomicBool,
    irregular: Mutex<Irregular>,
}

/// The events of one key, each counted within it.
#[derive(Default)]
struct Stream {
    /// One more than the highest event seen.
    seen: AtomicU64,
    /// One more than the highest event that may come again, because a member came or went after it.
    excused: AtomicU64,
}

/// What is rare in a healthy run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Irregular {
    /// Events (producer, sequence) that were overtaken by a later one of their key and have not arrived.
    overtaken: BTreeSet<(usize, u64)>,
    /// How many more were overtaken.
    overtaken_beyond: u64,
    /// How many events arrived after a later one of their key.
    out_of_order: u64,
    /// Events that no producer of this run has, that the group does not read, or that had been refused.
    alien: u64,
    /// Refused events that were overtaken and so did not arrive.
    refused: u64,
}

/// What a group has received, for a judgement that may take place elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Received {
    seen: Vec<u64>,
    first_time: u64,
    repeated: u64,
    unexcused: u64,
    irregular: Irregular,
}

/// The judgement on a group.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Different events received.
    pub received: u64,
    /// Events received again.
    pub repeated: u64,
    /// Those of them that came again although no member of the group had come or gone.
    #[serde(default)]
    pub unexcused: u64,
    /// Acknowledged events that never arrived.
    pub lost: u64,
    /// Events that first arrived after a later one of their key.
    pub out_of_order: u64,
    /// Events that arrived although the broker refused them, or that nobody sent to this group.
    pub unexpected: u64,
}

impl Verdict {
    /// Whether the broker kept its promises.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.unexpected == 0 && self.unexcused == 0
    }
}

impl Ledger {
    pub fn new(mix: Arc<Mix>, types: TypeSet, producers: usize, keys: usize) -> Self {
        Self {
            mix,
            types,
            keys: keys as u64,
            streams: (0..producers * keys).map(|_| Stream::default()).collect(),
            first_time: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            unexcused: AtomicU64::new(0),
            is_unsettled: AtomicBool::new(false),
            irregular: Mutex::default(),
        }
    }

    /// Notes an event that arrived, before it is confirmed. `true` when it came for the first time. `sent`: what is known
    /// of the producers here, so that refused events need not be remembered as overtaken.
    ///
    /// Members of a group never hold a key at the same time: the broker moves a partition to another member only when
    /// the events it has sent are confirmed or will come again. So the order of two notes on a key is the order in
    /// which the broker delivered.
    pub fn arrived(&self, producer: usize, sequence: u64, sent: &Sent) -> bool {
        let stream = self.streams.get(producer * self.keys as usize + (sequence % self.keys) as usize);
        let (Some(stream), true) = (stream, self.types.contains(self.mix.type_of(producer, sequence))) else {
            self.irregular().alien += 1;
            return false;
        };
        let number = sequence / self.keys;
        let expected = stream.seen.fetch_max(number + 1, Ordering::AcqRel);
        if number > expected {
            self.overtake(producer, sequence, expected..number, sent);
        }
        let is_new = number >= expected || self.arrived_late(producer, sequence);
        if is_new {
            self.first_time.fetch_add(1, Ordering::Relaxed);
        } else if sent.of(producer).refused.contains(sequence) {
            self.irregular().alien += 1;
        } else {
            self.note_repeat(stream, number);
        }
        is_new
    }

    fn overtake(&self, producer: usize, sequence: u64, numbers: Range<u64>, sent: &Sent) {
        let key = sequence % self.keys;
        let reads = |sequence: &u64| self.types.contains(self.mix.type_of(producer, *sequence));
        let overtaken = numbers.map(|number| number * self.keys + key).filter(reads);
        // Of a group that reads rare types, most keys are passed over again and again without anything to note.
        let mut overtaken = overtaken.peekable();
        if overtaken.peek().is_none() {
            return;
        }
        let events = sent.of(producer);
        let mut irregular = self.irregular();
        for sequence in overtaken {
            if events.refused.contains(sequence) {
                irregular.refused += 1;
            } else if irregular.overtaken.len() < OVERTAKEN_MAX {
                irregular.overtaken.insert((producer, sequence));
            } else {
                irregular.overtaken_beyond += 1;
            }
        }
    }

    fn note_repeat(&self, stream: &Stream, number: u64) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
        let is_excused =
            self.is_unsettled.load(Ordering::Relaxed) || number < stream.excused.load(Ordering::Relaxed);
        self.unexcused.fetch_add(u64::from(!is_excused), Ordering::Relaxed);
    }

    fn arrived_late(&self, producer: usize, sequence: u64) -> bool {
        let mut irregular = self.irregular();
        let late = irregular.overtaken.remove(&(producer, sequence));
        irregular.out_of_order += u64::from(late);
        late
    }

    /// Notes that a member came or went: from now on every event may come again.
    pub fn unsettle(&self) {
        self.is_unsettled.store(true, Ordering::Relaxed);
    }

    /// Notes that the group has found its order again: what comes for the first time from now on may not come again.
    pub fn settle(&self) {
        for stream in &self.streams {
            stream.excused.fetch_max(stream.seen.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.is_unsettled.store(false, Ordering::Relaxed);
    }

    fn irregular(&self) -> MutexGuard<'_, Irregular> {
        // A consumer that panicked takes the process with it (`panic = "abort"` in releases).
        self.irregular.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many different events have arrived.
    pub fn received(&self) -> u64 {
        self.first_time.load(Ordering::Relaxed)
    }

    /// What has arrived so far.
    pub fn snapshot(&self) -> Received {
        Received {
            seen: self.streams.iter().map(|stream| stream.seen.load(Ordering::Acquire)).collect(),
            first_time: self.received(),
            repeated: self.repeated.load(Ordering::Relaxed),
            unexcused: self.unexcused.load(Ordering::Relaxed),
            irregular: self.irregular().clone(),
        }
    }
}

impl Received {
    /// Notes in `consumed` what a group that reads `types` still waits for of the events that were never answered.
    pub fn note_waiting(&self, mix: &Mix, types: &TypeSet, keys: usize, sent: &Sent, consumed: &mut Flow) {
        for producer in sent.producers() {
            for Unanswered { events, waited_ns } in &sent.of(producer).unanswered {
                let is_missing = |sequence: &u64| {
                    let seen = self.seen[producer * keys + *sequence as usize % keys];
                    let has_passed = sequence / (keys as u64) < seen;
                    types.contains(mix.type_of(producer, *sequence))
                        && (!has_passed || self.irregular.overtaken.contains(&(producer, *sequence)))
                };
                consumed.note_waiting(events.clone().filter(is_missing).count() as u64, *waited_ns);
            }
        }
    }

    /// Judges what arrived at a group that reads `types` against what all producers sent.
    pub fn judge(&self, mix: &Mix, types: &TypeSet, keys: usize, sent: &Sent) -> Verdict {
        let Irregular { overtaken, overtaken_beyond, out_of_order, alien, refused } = &self.irregular;
        let (mut lost, mut absent) = (*overtaken_beyond, *refused);
        for &(producer, sequence) in overtaken {
            let events = sent.of(producer);
            let is_refused = events.refused.contains(sequence);
            absent += u64::from(is_refused);
            lost += u64::from(!is_refused && !events.unknown.contains(sequence));
        }
        let mut passed = 0;
        for producer in sent.producers() {
            let events = sent.of(producer);
            let seen = &self.seen[producer * keys..][..keys];
            let reads = |sequence: &u64| types.contains(mix.type_of(producer, *sequence));
            let is_passed = |sequence: &u64| sequence / (keys as u64) < seen[*sequence as usize % keys];
            passed += events.refused.iter().filter(|sequence| is_passed(sequence) && reads(sequence)).count()
                as u64;
            lost += tail(seen, events.sent)
                .filter(|sequence| !events.refused.contains(*sequence) && !events.unknown.contains(*sequence))
                .filter(reads)
                .count() as u64;
        }
        Verdict {
            received: self.first_time,
            repeated: self.repeated,
            unexcused: self.unexcused,
            lost,
            out_of_order: *out_of_order,
            unexpected: alien + (passed - absent.min(passed)),
        }
    }
}

/// The sequences below `sent` that come after the last ones `seen` of each key.
fn tail(seen: &[u64], sent: u64) -> impl Iterator<Item = u64> + '_ {
    let keys = seen.len();
    seen.iter().enumerate().flat_map(move |(key, seen)| (seen * keys as u64 + key as u64..sent).step_by(keys))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{EventType, Scenario};

    struct Group {
        ledger: Ledger,
        sent: Sent,
        keys: usize,
    }

    impl Group {
        /// A group that reads everything of producers that sent so many events.
        fn new(keys: usize, sent: &[u64]) -> Self {
            Self::reading(TypeSet::All, Scenario::default(), keys, sent)
        }

        fn reading(types: TypeSet, scenario: Scenario, keys: usize, counts: &[u64]) -> Self {
            let sent = Sent::new(counts.len());
            counts.iter().enumerate().for_each(|(producer, count)| sent.of(producer).sent = *count);
            Self { ledger: Ledger::new(Arc::new(Mix::new(&scenario)), types, counts.len(), keys), sent, keys }
        }

        fn arrive(&self, sequences: &[u64]) {
            for sequence in sequences {
                self.ledger.arrived(0, *sequence, &self.sent);
            }
        }

        fn verdict(&self) -> Verdict {
            let Ledger { mix, types, .. } = &self.ledger;
            self.ledger.snapshot().judge(mix, types, self.keys, &self.sent)
        }
    }

    #[test]
    fn keys_may_interleave_in_any_way() {
        let group = Group::new(2, &[5]);
        group.arrive(&[1, 3, 0, 2, 4]);
        assert_eq!(group.verdict(), Verdict { received: 5, ..Verdict::default() });
        assert!(group.verdict().is_good());
    }

    #[test]
    fn what_never_comes_is_lost_in_the_middle_and_at_the_end() {
        let group = Group::new(2, &[6, 2]);
        group.arrive(&[0, 4, 1]);
        // Missing: 2 (overtaken by 4), 3 and 5 (after 1), and both events of the other producer.
        assert_eq!(group.verdict().lost, 5);
    }

    #[test]
    fn an_event_after_a_later_one_of_its_key_is_out_of_order_but_not_lost() {
        let group = Group::new(1, &[4]);
        group.arrive(&[0, 2, 1, 3]);
        assert_eq!(group.verdict(), Verdict { received: 4, out_of_order: 1, ..Verdict::default() });
    }

    #[test]
    fn events_come_again_only_after_a_member_came_or_went() {
        let group = Group::new(1, &[4]);
        group.arrive(&[0, 1]);
        group.ledger.unsettle();
        group.arrive(&[1, 2, 2]);
        group.ledger.settle();
        group.arrive(&[1, 3]);
        let excused = Verdict { received: 4, repeated: 3, ..Verdict::default() };
        assert_eq!(group.verdict(), excused);
        assert!(excused.is_good());
        group.arrive(&[3]);
        assert_eq!(group.verdict(), Verdict { repeated: 4, unexcused: 1, ..excused });
        assert!(!group.verdict().is_good());
    }

    #[test]
    fn refused_events_must_be_missing_and_unknown_ones_may_be() {
        let group = Group::new(1, &[6]);
        group.sent.of(0).refused.push(1..2);
        group.sent.of(0).refused.push(4..5);
        group.sent.of(0).unknown.push(5..6);
        group.arrive(&[0, 2, 3]);
        assert_eq!(group.verdict(), Verdict { received: 3, ..Verdict::default() });
        group.arrive(&[1]);
        assert_eq!(group.verdict().unexpected, 1);
    }

    #[test]
    fn a_refusal_that_is_known_after_the_event_came_or_was_overtaken_counts_the_same() {
        let group = Group::new(1, &[4]);
        group.arrive(&[0, 2, 3]);
        group.sent.of(0).refused.push(1..3);
        assert_eq!(group.verdict(), Verdict { received: 3, unexpected: 1, ..Verdict::default() });
    }

    #[test]
    fn a_group_waits_for_unanswered_events_that_have_not_come() {
        let group = Group::new(2, &[8]);
        for events in [1..4, 6..8] {
            group.sent.of(0).unknown.push(events.clone());
            group.sent.of(0).unanswered.push(Unanswered { events, waited_ns: 5_000_000 });
        }
        // Of key 0, 2 was overtaken; of key 1, nothing after 3 has come.
        group.arrive(&[0, 1, 3, 4, 6]);
        let Ledger { mix, types, .. } = &group.ledger;
        let mut consumed = Flow::new();
        group.ledger.snapshot().note_waiting(mix, types, group.keys, &group.sent, &mut consumed);
        assert_eq!((consumed.lower_bounds, consumed.latency.samples()), (2, 2));
    }

    #[test]
    fn events_of_nobody_are_unexpected() {
        let group = Group::new(1, &[0]);
        assert!(!group.ledger.arrived(9, 0, &group.sent));
        assert_eq!(group.verdict().unexpected, 1);
    }

    #[test]
    fn the_tail_counts_every_event_of_every_key() {
        for count in 0..10 {
            assert_eq!(Group::new(3, &[count]).verdict().lost, count);
        }
    }

    #[test]
    fn a_group_of_some_types_misses_only_those() {
        let rare = EventType { share: 0.1, ..EventType::named("A.B.C.Rare") };
        let scenario =
            || Scenario { types: vec![EventType::named("A.B.C.D"), rare.clone()], ..Scenario::default() };
        let reading_rare = || Group::reading(TypeSet::Some(vec![false, true]), scenario(), 4, &[1000]);
        let group = reading_rare();
        let mix = Mix::new(&scenario());
        let rare: Vec<u64> = (0..1000).filter(|sequence| mix.type_of(0, *sequence) == 1).collect();
        assert_eq!(group.verdict().lost, rare.len() as u64);
        group.arrive(&rare);
        assert_eq!(group.verdict(), Verdict { received: rare.len() as u64, ..Verdict::default() });
        let other = (0..1000).find(|sequence| !rare.contains(sequence)).unwrap();
        group.arrive(&[other]);
        assert_eq!(group.verdict().unexpected, 1);
        let group = reading_rare();
        group.arrive(&[&rare[..3], &rare[4..]].concat());
        assert_eq!(group.verdict().lost, 1);
    }
}

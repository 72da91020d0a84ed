//! Which events were delivered to a group, and what that says about the broker's promises.
//!
//! Each partition key belongs to one producer, which has one request in flight: an event of a key was acknowledged
//! before the next one was sent. So in a group, when an event arrives for the first time, everything of the same key
//! before it must have arrived, unless it was refused. Repeats may come at any time: delivery is at least once.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the consumers of one group have received.
pub struct Ledger {
    keys: u64,
    /// For each producer and key: one more than the highest event seen, counted within the key.
    seen: Vec<AtomicU64>,
    first_time: AtomicU64,
    repeated: AtomicU64,
    irregular: Mutex<Irregular>,
}

/// What is rare in a healthy run.
#[derive(Default)]
struct Irregular {
    /// Events (producer, sequence) that were overtaken by a later one of their key and have not arrived.
    overtaken: BTreeSet<(usize, u64)>,
    /// How many events arrived after a later one of their key.
    out_of_order: u64,
    /// Events that no producer of this run has.
    alien: u64,
}

/// What the producers know in the end.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    /// For each producer: how many events it sent.
    pub sent: Vec<u64>,
    /// Events (producer, sequence) that the broker refused.
    pub refused: BTreeSet<(usize, u64)>,
    /// Events whose answer never came: they may or may not be delivered.
    pub unknown: BTreeSet<(usize, u64)>,
}

/// The judgement on a group.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Verdict {
    /// Different events received.
    pub received: u64,
    /// Events received again.
    pub repeated: u64,
    /// Acknowledged events that never arrived.
    pub lost: u64,
    /// Events that first arrived after a later one of their key.
    pub out_of_order: u64,
    /// Events that arrived although the broker refused them, or that nobody sent.
    pub unexpected: u64,
}

impl Verdict {
    /// Whether the broker kept its promises.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.unexpected == 0
    }
}

impl Ledger {
    pub fn new(producers: usize, keys: usize) -> Self {
        Self {
            keys: keys as u64,
            seen: (0..producers * keys).map(|_| AtomicU64::new(0)).collect(),
            first_time: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            irregular: Mutex::default(),
        }
    }

    /// Notes an event that arrived, before it is confirmed. `true` when it came for the first time.
    ///
    /// Members of a group never hold a key at the same time: the broker moves a partition to another member only when
    /// the events it has sent are confirmed or will come again. So the order of two notes on a key is the order in
    /// which the broker delivered.
    pub fn arrived(&self, producer: usize, sequence: u64) -> bool {
        let Some(seen) = self.seen.get(producer * self.keys as usize + (sequence % self.keys) as usize)
        else {
            self.irregular().alien += 1;
            return false;
        };
        let number = sequence / self.keys;
        let expected = seen.fetch_max(number + 1, Ordering::AcqRel);
        if number > expected {
            let overtaken = (expected..number).map(|number| (producer, self.sequence(number, sequence)));
            self.irregular().overtaken.extend(overtaken);
        }
        let is_new = number >= expected || self.arrived_late(producer, sequence);
        let counter = if is_new { &self.first_time } else { &self.repeated };
        counter.fetch_add(1, Ordering::Relaxed);
        is_new
    }

    /// The sequence of the event that is `number`th in the key of `like`.
    fn sequence(&self, number: u64, like: u64) -> u64 {
        number * self.keys + like % self.keys
    }

    fn arrived_late(&self, producer: usize, sequence: u64) -> bool {
        let mut irregular = self.irregular();
        let late = irregular.overtaken.remove(&(producer, sequence));
        irregular.out_of_order += u64::from(late);
        late
    }

    fn irregular(&self) -> std::sync::MutexGuard<'_, Irregular> {
        // A consumer that panicked takes the process with it (`panic = "abort"` in releases).
        self.irregular.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many different events have arrived.
    pub fn received(&self) -> u64 {
        self.first_time.load(Ordering::Relaxed)
    }

    /// Judges what arrived against what was sent.
    pub fn judge(&self, sent: &Sent) -> Verdict {
        let irregular = self.irregular();
        let excused = |event: &(usize, u64)| sent.refused.contains(event) || sent.unknown.contains(event);
        let is_missing = |&(producer, sequence): &(usize, u64)| {
            let key = producer * self.keys as usize + (sequence % self.keys) as usize;
            let seen = self.seen[key].load(Ordering::Acquire);
            sequence / self.keys >= seen || irregular.overtaken.contains(&(producer, sequence))
        };
        let overtaken = irregular.overtaken.iter().filter(|event| !excused(event)).count() as u64;
        let tail: u64 =
            sent.sent.iter().enumerate().map(|(producer, count)| self.tail(producer, *count)).sum();
        let in_tail = |event: &&(usize, u64)| is_missing(event) && !irregular.overtaken.contains(event);
        let excused_tail = sent.refused.union(&sent.unknown).filter(in_tail).count() as u64;
        Verdict {
            received: self.received(),
            repeated: self.repeated.load(Ordering::Relaxed),
            lost: overtaken + tail - excused_tail,
            out_of_order: irregular.out_of_order,
            unexpected: irregular.alien
                + sent.refused.iter().filter(|event| !is_missing(event)).count() as u64,
        }
    }

    /// Events of a producer that sent `count` after the last ones that arrived of each key.
    fn tail(&self, producer: usize, count: u64) -> u64 {
        let of_key = |key: u64| {
            let in_key = (count + self.keys - 1 - key) / self.keys;
            let seen = self.seen[producer * self.keys as usize + key as usize].load(Ordering::Acquire);
            in_key.saturating_sub(seen)
        };
        (0..self.keys).map(of_key).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(counts: &[u64]) -> Sent {
        Sent { sent: counts.to_vec(), ..Sent::default() }
    }

    fn arrive(ledger: &Ledger, sequences: &[u64]) {
        for sequence in sequences {
            ledger.arrived(0, *sequence);
        }
    }

    #[test]
    fn keys_may_interleave_in_any_way_and_events_may_come_again() {
        let ledger = Ledger::new(1, 2);
        arrive(&ledger, &[1, 3, 0, 2, 3, 0, 4]);
        let verdict = ledger.judge(&sent(&[5]));
        assert_eq!(verdict, Verdict { received: 5, repeated: 2, ..Verdict::default() });
        assert!(verdict.is_good());
    }

    #[test]
    fn what_never_comes_is_lost_in_the_middle_and_at_the_end() {
        let ledger = Ledger::new(2, 2);
        arrive(&ledger, &[0, 4, 1]);
        // Missing: 2 (overtaken by 4), 3 and 5 (after 1), and both events of the other producer.
        assert_eq!(ledger.judge(&sent(&[6, 2])).lost, 5);
    }

    #[test]
    fn an_event_after_a_later_one_of_its_key_is_out_of_order_but_not_lost() {
        let ledger = Ledger::new(1, 1);
        arrive(&ledger, &[0, 2, 1, 1, 3]);
        let expected = Verdict { received: 4, repeated: 1, out_of_order: 1, ..Verdict::default() };
        assert_eq!(ledger.judge(&sent(&[4])), expected);
    }

    #[test]
    fn refused_events_must_be_missing_and_unknown_ones_may_be() {
        let ledger = Ledger::new(1, 1);
        arrive(&ledger, &[0, 2, 3]);
        let mut events = sent(&[6]);
        events.refused = [(0, 1), (0, 4)].into();
        events.unknown = [(0, 5)].into();
        assert_eq!(ledger.judge(&events), Verdict { received: 3, ..Verdict::default() });
        events.refused.insert((0, 3));
        assert_eq!(ledger.judge(&events).unexpected, 1);
    }

    #[test]
    fn events_of_nobody_are_unexpected() {
        let ledger = Ledger::new(1, 1);
        assert!(!ledger.arrived(9, 0));
        assert_eq!(ledger.judge(&sent(&[0])).unexpected, 1);
    }

    #[test]
    fn the_tail_counts_every_event_of_every_key() {
        let ledger = Ledger::new(1, 3);
        for count in 0..10 {
            assert_eq!(ledger.judge(&sent(&[count])).lost, count);
        }
    }
}

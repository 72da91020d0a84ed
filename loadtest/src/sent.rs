//! What the producers know of the events they sent.

use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The events of all producers of a run, as far as this process has them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sent(Vec<Mutex<Events>>);

/// The events of one producer, by sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    pub sent: u64,
    /// The broker refused them.
    pub refused: Sequences,
    /// Their answer never came: they may or may not be delivered.
    pub unknown: Sequences,
    /// Those of them that were to be sent at a moment of the window.
    pub unanswered: Vec<Unanswered>,
}

/// The events of a request that was never answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    pub events: Range<u64>,
    /// From the moment at which it was to be sent until nobody waited for its answer any more.
    pub waited_ns: u64,
}

/// Ascending ranges of sequences: two numbers for a request, however many events it has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences(Vec<Range<u64>>);

impl Sent {
    /// Adds the events of producers of another process.
    pub fn merge(&mut self, other: Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            if theirs.lock().unwrap_or_else(PoisonError::into_inner).sent > 0 {
                *ours = theirs;
            }
        }
    }

    pub fn new(producers: usize) -> Self {
        Self((0..producers).map(|_| Mutex::default()).collect())
    }

    /// What is known of a producer's events.
    pub fn of(&self, producer: usize) -> MutexGuard<'_, Events> {
        self.0[producer].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn producers(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.0.len()
    }

    /// Sum over all producers.
    pub fn total(&self, part: impl Fn(&Events) -> u64) -> u64 {
        self.producers().map(|producer| part(&self.of(producer))).sum()
    }
}

impl Sequences {
    /// Adds a range that is above all others.
    pub fn push(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    pub fn contains(&self, sequence: u64) -> bool {
        let at = self.0.partition_point(|range| range.end <= sequence);
        self.0.get(at).is_some_and(|range| range.contains(&sequence))
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_meet_become_one() {
        let mut sequences = Sequences::default();
        [0..3, 3..5, 9..10].into_iter().for_each(|range| sequences.push(range));
        assert_eq!((sequences.0.len(), sequences.count()), (2, 6));
        let all: Vec<u64> = (0..12).filter(|sequence| sequences.contains(*sequence)).collect();
        assert_eq!(all, sequences.iter().collect::<Vec<_>>());
    }

    #[test]
    fn processes_know_their_own_producers() {
        let (mut all, other) = (Sent::new(3), Sent::new(3));
        all.of(0).sent = 5;
        other.of(2).sent = 7;
        other.of(2).refused.push(1..3);
        all.merge(other);
        assert_eq!(
            (all.total(|events| events.sent), all.total(|events| events.refused.iter().count() as u64)),
            (12, 2)
        );
    }
}

//! What was recorded before: the highest offset of each client, group and partition, so that a repeated delivery is told from a
//! first one.
//!
//! A group reads a partition in order and by one session at a time, so an offset at or below the highest one recorded was
//! recorded before, or was passed over because the client could not yet see its type.

use super::line::{MarksLine, RecordLine};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Who receives: a client and one of its groups.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Receiver {
    /// GUID of the client.
    pub user: String,
    pub group: String,
}

/// All marks.
#[derive(Debug, Default, Clone)]
pub struct Marks {
    receivers: HashMap<Arc<Receiver>, Mark, ahash::RandomState>,
}

/// Of one receiver: by partition the offset behind the highest one recorded.
#[derive(Debug, Default, Clone)]
struct Mark {
    next: BTreeMap<u8, u64>,
    /// When the last of them was recorded, Unix milliseconds.
    touched_ms: u64,
}

impl Marks {
    /// Whether the event at `offset` was recorded before.
    pub fn is_known(&self, receiver: &Receiver, partition: u8, offset: u64) -> bool {
        let next = self.receivers.get(receiver).and_then(|mark| mark.next.get(&partition));
        next.is_some_and(|&next| offset < next)
    }

    /// The event at `offset` is recorded.
    pub fn set(&mut self, receiver: &Arc<Receiver>, partition: u8, offset: u64, now_ms: u64) {
        let mark = match self.receivers.get_mut(receiver) {
            Some(mark) => mark,
            None => self.receivers.entry(receiver.clone()).or_default(),
        };
        let next = mark.next.entry(partition).or_default();
        *next = (*next).max(offset.saturating_add(1));
        mark.touched_ms = mark.touched_ms.max(now_ms);
    }

    /// Takes over what `newer` knows.
    pub fn merge(&mut self, newer: Self) {
        for (receiver, mark) in newer.receivers {
            for (partition, next) in mark.next {
                self.set(&receiver, partition, next - 1, mark.touched_ms);
            }
        }
    }

    /// Forgets what was recorded before `ms`: for when the events that were recorded then are gone.
    pub fn forget_before(&mut self, ms: u64) {
        self.receivers.retain(|_, mark| mark.touched_ms >= ms);
    }

    /// The lines from which [`restore`](Self::restore) makes these marks, in a fixed order.
    pub fn lines(&self) -> Vec<MarksLine> {
        let line = |(receiver, mark): (&Arc<Receiver>, &Mark)| MarksLine {
            marks: mark.next.iter().map(|(&partition, &next)| (partition, next)).collect(),
            user: receiver.user.clone(),
            group: receiver.group.clone(),
            touched_ms: mark.touched_ms,
        };
        let mut lines: Vec<_> = self.receivers.iter().map(line).collect();
        lines.sort_by(|a, b| (&a.user, &a.group).cmp(&(&b.user, &b.group)));
        lines
    }

    /// Takes in a line of marks.
    pub fn restore(&mut self, line: MarksLine) {
        let receiver = Arc::new(Receiver { user: line.user, group: line.group });
        for (partition, next) in line.marks.into_iter().filter(|(_, next)| *next > 0) {
            self.set(&receiver, partition, next - 1, line.touched_ms);
        }
    }

    /// Takes in a record.
    pub fn restore_record(&mut self, line: &RecordLine, time_ms: u64) {
        let receiver = Receiver { user: line.user.clone(), group: line.group.clone() };
        let known = self.receivers.get_key_value(&receiver).map(|(known, _)| known.clone());
        let receiver = known.unwrap_or_else(|| Arc::new(receiver));
        self.set(&receiver, line.partition, line.offset, time_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(group: &str) -> Arc<Receiver> {
        Arc::new(Receiver { user: "u".into(), group: group.into() })
    }

    #[test]
    fn an_offset_is_known_up_to_the_highest_of_its_receiver_and_partition() {
        let mut marks = Marks::default();
        marks.set(&receiver("a"), 3, 10, 1);
        marks.set(&receiver("a"), 3, 5, 2);
        assert!(marks.is_known(&receiver("a"), 3, 10) && !marks.is_known(&receiver("a"), 3, 11));
        assert!(!marks.is_known(&receiver("a"), 4, 0) && !marks.is_known(&receiver("b"), 3, 0));
    }

    #[test]
    fn marks_survive_their_lines_and_old_ones_are_forgotten() {
        let mut marks = Marks::default();
        marks.set(&receiver("a"), 0, 10, 100);
        marks.set(&receiver("b"), 11, 7, 200);
        let mut restored = Marks::default();
        marks.lines().into_iter().for_each(|line| restored.restore(line));
        assert_eq!(restored.lines(), marks.lines());
        let mut merged = Marks::default();
        merged.set(&receiver("a"), 0, 3, 1);
        merged.merge(marks);
        assert_eq!(merged.lines(), restored.lines());
        merged.forget_before(200);
        assert_eq!(merged.lines().len(), 1);
    }
}

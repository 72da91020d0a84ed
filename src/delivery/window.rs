//! The events a session has sent that are not confirmed yet, in the order in which they were sent.

use crate::id::{Epoch, Offset, Partition};
use std::collections::VecDeque;
use std::fmt;

/// An emptied queue keeps room for this many entries and gives the rest back.
const KEPT_CAPACITY: usize = 64;

/// One sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub offset: Offset,
    pub epoch: Epoch,
    pub bytes: u32,
    pub partition: Partition,
    /// Consumed by itself, ahead of what was sent before it.
    pub done: bool,
}

/// A session offset that the broker never sent on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadConfirm {
    pub offset: u64,
    /// The last session offset sent; 0 means none.
    pub last_sent: u64,
}

impl fmt::Display for BadConfirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, last_sent } = self;
        match last_sent {
            0 => write!(f, "offset {offset} was never sent: no event was sent on this connection yet"),
            _ => write!(
                f,
                "offset {offset} was never sent: this connection's offsets are 1 to {last_sent} so far"
            ),
        }
    }
}

impl std::error::Error for BadConfirm {}

/// Entries `first ..` by session offset, without gaps.
#[derive(Debug)]
pub(super) struct Window {
    sent: VecDeque<Sent>,
    /// Session offset of the front entry, or of the next event when there is none. Offsets count from 1.
    first: u64,
    bytes: usize,
    /// Entries that are done; never the front one.
    done: usize,
}

impl Window {
    pub fn new() -> Self {
        Self { sent: VecDeque::new(), first: 1, bytes: 0, done: 0 }
    }

    pub fn len(&self) -> usize {
        self.sent.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an event was taken out of order.
    pub fn has_done(&self) -> bool {
        self.done > 0
    }

    /// Adds an event and gives its session offset.
    pub fn push(&mut self, sent: Sent) -> u64 {
        self.bytes += sent.bytes as usize;
        self.sent.push_back(sent);
        self.last_sent()
    }

    /// Takes out what is confirmed by `offset`: every entry up to it and the done ones that follow. Repeats take out nothing.
    pub fn confirm(&mut self, offset: u64) -> Result<impl Iterator<Item = Sent>, BadConfirm> {
        self.check(offset)?;
        let confirmed = (offset + 1).saturating_sub(self.first) as usize;
        Ok(self.take(confirmed))
    }

    /// Marks the one event at `offset` as done. `None` when it was confirmed or done before.
    pub fn mark_done(&mut self, offset: u64) -> Result<Option<Sent>, BadConfirm> {
        self.check(offset)?;
        let entry = offset.checked_sub(self.first).map(|at| &mut self.sent[at as usize]);
        let Some(entry) = entry.filter(|entry| !entry.done) else { return Ok(None) };
        let before = *entry;
        entry.done = true;
        self.done += 1;
        Ok(Some(before))
    }

    /// Takes the first `count` entries out, and the done ones that follow.
    pub fn take(&mut self, count: usize) -> impl Iterator<Item = Sent> {
        let following = self.sent.iter().skip(count).take_while(|sent| sent.done).count();
        let taken = count + following;
        for sent in self.sent.range(..taken) {
            self.bytes -= sent.bytes as usize;
            self.done -= usize::from(sent.done);
        }
        self.first += taken as u64;
        self.sent.drain(..taken)
    }

    /// How far the done events of one assignment reach without a gap: the first offset that is not done, if any is done.
    pub fn done_prefix(&self, partition: Partition, epoch: Epoch) -> Option<Offset> {
        let of_lane = self.sent.iter().filter(|sent| (sent.partition, sent.epoch) == (partition, epoch));
        of_lane.take_while(|sent| sent.done).last().map(|sent| sent.offset.next())
    }

    /// Gives memory back after a burst.
    pub fn shrink(&mut self) {
        if self.sent.is_empty() && self.sent.capacity() > KEPT_CAPACITY {
            self.sent.shrink_to(KEPT_CAPACITY);
        }
    }

    fn last_sent(&self) -> u64 {
        self.first + self.sent.len() as u64 - 1
    }

    fn check(&self, offset: u64) -> Result<(), BadConfirm> {
        let last_sent = self.last_sent();
        if (1..=last_sent).contains(&offset) { Ok(()) } else { Err(BadConfirm { offset, last_sent }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(partition: u8, offset: u64) -> Sent {
        Sent {
            offset: Offset(offset),
            epoch: Epoch(1),
            bytes: 10,
            partition: Partition(partition),
            done: false,
        }
    }

    fn window(events: &[(u8, u64)]) -> Window {
        let mut window = Window::new();
        for (at, &(partition, offset)) in events.iter().enumerate() {
            assert_eq!(window.push(sent(partition, offset)), at as u64 + 1);
        }
        window
    }

    fn offsets(taken: impl Iterator<Item = Sent>) -> Vec<u64> {
        taken.map(|sent| sent.offset.0).collect()
    }

    #[test]
    fn a_confirm_takes_everything_up_to_it_and_a_repeat_nothing() {
        let mut window = window(&[(0, 5), (1, 9), (0, 6)]);
        assert_eq!(offsets(window.confirm(2).unwrap()), [5, 9]);
        assert_eq!((window.len(), window.bytes()), (1, 10));
        assert_eq!(offsets(window.confirm(2).unwrap()), [] as [u64; 0]);
        assert_eq!(offsets(window.confirm(1).unwrap()), [] as [u64; 0]);
        assert_eq!(offsets(window.confirm(3).unwrap()), [6]);
        assert_eq!(window.bytes(), 0);
    }

    #[test]
    fn an_offset_that_was_never_sent_is_refused_and_changes_nothing() {
        let mut window = window(&[(0, 5), (0, 6)]);
        for offset in [0, 3, u64::MAX] {
            let error = window.confirm(offset).err().unwrap();
            assert_eq!(error, BadConfirm { offset, last_sent: 2 });
            assert_eq!(window.mark_done(offset), Err(error));
        }
        assert_eq!(window.len(), 2);
        assert_eq!(offsets(window.confirm(2).unwrap()), [5, 6]);
        assert!(window.confirm(3).is_err());
    }

    #[test]
    fn done_events_leave_with_the_front_and_tell_how_far_their_partition_reaches() {
        let mut window = window(&[(0, 1), (1, 1), (0, 2), (0, 3)]);
        assert_eq!(window.mark_done(3).unwrap(), Some(sent(0, 2)));
        assert_eq!(window.mark_done(3).unwrap(), None);
        assert_eq!(window.done_prefix(Partition(0), Epoch(1)), None);
        assert_eq!(offsets(window.confirm(1).unwrap()), [1]);
        assert_eq!(window.done_prefix(Partition(0), Epoch(1)), Some(Offset(3)));
        assert_eq!(window.done_prefix(Partition(0), Epoch(2)), None);
        assert_eq!(offsets(window.confirm(2).unwrap()), [1, 2]);
        assert!(!window.has_done());
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn reasons_fit_into_a_close_frame() {
        for last_sent in [0, u64::MAX] {
            let text = BadConfirm { offset: u64::MAX, last_sent }.to_string();
            assert!(text.len() <= 123, "{text}");
        }
    }
}

//! One assigned partition of a session.

use super::Confirm;
use super::session::Event;
use crate::fault::{Fault, planted};
use crate::id::{Epoch, Offset, Partition};
use std::collections::VecDeque;

/// Number of a fetch, unique in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// Where a lane is between being assigned and being taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Reading,
    /// Nothing more is sent; waits for confirms of what was, until a moment in Unix milliseconds.
    Draining {
        until_ms: u64,
    },
    /// The grace ran out.
    Abandoned,
}

/// An assigned partition: `confirmed ≤ sent ≤ fetched`.
#[derive(Debug)]
pub(super) struct Lane<E> {
    pub partition: Partition,
    pub phase: Phase,
    pub epoch: Epoch,
    /// The first offset not confirmed.
    confirmed: Offset,
    /// What the coordinator was last told of `confirmed`.
    reported: Offset,
    /// The first offset not sent.
    sent: Offset,
    /// Where the next fetch starts: all before it was fetched or is of no interest.
    fetched: Offset,
    /// Sent events that are neither confirmed nor done.
    open: u32,
    /// Fetched events that are not sent, and their bytes.
    ready: VecDeque<E>,
    ready_bytes: usize,
    /// The one outstanding fetch.
    pub fetch: Option<FetchId>,
    /// A fetch whose answer is of no use any more.
    pub cancel: Option<FetchId>,
}

impl<E: Event> Lane<E> {
    pub fn new(partition: Partition, epoch: Epoch, from: Offset) -> Self {
        Self {
            partition,
            phase: Phase::Reading,
            epoch,
            confirmed: from,
            reported: from,
            sent: from,
            fetched: from,
            open: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            fetch: None,
            cancel: None,
        }
    }

    /// The next event to send.
    pub fn head(&self) -> Option<&E> {
        self.ready.front()
    }

    /// Takes the next event to send.
    pub fn pop(&mut self) -> Option<E> {
        let event = self.ready.pop_front()?;
        self.ready_bytes -= event.bytes();
        self.sent = event.offset().next();
        self.open += 1;
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        Some(event)
    }

    /// Takes the answer to the outstanding fetch: `events` in order, and where the next fetch is to start.
    pub fn fetched(&mut self, next: Offset, events: Vec<E>) {
        debug_assert!(events.is_sorted_by_key(Event::offset) && events.iter().all(|e| e.offset() < next));
        debug_assert!(events.first().is_none_or(|event| event.offset() >= self.fetched));
        self.fetch = None;
        self.fetched = self.fetched.max(next);
        self.ready_bytes += events.iter().map(Event::bytes).sum::<usize>();
        if self.ready.is_empty() {
            self.ready = events.into();
        } else {
            self.ready.extend(events);
        }
    }

    /// Where to fetch from, when what is ready runs low.
    pub fn wants(&self, fetch_bytes: usize) -> Option<Offset> {
        let low = self.ready_bytes <= fetch_bytes / 2;
        (self.phase == Phase::Reading && self.fetch.is_none() && low).then_some(self.fetched)
    }

    /// Forgets what was fetched and not sent. The outstanding fetch is to be cancelled.
    pub fn rewind(&mut self) {
        self.ready = VecDeque::new();
        self.ready_bytes = 0;
        if !planted(Fault::RereadSkips) {
            self.fetched = self.sent;
        }
        self.cancel = self.cancel.or(self.fetch.take());
    }

    /// One sent event is confirmed or done.
    pub fn settle(&mut self) {
        self.open -= 1;
    }

    /// Everything before `offset` is confirmed.
    pub fn confirm(&mut self, offset: Offset) {
        let offset = if planted(Fault::ConfirmsFetched) { self.fetched } else { offset };
        self.confirmed = self.confirmed.max(offset);
    }

    /// What the coordinator does not know yet.
    pub fn report(&mut self) -> Option<Confirm> {
        let news = self.confirmed > self.reported;
        self.reported = self.confirmed;
        news.then_some(Confirm { partition: self.partition, epoch: self.epoch, offset: self.confirmed })
    }

    /// Whether the partition was taken away and nothing is to be waited for any more.
    pub fn is_drained(&self) -> bool {
        match self.phase {
            Phase::Reading => false,
            Phase::Draining { .. } => self.open == 0,
            Phase::Abandoned => true,
        }
    }
}

//! Answers that this core waits for: every question to another role of the broker has a ticket, with which its answer comes back.

use super::message::Ticket;
use futures_channel::oneshot::{self, Receiver, Sender};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Questions of one kind that have no answer yet.
pub struct Awaited<T> {
    tickets: Cell<u64>,
    waiting: RefCell<HashMap<Ticket, Sender<T>, ahash::RandomState>>,
}

impl<T> Default for Awaited<T> {
    fn default() -> Self {
        Self { tickets: Cell::default(), waiting: RefCell::default() }
    }
}

impl<T> Awaited<T> {
    /// A ticket for a question, and where its answer comes out.
    pub fn open(&self) -> (Ticket, Receiver<T>) {
        let ticket = Ticket(self.tickets.replace(self.tickets.get() + 1));
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(ticket, answer);
        (ticket, answered)
    }

    /// Hands an answer to whoever waits for it; gives it back when nobody does any more.
    pub fn answer(&self, ticket: Ticket, answer: T) -> Result<(), T> {
        let asker = self.waiting.borrow_mut().remove(&ticket);
        match asker {
            Some(asker) => asker.send(answer),
            None => Err(answer),
        }
    }

    /// Nobody waits for this answer any more.
    pub fn forget(&self, ticket: Ticket) {
        self.waiting.borrow_mut().remove(&ticket);
    }

    /// How many have no answer yet.
    pub fn count(&self) -> usize {
        self.waiting.borrow().len()
    }
}

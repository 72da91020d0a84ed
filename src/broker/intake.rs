//! The ingress side of storing: submissions of this core that wait for the head.

use super::message::{Charge, HEAD, Message, Receipt, Submission, Ticket};
use super::refusal::Refusal;
use super::{Block, Core};
use futures_channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// What comes of a submission.
type Outcome = Result<Receipt, Refusal>;

/// Submissions under way.
#[derive(Default)]
pub struct Intake {
    tickets: Cell<u64>,
    waiting: RefCell<HashMap<Ticket, oneshot::Sender<Outcome>, ahash::RandomState>>,
}

impl Intake {
    fn open(&self) -> (Ticket, oneshot::Receiver<Outcome>) {
        let ticket = Ticket(self.tickets.replace(self.tickets.get() + 1));
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(ticket, answer);
        (ticket, answered)
    }

    pub(super) fn committed(&self, receipts: Vec<Receipt>) {
        let mut waiting = self.waiting.borrow_mut();
        for receipt in receipts {
            if let Some(answer) = waiting.remove(&receipt.ticket) {
                // A producer that went away does not need the answer; its events are stored all the same.
                let _ = answer.send(Ok(receipt));
            }
        }
    }

    pub(super) fn refused(&self, ticket: Ticket, refusal: Refusal) {
        if let Some(answer) = self.waiting.borrow_mut().remove(&ticket) {
            let _ = answer.send(Err(refusal));
        }
    }

    /// Submissions whose outcome is not known yet.
    pub fn under_way(&self) -> usize {
        self.waiting.borrow().len()
    }
}

impl Core {
    /// Stores the events of one request, all or nothing, if the limits of `charge` allow. Returns when they are durable.
    pub async fn store(&self, block: Block, charge: Option<Charge>) -> Result<Receipt, Refusal> {
        let (ticket, answered) = self.intake.open();
        let submission = Submission { from: self.id, ticket, block, charge };
        self.post(HEAD, Message::Submit(submission));
        answered.await.expect("the head answers every submission")
    }
}

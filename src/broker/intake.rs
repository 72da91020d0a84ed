//! The ingress side of storing: submissions of this core that wait for the head.

use super::awaited::Awaited;
use super::message::{Charge, HEAD, Message, Receipt, Submission, Ticket};
use super::refusal::Refusal;
use super::{Block, Core};

/// What comes of a submission.
type Outcome = Result<Receipt, Refusal>;

/// Submissions under way.
#[derive(Default)]
pub struct Intake(Awaited<Outcome>);

impl Intake {
    pub(super) fn committed(&self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            // A producer that went away does not need the answer; its events are stored all the same.
            let _ = self.0.answer(receipt.ticket, Ok(receipt));
        }
    }

    pub(super) fn refused(&self, ticket: Ticket, refusal: Refusal) {
        let _ = self.0.answer(ticket, Err(refusal));
    }

    /// Submissions whose outcome is not known yet.
    pub fn under_way(&self) -> usize {
        self.0.count()
    }
}

impl Core {
    /// Stores the events of one request, all or nothing, if the limits of `charge` allow. Returns when they are durable.
    pub async fn store(&self, block: Block, charge: Option<Charge>) -> Result<Receipt, Refusal> {
        let (ticket, answered) = self.intake.0.open();
        let submission = Submission { from: self.id, ticket, block, charge };
        self.post(HEAD, Message::Submit(submission));
        answered.await.expect("the head answers every submission")
    }
}

//! Where each message goes on the core that gets it.

use super::message::{HEAD, Message};
use super::sessions::Notice;
use super::{Core, live::Change};
use crate::id::SessionId;
use crate::rt;
use crate::rt::bus::Inbox;
use std::rc::Rc;

impl Core {
    /// Starts handling messages.
    pub fn serve(self: &Rc<Self>, inbox: Inbox<Message>) {
        rt::spawn(self.clone().append_deferred());
        let core = self.clone();
        self.bus.serve(inbox, move |message| core.handle(message));
    }

    fn handle(self: &Rc<Self>, message: Message) {
        match message {
            Message::Serve(accepted) => self.edge.serve(self, accepted),
            Message::Committed(receipts) => self.intake.committed(receipts),
            Message::Refused { ticket, refusal } => self.intake.refused(ticket, refusal),
            Message::PlaceTaken { ticket, admitted } => self.places.answered(ticket, admitted),
            Message::LookedUp { ticket, verdict } => self.look_ups.answered(ticket, verdict),
            Message::Apply(applied) => self.take_applied(applied),
            Message::Mark { index } => self.mark(index),
            Message::Fetch(fetch) => self.take_fetch(fetch),
            Message::CancelFetch { session, partition, fetch } => {
                self.forget_fetch(session, partition, fetch)
            }
            Message::Expire { partition, start, cursors } => self.expire(partition, start, cursors),
            Message::Surveyed { ticket, page } => self.surveys.paged(ticket, page),
            Message::Measure { from, ticket, cursors } => self.take_measure(from, ticket, cursors),
            Message::Measured { ticket, backlogs } => self.surveys.measured(ticket, backlogs),
            Message::Lag { number, cursors } => self.tell_lag(number, cursors),
            Message::Fetched { session, fetch, next, events } => {
                self.tell(session, Notice::Fetched { fetch, next, events });
            }
            Message::Introduced { client, types } => self.introductions.introduced(client, types),
            Message::Follow { session, log, type_id, from } => {
                self.tell(session, Notice::Follow { log, type_id, from });
            }
            Message::Assign { session, partition, epoch, from } => {
                self.tell(session, Notice::Assign { partition, epoch, from });
            }
            Message::Revoke { session, partition, epoch } => {
                self.tell(session, Notice::Revoke { partition, epoch })
            }
            Message::Dismiss { session, reason } => self.tell(session, Notice::Dismiss { reason }),
            Message::Ask(asked) => self.asked(*asked),
            Message::Probe { instance, client, answer, patient } => {
                self.probe(instance, client, answer, patient);
            }
            Message::Told { instance, client, ticket, told } => self.told(instance, client, ticket, told),
            Message::Live(live) => self.go_live(*live),
            Message::Scrape { number } => self.tell_metrics(number),
            Message::Stop => self.drain(),
            for_head => {
                let head = self.head.clone().expect("only core 0 gets messages for the head");
                head.handle(self, for_head);
            }
        }
    }

    fn tell(&self, session: SessionId, notice: Notice) {
        self.sessions.tell(session, notice);
    }

    /// Replaces registry, schemas or certificates; the first ones open the listeners.
    fn go_live(self: &Rc<Self>, change: Change) {
        let rights_changed = change.registry.is_some();
        let before = self.live.borrow().clone();
        let live = match &before {
            Some(before) => Some(before.with(change)),
            None => change.complete(),
        };
        self.live.replace(live.map(Rc::new));
        if before.is_none() {
            self.edge.open(self);
        }
        // Of other authorities and revocation lists, sessions hear when the connections are looked at.
        if rights_changed {
            self.sessions.tell_all(|| Notice::RegistryChanged);
        }
    }

    fn tell_metrics(&self, number: u64) {
        let numbers = &self.metrics.numbers;
        numbers.messages_waiting.set(self.bus.waiting() as u64);
        numbers.busy_ns.set(crate::rt::busy().as_nanos() as u64);
        let snapshot = Box::new(self.metrics.snapshot(self.owner.gauges(self.partitions)));
        self.post(HEAD, Message::Scraped { number, core: self.id, snapshot });
    }
}

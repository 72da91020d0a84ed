//! What a client takes up for a while: its connections and its consumer instances, which may have limits.
//!
//! The head counts them over all cores. Only who has a limit waits for its answer.

use super::Core;
use super::awaited::Awaited;
use super::message::{HEAD, Message, Ticket};
use crate::id::{ClientId, CoreId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Connection,
    /// A WebSocket session or a long-polling instance.
    Instance,
    /// A long-polling instance, once more: other than sessions, they have nothing else that bounds their number.
    PollingInstance,
}

/// Names a place while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PlaceId {
    pub core: CoreId,
    pub number: u64,
}

/// The client has all the places it may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    kind: Kind,
    max: usize,
}

/// Places of this core.
#[derive(Default)]
pub struct Places {
    opened: Cell<u64>,
    /// Whom each place counts for, once somebody asked.
    held: RefCell<HashMap<u64, Held, ahash::RandomState>>,
    asking: Awaited<bool>,
}

#[derive(Clone, Copy)]
struct Held {
    client: ClientId,
    /// Whether the head let it in.
    admitted: bool,
}

/// One place. Given back when dropped.
pub struct Place {
    core: Rc<Core>,
    kind: Kind,
    number: u64,
}

impl Places {
    pub(super) fn answered(&self, ticket: Ticket, admitted: bool) {
        // Whoever stopped waiting gives the place back.
        let _ = self.asking.answer(ticket, admitted);
    }
}

impl Core {
    /// A place that counts for nobody yet.
    pub fn place(self: &Rc<Self>, kind: Kind) -> Place {
        let number = self.places.opened.replace(self.places.opened.get() + 1);
        Place { core: self.clone(), kind, number }
    }

    /// Counts the place `number` for `client`, which may have `max` of its kind. Taking it again costs nothing.
    pub async fn take_place(
        &self,
        kind: Kind,
        number: u64,
        client: ClientId,
        max: Option<usize>,
    ) -> Result<(), Full> {
        let held = self.places.held.borrow().get(&number).copied();
        match held {
            Some(Held { client: same, admitted: true }) if same == client => return Ok(()),
            Some(Held { client: other, .. }) if other != client => self.give_place_back(kind, number),
            _ => {}
        }
        let admitted = self.ask_for_place(kind, number, client, max).await;
        match (admitted, max) {
            (false, Some(max)) => Err(Full { kind, max }),
            _ => Ok(()),
        }
    }

    async fn ask_for_place(&self, kind: Kind, number: u64, client: ClientId, max: Option<usize>) -> bool {
        let place = PlaceId { core: self.id, number };
        let hold = |admitted| self.places.held.borrow_mut().insert(number, Held { client, admitted });
        hold(max.is_none());
        let Some(max) = max else {
            self.post(HEAD, Message::TakePlace { client, kind, place, limit: None });
            return true;
        };
        let (ticket, answered) = self.places.asking.open();
        self.post(HEAD, Message::TakePlace { client, kind, place, limit: Some((max, ticket)) });
        let admitted = answered.await.expect("the head answers whoever waits");
        if let Some(held) =
            self.places.held.borrow_mut().get_mut(&number).filter(|held| held.client == client)
        {
            held.admitted |= admitted;
        }
        if !admitted {
            let numbers = &self.metrics.numbers;
            match kind {
                Kind::Connection => numbers.connections_over_limit.add(1),
                Kind::Instance | Kind::PollingInstance => numbers.instances_over_limit.add(1),
            }
        }
        admitted
    }

    fn give_place_back(&self, kind: Kind, number: u64) {
        let held = self.places.held.borrow_mut().remove(&number);
        if let Some(Held { client, .. }) = held {
            let place = PlaceId { core: self.id, number };
            self.post(HEAD, Message::GivePlaceBack { client, kind, place });
        }
    }
}

impl Place {
    /// Names the place on its core.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Counts the place for `client`; see [`Core::take_place`].
    pub async fn take(&self, client: ClientId, max: Option<usize>) -> Result<(), Full> {
        self.core.take_place(self.kind, self.number, client, max).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.give_place_back(self.kind, self.number);
    }
}

impl Full {
    /// Seconds after which a retry makes sense.
    pub fn retry_after_s(self) -> u32 {
        5
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, one) = (self.max, self.max == 1);
        let (name, setting) = match self.kind {
            Kind::Connection => ("connection", "connections_max"),
            Kind::Instance => ("consumer instance", "instances_max"),
            Kind::PollingInstance => ("long-polling instance", "max_instances_per_client"),
        };
        let plural = if one { "" } else { "s" };
        write!(f, "the client already has the {max} {name}{plural} that it may have at a time ({setting})")
    }
}

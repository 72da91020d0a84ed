//! What a core knows of clients' private logs: the numbers that the journal gave them, asked of the head once.

use super::Core;
use super::message::{HEAD, Message};
use crate::id::{ClientId, PrivateTypes};
use futures_channel::oneshot;
use std::cell::RefCell;
use std::collections::HashMap;

/// Clients whose numbers are known, and those that are asked for. Numbers never change, and only registered clients are
/// ever introduced.
#[derive(Default)]
pub struct Introductions {
    known: RefCell<HashMap<ClientId, PrivateTypes, ahash::RandomState>>,
    asked: RefCell<HashMap<ClientId, Vec<oneshot::Sender<PrivateTypes>>, ahash::RandomState>>,
}

impl Introductions {
    pub(super) fn introduced(&self, client: ClientId, types: PrivateTypes) {
        self.known.borrow_mut().insert(client, types);
        for waiting in self.asked.borrow_mut().remove(&client).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = waiting.send(types);
        }
    }

    /// Waits for the answer; tells whether this is the first to ask.
    fn ask(&self, client: ClientId) -> (bool, oneshot::Receiver<PrivateTypes>) {
        let (answer, answered) = oneshot::channel();
        let mut asked = self.asked.borrow_mut();
        let waiting = asked.entry(client).or_default();
        waiting.push(answer);
        (waiting.len() == 1, answered)
    }
}

impl Core {
    /// The numbers of a registered client's private logs, which the journal gives when they are first asked for.
    pub async fn private_types(&self, client: ClientId) -> PrivateTypes {
        let known = self.introductions.known.borrow().get(&client).copied();
        if let Some(types) = known {
            return types;
        }
        let (first, answered) = self.introductions.ask(client);
        if first {
            self.post(HEAD, Message::Introduce { client, core: self.id });
        }
        answered.await.expect("the head answers every introduction")
    }
}

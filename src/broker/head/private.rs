//! Clients' private logs: the numbers of their events, and the sessions that read them.
//!
//! No coordinator is needed: every session that asks gets all events of its client. A group has one cursor in each log, which
//! decides where its next session starts and is moved by the confirms of any of its sessions.

use super::Head;
use super::queue::Own;
use crate::broker::Core;
use crate::broker::message::{Join, Message};
use crate::delivery::Confirm;
use crate::id::{ClientId, CoreId, GroupId, Offset, Partition, PrivateLog, SessionId};
use std::collections::HashMap;
use std::rc::Rc;

/// Who waits for numbers, and who reads.
#[derive(Default)]
pub(super) struct Private {
    /// By client whose numbers are being defined.
    waiting: HashMap<ClientId, Waiting>,
    /// The groups of the sessions that read a private log.
    readers: HashMap<SessionId, GroupId>,
    /// Ahead of the journal's cursors by the confirms that are on their way there.
    cursors: HashMap<(GroupId, Partition), Offset>,
}

/// Who waits for the numbers of one client.
#[derive(Default)]
struct Waiting {
    cores: Vec<CoreId>,
    joins: Vec<Join>,
}

impl Head {
    /// A core asks for the numbers of a client.
    pub(super) fn introduce(&self, core: &Core, client: ClientId, from: CoreId) {
        let known = self.state.borrow().private_types(client);
        match known {
            Some(types) => core.post(from, Message::Introduced { client, types }),
            None => self.wait_for_numbers(client, |waiting| waiting.cores.push(from)),
        }
    }

    /// Keeps a session waiting until its client has numbers; gives it back when it has.
    pub(super) fn numbered(&self, join: Join) -> Option<Join> {
        if self.state.borrow().private_types(join.client).is_some() {
            return Some(join);
        }
        self.wait_for_numbers(join.client, |waiting| waiting.joins.push(join));
        None
    }

    fn wait_for_numbers(&self, client: ClientId, wait: impl FnOnce(&mut Waiting)) {
        let mut private = self.private.borrow_mut();
        let first = !private.waiting.contains_key(&client);
        wait(private.waiting.entry(client).or_default());
        drop(private);
        if first {
            let names = PrivateLog::ALL.map(|log| log.type_name(client));
            self.propose(Own::DefinePrivate { client, names });
        }
    }

    /// The journal has given the client its numbers.
    pub(super) fn private_defined(self: &Rc<Self>, core: &Core, client: ClientId) {
        let waiting = self.private.borrow_mut().waiting.remove(&client).unwrap_or_default();
        for from in waiting.cores {
            self.introduce(core, client, from);
        }
        for join in waiting.joins {
            self.join(core, join);
        }
    }

    /// Has a session read the private logs it wants.
    pub(super) fn follow(&self, core: &Core, join: &Join, group: GroupId) {
        let state = self.state.borrow();
        let types = state.private_types(join.client).expect("a session joins when its client has numbers");
        let wanted = |log: &PrivateLog| match log {
            PrivateLog::Dead => join.wanted.dead,
            PrivateLog::Test => join.wanted.test,
        };
        let mut private = self.private.borrow_mut();
        for log in PrivateLog::ALL.into_iter().filter(wanted) {
            let partition = log.partition(core.partitions);
            let durable = state.cursor(group, partition).unwrap_or_default();
            let under_way = private.cursors.get(&(group, partition)).copied().unwrap_or_default();
            private.readers.insert(join.session, group);
            let (session, type_id, from) = (join.session, types.of(log), durable.max(under_way));
            core.post(session.core(), Message::Follow { session, log, type_id, from });
        }
    }

    /// Moves the cursors of a session's group; only private logs are meant.
    pub(super) fn confirm_private(&self, session: SessionId, confirms: impl Iterator<Item = Confirm>) {
        let mut private = self.private.borrow_mut();
        let Some(&group) = private.readers.get(&session) else { return };
        for Confirm { partition, offset, .. } in confirms {
            let cursor = private.cursors.entry((group, partition)).or_default();
            if offset > *cursor {
                *cursor = offset;
                self.queue.borrow_mut().confirm(group, partition, offset);
                self.work.notify();
            }
        }
    }

    /// The session ended.
    pub(super) fn forget_reader(&self, session: SessionId) {
        let mut private = self.private.borrow_mut();
        private.readers.remove(&session);
        for waiting in private.waiting.values_mut() {
            waiting.joins.retain(|join| join.session != session);
        }
    }
}

//! Consumer groups: definition on first sight, membership, confirms, and what the coordinator decides.

use super::Head;
use super::queue::Own;
use crate::broker::Core;
use crate::broker::message::{Join, Message};
use crate::delivery::Confirm;
use crate::delivery::coordinator::Effect;
use crate::id::{ClientId, Epoch, GroupId, Offset, Partition, PrivateLog, SessionId};
use crate::state::GroupName;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::rc::Rc;

/// Groups of one client. They are never forgotten, so their number must have a bound.
const GROUPS_PER_CLIENT_MAX: usize = 1000;

/// Sessions that wait until the journal knows their group.
pub(super) type Joining = HashMap<(ClientId, String), Vec<Join>>;

impl Head {
    pub(super) fn join(self: &Rc<Self>, core: &Core, join: Join) {
        let Some(join) = self.numbered(join) else { return };
        let (session, client) = (join.session, join.client);
        if let Some(id) = self.group_id(client, &join.group) {
            return self.join_known(core, &join, id);
        }
        if self.groups_of(client) >= GROUPS_PER_CLIENT_MAX {
            let reason = "the client has all the consumer groups it may have: use an existing one";
            return core.post(session.core(), Message::Dismiss { session, reason });
        }
        match self.joining.borrow_mut().entry((client, join.group.clone())) {
            // Also when everybody who waited has left: the definition is on its way all the same.
            Entry::Occupied(mut waiting) => waiting.get_mut().push(join),
            Entry::Vacant(nobody) => {
                self.propose(Own::DefineGroup { client, name: join.group.clone() });
                nobody.insert(vec![join]);
            }
        }
    }

    /// Groups of a client that the journal knows or is about to know.
    fn groups_of(&self, client: ClientId) -> usize {
        let known = self.state.borrow().groups_of(client, None).count();
        known + self.joining.borrow().keys().filter(|(of, _)| *of == client).count()
    }

    fn group_id(&self, client: ClientId, name: &str) -> Option<GroupId> {
        self.state.borrow().group_id(&GroupName { client, name: name.into() })
    }

    /// The journal knows the group now: those who waited for it join.
    pub(super) fn group_defined(self: &Rc<Self>, core: &Core, client: ClientId, name: &str) {
        let waiting = self.joining.borrow_mut().remove(&(client, name.to_owned())).unwrap_or_default();
        let id = self.group_id(client, name).expect("the group was defined by the frame just applied");
        for join in waiting {
            self.join_known(core, &join, id);
        }
    }

    fn join_known(&self, core: &Core, join: &Join, group: GroupId) {
        self.follow(core, join, group);
        if join.wanted.events {
            let state = self.state.borrow();
            let cursors = |partition| state.cursor(group, partition).unwrap_or_default();
            self.coordinator.borrow_mut().join(join.session, group, cursors);
        }
        self.carry_out(core);
    }

    pub(super) fn left(&self, core: &Core, session: SessionId) {
        for waiting in self.joining.borrow_mut().values_mut() {
            waiting.retain(|join| join.session != session);
        }
        self.forget_reader(session);
        self.coordinator.borrow_mut().leave(session);
        self.carry_out(core);
    }

    pub(super) fn confirm(&self, core: &Core, session: SessionId, confirms: &[Confirm]) {
        let is_private = |confirm: &Confirm| PrivateLog::of(confirm.partition, core.partitions).is_some();
        self.confirm_private(session, confirms.iter().copied().filter(is_private));
        self.coordinator.borrow_mut().confirm(session, confirms);
        self.carry_out(core);
    }

    pub(super) fn revoked(&self, core: &Core, session: SessionId, partition: Partition, epoch: Epoch) {
        self.coordinator.borrow_mut().revoked(session, partition, epoch);
        self.carry_out(core);
    }

    /// Everything of `partition` before `start` is gone.
    pub(super) fn groups_expired(&self, partition: Partition, start: Offset) {
        self.coordinator.borrow_mut().expired(partition, start);
    }

    /// Does what the coordinator wants done.
    fn carry_out(&self, core: &Core) {
        loop {
            let effect = self.coordinator.borrow_mut().poll();
            let Some(effect) = effect else { return };
            match effect {
                Effect::Assign { session, partition, epoch, from } => {
                    core.post(session.core(), Message::Assign { session, partition, epoch, from });
                }
                Effect::Revoke { session, partition, epoch } => {
                    core.post(session.core(), Message::Revoke { session, partition, epoch });
                }
                Effect::Confirmed { group, partition, offset } => {
                    self.queue.borrow_mut().confirm(group, partition, offset);
                    self.work.notify();
                }
                Effect::Reset { group, partition, offset } => {
                    self.queue.borrow_mut().reset(group, partition, offset);
                    self.work.notify();
                }
            }
        }
    }

    /// Members of a group that are connected now.
    pub(super) fn members(&self, group: GroupId) -> usize {
        self.coordinator.borrow().members(group)
    }
}

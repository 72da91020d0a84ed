//! The group coordinator: who reads what, at which epoch, from where.
//!
//! A group's partitions are split evenly among its members, in counts that differ by at most one, and joining or leaving moves
//! as few of them as that allows. Members beyond the number of partitions wait, in the order in which they joined.
//!
//! A partition changes hands in two steps. Its reader is told to stop; only when it says that it has, or leaves, does
//! the next one start, from the last accepted confirm. So at most one session of a group sends events of a partition at any time, and each
//! hand-over is a new epoch: a confirm that carries an older one changes nothing.

use super::Confirm;
use super::group::{Group, Member};
use crate::id::{Epoch, GroupId, Offset, Partition, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// What the coordinator wants done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The session is to read `partition` at `epoch`, starting at `from`.
    Assign { session: SessionId, partition: Partition, epoch: Epoch, from: Offset },
    /// The session is to stop reading and then to answer with [`Coordinator::revoked`].
    Revoke { session: SessionId, partition: Partition, epoch: Epoch },
    /// The cursor moved forward. To be journalled, in the order of these effects.
    Confirmed { group: GroupId, partition: Partition, offset: Offset },
    /// An operator moved the cursor. To be journalled, in the order of these effects.
    Reset { group: GroupId, partition: Partition, offset: Offset },
}

/// All groups that had a member since the process started.
///
/// A group stays known after its last member left, because its cursors here are ahead of the journal's by the confirms that are
/// on their way there: a consumer that reconnects at once must not be sent again what it has just confirmed.
pub struct Coordinator {
    partitions: u8,
    groups: BTreeMap<GroupId, Group>,
    sessions: BTreeMap<SessionId, (GroupId, Member)>,
    /// Sessions that ever joined.
    joined: u64,
    effects: VecDeque<Effect>,
}

impl Coordinator {
    /// A coordinator of `partitions` partitions without any group.
    pub fn new(partitions: u8) -> Self {
        Self {
            partitions,
            groups: BTreeMap::new(),
            sessions: BTreeMap::new(),
            joined: 0,
            effects: VecDeque::new(),
        }
    }

    /// The next effect, oldest first. To be called until it gives `None` after each input.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// `session` becomes a member of `group`. `cursors` gives the group's durable cursors; it is asked only when the group has had
    /// no member before. A session joins once in its life.
    pub fn join(&mut self, session: SessionId, group: GroupId, cursors: impl Fn(Partition) -> Offset) {
        if self.sessions.contains_key(&session) {
            debug_assert!(false, "session {session} joined twice");
            return;
        }
        self.joined += 1;
        let member = Member { joined: self.joined, session };
        self.sessions.insert(session, (group, member));
        let state = self.groups.entry(group).or_insert_with(|| Group::new(self.partitions, cursors));
        state.add(member, &mut self.effects);
    }

    /// `session` ended. Its partitions go to other members at once, from the last accepted confirm. Unknown sessions are ignored.
    pub fn leave(&mut self, session: SessionId) {
        if let Some((group, member)) = self.sessions.remove(&session)
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.remove(member, &mut self.effects);
        }
    }

    /// `session` has stopped reading `partition`, which it had at `epoch`: it will neither send nor confirm any more of it.
    pub fn revoked(&mut self, session: SessionId, partition: Partition, epoch: Epoch) {
        if let Some((group, _)) = self.sessions.get(&session)
            && let Some(group) = self.groups.get_mut(group)
        {
            group.revoked(session, partition, epoch, &mut self.effects);
        }
    }

    /// Moves cursors forward. A confirm of another epoch than the current one, or behind the cursor, changes nothing.
    pub fn confirm(&mut self, session: SessionId, confirms: &[Confirm]) {
        let Some(&(id, _)) = self.sessions.get(&session) else { return };
        let Some(group) = self.groups.get_mut(&id) else { return };
        for confirm in confirms {
            if group.confirm(session, confirm) {
                let Confirm { partition, offset, .. } = *confirm;
                self.effects.push_back(Effect::Confirmed { group: id, partition, offset });
            }
        }
    }

    /// Everything of `partition` before `start` is gone: cursors that stood below now stand at `start`, as the journal's do.
    pub fn expired(&mut self, partition: Partition, start: Offset) {
        for group in self.groups.values_mut() {
            group.expired(partition, start);
        }
    }

    /// An operator moves a cursor, forward or back. Confirms of the present reader no longer count; it is told to stop, and
    /// whoever reads next starts at `offset`.
    pub fn reset(&mut self, group: GroupId, partition: Partition, offset: Offset) {
        self.effects.push_back(Effect::Reset { group, partition, offset });
        if let Some(group) = self.groups.get_mut(&group) {
            group.reset(partition, offset, &mut self.effects);
        }
    }

    /// The session that reads or still drains `partition` for `group`, with the epoch at which it does.
    pub fn holder(&self, group: GroupId, partition: Partition) -> Option<(SessionId, Epoch)> {
        self.groups.get(&group)?.holder(partition)
    }

    /// The last accepted confirm, if `group` has had a member since the process started.
    pub fn cursor(&self, group: GroupId, partition: Partition) -> Option<Offset> {
        self.groups.get(&group)?.cursor(partition)
    }

    /// Members of `group`, waiting ones included.
    pub fn members(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, Group::members)
    }
}

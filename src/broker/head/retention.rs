//! Retention: owners say what is old enough, the journal makes it so, and what groups lost by it is counted.

use super::Head;
use super::queue::Own;
use crate::broker::Core;
use crate::broker::message::{ExpiredCursor, Message};
use crate::id::{GroupId, Offset, Partition, PrivateLog};
use std::collections::HashMap;

/// Events that each group lost since the process started.
pub(super) type Losses = HashMap<GroupId, u64>;

impl Head {
    /// An owner found everything before `start` old enough.
    pub(super) fn propose_expiry(&self, partition: Partition, start: Offset) {
        if start > self.state.borrow().start(partition) {
            self.propose(Own::Expire { partition, start });
        }
    }

    /// The cursors that an expiry is going to overtake; to be asked before it is applied.
    pub(super) fn overtaken(&self, core: &Core, partition: Partition, start: Offset) -> Vec<ExpiredCursor> {
        // Most groups never read their client's private logs, so that what goes there is no loss to them.
        if PrivateLog::of(partition, core.partitions).is_some() {
            return Vec::new();
        }
        let state = self.state.borrow();
        let coordinator = self.coordinator.borrow();
        let behind = state.cursors_below(partition, start).filter_map(|(group, durable)| {
            // The coordinator is ahead of the state by confirms under way: those events are not lost.
            let at = coordinator.cursor(group, partition).unwrap_or(durable).max(durable);
            let client = state.group(group)?.client;
            (at < start).then(|| ExpiredCursor { group, at, types: core.live().types_of(client) })
        });
        behind.collect()
    }

    /// The journal says that everything before `start` is gone.
    pub(super) fn expire(
        &self,
        core: &Core,
        partition: Partition,
        start: Offset,
        cursors: Vec<ExpiredCursor>,
    ) {
        self.groups_expired(partition, start);
        core.post(core.owner_of(partition), Message::Expire { partition, start, cursors });
    }

    /// Counts and reports what a group lost.
    pub(super) fn lost(&self, cursor: &ExpiredCursor, events: u64) {
        if events == 0 {
            return;
        }
        *self.losses.borrow_mut().entry(cursor.group).or_default() += events;
        let state = self.state.borrow();
        if let Some(group) = state.group(cursor.group) {
            tracing::warn!(client = %group.client, group = %group.name, events, "events expired before the group confirmed them");
        }
    }
}

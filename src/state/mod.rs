//! What the journal's commands add up to: names and numbers of types and groups, cursors, partition bounds, and which
//! events count as repeats.
//!
//! [`State`] is a pure function of the journal: the same frames give the same state on every start and every node. It
//! reads no clock and touches no file. [`checkpoint`] writes it down so that the journal may be recycled, [`genesis`]
//! holds what never changes, [`lock`] keeps a second process out.

mod apply;
pub mod checkpoint;
#[cfg(test)]
mod crash_tests;
pub mod dedup;
pub mod genesis;
#[cfg(test)]
mod golden;
pub mod lock;
mod snapshot;
#[cfg(test)]
pub(crate) mod story;

pub use apply::ApplyError;
pub use snapshot::{PartitionEnd, Snapshot};

use crate::id::{ClientId, FrameIndex, GroupId, Offset, Partition, PrivateLog, PrivateTypes, TypeId};
use crate::journal::Mark;
use dedup::Dedup;
use std::collections::HashMap;
use std::sync::Arc;

/// A consumer group as the journal knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupName {
    pub client: ClientId,
    pub name: Arc<str>,
}

/// The replicated state after the frame `applied`.
#[derive(Debug)]
pub struct State {
    applied: Mark,
    /// Names of event types; the type `n` is at `n - 1`.
    types: Vec<Arc<str>>,
    type_ids: HashMap<Arc<str>, TypeId>,
    /// Names of groups; the group `n` is at `n - 1`.
    groups: Vec<GroupName>,
    group_ids: HashMap<GroupName, GroupId>,
    /// The groups of each client, ascending.
    client_groups: HashMap<ClientId, Vec<GroupId>>,
    /// First unconfirmed offset for each group and partition, `starts ≤ cursor ≤ ends`; a group's are side by side.
    cursors: Vec<Offset>,
    /// First retained offset of each partition.
    starts: Vec<Offset>,
    /// Offset that the next event of each partition gets.
    ends: Vec<Offset>,
    /// What frames up to this one say about offsets is ignored; see [`crate::journal::frame::Gap`].
    distrusted_upto: FrameIndex,
    dedup: Dedup,
}

impl State {
    /// The state before the first frame.
    pub fn new(partitions: u8) -> Self {
        let zeros = vec![Offset(0); usize::from(partitions)];
        Self {
            applied: Mark::default(),
            types: Vec::new(),
            type_ids: HashMap::new(),
            groups: Vec::new(),
            group_ids: HashMap::new(),
            client_groups: HashMap::new(),
            cursors: Vec::new(),
            starts: zeros.clone(),
            ends: zeros,
            distrusted_upto: FrameIndex(0),
            dedup: Dedup::default(),
        }
    }

    /// The last frame applied.
    pub fn applied(&self) -> Mark {
        self.applied
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u8 {
        self.starts.len() as u8
    }

    /// The number of an event type, if it was ever defined.
    pub fn type_id(&self, name: &str) -> Option<TypeId> {
        self.type_ids.get(name).copied()
    }

    /// The numbers of a client's events in its private logs, if they were ever defined.
    pub fn private_types(&self, client: ClientId) -> Option<PrivateTypes> {
        let number = |log: PrivateLog| self.type_id(&log.type_name(client));
        Some(PrivateTypes { dead: number(PrivateLog::Dead)?, test: number(PrivateLog::Test)? })
    }

    /// The name behind a number.
    pub fn type_name(&self, id: TypeId) -> Option<&Arc<str>> {
        self.types.get(place(id.0)?)
    }

    /// The number to define the next new event type with. Numbers count from 1, so that 0 is never a type.
    pub fn next_type_id(&self) -> TypeId {
        TypeId(self.types.len() as u32 + 1)
    }

    /// The number of a group, if it was ever defined.
    pub fn group_id(&self, group: &GroupName) -> Option<GroupId> {
        self.group_ids.get(group).copied()
    }

    /// The client and name behind a number.
    pub fn group(&self, id: GroupId) -> Option<&GroupName> {
        self.groups.get(place(id.0)?)
    }

    /// The number to define the next new group with. Numbers count from 1, so that 0 is never a group.
    pub fn next_group_id(&self) -> GroupId {
        GroupId(self.groups.len() as u32 + 1)
    }

    /// Every group, in the order of definition.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupName)> {
        (1..).map(GroupId).zip(&self.groups)
    }

    /// The groups of `client` behind `after`, in the order of definition.
    pub fn groups_of(
        &self,
        client: ClientId,
        after: Option<GroupId>,
    ) -> impl ExactSizeIterator<Item = (GroupId, &GroupName)> {
        let own = self.client_groups.get(&client).map_or(&[][..], Vec::as_slice);
        let behind = &own[own.partition_point(|group| Some(*group) <= after)..];
        behind.iter().map(|group| (*group, &self.groups[group.0 as usize - 1]))
    }

    /// The first offset of `partition` that `group` has not confirmed. `None` for what does not exist.
    pub fn cursor(&self, group: GroupId, partition: Partition) -> Option<Offset> {
        Some(self.cursors[self.cursor_place(group, partition)?])
    }

    /// The first retained offset of `partition`.
    pub fn start(&self, partition: Partition) -> Offset {
        self.starts[usize::from(partition.0)]
    }

    /// The offset that the next event of `partition` gets.
    pub fn end(&self, partition: Partition) -> Offset {
        self.ends[usize::from(partition.0)]
    }

    /// The groups with a cursor below `offset` of `partition`, and where it is: whom an expiry up to there concerns.
    pub fn cursors_below(
        &self,
        partition: Partition,
        offset: Offset,
    ) -> impl Iterator<Item = (GroupId, Offset)> {
        let of_partition = self.cursors.iter().skip(usize::from(partition.0)).step_by(self.starts.len());
        let numbered = (1..).map(GroupId).zip(of_partition.copied());
        numbered.filter(move |(_, cursor)| *cursor < offset)
    }

    /// What counts as a repeat.
    pub fn dedup(&mut self) -> &mut Dedup {
        &mut self.dedup
    }

    fn cursor_place(&self, group: GroupId, partition: Partition) -> Option<usize> {
        let (group, partition) = (place(group.0)?, usize::from(partition.0));
        let known = group < self.groups.len() && partition < self.starts.len();
        known.then_some(group * self.starts.len() + partition)
    }
}

/// Where in its list the thing numbered `number` stands; numbers count from 1.
fn place(number: u32) -> Option<usize> {
    number.checked_sub(1).map(|place| place as usize)
}

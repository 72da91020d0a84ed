//! Applying frames: the only way in which the state changes.

use super::{GroupName, State, place};
use crate::event::record::{RecordError, records};
use crate::fault::{Fault, planted};
use crate::id::{ClientId, FrameIndex, GroupId, Offset, Partition, TypeId};
use crate::journal::command::{Command, CommandError, commands};
use crate::journal::frame::{FrameError, FrameHeader, FrameKind, Gap};
use std::fmt;

/// Why a frame cannot be applied. It was checksummed, so each means a bug or a newer writer: the process must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// The frame does not follow the last one applied.
    OutOfOrder {
        applied: FrameIndex,
        offered: FrameIndex,
    },
    Gap(FrameError),
    Command(CommandError),
    Record(RecordError),
    UnknownPartition(Partition),
    UnknownType(TypeId),
    UnknownGroup(GroupId),
    /// A type or group is defined with another number than the next one, or was defined before.
    Definition(u32),
    /// A confirm or an expiry names an offset that no event has.
    BeyondEnd {
        partition: Partition,
        offset: Offset,
        end: Offset,
    },
}

impl State {
    /// Applies a frame: every command of its body, in order. After an error the state must not be used.
    pub fn apply(&mut self, header: &FrameHeader, body: &[u8]) -> Result<(), ApplyError> {
        let lies_in_gap = header.kind == FrameKind::Gap
            && header.prev_index < self.applied.index
            && self.applied.index < header.index;
        if !header.follows(&self.applied) && !lies_in_gap {
            return Err(ApplyError::OutOfOrder { applied: self.applied.index, offered: header.index });
        }
        match header.kind {
            FrameKind::Gap => {
                self.distrusted_upto = Gap::read(body).map_err(ApplyError::Gap)?.distrusted_upto;
            }
            FrameKind::Commands => {
                for command in commands(body) {
                    self.apply_command(header, command.map_err(ApplyError::Command)?)?;
                }
            }
        }
        self.applied = header.mark();
        self.dedup.forget_before(header.time_ms);
        Ok(())
    }

    fn apply_command(&mut self, header: &FrameHeader, command: Command<'_>) -> Result<(), ApplyError> {
        let trusted = header.index > self.distrusted_upto;
        match command {
            Command::Events(block) => self.append(header.time_ms, block),
            Command::DefineType { id, name } => self.define_type(id, name),
            Command::DefineGroup { id, client, name } => self.define_group(id, client, name),
            Command::Confirm { group, partition, offset } if trusted => {
                self.confirm(group, partition, offset)
            }
            Command::Expire { partition, start } if trusted => self.expire(partition, start),
            Command::ResetCursor { group, partition, offset } if trusted => {
                self.reset_cursor(group, partition, offset)
            }
            Command::Confirm { .. } | Command::Expire { .. } | Command::ResetCursor { .. } => Ok(()),
        }
    }

    /// Each record gets the next offset of its partition, in the order of the block.
    fn append(&mut self, time_ms: u64, block: &[u8]) -> Result<(), ApplyError> {
        for record in records(block) {
            let (_, record) = record.map_err(ApplyError::Record)?;
            let header = record.header();
            let partition = header.partition;
            let end = self.ends.get_mut(usize::from(partition.0));
            let end = end.ok_or(ApplyError::UnknownPartition(partition))?;
            if place(header.type_id.0).is_none_or(|place| place >= self.types.len()) {
                return Err(ApplyError::UnknownType(header.type_id));
            }
            *end = end.next();
            self.dedup.remember(time_ms, &record);
        }
        Ok(())
    }

    fn define_type(&mut self, id: TypeId, name: &str) -> Result<(), ApplyError> {
        if id != self.next_type_id() || self.type_ids.contains_key(name) {
            return Err(ApplyError::Definition(id.0));
        }
        let name: std::sync::Arc<str> = name.into();
        self.types.push(name.clone());
        self.type_ids.insert(name, id);
        Ok(())
    }

    /// A group seen for the first time starts at the oldest retained event.
    fn define_group(&mut self, id: GroupId, client: ClientId, name: &str) -> Result<(), ApplyError> {
        let group = GroupName { client, name: name.into() };
        if id != self.next_group_id() || self.group_ids.contains_key(&group) {
            return Err(ApplyError::Definition(id.0));
        }
        self.groups.push(group.clone());
        self.client_groups.entry(client).or_default().push(id);
        self.group_ids.insert(group, id);
        self.cursors.extend_from_slice(&self.starts);
        Ok(())
    }

    /// A cursor never moves back; a confirm of what has expired meanwhile changes nothing.
    fn confirm(&mut self, group: GroupId, partition: Partition, offset: Offset) -> Result<(), ApplyError> {
        self.check_offset(partition, offset)?;
        let cursor = self.cursor_place(group, partition).ok_or(ApplyError::UnknownGroup(group))?;
        if offset > self.cursors[cursor] || planted(Fault::CursorBack) {
            self.cursors[cursor] = offset;
        }
        Ok(())
    }

    fn expire(&mut self, partition: Partition, start: Offset) -> Result<(), ApplyError> {
        self.check_offset(partition, start)?;
        let at = usize::from(partition.0);
        self.starts[at] = self.starts[at].max(start);
        let partitions = self.starts.len();
        for cursor in self.cursors.iter_mut().skip(at).step_by(partitions) {
            *cursor = start.max(*cursor);
        }
        Ok(())
    }

    /// The operator may have looked before an expiry, so an offset outside the partition means its nearer end.
    fn reset_cursor(
        &mut self,
        group: GroupId,
        partition: Partition,
        offset: Offset,
    ) -> Result<(), ApplyError> {
        let cursor = self.cursor_place(group, partition).ok_or(ApplyError::UnknownGroup(group))?;
        self.cursors[cursor] = offset.clamp(self.start(partition), self.end(partition));
        Ok(())
    }

    fn check_offset(&self, partition: Partition, offset: Offset) -> Result<(), ApplyError> {
        match self.ends.get(usize::from(partition.0)) {
            None => Err(ApplyError::UnknownPartition(partition)),
            Some(end) if offset > *end => Err(ApplyError::BeyondEnd { partition, offset, end: *end }),
            Some(_) => Ok(()),
        }
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { applied, offered } => {
                write!(f, "frame {offered} does not follow frame {applied}, the last one applied")
            }
            Self::Gap(error) => write!(f, "gap frame: {error}"),
            Self::Command(error) => error.fmt(f),
            Self::Record(error) => write!(f, "an event record is not sound: {error:?}"),
            Self::UnknownPartition(partition) => write!(f, "there is no partition {partition}"),
            Self::UnknownType(id) => write!(f, "event type {id} was never defined"),
            Self::UnknownGroup(id) => {
                write!(f, "group {id} was never defined, or its partition does not exist")
            }
            Self::Definition(id) => write!(f, "number {id} is defined out of order or twice"),
            Self::BeyondEnd { partition, offset, end } => {
                write!(f, "offset {offset} of partition {partition} is beyond its end {end}")
            }
        }
    }
}

impl std::error::Error for ApplyError {}

#[cfg(test)]
mod tests {
    use super::super::story::{PARTITIONS, Story, confirm, event, next};
    use super::*;

    #[test]
    fn events_get_dense_offsets_in_frame_and_block_order() {
        let mut story = Story::new();
        let block = [event(0, 0, "s", "1"), event(2, 0, "s", "2"), event(0, 0, "s", "3")].concat();
        story.tell(2_000, &[Command::Events(&block), Command::Events(&block)]).unwrap();
        let ends = (0..PARTITIONS).map(|partition| story.state.end(Partition(partition)).0);
        assert_eq!(ends.collect::<Vec<_>>(), [4, 0, 2]);
    }

    #[test]
    fn the_same_frames_give_the_same_state() {
        let mut story = Story::new();
        story.events(1, 4);
        story.tell(3_000, &[confirm(1, 2), confirm(1, 3)]).unwrap();
        let mut replayed = State::new(PARTITIONS);
        for (header, body) in &story.frames {
            replayed.apply(header, body).unwrap();
        }
        assert_eq!(format!("{:?}", replayed.snapshot()), format!("{:?}", story.state.snapshot()));
    }

    #[test]
    fn a_frame_out_of_order_or_of_another_history_is_refused() {
        let mut story = Story::new();
        let (header, body) = story.frames[0].clone();
        assert!(matches!(story.state.apply(&header, &body), Err(ApplyError::OutOfOrder { .. })));
        let mut other = story.state.applied();
        other.chain ^= 1;
        let header = next(&other, 1_000, &[]);
        assert!(matches!(story.state.apply(&header, &[]), Err(ApplyError::OutOfOrder { .. })));
    }

    #[test]
    fn a_cursor_moves_forward_only_and_never_past_the_end() {
        let mut story = Story::new();
        story.events(0, 10);
        for (offset, expected) in [(4, 4), (2, 4), (4, 4), (10, 10)] {
            story.tell(1_000, &[confirm(0, offset)]).unwrap();
            assert_eq!(story.cursor(0), expected);
        }
        let beyond = story.tell(1_000, &[confirm(0, 11)]);
        assert!(matches!(beyond, Err(ApplyError::BeyondEnd { .. })));
    }

    #[test]
    fn expiry_raises_the_start_and_the_cursors_below_it_only() {
        let mut story = Story::new();
        story.events(0, 10);
        let client = ClientId([2; 16]);
        story.tell(1_000, &[Command::DefineGroup { id: GroupId(2), client, name: "g" }]).unwrap();
        story.tell(1_000, &[confirm(0, 7)]).unwrap();
        let below = story.state.cursors_below(Partition(0), Offset(5)).collect::<Vec<_>>();
        assert_eq!(below, [(GroupId(2), Offset(0))]);
        let expire = |start| Command::Expire { partition: Partition(0), start: Offset(start) };
        story.tell(1_000, &[expire(5), expire(3)]).unwrap();
        assert_eq!(story.state.start(Partition(0)), Offset(5));
        assert_eq!((story.cursor(0), story.cursor(1)), (7, 0));
        assert_eq!(story.state.cursor(GroupId(2), Partition(0)), Some(Offset(5)));
    }

    #[test]
    fn a_new_group_starts_at_the_oldest_retained_event() {
        let mut story = Story::new();
        story.events(0, 10);
        let expire = Command::Expire { partition: Partition(0), start: Offset(6) };
        let group = Command::DefineGroup { id: GroupId(2), client: ClientId([2; 16]), name: "g" };
        story.tell(1_000, &[expire, group]).unwrap();
        assert_eq!(story.state.cursor(GroupId(2), Partition(0)), Some(Offset(6)));
    }

    #[test]
    fn a_reset_moves_a_cursor_back_but_not_out_of_the_partition() {
        let mut story = Story::new();
        story.events(0, 10);
        let expire = Command::Expire { partition: Partition(0), start: Offset(2) };
        story.tell(1_000, &[confirm(0, 9), expire]).unwrap();
        for (offset, expected) in [(5, 5), (0, 2), (99, 10)] {
            let (group, partition) = (GroupId(1), Partition(0));
            let reset = Command::ResetCursor { group, partition, offset: Offset(offset) };
            story.tell(1_000, &[reset]).unwrap();
            assert_eq!(story.cursor(0), expected);
        }
    }

    #[test]
    fn what_was_never_defined_is_refused_by_name() {
        let cases = [
            (Command::DefineType { id: TypeId(4), name: "X" }, ApplyError::Definition(4)),
            (Command::DefineType { id: TypeId(3), name: "A.B.C.D" }, ApplyError::Definition(3)),
            (
                Command::DefineGroup { id: GroupId(2), client: ClientId([1; 16]), name: "~default" },
                ApplyError::Definition(2),
            ),
            (confirm(9, 0), ApplyError::UnknownPartition(Partition(9))),
            (
                Command::Confirm { group: GroupId(0), partition: Partition(0), offset: Offset(0) },
                ApplyError::UnknownGroup(GroupId(0)),
            ),
            (
                Command::Confirm { group: GroupId(2), partition: Partition(0), offset: Offset(0) },
                ApplyError::UnknownGroup(GroupId(2)),
            ),
        ];
        for (command, error) in cases {
            assert_eq!(Story::new().tell(1_000, &[command]), Err(error));
        }
        let foreign = event(PARTITIONS, 0, "s", "i");
        let refused = Story::new().tell(1_000, &[Command::Events(&foreign)]);
        assert_eq!(refused, Err(ApplyError::UnknownPartition(Partition(PARTITIONS))));
        let untyped = State::new(PARTITIONS);
        let mut story = Story { state: untyped, frames: Vec::new() };
        let refused = story.tell(1_000, &[Command::Events(&event(0, 0, "s", "i"))]);
        assert_eq!(refused, Err(ApplyError::UnknownType(TypeId(1))));
    }

    #[test]
    fn names_and_numbers_lead_to_each_other() {
        let story = Story::new();
        let state = &story.state;
        assert_eq!(state.type_id("A.B.C.E"), Some(TypeId(2)));
        assert_eq!(state.type_name(TypeId(2)).map(|name| &**name), Some("A.B.C.E"));
        assert_eq!((state.next_type_id(), state.next_group_id()), (TypeId(3), GroupId(2)));
        let (id, group) = state.groups().next().unwrap();
        assert_eq!((state.group_id(group), state.group(id)), (Some(id), Some(group)));
        assert_eq!((state.type_name(TypeId(0)), state.group(GroupId(0))), (None, None));
    }

    #[test]
    fn the_groups_of_a_client_are_listed_in_order_and_go_on_behind_any() {
        let mut story = Story::new();
        let (own, other) = (ClientId([1; 16]), ClientId([2; 16]));
        for (number, client) in [(2, other), (3, own), (4, other), (5, own)] {
            let name = number.to_string();
            story.tell(2_000, &[Command::DefineGroup { id: GroupId(number), client, name: &name }]).unwrap();
        }
        let behind = |client, after| {
            story.state.groups_of(client, after).map(|(id, name)| (id.0, name.client)).collect::<Vec<_>>()
        };
        assert_eq!(behind(own, None), [(1, own), (3, own), (5, own)]);
        assert_eq!(behind(own, Some(GroupId(2))), [(3, own), (5, own)]);
        assert_eq!(behind(other, Some(GroupId(2))), [(4, other)]);
        assert_eq!(behind(ClientId([3; 16]), None), []);
    }

    #[test]
    fn after_a_gap_events_count_but_offsets_of_the_damaged_time_do_not() {
        let mut story = Story::new();
        story.events(0, 5);
        story.gap(5, 7);
        let expire = Command::Expire { partition: Partition(0), start: Offset(900) };
        story.tell(1_000, &[confirm(0, 800), expire]).unwrap();
        story.events(0, 1);
        assert_eq!((story.cursor(0), story.state.end(Partition(0))), (0, Offset(6)));
        story.tell(1_000, &[confirm(0, 6)]).unwrap();
        assert_eq!(story.cursor(0), 6);
    }
}

//! Commands: the body of a frame, and the only way in which replicated state changes.
//!
//! Each command starts at a multiple of eight bytes. Documented byte by byte in `storage-format.md`.
//!
//! ```text
//!  0  u16  kind
//!  2  u16  flags        none defined, 0
//!  4  u32  length       of the payload, without padding
//!  8  …    payload      padded with zeros to a multiple of 8
//!
//!  1 events         records, as `event::record` lays them out: the events of one request
//!  2 confirm        u32 group, u8 partition, 3 × 0, u64 offset
//!  3 define type    u32 type, u32 0, name in UTF-8
//!  4 define group   u32 group, u32 0, client (16 bytes), name in UTF-8
//!  5 expire         u32 0, u8 partition, 3 × 0, u64 offset
//!  6 reset cursor   as confirm
//! ```

use super::layout::{bytes, is_zero, put, u16_at, u32_at, u64_at};
use crate::id::{ClientId, GroupId, Offset, Partition, TypeId};
use std::fmt;

/// Commands start at multiples of this many bytes.
const ALIGN: usize = 8;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;
/// Payload of the commands that name a place in a partition.
const PLACE_BYTES: usize = 16;

const EVENTS: u16 = 1;
const CONFIRM: u16 = 2;
const DEFINE_TYPE: u16 = 3;
const DEFINE_GROUP: u16 = 4;
const EXPIRE: u16 = 5;
const RESET_CURSOR: u16 = 6;

/// One change of the replicated state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The records of one request, visible together or not at all. A multiple of eight bytes.
    Events(&'a [u8]),
    /// Everything before `offset` is consumed by the group. Never moves a cursor back.
    Confirm { group: GroupId, partition: Partition, offset: Offset },
    /// Gives an event type its number: one above the last.
    DefineType { id: TypeId, name: &'a str },
    /// Gives a (client, group name) its number: one above the last.
    DefineGroup { id: GroupId, client: ClientId, name: &'a str },
    /// Everything before `start` is past its retention: cursors below are raised to it.
    Expire { partition: Partition, start: Offset },
    /// An operator's explicit move of a cursor, in either direction.
    ResetCursor { group: GroupId, partition: Partition, offset: Offset },
}

/// Why bytes are not a command. Frames are checksummed, so each means a bug or a newer writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The body ends inside the command that starts at this byte.
    Short { at: usize },
    /// A kind this version does not know.
    UnknownKind { kind: u16, at: usize },
    /// A payload of the wrong length, a reserved field that is set, or a name that is not UTF-8.
    Malformed { kind: u16, at: usize },
}

/// A body under construction. Blocks of events stay where they are until the frame is written; the rest is small.
#[derive(Default)]
pub struct Body<'a> {
    /// Everything but blocks, in order.
    small: Vec<u8>,
    /// Each block, and how much of `small` comes before it.
    blocks: Vec<(usize, &'a [u8])>,
    block_bytes: usize,
}

impl<'a> Body<'a> {
    /// Adds a command at the end.
    pub fn push(&mut self, command: &Command<'a>) {
        match *command {
            Command::Events(block) => self.push_events(block),
            Command::Confirm { group, partition, offset } => {
                self.push_place(CONFIRM, group.0, partition, offset);
            }
            Command::DefineType { id, name } => self.push_definition(DEFINE_TYPE, id.0, &[], name),
            Command::DefineGroup { id, client, name } => {
                self.push_definition(DEFINE_GROUP, id.0, &client.0, name);
            }
            Command::Expire { partition, start } => self.push_place(EXPIRE, 0, partition, start),
            Command::ResetCursor { group, partition, offset } => {
                self.push_place(RESET_CURSOR, group.0, partition, offset);
            }
        }
    }

    fn push_events(&mut self, block: &'a [u8]) {
        assert_eq!(block.len() % ALIGN, 0, "records are padded");
        self.push_header(EVENTS, block.len());
        self.blocks.push((self.small.len(), block));
        self.block_bytes += block.len();
    }

    fn push_place(&mut self, kind: u16, group: u32, partition: Partition, offset: Offset) {
        self.push_header(kind, PLACE_BYTES);
        let mut payload = [0; PLACE_BYTES];
        put(&mut payload, 0, &group.to_le_bytes());
        payload[4] = partition.0;
        put(&mut payload, 8, &offset.0.to_le_bytes());
        self.small.extend_from_slice(&payload);
    }

    fn push_definition(&mut self, kind: u16, id: u32, client: &[u8], name: &str) {
        self.push_header(kind, 8 + client.len() + name.len());
        self.small.extend_from_slice(&id.to_le_bytes());
        self.small.extend_from_slice(&[0; 4]);
        self.small.extend_from_slice(client);
        self.small.extend_from_slice(name.as_bytes());
        self.small.resize(self.small.len().next_multiple_of(ALIGN), 0);
    }

    fn push_header(&mut self, kind: u16, payload_bytes: usize) {
        self.small.extend_from_slice(&kind.to_le_bytes());
        self.small.extend_from_slice(&[0; 2]);
        self.small.extend_from_slice(&u32::try_from(payload_bytes).expect("below 4 GiB").to_le_bytes());
    }

    /// Length of the body in bytes.
    pub fn bytes(&self) -> usize {
        self.small.len() + self.block_bytes
    }

    /// Whether the body holds no command.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty()
    }

    /// Bytes that `command` adds to a body.
    pub fn bytes_of(command: &Command<'_>) -> usize {
        let payload = match command {
            Command::Events(block) => block.len(),
            Command::DefineType { name, .. } => 8 + name.len(),
            Command::DefineGroup { name, .. } => 24 + name.len(),
            Command::Confirm { .. } | Command::Expire { .. } | Command::ResetCursor { .. } => PLACE_BYTES,
        };
        HEADER_BYTES + payload.next_multiple_of(ALIGN)
    }

    /// The pieces that make up the body, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let spread = self.blocks.iter().flat_map(move |(upto, block)| {
            let piece = &self.small[from..*upto];
            from = *upto;
            [piece, *block]
        });
        let last = self.blocks.last().map_or(0, |(upto, _)| *upto);
        spread.chain([&self.small[last..]])
    }
}

/// The commands of a body, one after the other, up to its end or its first error.
pub fn commands(body: &[u8]) -> Commands<'_> {
    Commands { body, at: 0 }
}

/// Iterator over the commands of a body.
pub struct Commands<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let read = read(self.body, self.at);
        self.at = read.as_ref().map_or(self.body.len(), |(_, next)| *next);
        Some(read.map(|(command, _)| command))
    }
}

/// Reads the command at `at`; also says where the next one starts.
fn read(body: &[u8], at: usize) -> Result<(Command<'_>, usize), CommandError> {
    let header = body.get(at..at + HEADER_BYTES).ok_or(CommandError::Short { at })?;
    let kind = u16_at(header, 0);
    let start = at + HEADER_BYTES;
    let end = start + u32_at(header, 4) as usize;
    let next = end.next_multiple_of(ALIGN);
    if next > body.len() {
        return Err(CommandError::Short { at });
    }
    let malformed = CommandError::Malformed { kind, at };
    if u16_at(header, 2) != 0 || !is_zero(&body[end..next]) {
        return Err(malformed);
    }
    let command = match kind {
        EVENTS | CONFIRM | DEFINE_TYPE | DEFINE_GROUP | EXPIRE | RESET_CURSOR => {
            read_payload(kind, &body[start..end]).ok_or(malformed)?
        }
        _ => return Err(CommandError::UnknownKind { kind, at }),
    };
    Ok((command, next))
}

/// The command of a known kind, or `None` when the payload is not one.
fn read_payload(kind: u16, payload: &[u8]) -> Option<Command<'_>> {
    match kind {
        EVENTS => payload.len().is_multiple_of(ALIGN).then_some(Command::Events(payload)),
        DEFINE_TYPE => {
            let id = TypeId(read_id(payload)?);
            Some(Command::DefineType { id, name: str::from_utf8(&payload[8..]).ok()? })
        }
        DEFINE_GROUP => {
            let id = GroupId(read_id(payload)?);
            let name = str::from_utf8(payload.get(24..)?).ok()?;
            Some(Command::DefineGroup { id, client: ClientId(bytes(payload, 8)), name })
        }
        _ => {
            let (group, partition, offset) = read_place(payload)?;
            match kind {
                CONFIRM => Some(Command::Confirm { group, partition, offset }),
                RESET_CURSOR => Some(Command::ResetCursor { group, partition, offset }),
                _ => (group.0 == 0).then_some(Command::Expire { partition, start: offset }),
            }
        }
    }
}

/// The number at the start of a definition.
fn read_id(payload: &[u8]) -> Option<u32> {
    let fixed = payload.get(..8)?;
    is_zero(&fixed[4..]).then(|| u32_at(fixed, 0))
}

fn read_place(payload: &[u8]) -> Option<(GroupId, Partition, Offset)> {
    if payload.len() != PLACE_BYTES || !is_zero(&payload[5..8]) {
        return None;
    }
    Some((GroupId(u32_at(payload, 0)), Partition(payload[4]), Offset(u64_at(payload, 8))))
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { at } => write!(f, "the command at byte {at} of the frame body is cut short"),
            Self::UnknownKind { kind, at } => write!(
                f,
                "the command at byte {at} of the frame body is of kind {kind}, which this version does not know"
            ),
            Self::Malformed { kind, at } => {
                write!(f, "the command of kind {kind} at byte {at} of the frame body is malformed")
            }
        }
    }
}

impl std::error::Error for CommandError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(commands: &[Command<'_>]) -> Vec<u8> {
        let mut body = Body::default();
        commands.iter().for_each(|command| body.push(command));
        let bytes = body.pieces().collect::<Vec<_>>().concat();
        assert_eq!(body.bytes(), bytes.len());
        assert_eq!(bytes.len(), commands.iter().map(Body::bytes_of).sum::<usize>());
        bytes
    }

    #[derive(Clone, Debug)]
    enum Plain {
        Events(Vec<u8>),
        Place(u8, u32, u8, u64),
        Define(bool, u32, [u8; 16], String),
    }

    impl Plain {
        fn command(&self) -> Command<'_> {
            match self {
                Self::Events(block) => Command::Events(block),
                &Self::Place(which, group, partition, offset) => {
                    let (group, partition, offset) = (GroupId(group), Partition(partition), Offset(offset));
                    match which {
                        0 => Command::Confirm { group, partition, offset },
                        1 => Command::ResetCursor { group, partition, offset },
                        _ => Command::Expire { partition, start: offset },
                    }
                }
                Self::Define(false, id, _, name) => Command::DefineType { id: TypeId(*id), name },
                Self::Define(true, id, client, name) => {
                    Command::DefineGroup { id: GroupId(*id), client: ClientId(*client), name }
                }
            }
        }
    }

    fn plain() -> impl Strategy<Value = Plain> {
        prop_oneof![
            (0..5_usize).prop_flat_map(|n| prop::collection::vec(any::<u8>(), n * 8)).prop_map(Plain::Events),
            (0..3_u8, any::<u32>(), any::<u8>(), any::<u64>())
                .prop_map(|(which, group, partition, at)| Plain::Place(which, group, partition, at)),
            (any::<bool>(), any::<u32>(), any::<[u8; 16]>(), ".{0,20}")
                .prop_map(|(group, id, client, name)| Plain::Define(group, id, client, name)),
        ]
    }

    proptest! {
        #[test]
        fn any_commands_read_back_as_pushed(plain in prop::collection::vec(plain(), 0..12)) {
            let pushed: Vec<Command<'_>> = plain.iter().map(Plain::command).collect();
            let bytes = encoded(&pushed);
            prop_assert_eq!(commands(&bytes).collect::<Result<Vec<_>, _>>(), Ok(pushed));
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = commands(&bytes).collect::<Vec<_>>();
            prop_assert!(read.len() <= bytes.len() / HEADER_BYTES + 1);
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok), "nothing follows an error");
        }
    }

    #[test]
    fn an_unknown_kind_names_the_kind_and_the_place() {
        let mut bytes = encoded(&[Command::Events(&[0; 16])]);
        let at = bytes.len();
        bytes.extend_from_slice(&[77, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(commands(&bytes).last(), Some(Err(CommandError::UnknownKind { kind: 77, at })));
    }

    #[test]
    fn a_length_past_the_body_is_short() {
        let mut bytes = encoded(&[Command::Events(&[1; 16])]);
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(commands(&bytes).next(), Some(Err(CommandError::Short { at: 0 })));
    }

    #[test]
    fn reserved_bytes_that_are_set_are_malformed() {
        let bytes = encoded(&[Command::Expire { partition: Partition(3), start: Offset(9) }]);
        for at in [2, 8, 13] {
            let mut set = bytes.clone();
            set[at] = 1;
            assert!(commands(&set).next().unwrap().is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_empty_body_has_no_commands() {
        assert!(commands(&[]).next().is_none());
        assert!(Body::default().is_empty());
    }
}

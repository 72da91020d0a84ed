//! States for tests: frames made up one after the other and applied at once.

use super::{ApplyError, State};
use crate::event::record::{RecordHeader, append};
use crate::id::{ClientId, FrameIndex, GroupId, Offset, Partition, Term, TypeId};
use crate::journal::Mark;
use crate::journal::command::{Body, Command};
use crate::journal::frame::{FrameHeader, FrameKind, Gap};

pub(crate) const PARTITIONS: u8 = 3;

/// A state with two types and a group, and how it got there.
pub(crate) struct Story {
    pub state: State,
    pub frames: Vec<(FrameHeader, Vec<u8>)>,
}

impl Story {
    pub fn new() -> Self {
        let mut story = Self { state: State::new(PARTITIONS), frames: Vec::new() };
        let client = ClientId([1; 16]);
        story
            .tell(
                1_000,
                &[
                    Command::DefineType { id: TypeId(1), name: "A.B.C.D" },
                    Command::DefineType { id: TypeId(2), name: "A.B.C.E" },
                    Command::DefineGroup { id: GroupId(1), client, name: "~default" },
                ],
            )
            .unwrap();
        story
    }

    /// Applies a frame of `commands`.
    pub fn tell(&mut self, time_ms: u64, commands: &[Command<'_>]) -> Result<(), ApplyError> {
        let mut body = Body::default();
        commands.iter().for_each(|command| body.push(command));
        let body = body.pieces().collect::<Vec<_>>().concat();
        let header = next(&self.state.applied(), time_ms, &body);
        self.state.apply(&header, &body)?;
        self.frames.push((header, body));
        Ok(())
    }

    /// Applies a frame with `count` events in `partition`.
    pub fn events(&mut self, partition: u8, count: usize) {
        let block: Vec<u8> = (0..count).flat_map(|_| event(partition, 0, "s", "i")).collect();
        self.tell(1_000, &[Command::Events(&block)]).unwrap();
    }

    /// Applies a gap up to `index`.
    pub fn gap(&mut self, index: u64, distrusted_upto: u64) {
        let body = Gap { distrusted_upto: FrameIndex(distrusted_upto) }.bytes();
        let mut header = next(&self.state.applied(), 1_000, &body);
        (header.kind, header.index, header.chain) = (FrameKind::Gap, FrameIndex(index), 77);
        self.state.apply(&header, &body).unwrap();
    }

    pub fn cursor(&self, partition: u8) -> u64 {
        self.state.cursor(GroupId(1), Partition(partition)).unwrap().0
    }
}

/// The header of a frame that follows `mark`.
pub(crate) fn next(mark: &Mark, time_ms: u64, body: &[u8]) -> FrameHeader {
    let mut header = FrameHeader {
        kind: FrameKind::Commands,
        nonce: 5,
        index: mark.index.next(),
        prev_index: mark.index,
        term: Term(1),
        prev_term: mark.term,
        synced_upto: mark.index,
        time_ms,
        block: 1,
        body_bytes: body.len() as u32,
        body_crc: crc32fast::hash(body),
        prev_chain: mark.chain,
        chain: 0,
    };
    header.chain = header.computed_chain();
    header
}

/// A record of the first type with the given window in seconds, source and id.
pub(crate) fn event(partition: u8, dedup_window_s: u32, source: &str, id: &str) -> Vec<u8> {
    let mut block = Vec::new();
    let write = |out: &mut Vec<u8>| {
        let start = out.len();
        out.extend_from_slice(b"{\"source\":\"");
        let source_start = (out.len() - start) as u32;
        out.extend_from_slice(source.as_bytes());
        let source_end = (out.len() - start) as u32;
        out.extend_from_slice(b"\",\"id\":\"");
        let id_start = (out.len() - start) as u32;
        out.extend_from_slice(id.as_bytes());
        let id_end = (out.len() - start) as u32;
        out.push(b'"');
        Ok::<_, std::convert::Infallible>(RecordHeader {
            type_id: TypeId(1),
            partition: Partition(partition),
            key_hash: 1,
            dedup_window_s,
            time_ms: 1_000,
            source: (source_start, source_end),
            id: (id_start, id_end),
        })
    };
    let Ok(()) = append(&mut block, write);
    block
}

/// A confirm of the story's group.
pub(crate) fn confirm(partition: u8, offset: u64) -> Command<'static> {
    Command::Confirm { group: GroupId(1), partition: Partition(partition), offset: Offset(offset) }
}

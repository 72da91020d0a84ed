//! A state at one frame, cheap to take, and its archived form.
//!
//! Taking one copies numbers and shares everything else, so that core 0 is not held up; turning it into bytes is work for
//! a helper thread.

use super::dedup::{Chunk, Dedup};
use super::{GroupName, State};
use crate::fault::{Fault, planted};
use crate::id::{ClientId, FrameIndex, GroupId, Offset, Term, TypeId};
use crate::journal::Mark;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize, rancor};
use std::sync::Arc;

/// The state after one frame.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) applied: Mark,
    types: Vec<Arc<str>>,
    groups: Vec<GroupName>,
    cursors: Vec<Offset>,
    starts: Vec<Offset>,
    pub(super) ends: Vec<Offset>,
    distrusted_upto: FrameIndex,
    chunks: Vec<Arc<Chunk>>,
}

/// How far a partition's files reach, as its owner says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnd {
    /// Of the next event.
    pub offset: Offset,
    /// Number of the last segment in use.
    pub segment: u64,
    /// Behind the last record in that segment, in bytes.
    pub position: u32,
}

/// The archived form. Fields may only change together with the checkpoint's version.
#[derive(Archive, Serialize, Deserialize)]
struct Image {
    index: u64,
    term: u64,
    chain: u32,
    time_ms: u64,
    distrusted_upto: u64,
    types: Vec<String>,
    groups: Vec<GroupImage>,
    cursors: Vec<u64>,
    partitions: Vec<PartitionImage>,
    dedup: Vec<ChunkImage>,
}

#[derive(Archive, Serialize, Deserialize)]
struct GroupImage {
    client: [u8; 16],
    name: String,
}

#[derive(Archive, Serialize, Deserialize)]
struct PartitionImage {
    start: u64,
    end: u64,
    segment: u64,
    position: u32,
}

#[derive(Archive, Serialize, Deserialize)]
struct ChunkImage {
    window_s: u32,
    last_ms: u64,
    bytes: Vec<u8>,
}

impl State {
    /// The state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            applied: self.applied,
            types: self.types.clone(),
            groups: self.groups.clone(),
            cursors: self.cursors.clone(),
            starts: self.starts.clone(),
            ends: self.ends.clone(),
            distrusted_upto: self.distrusted_upto,
            chunks: self.dedup.chunks(),
        }
    }
}

impl Snapshot {
    /// The last frame in it.
    pub fn applied(&self) -> Mark {
        self.applied
    }

    /// The archived form, together with where the partitions' files end at the same frame.
    pub(super) fn to_bytes(&self, ends: &[PartitionEnd]) -> AlignedVec {
        let image = Image {
            index: self.applied.index.0,
            term: self.applied.term.0,
            chain: self.applied.chain,
            time_ms: self.applied.time_ms,
            distrusted_upto: self.distrusted_upto.0,
            types: self.types.iter().map(|name| name.to_string()).collect(),
            groups: self.groups.iter().map(GroupImage::of).collect(),
            cursors: self.cursors.iter().map(|cursor| cursor.0).collect(),
            partitions: self.starts.iter().zip(ends).map(PartitionImage::of).collect(),
            dedup: self
                .chunks
                .iter()
                .filter(|_| !planted(Fault::ForgottenRepeats))
                .map(|chunk| ChunkImage::of(chunk))
                .collect(),
        };
        rkyv::to_bytes::<rancor::Error>(&image).expect("memory is the only thing an image needs")
    }
}

impl GroupImage {
    fn of(group: &GroupName) -> Self {
        Self { client: group.client.0, name: group.name.to_string() }
    }
}

impl PartitionImage {
    fn of((start, end): (&Offset, &PartitionEnd)) -> Self {
        Self { start: start.0, end: end.offset.0, segment: end.segment, position: end.position }
    }

    fn end(&self) -> PartitionEnd {
        PartitionEnd { offset: Offset(self.end), segment: self.segment, position: self.position }
    }
}

impl ChunkImage {
    fn of(chunk: &Chunk) -> Self {
        Self { window_s: chunk.window_s, last_ms: chunk.last_ms, bytes: chunk.bytes.clone() }
    }
}

/// The state and the partitions' ends in an archived form; `None` if it is not one, or contradicts itself.
pub(super) fn from_bytes(bytes: &[u8], partitions: u8) -> Option<(State, Vec<PartitionEnd>)> {
    let image = rkyv::from_bytes::<Image, rancor::Error>(bytes).ok()?;
    let ends: Vec<PartitionEnd> = image.partitions.iter().map(PartitionImage::end).collect();
    let state = image.into_state()?;
    (state.partitions() == partitions).then_some((state, ends))
}

impl Image {
    fn into_state(self) -> Option<State> {
        let partitions = u8::try_from(self.partitions.len()).ok().filter(|count| *count > 0)?;
        let applied = Mark {
            index: FrameIndex(self.index),
            term: Term(self.term),
            chain: self.chain,
            time_ms: self.time_ms,
        };
        let mut state = State { applied, ..State::new(partitions) };
        state.distrusted_upto = FrameIndex(self.distrusted_upto);
        state.starts = self.partitions.iter().map(|partition| Offset(partition.start)).collect();
        state.ends = self.partitions.iter().map(|partition| Offset(partition.end)).collect();
        state.types = self.types.iter().map(|name| name.as_str().into()).collect();
        state.groups = self.groups.into_iter().map(GroupImage::into_name).collect();
        state.cursors = self.cursors.into_iter().map(Offset).collect();
        let chunks = self.dedup.into_iter().map(ChunkImage::into_chunk);
        state.dedup = Dedup::from_chunks(chunks)?;
        state.number_names();
        state.is_consistent().then_some(state)
    }
}

impl GroupImage {
    fn into_name(self) -> GroupName {
        GroupName { client: ClientId(self.client), name: self.name.into() }
    }
}

impl ChunkImage {
    fn into_chunk(self) -> Chunk {
        Chunk { window_s: self.window_s, last_ms: self.last_ms, bytes: self.bytes }
    }
}

impl State {
    fn number_names(&mut self) {
        self.type_ids = self.types.iter().cloned().zip((1..).map(TypeId)).collect();
        self.group_ids = self.groups.iter().cloned().zip((1..).map(GroupId)).collect();
        self.client_groups.clear();
        for (name, group) in self.groups.iter().zip((1..).map(GroupId)) {
            self.client_groups.entry(name.client).or_default().push(group);
        }
    }

    /// The relations that every command keeps.
    fn is_consistent(&self) -> bool {
        let bounds = self.starts.iter().zip(&self.ends);
        let cursors = self.cursors.iter().zip(bounds.clone().cycle());
        self.cursors.len() == self.groups.len() * self.starts.len()
            && self.type_ids.len() == self.types.len()
            && self.group_ids.len() == self.groups.len()
            && bounds.clone().all(|(start, end)| start <= end)
            && cursors.into_iter().all(|(cursor, (start, end))| start <= cursor && cursor <= end)
    }
}

//! The dumps in `storage-format.md`: each is decoded, and what it says is encoded again.

use super::checkpoint::{self, CheckpointJob};
use super::genesis::Genesis;
use super::snapshot::PartitionEnd;
use super::story::{event, next};
use super::{State, checkpoint::load};
use crate::event::record::{HEADER_BYTES as RECORD_HEADER_BYTES, Record, RecordHeader, append};
use crate::id::{ClientId, FrameIndex, GroupId, Offset, Partition, Term, TypeId};
use crate::journal::command::{Body, Command, commands};
use crate::journal::disk::RealDisk;
use crate::journal::files::{FileHeader, FileNumber};
use crate::journal::frame::{Frame, FrameHeader, FrameKind, Gap, HEADER_BYTES, frame_bytes};
use crate::journal::{ClusterId, Mark};
use crate::partition::Identity;
use crate::partition::index::Index;
use crate::partition::segment::SegmentHeader;

const DOCUMENT: &str = include_str!("../../storage-format.md");
const CLUSTER: ClusterId = ClusterId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const CLIENT: ClientId = ClientId([16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31]);
const NONCE: u64 = 0x1122_3344_5566_7788;

/// The bytes of the dump called `name`.
fn golden(name: &str) -> Vec<u8> {
    let fence = format!("```golden {name}");
    let (_, rest) = DOCUMENT.split_once(&fence).expect("a dump of that name");
    let (length, rest) = rest.split_once('\n').unwrap();
    let (rows, _) = rest.split_once("```").unwrap();
    let mut bytes = vec![0; length.trim().parse().unwrap_or(0)];
    for row in rows.lines() {
        let mut words = row.split_whitespace();
        let at = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        for (n, word) in words.enumerate() {
            bytes[at + n] = u8::from_str_radix(word, 16).unwrap();
        }
    }
    bytes
}

/// `bytes` as the document writes them.
fn dump(name: &str, bytes: &[u8]) -> String {
    let mut text = format!("```golden {name} {}\n", bytes.len());
    for (row, bytes) in bytes.chunks(16).enumerate().filter(|(_, row)| row.iter().any(|byte| *byte != 0)) {
        let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{:04x}  {}\n", row * 16, words.join(" "));
    }
    text + "```"
}

#[track_caller]
fn assert_golden(name: &str, encoded: &[u8]) {
    let dump = dump(name, encoded);
    assert!(DOCUMENT.contains(&dump), "storage-format.md has another dump than\n{dump}");
    assert_eq!(golden(name), encoded, "the document's dump does not read back");
}

fn record() -> Vec<u8> {
    let event = br#"{"specversion":"1.0","source":"urn:demo","id":"a-1","type":"Demo.Load.Record.Created""#;
    let header = RecordHeader {
        type_id: TypeId(1),
        partition: Partition(5),
        key_hash: 0x1234_5678,
        dedup_window_s: 60,
        time_ms: 1_700_000_000_000,
        source: (31, 39),
        id: (47, 50),
    };
    let mut block = Vec::new();
    append::<()>(&mut block, |out| {
        out.extend_from_slice(event);
        Ok(header)
    })
    .unwrap();
    block
}

fn frame_commands(block: &[u8]) -> [Command<'_>; 6] {
    let (group, partition) = (GroupId(1), Partition(5));
    [
        Command::DefineType { id: TypeId(1), name: "Demo.Load.Record.Created" },
        Command::DefineGroup { id: group, client: CLIENT, name: "~default" },
        Command::Events(block),
        Command::Confirm { group, partition, offset: Offset(7) },
        Command::Expire { partition, start: Offset(3) },
        Command::ResetCursor { group, partition, offset: Offset(4) },
    ]
}

fn framed(mut header: FrameHeader, body: &[u8]) -> Vec<u8> {
    header.nonce = NONCE;
    let mut bytes = vec![0; frame_bytes(body.len())];
    bytes[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
    header.write(&mut bytes);
    bytes
}

#[test]
fn genesis_is_as_documented() {
    let genesis = Genesis { cluster: CLUSTER, partitions: 12 };
    assert_golden("genesis", &genesis.bytes());
    assert_eq!(Genesis::read(&golden("genesis")).unwrap(), genesis);
}

#[test]
fn a_journal_file_starts_as_documented() {
    let header = FileHeader { number: FileNumber(3), nonce: NONCE, cluster: CLUSTER, bytes: 64 << 20 };
    assert_golden("journal-file", &header.block());
    assert_eq!(FileHeader::read(&golden("journal-file")), Ok(header));
}

#[test]
fn a_record_is_as_documented() {
    assert_golden("record", &record());
    let bytes = golden("record");
    let record = Record::read(&bytes).unwrap();
    assert_eq!((record.source(), record.id()), (&b"urn:demo"[..], &b"a-1"[..]));
    assert_eq!(record.header().key_hash, 0x1234_5678);
    assert_eq!(record.event().len() + RECORD_HEADER_BYTES, record.bytes().len());
}

#[test]
fn a_frame_and_its_commands_are_as_documented() {
    let block = record();
    let mut body = Body::default();
    frame_commands(&block).iter().for_each(|command| body.push(command));
    let body = body.pieces().collect::<Vec<_>>().concat();
    let before = Mark { index: FrameIndex(1), term: Term(1), chain: 0xdead_beef, time_ms: 0 };
    assert_golden("frame", &framed(next(&before, 1_700_000_000_001, &body), &body));
    let bytes = golden("frame");
    let frame = Frame::read(&bytes).unwrap();
    assert!(frame.header.follows(&before));
    assert_eq!((frame.header.nonce, frame.header.block, frame.header.synced_upto.0), (NONCE, 1, 1));
    let read = commands(frame.body).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read, frame_commands(&block));
}

#[test]
fn a_gap_is_as_documented() {
    let gap = Gap { distrusted_upto: FrameIndex(20) };
    let bytes = golden("frame");
    let before = Frame::read(&bytes).unwrap().header.mark();
    let header = next(&before, before.time_ms, &gap.bytes());
    let header =
        FrameHeader { kind: FrameKind::Gap, index: FrameIndex(9), block: 2, chain: 0xcafe_f00d, ..header };
    assert_golden("gap", &framed(header, &gap.bytes()));
    let bytes = golden("gap");
    let frame = Frame::read(&bytes).unwrap();
    assert_eq!((frame.header.kind, frame.header.chain), (FrameKind::Gap, 0xcafe_f00d));
    assert_eq!(Gap::read(frame.body), Ok(gap));
}

/// The state that the document's checkpoint holds.
fn checkpointed() -> State {
    let mut state = State::new(3);
    let block = [event(0, 60, "urn:demo", "a-1"), event(0, 0, "urn:demo", "a-2")].concat();
    let (group, partition) = (GroupId(1), Partition(0));
    let frames = [
        vec![
            Command::DefineType { id: TypeId(1), name: "Demo.Load.Record.Created" },
            Command::DefineGroup { id: group, client: CLIENT, name: "~default" },
        ],
        vec![Command::Events(&block), Command::Confirm { group, partition, offset: Offset(1) }],
    ];
    for commands in frames {
        let mut body = Body::default();
        commands.iter().for_each(|command| body.push(command));
        let body = body.pieces().collect::<Vec<_>>().concat();
        state.apply(&next(&state.applied(), 1_700_000_000_000, &body), &body).unwrap();
    }
    state.applied.chain = 0x0bad_cafe;
    state
}

#[test]
fn a_checkpoint_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = Genesis { cluster: CLUSTER, partitions: 1 };
    let state = checkpointed();
    let ends = vec![
        PartitionEnd { offset: Offset(2), segment: 1, position: 320 },
        PartitionEnd { offset: Offset(0), segment: 0, position: 0 },
        PartitionEnd { offset: Offset(0), segment: 0, position: 0 },
    ];
    let job = CheckpointJob::new(&RealDisk, dir.path(), CLUSTER, state.snapshot(), ends.clone());
    job.run().unwrap();
    let file = dir.path().join("00000000000000000002.ckp");
    assert_golden("checkpoint", &std::fs::read(&file).unwrap());
    std::fs::write(&file, golden("checkpoint")).unwrap();
    let loaded: checkpoint::Loaded = load(&RealDisk, dir.path(), &genesis).unwrap();
    assert_eq!(format!("{:?}", loaded.state.snapshot()), format!("{:?}", state.snapshot()));
    assert_eq!(loaded.ends, Some(ends));
}

#[test]
fn a_segment_starts_as_documented() {
    let identity = Identity { cluster: CLUSTER.0, partition: Partition(5) };
    let header = SegmentHeader { identity, number: 0x1a, base: Offset(1000) };
    assert_golden("segment", &header.encode());
    let bytes = golden("segment").try_into().unwrap();
    assert_eq!(SegmentHeader::decode(&bytes, &identity, 0x1a).unwrap(), header);
}

#[test]
fn an_index_is_as_documented() {
    let identity = Identity { cluster: CLUSTER.0, partition: Partition(5) };
    let mut index = Index::default();
    for (stride, type_id, time_ms) in [(16, 1, 1000), (24, 2, 1001), (32, 1, 1002)] {
        index.push(stride, TypeId(type_id), time_ms);
    }
    assert_golden("index", &index.encode(&identity, 3, Offset(50)));
    let (base, read) = Index::decode(&golden("index"), &identity, 3).unwrap();
    assert_eq!((base, read.records(), read.data_end()), (Offset(50), 3, index.data_end()));
}

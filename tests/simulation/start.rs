//! A start of the broker: genesis, checkpoint, partitions, journal, replay, and the comparison with the history.

use crate::disk::SimDisk;
use crate::history::History;
use crate::log::log;
use crate::random::Random;
use nistru::event::record::{Record, records};
use nistru::id::{FrameIndex, GroupId, Offset, PRIVATE_PARTITIONS, Partition as PartitionId, TypeId};
use nistru::journal::ClusterId;
use nistru::journal::command::{Command, commands};
use nistru::journal::disk::Disk;
use nistru::journal::frame::{BLOCK, FrameHeader};
use nistru::journal::recovery::{Layout, RecoveryError, recover};
use nistru::journal::sequencer::Sequencer;
use nistru::partition::{Budget, Config, End, Identity, Partition, Status};
use nistru::state::PartitionEnd;
use nistru::state::State;
use nistru::state::checkpoint::{self, CheckpointError, Loaded};
use nistru::state::genesis::{Genesis, GenesisError};
use std::path::{Path, PathBuf};

pub const DATA: &str = "/data";
pub const JOURNAL: &str = "/data/journal";
pub const CHECKPOINTS: &str = "/data/checkpoint";
pub const CLUSTER: ClusterId = ClusterId([0xc1; 16]);
/// All of them: private ones differ from the others only in who reads them.
pub const PARTITIONS: u8 = 3;

/// Small enough that a run turns over many files of each kind.
pub const JOURNAL_FILE_BYTES: u64 = 12 * BLOCK as u64;
const SEGMENTS: Config = Config {
    segment_bytes: 8 << 10,
    segment_ms: 120_000,
    window_bytes: 4096,
    recent_bytes: 1024,
    warm_bytes: 2048,
    release_bytes: 4096,
    unwritten_bytes_max: 1 << 20,
    loaded_max: 2,
};

/// A broker that can go on.
pub struct Started {
    pub sequencer: Sequencer,
    pub state: State,
    pub logs: Vec<Partition<SimDisk>>,
}

/// The broker refuses to start, and says why.
#[derive(Debug)]
pub struct Refusal(pub String);

/// Starts as the broker does. Everything that a caller of the broker could see is compared with `history`.
pub fn start(disk: &SimDisk, random: &mut Random, history: &mut History) -> Result<Started, Refusal> {
    let genesis = Genesis::open(disk, Path::new(DATA), PARTITIONS - PRIVATE_PARTITIONS, || CLUSTER)?;
    let Loaded { mut state, ends, safe, .. } = checkpoint::load(disk, Path::new(CHECKPOINTS), &genesis)?;
    log(|| format!("checkpoint {:?} with {ends:?}", state.applied()));
    let layout = Layout { cluster: CLUSTER, file_bytes: JOURNAL_FILE_BYTES };
    let recovered = recover(disk, Path::new(JOURNAL), &layout, &state.applied(), &mut || random.next())?;
    let mut frames = Vec::new();
    let mut keep = |header: &FrameHeader, body: &[u8]| {
        frames.push((*header, body.to_vec()));
        Ok::<_, Refusal>(())
    };
    recovered.replay(&mut keep).map_err(|error| Refusal(format!("{error:?}")))?;
    let mut sequencer = recovered.into_sequencer();
    sequencer.checkpointed(safe);
    history.recovered(sequencer.tip().index);
    let starts: Vec<_> = (0..PARTITIONS).map(|number| state.start(PartitionId(number))).collect();
    let mut logs = open_logs(disk, ends.as_deref(), &starts)?;
    for (header, body) in &frames {
        state.apply(header, body).expect("what was written applies");
        replay(body, &mut logs, history)?;
    }
    finish_logs(&mut logs, &state)?;
    check(&state, &logs, history, sequencer.tip().index);
    if random.chance(1, 3) {
        (0..)
            .map(PartitionId)
            .zip(&mut logs)
            .try_for_each(|(number, log)| read_back(number, log, history))?;
    }
    Ok(Started { sequencer, state, logs })
}

pub fn partition_dir(partition: u8) -> PathBuf {
    Path::new(DATA).join("partitions").join(format!("{partition:02}"))
}

/// Every event is there, in its place and unchanged.
fn read_back(number: PartitionId, log: &mut Partition<SimDisk>, history: &History) -> Result<(), Refusal> {
    let (all, budget) = ((1..9).map(TypeId).collect(), Budget { events: 50, bytes: 20_000 });
    let mut next = log.start();
    loop {
        let read = log.read(next, &all, budget);
        for slice in &read.slices {
            assert_eq!(slice.offset(), next, "a gap in partition {number}");
            history.check_stored(number, next, &slice.record());
            next = next.next();
        }
        match read.status {
            Status::More => {}
            Status::AtEnd => break,
            Status::Cold { job, .. } => {
                let done =
                    job.expect("nobody else reads").run().map_err(|error| Refusal(error.to_string()))?;
                log.finish(done);
            }
        }
    }
    assert_eq!(next, log.end(), "partition {number} ends early");
    Ok(())
}

fn open_logs(
    disk: &SimDisk,
    ends: Option<&[PartitionEnd]>,
    starts: &[Offset],
) -> Result<Vec<Partition<SimDisk>>, Refusal> {
    let open = |number: u8| {
        let identity = Identity { cluster: CLUSTER.0, partition: PartitionId(number) };
        let (end, start) = (ends.map(|ends| ends[usize::from(number)]), starts[usize::from(number)]);
        let end = end.map(|PartitionEnd { offset, segment, position }| End { offset, segment, position });
        Ok(Partition::open(disk.clone(), &partition_dir(number), identity, SEGMENTS, end, start)?)
    };
    disk.create_dir_durably(&Path::new(DATA).join("partitions"))?;
    (0..PARTITIONS).map(open).collect()
}

fn replay(body: &[u8], logs: &mut [Partition<SimDisk>], history: &History) -> Result<(), Refusal> {
    for command in commands(body) {
        match command.expect("a sound command") {
            Command::Events(block) => {
                for (_, record) in records(block).map(|record| record.expect("a sound record")) {
                    append(&record, logs, history)?;
                }
            }
            Command::Expire { partition, start } => logs[usize::from(partition.0)].expire(start),
            _ => {}
        }
    }
    Ok(())
}

fn append(record: &Record<'_>, logs: &mut [Partition<SimDisk>], history: &History) -> Result<(), Refusal> {
    let partition = record.header().partition;
    let offset = logs[usize::from(partition.0)].append_blocking(record)?;
    history.check_stored(partition, offset, record);
    Ok(())
}

fn finish_logs(logs: &mut [Partition<SimDisk>], state: &State) -> Result<(), Refusal> {
    for (number, log) in (0..).map(PartitionId).zip(logs) {
        log.require(state.start(number))?;
        log.expire(state.start(number));
    }
    Ok(())
}

/// The replayed state is the one that the history leads to.
fn check(state: &State, logs: &[Partition<SimDisk>], history: &History, last: FrameIndex) {
    assert_eq!(state.applied().index, last, "replay ends with the journal");
    for (number, log) in (0..).map(PartitionId).zip(logs) {
        assert_eq!(log.end(), history.end(number), "end of partition {number}");
        assert_eq!(state.end(number), history.end(number), "end of partition {number} in the state");
        assert_eq!(log.start(), history.start(number), "start of partition {number}");
        for group in (1..).map(GroupId).take_while(|group| state.group(*group).is_some()) {
            let cursor: Option<Offset> = state.cursor(group, number);
            assert_eq!(
                cursor,
                Some(history.cursor(group, number)),
                "cursor of group {group} on partition {number}"
            );
        }
    }
}

impl From<GenesisError> for Refusal {
    fn from(error: GenesisError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<CheckpointError> for Refusal {
    fn from(error: CheckpointError) -> Self {
        Self(error.to_string())
    }
}

impl From<RecoveryError> for Refusal {
    fn from(error: RecoveryError) -> Self {
        Self(error.to_string())
    }
}

impl From<nistru::partition::Error> for Refusal {
    fn from(error: nistru::partition::Error) -> Self {
        Self(error.to_string())
    }
}

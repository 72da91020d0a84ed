//! Opening the data directory, before any core runs: lock it, load the checkpoint, replay the journal.
//!
//! Everything here blocks. What it returns is durable and consistent, whatever instant the process ended at before.

use crate::config::Storage;
use crate::event::record::records;
use crate::id::{Offset, Partition, PrivateLog};
use crate::journal::ClusterId;
use crate::journal::command::{Command, commands};
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::frame::FrameKind;
use crate::journal::quarantine::{self, Quarantined};
use crate::journal::random_nonce;
use crate::journal::recovery::{self, Layout, Recovered, RecoveryError};
use crate::journal::sequencer::Sequencer;
use crate::partition::{self, End, Identity};
use crate::state::State;
use crate::state::genesis::Genesis;
use crate::state::lock::DirectoryLock;
use crate::state::{PartitionEnd, checkpoint};
use std::fmt::Display;
use std::num::NonZeroU8;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Shortest time for which a segment takes events.
const SEGMENT_MS_MIN: u64 = 500;

/// The log of one partition on the machine's disk.
pub type PartitionLog = partition::Partition<RealDisk>;

/// An open data directory.
pub struct Store {
    /// Keeps other processes out as long as it lives.
    pub lock: DirectoryLock,
    pub genesis: Genesis,
    /// Partitions that keys are spread over.
    pub partitions: NonZeroU8,
    pub sequencer: Sequencer,
    pub state: State,
    pub logs: Vec<(Partition, PartitionLog)>,
    /// Frames that were replayed.
    pub replayed: usize,
}

impl Store {
    /// Opens the data directory of `settings`, making it if it is missing. The error says what is wrong and what to do.
    pub fn open(settings: &Storage) -> Result<Self, String> {
        let dir = &settings.dir;
        let lock = DirectoryLock::acquire(dir).map_err(in_dir(dir))?;
        let new_cluster = || ClusterId(*uuid::Uuid::new_v4().as_bytes());
        let genesis = Genesis::open(&RealDisk, dir, settings.partitions, new_cluster).map_err(in_dir(dir))?;
        let checkpoint =
            checkpoint::load(&RealDisk, &dir.join("checkpoint"), &genesis).map_err(in_dir(dir))?;
        for name in &checkpoint.damaged {
            tracing::warn!(checkpoint = name, "a damaged checkpoint was set aside; an older one is used");
        }
        let mut state = checkpoint.state;
        // Before the partitions: what lies in them behind the checkpoint is removed, because a sound journal brings it again.
        let recovered = open_journal(settings, &genesis, &state)?;
        RealDisk.create_dir_durably(&dir.join("partitions")).map_err(in_dir(dir))?;
        let mut logs = open_logs(settings, &genesis, &state, checkpoint.ends)?;
        let replayed = recovered.unapplied();
        replay(&recovered, &mut state, &mut logs).map_err(in_dir(dir))?;
        let mut sequencer = recovered.into_sequencer();
        sequencer.checkpointed(checkpoint.safe);
        let partitions = NonZeroU8::new(genesis.partitions).ok_or("the data directory has no partitions")?;
        Ok(Self { lock, genesis, partitions, sequencer, state, logs, replayed })
    }
}

/// Puts the name of the directory before an error.
fn in_dir<E: Display>(dir: &Path) -> impl Fn(E) -> String {
    move |error| format!("data directory {}: {error}", dir.display())
}

/// Opens every partition as of the checkpoint, in parallel: each reads its last segment.
fn open_logs(
    settings: &Storage,
    genesis: &Genesis,
    state: &State,
    ends: Option<Vec<PartitionEnd>>,
) -> Result<Vec<(Partition, PartitionLog)>, String> {
    let ends = &ends;
    thread::scope(|scope| {
        let open = |number: u8| {
            let end = ends.as_ref().map(|ends| ends[usize::from(number)].into());
            let (partition, start) = (Partition(number), state.start(Partition(number)));
            scope.spawn(move || open_log(settings, genesis, partition, end, start))
        };
        let opening: Vec<_> = (0..genesis.all_partitions()).map(open).collect();
        opening.into_iter().map(|thread| thread.join().expect("opening a partition does not panic")).collect()
    })
}

fn open_log(
    settings: &Storage,
    genesis: &Genesis,
    partition: Partition,
    end: Option<End>,
    start: Offset,
) -> Result<(Partition, PartitionLog), String> {
    let dir = settings.dir.join("partitions").join(format!("{partition:02}"));
    let identity = Identity { partition, cluster: genesis.cluster.0 };
    let private = NonZeroU8::new(genesis.partitions).and_then(|shared| PrivateLog::of(partition, shared));
    let config = segments(settings, settings.retention_of(private));
    let log = PartitionLog::open(RealDisk, &dir, identity, config, end, start)
        .map_err(|error| error.to_string())?;
    Ok((partition, log))
}

/// Whole segments expire, so that events stay for as long as their segment takes events beyond their retention: a quarter of it at
/// most, but for very short ones.
fn segments(settings: &Storage, retention: Duration) -> partition::Config {
    let default = partition::Config::default();
    let quarter_ms = (retention.as_millis() as u64 / 4).max(SEGMENT_MS_MIN);
    let segment_bytes = settings.segment_bytes as u32;
    partition::Config { segment_bytes, segment_ms: default.segment_ms.min(quarter_ms), ..default }
}

fn open_journal(settings: &Storage, genesis: &Genesis, state: &State) -> Result<Recovered<RealDisk>, String> {
    let dir = settings.dir.join("journal");
    let layout = Layout { cluster: genesis.cluster, file_bytes: settings.journal_file_bytes };
    let after = state.applied();
    let recovered = recovery::recover(&RealDisk, &dir, &layout, &after, &mut random_nonce)
        .map_err(|error| in_dir(&dir)(with_way_out(&error)))?;
    if let Some(torn) = recovered.torn_tail() {
        tracing::warn!(
            ?torn,
            "an unfinished write at the end of the journal was cut off; nothing acknowledged was in it"
        );
    }
    Ok(recovered)
}

/// Damage needs an operator's decision, and the way to carry it out.
fn with_way_out(error: &RecoveryError) -> String {
    match error {
        RecoveryError::Damaged(_) | RecoveryError::FileHeader { .. } | RecoveryError::EndsEarly { .. } => {
            format!("{error}; `nistru quarantine --help` tells how to go on without what is lost")
        }
        _ => error.to_string(),
    }
}

/// Moves all damage of the journal aside and tells of each step; how many there were.
pub fn quarantine(settings: &Storage, mut tell: impl FnMut(&Quarantined)) -> Result<usize, String> {
    let dir = &settings.dir;
    let _lock = DirectoryLock::acquire(dir).map_err(in_dir(dir))?;
    let no_cluster = || ClusterId([0; 16]);
    if !RealDisk.exists(&dir.join("genesis")) {
        return Err(format!("data directory {}: there is no broker's data", dir.display()));
    }
    let genesis = Genesis::open(&RealDisk, dir, settings.partitions, no_cluster).map_err(in_dir(dir))?;
    let checkpoint = checkpoint::load(&RealDisk, &dir.join("checkpoint"), &genesis).map_err(in_dir(dir))?;
    let layout = Layout { cluster: genesis.cluster, file_bytes: settings.journal_file_bytes };
    let (journal, after) = (dir.join("journal"), checkpoint.state.applied());
    let mut steps = 0;
    loop {
        let step = quarantine::quarantine(&RealDisk, &journal, &layout, &after, random_nonce());
        match step.map_err(in_dir(&journal))? {
            Some(step) => tell(&step),
            None => return Ok(steps),
        }
        steps += 1;
    }
}

/// Applies the frames after the checkpoint to state and partitions, as they were applied when they were committed.
fn replay(
    recovered: &Recovered<RealDisk>,
    state: &mut State,
    logs: &mut [(Partition, PartitionLog)],
) -> Result<(), String> {
    recovered
        .replay(|header, body| {
            if header.kind == FrameKind::Commands {
                for command in commands(body) {
                    if let Command::Events(block) = command.map_err(|error| error.to_string())? {
                        append(block, logs)?;
                    }
                }
            }
            state.apply(header, body).map_err(|error| error.to_string())
        })
        .map_err(|error| error.to_string())?;
    for (partition, log) in logs {
        log.expire(state.start(*partition));
        log.require(state.start(*partition)).map_err(|error| error.to_string())?;
        if log.end() != state.end(*partition) {
            return Err(format!(
                "partition {partition} ends at {}, the journal says {}",
                log.end(),
                state.end(*partition)
            ));
        }
    }
    Ok(())
}

fn append(block: &[u8], logs: &mut [(Partition, PartitionLog)]) -> Result<(), String> {
    for record in records(block) {
        let (_, record) =
            record.map_err(|error| format!("a record in the journal is not sound: {error:?}"))?;
        let partition = record.header().partition;
        let (_, log) = logs
            .get_mut(usize::from(partition.0))
            .ok_or_else(|| format!("the journal speaks of partition {partition}, which does not exist"))?;
        log.append_blocking(&record).map_err(|error| error.to_string())?;
    }
    Ok(())
}

impl From<PartitionEnd> for End {
    fn from(end: PartitionEnd) -> Self {
        Self { offset: end.offset, segment: end.segment, position: end.position }
    }
}

impl From<End> for PartitionEnd {
    fn from(end: End) -> Self {
        Self { offset: end.offset, segment: end.segment, position: end.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::files::FileNumber;
    use crate::state::story::event;

    #[test]
    fn a_start_without_a_sound_journal_leaves_the_partitions_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let small = 1 << 20;
        let settings = Storage {
            journal_file_bytes: small,
            segment_bytes: small,
            ..Storage::new(dir.path().to_owned())
        };
        let mut store = Store::open(&settings).unwrap();
        append(&event(0, 0, "source", "1"), &mut store.logs).unwrap();
        drop(store);
        let segments = || RealDisk.list(&dir.path().join("partitions/00")).unwrap();
        let before = segments();
        assert!(!before.is_empty());
        std::fs::write(FileNumber(1).path(&dir.path().join("journal")), b"not a journal").unwrap();
        let refused = Store::open(&settings).err().expect("the journal is damaged");
        assert!(refused.contains("00000001.jrn"), "{refused}");
        assert_eq!(segments(), before);
    }
}

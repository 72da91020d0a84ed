//! The journal, the state and the checkpoints over real files, with the process ending at every single operation of the disk,
//! and with every single operation finding the disk full.

use super::checkpoint::{CheckpointError, CheckpointJob, load};
use super::genesis::Genesis;
use super::story::event;
use super::{PartitionEnd, State};
use crate::id::{GroupId, Offset, Partition, TypeId};
use crate::journal::ClusterId;
use crate::journal::command::{Body, Command};
use crate::journal::disk::{Disk, DiskFile, RealDisk};
use crate::journal::files::{FileJob, FileJobError};
use crate::journal::frame::{BLOCK, Frame, frame_bytes};
use crate::journal::recovery::{Layout, recover};
use crate::journal::sequencer::{Place, Sequencer};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const LAYOUT: Layout = Layout { cluster: ClusterId([2; 16]), file_bytes: 8 * BLOCK as u64 };
const ROUNDS: u64 = 40;
const ROUNDS_PER_CHECKPOINT: u64 = 9;

/// What happens at the operation whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// It is done half, and neither it nor any later one returns well: the process died there.
    Death,
    /// It finds the disk full; later ones do not.
    Full,
}

/// Real files with a fault at one operation. Syncing is left out: what a killed process wrote stays in the page cache.
#[derive(Clone)]
struct FaultyDisk {
    fault: Fault,
    /// Operations until the fault.
    left: Arc<AtomicI64>,
}

struct FaultyFile {
    file: File,
    disk: FaultyDisk,
}

impl FaultyDisk {
    fn new(fault: Fault, after: i64) -> Self {
        Self { fault, left: Arc::new(AtomicI64::new(after)) }
    }

    fn sound() -> Self {
        Self::new(Fault::Full, -1)
    }

    /// Whether the operation may be done.
    fn step(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        match self.fault {
            Fault::Death if left <= 0 => Err(io::Error::other("the process died")),
            Fault::Full if left == 0 => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            _ => Ok(()),
        }
    }

    fn opened(&self, file: File) -> FaultyFile {
        FaultyFile { file, disk: self.clone() }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        RealDisk.exists(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.create_dir(dir)
    }

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        self.step()?;
        Ok(self.opened(RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        Ok(self.opened(RealDisk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.file)
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        DiskFile::read_at(&self.file, buf, pos)
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        let step = self.disk.step();
        if step.is_err() && self.disk.left.load(Ordering::Relaxed) == -1 {
            DiskFile::write_at(&self.file, &buf[..buf.len() / 2 / 512 * 512], pos)?;
        }
        step?;
        DiskFile::write_at(&self.file, buf, pos)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.step()?;
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a life ended.
#[derive(Debug)]
struct Died;

impl<E: std::error::Error> From<E> for Died {
    fn from(_: E) -> Self {
        Self
    }
}

/// A broker reduced to its storage: one event of one of three lengths and one confirm in every frame.
struct Life {
    disk: FaultyDisk,
    state: State,
    sequencer: Sequencer,
}

impl Life {
    /// Recovers what is in `dir`.
    fn begin(disk: &FaultyDisk, dir: &Path) -> Result<Self, Died> {
        static NONCES: AtomicU64 = AtomicU64::new(1);
        let genesis = Genesis::open(disk, dir, 1, || LAYOUT.cluster)?;
        let loaded = load(disk, &dir.join("checkpoint"), &genesis)?;
        assert!(loaded.damaged.is_empty());
        let mut state = loaded.state;
        let mut nonce = || NONCES.fetch_add(1, Ordering::Relaxed);
        let after = state.applied();
        let recovered = recover(disk, &dir.join("journal"), &LAYOUT, &after, &mut nonce)?;
        recovered.replay(|header, body| state.apply(header, body))?;
        let mut sequencer = recovered.into_sequencer();
        sequencer.checkpointed(loaded.safe);
        Ok(Self { disk: disk.clone(), state, sequencer })
    }

    /// Goes on for some rounds; `acked` counts events whose frames were synced.
    fn go_on(&mut self, dir: &Path, rounds: u64, acked: &mut u64) -> Result<(), Died> {
        for _ in 0..rounds {
            self.file_work(dir)?;
            if self.sequencer.place(8_000) != Place::NeedsFile {
                self.round(dir)?;
                *acked = self.state.end(Partition(0)).0;
            }
            if self.sequencer.committed().0.is_multiple_of(ROUNDS_PER_CHECKPOINT) {
                self.checkpoint(dir)?;
            }
        }
        Ok(())
    }

    fn file_work(&mut self, dir: &Path) -> Result<(), Died> {
        while let Some(work) = self.sequencer.file_work(crate::journal::random_nonce) {
            match FileJob::new(&self.disk, &dir.join("journal"), work).run() {
                Ok(done) => self.sequencer.file_done(done),
                Err(FileJobError::Full(_)) => {
                    self.sequencer.file_refused();
                    return Ok(());
                }
                Err(broken) => return Err(broken.into()),
            }
        }
        Ok(())
    }

    fn round(&mut self, dir: &Path) -> Result<(), Died> {
        let offset = self.state.end(Partition(0));
        let block = event(0, 0, "s", &"i".repeat(offset.0 as usize % 3 * 2_500));
        let mut body = Body::default();
        if self.state.next_type_id() == TypeId(1) {
            body.push(&Command::DefineType { id: TypeId(1), name: "T" });
            body.push(&Command::DefineGroup {
                id: GroupId(1),
                client: crate::id::ClientId([0; 16]),
                name: "g",
            });
        }
        body.push(&Command::Events(&block));
        body.push(&Command::Confirm { group: GroupId(1), partition: Partition(0), offset });
        let mut bytes = vec![0; frame_bytes(body.bytes())];
        let round = self.sequencer.frame(1_000, &body, &mut bytes);
        self.disk.open(&round.file.path(&dir.join("journal")))?.write_at(&bytes, round.position)?;
        self.sequencer.synced(round.index);
        let frame = Frame::read(&bytes)?;
        Ok(self.state.apply(&frame.header, frame.body)?)
    }

    fn checkpoint(&mut self, dir: &Path) -> Result<(), Died> {
        let end = |n| PartitionEnd { offset: self.state.end(Partition(n)), segment: 1, position: 64 };
        let ends = (0..self.state.partitions()).map(end).collect();
        let snapshot = self.state.snapshot();
        let dir = dir.join("checkpoint");
        match CheckpointJob::new(&self.disk, &dir, LAYOUT.cluster, snapshot, ends).run() {
            Ok(done) => self.sequencer.checkpointed(done.safe),
            Err(CheckpointError::Full(_)) => {}
            Err(broken) => return Err(broken.into()),
        }
        Ok(())
    }
}

/// Checks what a life that begins in `dir` finds, then that it can go on.
fn assert_nothing_is_lost(dir: &Path, acked: u64, case: &str) {
    let disk = FaultyDisk::sound();
    let mut life = Life::begin(&disk, dir).unwrap_or_else(|_| panic!("{case}: not recovered"));
    let found = life.state.end(Partition(0)).0;
    assert!((acked..=acked + 1).contains(&found), "{case}: {found} events, {acked} acknowledged");
    let cursor = life.state.cursor(GroupId(1), Partition(0)).unwrap_or_default();
    assert_eq!(cursor, Offset(found.saturating_sub(1)), "{case}");
    let mut now = 0;
    life.go_on(dir, 12, &mut now).unwrap_or_else(|_| panic!("{case}: does not go on"));
    assert_eq!(now, found + 12, "{case}");
    let again = Life::begin(&disk, dir).unwrap_or_else(|_| panic!("{case}: not recovered again"));
    assert_eq!(format!("{:?}", again.state.snapshot()), format!("{:?}", life.state.snapshot()), "{case}");
}

/// Runs a life with `fault` at every operation in turn.
fn at_every_operation(fault: Fault) {
    for operation in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(fault, operation);
        let mut acked = 0;
        let ended =
            Life::begin(&disk, dir.path()).and_then(|mut life| life.go_on(dir.path(), ROUNDS, &mut acked));
        if disk.left.load(Ordering::Relaxed) >= 0 {
            assert!(ended.is_ok() && operation > 100, "{operation} operations");
            return;
        }
        assert_nothing_is_lost(dir.path(), acked, &format!("{fault:?} at operation {operation}"));
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_dies_at_any_operation() {
    at_every_operation(Fault::Death);
}

#[test]
fn nothing_acknowledged_is_lost_when_any_operation_finds_the_disk_full() {
    at_every_operation(Fault::Full);
}

//! A journal writer for tests: the sequencer with its effects carried out at once on a real directory.

use super::command::{Body, Command};
use super::disk::{Disk, DiskFile, RealDisk};
use super::files::{FileDone, FileHeader, FileJob, FileNumber};
use super::frame::{BLOCK, FrameHeader, frame_bytes};
use super::recovery::{Layout, Recovered, RecoveryError, recover};
use super::sequencer::{Round, Sequencer};
use super::{ClusterId, Mark};
use crate::id::{FrameIndex, GroupId, Offset, Partition};
use std::path::{Path, PathBuf};

/// Small files, so that a few frames fill one.
pub(crate) const LAYOUT: Layout = Layout { cluster: ClusterId([9; 16]), file_bytes: 16 * BLOCK as u64 };

/// Index and body of each frame that was replayed.
pub(crate) type Replayed = Vec<(FrameIndex, Vec<u8>)>;

pub(crate) struct Scribe {
    pub dir: PathBuf,
    pub sequencer: Sequencer,
    nonce: u64,
}

impl Scribe {
    /// A new journal in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self::resume(dir, &Mark::default()).unwrap().1
    }

    /// Recovers the journal in `dir`; also returns what is replayed.
    pub fn resume(dir: &Path, after: &Mark) -> Result<(Replayed, Self), RecoveryError> {
        let recovered = reopen(dir, after)?;
        let mut frames = Vec::new();
        let mut visit = |header: &FrameHeader, body: &[u8]| {
            frames.push((header.index, body.to_vec()));
            Ok::<_, std::convert::Infallible>(())
        };
        recovered.replay(&mut visit).unwrap();
        let nonce = random_start();
        Ok((frames, Self { dir: dir.to_owned(), sequencer: recovered.into_sequencer(), nonce }))
    }

    /// Carries out all work on files that is due.
    pub fn do_file_work(&mut self) -> Vec<FileDone> {
        let mut done = Vec::new();
        while let Some(work) = self.sequencer.file_work(|| self.nonce) {
            self.nonce += 1;
            let result = FileJob::new(&RealDisk, &self.dir, work).run().unwrap();
            self.sequencer.file_done(result);
            done.push(result);
        }
        done
    }

    /// Fills in a frame with `body` without writing it.
    pub fn round(&mut self, body: &Body<'_>) -> (Round, Vec<u8>) {
        self.do_file_work();
        let mut bytes = vec![0; frame_bytes(body.bytes())];
        (self.sequencer.frame(1_000, body, &mut bytes), bytes)
    }

    /// Writes and syncs a frame with `body`.
    pub fn commit(&mut self, body: &Body<'_>) -> Round {
        let (round, bytes) = self.round(body);
        self.write(&round, &bytes);
        self.sequencer.synced(round.index);
        round
    }

    /// Writes and syncs a frame with a block of `bytes` bytes that all are `fill`.
    pub fn commit_block(&mut self, bytes: usize, fill: u8) -> Round {
        let block = vec![fill; bytes];
        let mut body = Body::default();
        body.push(&Command::Events(&block));
        self.commit(&body)
    }

    /// Commits `count` frames of one block each; their confirms count from `from`.
    pub fn commit_small(&mut self, from: u64, count: u64) {
        for offset in from..from + count {
            let mut body = Body::default();
            let (group, partition) = (GroupId(1), Partition(0));
            body.push(&Command::Confirm { group, partition, offset: Offset(offset) });
            self.commit(&body);
        }
    }

    pub fn write(&self, round: &Round, bytes: &[u8]) {
        self.open(round.file).write_at(bytes, round.position).unwrap();
    }

    pub fn open(&self, file: FileNumber) -> std::fs::File {
        RealDisk.open(&file.path(&self.dir)).unwrap()
    }

    /// Flips one bit of a file.
    pub fn flip(&self, file: FileNumber, at: u64) {
        let file = self.open(file);
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 0x10], at).unwrap();
    }

    pub fn file_header(&self, file: FileNumber) -> FileHeader {
        let mut block = [0; BLOCK];
        self.open(file).read_at(&mut block, 0).unwrap();
        FileHeader::read(&block).unwrap()
    }
}

/// Recovers the journal in `dir`.
pub(crate) fn reopen(dir: &Path, after: &Mark) -> Result<Recovered<RealDisk>, RecoveryError> {
    let mut nonce = random_start();
    recover(&RealDisk, dir, &LAYOUT, after, &mut || {
        nonce += 1;
        nonce
    })
}

/// Nonces of one run of a test must differ from those of the runs before.
fn random_start() -> u64 {
    super::random_nonce()
}

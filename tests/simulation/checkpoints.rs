//! Which checkpoints a power failure leaves.

use crate::disk::{Crash, SimDisk};
use crate::history::History;
use crate::random::Random;
use crate::start::{CHECKPOINTS, CLUSTER, PARTITIONS, Started, start};
use nistru::id::Offset;
use nistru::journal::command::Body;
use nistru::journal::frame::{BLOCK, FrameHeader};
use nistru::state::PartitionEnd;
use nistru::state::checkpoint::CheckpointJob;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn a_checkpoint_whose_journal_may_be_used_again_does_not_come_back() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let disk = SimDisk::new(random.fork(), 1 << 20);
        let mut history = History::new(PARTITIONS, BTreeMap::new());
        let started = start(&disk, &mut random, &mut history).expect("an empty disk is no problem");
        write_checkpoints(&disk, started, 3);
        disk.crash(Crash::PowerLoss);
        let files = disk.files().into_iter().map(|(path, _)| path);
        let left = files.filter(|path| path.starts_with(CHECKPOINTS)).count();
        assert_eq!(left, 2, "seed {seed}");
    }
}

/// Writes a checkpoint after each of `count` empty frames.
fn write_checkpoints(disk: &SimDisk, started: Started, count: usize) {
    let Started { mut sequencer, mut state, .. } = started;
    let end = PartitionEnd { offset: Offset(0), segment: 0, position: 0 };
    for _ in 0..count {
        let mut frame = [0; BLOCK];
        let round = sequencer.frame(0, &Body::default(), &mut frame);
        sequencer.synced(round.index);
        state.apply(&FrameHeader::read(&frame).expect("a sound header"), &[]).expect("the frame applies");
        let ends = vec![end; usize::from(PARTITIONS)];
        let job = CheckpointJob::new(disk, Path::new(CHECKPOINTS), CLUSTER, state.snapshot(), ends);
        job.run().expect("there is room");
    }
}

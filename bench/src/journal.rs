//! Building the frame of a round.

use crate::HotPath;
use crate::world::{self, NOW_MS};
use nistru::ingress::Block;
use nistru::journal::command::{Body, Command};
use nistru::journal::disk::RealDisk;
use nistru::journal::files::{FileDone, FileWork};
use nistru::journal::frame::frame_bytes;
use nistru::journal::recovery::{Layout, recover};
use nistru::journal::sequencer::Sequencer;
use nistru::journal::{ClusterId, Mark};

/// Longer than the frames of all runs that are made ready.
const FILE_BYTES: u64 = 4 << 20;
const NONCE: u64 = 7;

/// The writing end of a journal. Nothing is written: files count as made, and frames as synced, as soon as they are wanted.
struct Framing {
    sequencer: Sequencer,
    blocks: Vec<Block>,
    frame: Vec<u8>,
}

/// A frame of so many requests of one event each.
pub fn singles(events: usize) -> Box<dyn HotPath> {
    framing(vec![world::block(12, 1); events])
}

/// A frame of one request of so many events.
pub fn batch(events: usize) -> Box<dyn HotPath> {
    framing(vec![world::block(12, events)])
}

fn framing(blocks: Vec<Block>) -> Box<dyn HotPath> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = Layout { cluster: ClusterId([7; 16]), file_bytes: FILE_BYTES };
    let recovered = recover(&RealDisk, dir.path(), &layout, &Mark::default(), &mut || NONCE);
    let sequencer = recovered.expect("a new journal").into_sequencer();
    let frame = vec![0; frame_bytes(body_of(&blocks).bytes())];
    Box::new(Framing { sequencer, blocks, frame })
}

fn body_of(blocks: &[Block]) -> Body<'_> {
    let mut body = Body::default();
    blocks.iter().for_each(|block| body.push(&Command::Events(&block.bytes)));
    body
}

impl HotPath for Framing {
    fn ready(&mut self) {
        self.sequencer.checkpointed(self.sequencer.committed());
        while let Some(work) = self.sequencer.file_work(|| NONCE) {
            self.sequencer.file_done(match work {
                FileWork::Prepare { header, .. } => FileDone::Prepared(header),
                FileWork::Remove(number) => FileDone::Removed(number),
            });
        }
    }

    fn run(&mut self) {
        let body = body_of(&self.blocks);
        let round = self.sequencer.frame(NOW_MS, &body, &mut self.frame);
        self.sequencer.synced(round.index);
    }

    fn outcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frame)
    }
}

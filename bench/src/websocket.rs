//! Writing frames to a consumer.

use crate::{HotPath, world};
use nistru::event::record;
use nistru::ingress::Block;
use nistru::ws::frame;

/// Events of one turn of a session.
struct Framing {
    block: Block,
    out: Vec<u8>,
}

/// Frames of so many events.
pub fn framed(events: usize) -> Box<dyn HotPath> {
    Box::new(Framing { block: world::block(12, events), out: Vec::new() })
}

/// Frames of so many events.
pub fn frames(events: usize) -> Vec<u8> {
    let mut framing = Framing { block: world::block(12, events), out: Vec::new() };
    framing.run();
    framing.out
}

impl HotPath for Framing {
    fn run(&mut self) {
        self.out.clear();
        for (number, record) in record::records(&self.block.bytes).enumerate() {
            let (_, record) = record.expect("a sound record");
            frame::write_event(&mut self.out, record.event(), number as u64);
        }
    }

    fn outcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

//! From the body of a request to records.

use crate::HotPath;
use crate::sample::{self, Numbers};
use crate::world::World;
use nistru::event::json::{Document, Tape};
use nistru::ingress::Block;
use nistru::schema::{Mismatch, SchemaSet};

/// A body that is made records of.
struct Admitting {
    world: World,
    events: usize,
    body: Vec<u8>,
    block: Block,
}

/// A payload that is held against its schema.
struct Validating {
    world: World,
    data: Document<'static>,
    /// Of another type than the schema says: to show that the schema is looked at.
    bad: Document<'static>,
    mismatches: Vec<Mismatch>,
}

/// The whole way of so many events, schema included.
pub fn admitted(events: usize) -> Box<dyn HotPath> {
    admitting(World::new(12), events)
}

/// The same without schemas.
pub fn encoded(events: usize) -> Box<dyn HotPath> {
    let mut world = World::new(12);
    world.schemas = SchemaSet::default();
    admitting(world, events)
}

fn admitting(world: World, events: usize) -> Box<dyn HotPath> {
    let body = sample::body(events).into_bytes();
    Box::new(Admitting { world, events, body, block: Block::default() })
}

/// The schema of one event's payload, which has been read.
pub fn validated(_events: usize) -> Box<dyn HotPath> {
    let data = document(sample::data(&mut Numbers::default(), 0));
    let bad = document(r#"{"number":"seven"}"#.to_owned());
    Box::new(Validating { world: World::new(12), data, bad, mismatches: Vec::new() })
}

/// A document of `text` for as long as the process lives: documents borrow, and benchmarks own what they need.
fn document(text: String) -> Document<'static> {
    let tape: &'static mut Tape = Box::leak(Box::default());
    tape.read_all(text.leak().as_bytes()).expect("JSON")
}

impl HotPath for Admitting {
    fn run(&mut self) {
        self.block = self.world.admit(self.events, &self.body);
    }

    fn outcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.block.bytes)
    }
}

impl HotPath for Validating {
    fn run(&mut self) {
        self.mismatches = self.world.schemas.check(self.world.slot(), self.data.root());
    }

    fn outcome(&mut self) -> Vec<u8> {
        let bad = self.world.schemas.check(self.world.slot(), self.bad.root());
        format!("{:?} {bad:?}", self.mismatches).into_bytes()
    }
}

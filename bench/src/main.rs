//! Micro-benchmarks of the hot paths: nanoseconds a call, best of several runs.
//!
//! `cargo run --release -p nistru-bench`. Numbers of one run compare with each other; machines and days do not.

use nistru::http::h1::{Parser, Step};
use nistru::id::{ClientId, TypeId};
use nistru::ingress::{Admission, Authority, Form, Produced, Rights, Settings};
use nistru::registry::model::{Client, Producer, Registry};
use nistru::schema::SchemaSet;
use nistru::ws::frame;
use std::hint::black_box;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs of each benchmark; the best one counts, because everything else on the machine only makes it slower.
const RUNS: usize = 7;
/// Least duration of a run.
const RUN: Duration = Duration::from_millis(100);

fn main() {
    let world = World::new();
    let event = event(1);
    let batch = format!("[{}]", (0..100).map(self::event).collect::<Vec<_>>().join(","));
    let request = request(&event);
    println!("{:<44} {:>10}", "", "ns");
    report("read the head and body of one POST of 1 KiB", 1, || parse(request.as_bytes()));
    report("one event of 1 KiB to a record, with its schema", 1, || world.admit(Form::Event, &event));
    report("the same in a batch of 100, an event", 100, || world.admit(Form::Batch, &batch));
    let mut out = Vec::with_capacity(4096);
    report("one WebSocket frame of 1 KiB", 1, || {
        out.clear();
        frame::write_event(&mut out, event.as_bytes(), black_box(17));
        out.len()
    });
    let record = vec![7u8; 1100];
    report("checksum of one record of 1,100 bytes", 1, || crc32fast::hash(black_box(&record)) as usize);
}

/// Prints how long `work` takes, divided by `parts`.
fn report(name: &str, parts: u32, mut work: impl FnMut() -> usize) {
    let best = (0..RUNS).map(|_| time(&mut work)).min().expect("there is a run");
    println!("{name:<44} {:>10.0}", best.as_nanos() as f64 / f64::from(parts));
}

/// The mean duration of a call in one run.
fn time(work: &mut impl FnMut() -> usize) -> Duration {
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < RUN {
        for _ in 0..16 {
            black_box(work());
        }
        calls += 16;
    }
    started.elapsed() / calls
}

/// A registry with one client, one type and its schema, as `nistru dev` makes it.
struct World {
    registry: Registry,
    schemas: SchemaSet,
    client: ClientId,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let registry = load(dir.path());
        let schemas = SchemaSet::compile(&registry).expect("the schemas of `nistru dev` compile");
        let client = registry
            .clients
            .values()
            .find(|client| client.name == "Demonstration")
            .expect("the demo client")
            .id;
        let settings = Settings {
            now_ms: 1_800_000_000_000,
            skew_ms: 5000,
            partitions: NonZeroU8::new(12).expect("not zero"),
            event_bytes_max: 64 << 10,
        };
        Self { registry, schemas, client, settings }
    }

    fn authority(&self) -> (&Client, &Producer) {
        let client = &self.registry.clients[&self.client];
        (client, client.producer.as_ref().expect("the demo client produces"))
    }

    fn admit(&self, form: Form, body: &str) -> usize {
        let (client, producer) = self.authority();
        let content_type = match form {
            Form::Batch => "application/cloudevents-batch+json",
            _ => "application/cloudevents+json",
        };
        let authority = Authority {
            client,
            rights: Rights::Produce(producer),
            registry: &self.registry,
            schemas: &self.schemas,
            settings: &self.settings,
        };
        let produced = Produced {
            form,
            content_type: Some(content_type.as_bytes()),
            attributes: &[],
            body: body.as_bytes(),
        };
        Admission::new(authority, produced).run().expect("the events are good").bytes.len()
    }
}

fn load(dir: &Path) -> Registry {
    let config = nistru::dev::config(dir, Some(0), None).expect("a development directory");
    let loaded =
        nistru::registry::files::load(&dir.join("registry"), &config.storage, &config.audit.defaults)
            .expect("a sound registry");
    loaded.registry.with_type_ids(|_| TypeId(1))
}

fn event(number: usize) -> String {
    let filling = "0123456789abcdef".repeat(53);
    format!(
        r#"{{"specversion":"1.0","id":"{number}","source":"urn:demo","type":"Demo.Load.Record.Created","partitionkey":"{number}","data":{{"number":{number},"name":"name","note":"{filling}"}}}}"#
    )
}

fn request(body: &str) -> String {
    format!(
        "POST /ce/produce/event HTTP/1.1\r\nHost: localhost:8443\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn parse(mut bytes: &[u8]) -> usize {
    let mut parser = Parser::new(16 << 10);
    loop {
        match parser.advance(&mut bytes).expect("a good request") {
            Step::Head => parser.keep_body(1 << 20).expect("a small body"),
            Step::Complete(request, _) => return request.body.len(),
            Step::NeedMore => unreachable!("the request is whole"),
        }
    }
}

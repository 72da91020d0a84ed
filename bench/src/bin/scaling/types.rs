//! The same events spread over more and more types, to one consumer of all of them.

use super::Step;
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const EVENTS: u64 = 200_000;
/// The `demo` client with these types instead of its own.
const CLIENT: &str = "registry/clients/demo.toml";

pub fn types() -> Vec<Step> {
    [1, 100, 10_000].map(step).into()
}

fn step(types: u64) -> Step {
    let broker = Broker::start_with(None, |dir| register(dir, types));
    let endpoint = broker.endpoint();
    let body = |n: u64| load::batch(n * BATCH..(n + 1) * BATCH, 1024, |n| name(n % types), |n| n);
    let bodies: Vec<_> = (0..types.div_ceil(BATCH)).map(body).collect();
    let mut consumers = load::consumers(&endpoint, 1, "group");
    let warm_up = bodies.len() as u64;
    load::consume(&mut consumers, warm_up * BATCH, || load::publish(&endpoint, 1, warm_up, &bodies));
    let before = broker.cpu();
    let took = load::consume(&mut consumers, EVENTS, || {
        load::publish(&endpoint, 2, EVENTS / BATCH, &bodies);
    });
    let cost = (broker.cpu() - before).as_secs_f64() * 1e6 / EVENTS as f64;
    let rate = EVENTS as f64 / took.as_secs_f64();
    let note = format!("{rate:>9.0} events/s, {:.0} MiB", broker.memory().anonymous);
    Step { name: format!("{types} types"), cost, note }
}

fn name(number: u64) -> String {
    format!("Demo.Scale.Record{number}.Created")
}

/// Writes the types and lets the client `demo` produce and consume them.
fn register(dir: &Path, types: u64) {
    let mut list = String::new();
    for number in 0..types {
        let name = name(number);
        let file = dir.join(format!("registry/types/{name}.toml"));
        fs::write(file, format!("name = \"{name}\"\n")).expect("a file");
        write!(list, "\"{name}\", ").expect("text takes everything");
    }
    let path = dir.join(CLIENT);
    let client = fs::read_to_string(&path).expect("the client's file");
    let own = r#"["Demo.Load.Record.Created", "Demo.Load.Blob.Created"]"#;
    assert!(client.contains(own), "the client's file lists its types");
    fs::write(path, client.replace(own, &format!("[{list}]"))).expect("a file");
}

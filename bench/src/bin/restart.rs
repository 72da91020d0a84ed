//! How long the broker is away when it is killed under load: from the start of the next process to the first event acknowledged and
//! the first one delivered.
//!
//! `cargo build --release && cargo run --release -p nistru-bench --bin restart [GIB...]`. Each number is how many GiB of events are stored
//! before the kill, half of one when none is given. Two producers of batches of 100 and two consumers that confirm are busy at the
//! moment of the kill. That nothing is lost is what the tests of crashes look at.

use nistru::client::{Connection, Consumer, Endpoint, Subscription};
use nistru_bench::broker::Broker;
use nistru_bench::events::batch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PRODUCERS: usize = 2;
const CONSUMERS: usize = 2;
const BATCH: usize = 100;
const EVENT_BYTES: u64 = 1024;
/// Consumers confirm after so many events.
const CONFIRM_EVERY: u64 = 256;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let mut sizes: Vec<f64> =
        std::env::args().skip(1).map(|text| text.parse().expect("GIB is a number")).collect();
    if sizes.is_empty() {
        sizes.push(0.5);
    }
    println!(
        "{:>8} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "GiB", "journal", "partitions", "listening", "first 202", "first event"
    );
    for gib in sizes {
        measure(gib);
    }
}

fn measure(gib: f64) {
    let mut broker = Broker::start();
    load(&broker.endpoint(), (gib * (1u64 << 30) as f64) as u64 / EVENT_BYTES);
    let mib = |name: &str| broker.bytes_in(name) as f64 / (1 << 20) as f64;
    let (journal, partitions) = (mib("journal"), mib("partitions"));
    let began = Instant::now();
    broker.kill();
    broker.start_again();
    let listening = began.elapsed();
    let endpoint = broker.endpoint();
    let mut producer = Connection::open(&endpoint).expect("a connection");
    produce(&mut producer, &batch(BATCH)).expect("the broker takes events");
    let acknowledged = began.elapsed();
    let mut consumer = Consumer::open(&endpoint, &Subscription::group("restart")).expect("a consumer");
    consumer.next(PATIENCE).expect("the session goes on").expect("an event");
    let delivered = began.elapsed();
    println!(
        "{gib:>8.1} {journal:>6.0} MiB {partitions:>8.0} MiB {listening:>12.2?} {acknowledged:>12.2?} {delivered:>12.2?}"
    );
}

/// Loads the broker until `events` are stored and returns while producers and consumers are busy. They end when their connections break.
fn load(endpoint: &Endpoint, events: u64) {
    let stored = Arc::new(AtomicU64::new(0));
    for _ in 0..PRODUCERS {
        let (endpoint, stored) = (endpoint.clone(), stored.clone());
        thread::spawn(move || {
            let mut connection = Connection::open(&endpoint).expect("a connection");
            let body = batch(BATCH);
            while produce(&mut connection, &body).is_ok() {
                stored.fetch_add(BATCH as u64, Relaxed);
            }
        });
    }
    for _ in 0..CONSUMERS {
        let endpoint = endpoint.clone();
        thread::spawn(move || {
            let subscription = Subscription::group("restart");
            let mut consumer = Consumer::open(&endpoint, &subscription).expect("a consumer");
            while let Ok(delivery) = consumer.next(PATIENCE) {
                let offset = delivery.and_then(|delivery| delivery.offset());
                if let Some(offset) = offset.filter(|offset| offset % CONFIRM_EVERY == 0)
                    && consumer.confirm(offset).is_err()
                {
                    break;
                }
            }
        });
    }
    let began = Instant::now();
    while stored.load(Relaxed) < events || began.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(10));
    }
}

fn produce(connection: &mut Connection, body: &str) -> Result<(), ()> {
    let answer =
        connection.post("/ce/produce/events", "application/cloudevents-batch+json", &[], body.as_bytes());
    match answer {
        Ok(answer) if answer.status == 202 => Ok(()),
        Ok(answer) => panic!("the broker answers {}", answer.status),
        Err(_) => Err(()),
    }
}

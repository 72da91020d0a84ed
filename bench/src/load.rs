//! Producers and consumers that use little processor time themselves.

use nistru::client::{Connection, Consumer, Endpoint, Subscription};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Events in a batch.
pub const BATCH: u64 = 100;
/// Threads that serve consumers.
const CONSUMING_THREADS: usize = 2;
/// Longest wait in which it is not seen that everything has arrived.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The type that the client `demo` of `nistru dev` may produce and consume.
pub const DEMO: &str = "Demo.Load.Record.Created";

/// A batch of events of about `bytes` bytes, whose types and keys are those of their numbers.
pub fn batch(
    numbers: std::ops::Range<u64>,
    bytes: usize,
    type_of: impl Fn(u64) -> String,
    key_of: impl Fn(u64) -> u64,
) -> String {
    let filling = "x".repeat(bytes.saturating_sub(180));
    let event = |number| {
        let (name, key) = (type_of(number), key_of(number));
        format!(
            r#"{{"specversion":"1.0","id":"{number}","source":"urn:demo","type":"{name}","partitionkey":"{key}","data":{{"number":{number},"name":"name","note":"{filling}"}}}}"#
        )
    };
    format!("[{}]", numbers.map(event).collect::<Vec<_>>().join(","))
}

/// A batch of [`BATCH`] events of [`DEMO`], 1 KiB each.
pub fn demo_batch() -> String {
    batch(0..BATCH, 1024, |_| DEMO.to_owned(), |number| number)
}

/// Has `producers` connections send `batches` batches in all, each of `bodies` in turn.
pub fn publish(endpoint: &Endpoint, producers: u64, batches: u64, bodies: &[String]) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(|| {
                let mut connection = Connection::open(endpoint).expect("a connection");
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= batches {
                        return;
                    }
                    let body = &bodies[number as usize % bodies.len()];
                    send(&mut connection, body);
                }
            });
        }
    });
}

/// Sends a batch until the broker takes it.
pub fn send(connection: &mut Connection, body: &str) {
    const TYPE: &str = "application/cloudevents-batch+json";
    loop {
        let answer = connection.post("/ce/produce/events", TYPE, &[], body.as_bytes()).expect("an answer");
        match answer.status {
            202 => return,
            429 | 503 => std::thread::sleep(Duration::from_millis(5)),
            status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
}

/// One consumer in each of `groups` groups with this prefix.
pub fn consumers(endpoint: &Endpoint, groups: u64, prefix: &str) -> Vec<Consumer> {
    let open = |number| {
        let group = Subscription::group(&format!("{prefix}-{number}"));
        Consumer::open(endpoint, &group).expect("a consumer")
    };
    (0..groups).map(open).collect()
}

/// Receives and confirms `total` events, however they are spread over the consumers, while `meanwhile` runs. How long
/// it took until the last one was there.
pub fn consume(consumers: &mut [Consumer], total: u64, meanwhile: impl FnOnce() + Send) -> Duration {
    let began = Instant::now();
    let left = AtomicU64::new(total);
    let share = consumers.len().div_ceil(CONSUMING_THREADS);
    std::thread::scope(|scope| {
        for some in consumers.chunks_mut(share) {
            scope.spawn(|| consume_until(some, &left));
        }
        scope.spawn(meanwhile);
    });
    began.elapsed()
}

fn consume_until(consumers: &mut [Consumer], left: &AtomicU64) {
    for consumer in consumers.iter_mut() {
        consumer.set_nonblocking().expect("a socket");
    }
    while left.load(Relaxed) > 0 {
        for consumer in consumers.iter_mut() {
            let received = drain(consumer);
            left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(received)))
                .expect("an update");
        }
        let mut sockets: Vec<_> =
            consumers.iter().map(|consumer| PollFd::new(consumer, PollFlags::IN)).collect();
        poll(&mut sockets, Some(&WAIT)).expect("sockets");
    }
}

/// Takes what has come and confirms it; how many events it was.
fn drain(consumer: &mut Consumer) -> u64 {
    let (mut received, mut last) = (0, None);
    while let Some(delivery) = consumer.poll().expect("the session goes on") {
        received += 1;
        last = delivery.offset();
    }
    if let Some(offset) = last {
        consumer.confirm(offset).expect("a confirm");
    }
    received
}

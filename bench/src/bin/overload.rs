//! What the broker does under more load than it can take: how much of its best rate it still acknowledges, how it tells the rest to
//! wait, how much memory it takes, and how soon it is as quick as before.
//!
//! `cargo build --release && cargo run --release -p nistru-bench --bin overload [SECONDS]`. Every connection sends its next request as soon
//! as the last one was answered: with HTTP/1.1 a producer that is behind its schedule cannot do otherwise, so any rate above the
//! sustainable one comes down to all connections having a request in flight. The threads that drive them share the machine with
//! the broker.

use nistru::client::{Connection, Consumer, Stream, Subscription};
use nistru_bench::broker::{Broker, Memory};
use nistru_bench::events::{batch, event};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that drive the producers of one load.
const THREADS: usize = 2;
/// Between two looks at the broker's memory.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Before a request that was refused is followed by the next one.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(100);
/// Before the load begins to count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(2);
/// Probes in a row that must be quick for the broker to count as recovered.
const QUICK_PROBES: usize = 50;
/// A broker that has not recovered by then never will.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// Producers that send as fast as they are answered, and consumers that never read.
struct Load {
    producers: usize,
    batch: usize,
    deaf_consumers: usize,
}

struct Case {
    name: &'static str,
    /// Load at which the broker is busy and nobody waits for long.
    sustained: Load,
    over: Load,
}

const CASES: [Case; 3] = [
    Case {
        name: "2,000 producers of single events",
        sustained: Load { producers: 64, batch: 1, deaf_consumers: 0 },
        over: Load { producers: 2000, batch: 1, deaf_consumers: 0 },
    },
    Case {
        name: "64 producers of batches of 1,000",
        sustained: Load { producers: 4, batch: 100, deaf_consumers: 0 },
        over: Load { producers: 64, batch: 1000, deaf_consumers: 0 },
    },
    Case {
        name: "200 consumers that do not read",
        sustained: Load { producers: 4, batch: 100, deaf_consumers: 0 },
        over: Load { producers: 8, batch: 100, deaf_consumers: 200 },
    },
];

/// What came of a load.
#[derive(Default)]
struct Outcome {
    events_per_s: f64,
    acknowledged: u64,
    refused: u64,
    peak: Memory,
}

fn main() {
    let seconds = std::env::args().nth(1).map_or(5.0, |text| text.parse().expect("SECONDS is a number"));
    let duration = Duration::from_secs_f64(seconds);
    println!(
        "{:<34} {:>10} {:>10} {:>6} {:>9} {:>9} {:>9} {:>10}",
        "", "events/s", "overload", "ratio", "refused", "PSS MiB", "anonymous", "recovered"
    );
    for case in &CASES {
        let broker = Broker::start();
        let usual = quickness(&broker);
        let sustained = run(&broker, &case.sustained, duration);
        let over = run(&broker, &case.over, duration);
        let recovered = recovery(&broker, usual);
        println!(
            "{:<34} {:>10.0} {:>10.0} {:>6.2} {:>8.1}% {:>9.0} {:>9.0} {recovered:>10.2?}",
            case.name,
            sustained.events_per_s,
            over.events_per_s,
            over.events_per_s / sustained.events_per_s,
            over.refused as f64 * 100.0 / (over.refused + over.acknowledged) as f64,
            over.peak.pss,
            over.peak.anonymous,
        );
    }
}

/// Puts `load` on the broker for `duration`.
fn run(broker: &Broker, load: &Load, duration: Duration) -> Outcome {
    let endpoint = broker.endpoint();
    let deaf: Vec<_> = (0..load.deaf_consumers)
        .map(|n| Consumer::open(&endpoint, &Subscription::group(&format!("deaf-{}", n % 20))))
        .map(|consumer| consumer.expect("a consumer"))
        .collect();
    let request = request(load.batch);
    let mut producers: Vec<_> =
        (0..load.producers).map(|_| Producer::open(Stream::open(&endpoint).expect("a connection"))).collect();
    let stop = AtomicBool::new(false);
    let (acknowledged, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut outcome = Outcome::default();
    thread::scope(|scope| {
        for part in producers.chunks_mut(load.producers.div_ceil(THREADS)) {
            scope.spawn(|| drive(part, &request, &stop, &acknowledged, &refused));
        }
        thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), [acknowledged.load(Relaxed), refused.load(Relaxed)]);
        while began.elapsed() < duration {
            thread::sleep(LOOK_EVERY);
            let now = broker.memory();
            outcome.peak.pss = outcome.peak.pss.max(now.pss);
            outcome.peak.anonymous = outcome.peak.anonymous.max(now.anonymous);
        }
        outcome.acknowledged = acknowledged.load(Relaxed) - before[0];
        outcome.refused = refused.load(Relaxed) - before[1];
        outcome.events_per_s =
            outcome.acknowledged as f64 * load.batch as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Relaxed);
    });
    drop(deaf);
    outcome
}

/// Sends on all of `producers` until told to stop.
fn drive(
    producers: &mut [Producer],
    request: &[u8],
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
    refused: &AtomicU64,
) {
    while !stop.load(Relaxed) {
        let mut ready = wait(producers);
        let now = Instant::now();
        for (producer, ready) in producers.iter_mut().zip(ready.drain(..)) {
            if producer.waits_until.is_some_and(|until| until <= now) {
                producer.send(request);
            } else if ready {
                match producer.answer() {
                    None => {}
                    Some(202) => {
                        acknowledged.fetch_add(1, Relaxed);
                        producer.send(request);
                    }
                    Some(429 | 503) => {
                        refused.fetch_add(1, Relaxed);
                        producer.waits_until = Some(now + PAUSE_AFTER_REFUSAL);
                    }
                    Some(status) => panic!("the broker answers {status}"),
                }
            }
        }
    }
}

/// Which of the sockets have something to read or take something again, once any has.
fn wait(producers: &[Producer]) -> Vec<bool> {
    let wants = |producer: &Producer| match producer.stream.wants_write() {
        true => PollFlags::IN | PollFlags::OUT,
        false => PollFlags::IN,
    };
    let mut sockets: Vec<_> =
        producers.iter().map(|producer| PollFd::new(&producer.stream, wants(producer))).collect();
    let tick = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    poll(&mut sockets, Some(&tick)).expect("sockets can be waited for");
    sockets.iter().map(|socket| !socket.revents().is_empty()).collect()
}

/// One connection with a request in flight.
struct Producer {
    stream: Stream,
    /// What came of the answer.
    received: Vec<u8>,
    /// Sends the next request then; `None` while an answer is awaited.
    waits_until: Option<Instant>,
}

impl Producer {
    fn open(mut stream: Stream) -> Self {
        stream.set_nonblocking(true).expect("a socket that does not block");
        Self { stream, received: Vec::new(), waits_until: Some(Instant::now()) }
    }

    fn send(&mut self, request: &[u8]) {
        self.waits_until = None;
        self.stream.write_all(request).expect("requests are kept in memory");
        self.flush();
    }

    fn flush(&mut self) {
        match self.stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("a connection broke: {error}"),
            _ => {}
        }
    }

    /// The status of the answer, once all of it is there.
    fn answer(&mut self) -> Option<u16> {
        self.flush();
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => panic!("the broker ended a connection"),
            Ok(bytes) => self.received.extend_from_slice(&part[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("a connection broke: {error}"),
        }
        let text = std::str::from_utf8(&self.received).expect("answers are text");
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() < length.unwrap_or(0) {
            return None;
        }
        let status = head.split(' ').nth(1)?.parse().ok();
        self.received.clear();
        status
    }
}

/// A request of `count` events.
fn request(count: usize) -> Vec<u8> {
    let (path, content_type, body) = match count {
        1 => ("event", "application/cloudevents+json", event(0)),
        _ => ("events", "application/cloudevents-batch+json", batch(count)),
    };
    format!(
        "POST /ce/produce/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Waits until the broker answers about as quickly as it usually does; how long that took.
fn recovery(broker: &Broker, usual: Duration) -> Duration {
    let began = Instant::now();
    let (mut quick, mut since) = (0, began);
    for (sent, took) in probes(broker) {
        if took > usual * 2 {
            (quick, since) = (0, sent + took);
        } else {
            quick += 1;
        }
        if quick == QUICK_PROBES {
            return since - began;
        }
        assert!(began.elapsed() < RECOVERY_MAX, "the broker does not recover");
    }
    unreachable!("probes never end")
}

/// The p99 of single events while nothing else goes on.
fn quickness(broker: &Broker) -> Duration {
    let mut times: Vec<_> = probes(broker).skip(100).take(500).map(|(_, took)| took).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

/// Single events one after the other: when each was sent and how long its answer took.
fn probes(broker: &Broker) -> impl Iterator<Item = (Instant, Duration)> {
    let mut connection = Connection::open(&broker.endpoint()).expect("a connection");
    let request = request(1);
    std::iter::repeat_with(move || {
        thread::sleep(PROBE_EVERY);
        let sent = Instant::now();
        connection.send(&request).expect("the connection goes on");
        connection.receive().expect("an answer");
        (sent, sent.elapsed())
    })
}

//! How fast a consumer catches up from cold storage, and what others feel of it.
//!
//! `cargo build --release && cargo run --release -p nistru-bench --bin cold [ROUNDS [CORES]]`. The broker is the release build beside this
//! program. Everything is dropped from the page cache before (as root; otherwise as far as `posix_fadvise` drops it), then a new group
//! reads all there is, while a pair of clients sends and receives an event every few milliseconds. Beside it stands what reading
//! the same files from end to end takes. `TMPDIR` says on which disk. The last line has the medians of the rounds: a p99 of a few seconds
//! is what the machine's worst moment was, alone or beside others.

use nistru::client::{Connection, Consumer, Endpoint};
use nistru_bench::broker::Broker;
use nistru_bench::load::{self, BATCH};
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Events of 1 KiB that are caught up with.
const BACKLOG: u64 = 1_000_000;
/// Between two events of the pair.
const PACE: Duration = Duration::from_millis(2);
/// How long the pair is watched when nobody catches up.
const ALONE: Duration = Duration::from_secs(3);
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let rounds = std::env::args().nth(1).map_or(3, |text| text.parse().expect("ROUNDS is a number"));
    let cores = std::env::args().nth(2).map(|text| text.parse().expect("CORES is a number"));
    let broker = Broker::start_with(cores, |_| {});
    let endpoint = broker.endpoint();
    let mut pair = Pair::open(&endpoint);
    let bodies = [load::demo_batch()];
    load::consume(std::slice::from_mut(&mut pair.consumer), BACKLOG, || {
        load::publish(&endpoint, 2, BACKLOG / BATCH, &bodies);
    });
    let (mut shares, mut ratios) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let disk = read_files(&broker);
        let alone = pair.watch(|watched| watched < ALONE);
        drop_cache(&broker);
        let (caught_up, beside) = catch_up(&endpoint, round, &mut pair);
        println!(
            "disk {disk:.0} MiB/s, caught up at {caught_up:.0} MiB/s: {:.2} of it; p99 of the pair {:.2} ms, {:.2} ms beside it: {:.2} ×; {:.0} MiB",
            caught_up / disk,
            alone.as_secs_f64() * 1e3,
            beside.as_secs_f64() * 1e3,
            beside.as_secs_f64() / alone.as_secs_f64(),
            broker.memory().anonymous
        );
        shares.push(caught_up / disk);
        ratios.push(beside.as_secs_f64() / alone.as_secs_f64());
    }
    println!("medians: {:.2} of the disk, {:.2} ×", median(shares), median(ratios));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Has a new group read the backlog; MiB/s, and the p99 of the pair meanwhile.
fn catch_up(endpoint: &Endpoint, round: u32, pair: &mut Pair) -> (f64, Duration) {
    let mut consumers = load::consumers(endpoint, 1, &format!("cold-{round}"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // What receiving costs this machine is not the broker's: the reader takes what processor time is left.
            rustix::process::nice(19).expect("a thread may lower its own priority");
            let took = load::consume(&mut consumers, BACKLOG, || {});
            done.store(true, Relaxed);
            BACKLOG as f64 * 1024.0 / MIB / took.as_secs_f64()
        });
        let p99 = pair.watch(|_| !done.load(Relaxed));
        (reader.join().expect("the reader reads"), p99)
    })
}

/// A producer and a consumer that keeps up.
struct Pair {
    producer: Connection,
    consumer: Consumer,
    sent: u64,
}

impl Pair {
    fn open(endpoint: &Endpoint) -> Self {
        let producer = Connection::open(endpoint).expect("a connection");
        let consumer = load::consumers(endpoint, 1, "pair").remove(0);
        Self { producer, consumer, sent: 0 }
    }

    /// Sends and receives one event after the other while `goes_on` says so; the p99 from sending to receiving.
    fn watch(&mut self, goes_on: impl Fn(Duration) -> bool) -> Duration {
        self.consumer.stream().set_nonblocking(false).expect("a socket");
        let (began, mut times) = (Instant::now(), Vec::new());
        while goes_on(began.elapsed()) {
            std::thread::sleep((PACE * times.len() as u32).saturating_sub(began.elapsed()));
            let number = self.sent;
            self.sent += 1;
            let body = load::batch(number..number + 1, 1024, |_| load::DEMO.to_owned(), |_| 1);
            let sent = Instant::now();
            load::send(&mut self.producer, &body);
            let mark = format!(r#""id":"{number}","#);
            loop {
                let delivery = self.consumer.next(Duration::from_secs(10)).expect("the session goes on");
                let delivery = delivery.expect("an event");
                self.consumer.confirm(delivery.offset().expect("an offset")).expect("a confirm");
                if delivery.text().contains(&mark) {
                    break;
                }
            }
            times.push(sent.elapsed());
        }
        times.sort();
        times[times.len() * 99 / 100]
    }
}

/// Reads the partitions' files from end to end, cold; MiB/s.
fn read_files(broker: &Broker) -> f64 {
    drop_cache(broker);
    let (began, mut bytes, mut part) = (Instant::now(), 0, vec![0; 1 << 20]);
    for file in files(broker) {
        let mut file = File::open(file).expect("a file");
        loop {
            match file.read(&mut part).expect("a disk that works") {
                0 => break,
                read => bytes += read,
            }
        }
    }
    bytes as f64 / MIB / began.elapsed().as_secs_f64()
}

fn files(broker: &Broker) -> Vec<PathBuf> {
    let partitions = fs::read_dir(broker.data().join("partitions")).expect("partitions");
    let files = partitions.flat_map(|dir| fs::read_dir(dir.expect("an entry").path()).expect("a directory"));
    files.map(|file| file.expect("an entry").path()).collect()
}

fn drop_cache(broker: &Broker) {
    // Only clean pages are dropped.
    rustix::fs::sync();
    if fs::write("/proc/sys/vm/drop_caches", "1").is_ok() {
        return;
    }
    for file in files(broker) {
        let file = File::open(file).expect("a file");
        fadvise(&file, 0, None, Advice::DontNeed).expect("advice");
    }
}

//! For how long single polls keep an executor in each workload, and how often the machine alone makes one stand still.
//!
//! `cargo build --release --workspace && cargo run --release -p nistru-bench --bin stalls [SECONDS [ROUNDS]]`. Broker and load are the release
//! builds beside this program; the broker has one executor. A host that takes a processor away for a moment need not say so, and a
//! poll that was interrupted looks like one that worked for long. So before each workload an executor of this program runs on the same
//! processor, measured in the same way, whose polls never work for longer than [`POLL`], while the other processor is busy as
//! well: polls that took longer are the machine's. Numbers are for 10 seconds of polling, whatever it took to get them.

use nistru::rt::stall::{self, BOUNDS_NS};
use nistru::rt::{self, executor};
use nistru_bench::broker::Broker;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Work of a poll of the idle executor: about what the broker does for a batch.
const POLL: Duration = Duration::from_micros(200);
/// The processor on which the broker puts its first executor.
const PROCESSOR: usize = 0;
/// What is counted: polls longer than this.
const LONGER_THAN_NS: [u64; 3] = [500_000, 1_000_000, 2_000_000];

const WORKLOADS: [(&str, &[&str]); 5] = [
    ("W1a", &["--producers", "16", "--consumers", "0", "--batch", "1"]),
    ("W1b", &["--producers", "64", "--consumers", "0", "--batch", "1"]),
    ("W2", &["--producers", "4", "--consumers", "0", "--batch", "100"]),
    ("W3a", &["--producers", "2", "--consumers", "2", "--batch", "100"]),
    ("W3b", &["--producers", "2", "--consumers", "2", "--batch", "100", "--rate", "10000"]),
];

/// Polls of an executor by what kept it, as it measured them.
#[derive(Clone, Copy, Default)]
struct Polls {
    /// Longer than each of [`LONGER_THAN_NS`], while the thread had a processor.
    ran: [f64; LONGER_THAN_NS.len()],
    /// The same for what stood still because it waited.
    waited: [f64; LONGER_THAN_NS.len()],
    /// Of all polls.
    seconds: f64,
}

fn main() {
    let argument = |n, usual| std::env::args().nth(n).map_or(usual, |text| text.parse().expect("a number"));
    let (seconds, rounds) = (argument(1, 10), argument(2, 1));
    println!("{:<10} {:>9} {:>27} {:>27}", "", "polling", "ran > 0.5 / 1 / 2 ms", "waited > 0.5 / 1 / 2 ms");
    for _ in 0..rounds {
        for (name, load) in WORKLOADS {
            show("machine", &idle(Duration::from_secs(seconds)));
            show(name, &under(load, seconds));
        }
    }
}

fn show(name: &str, polls: &Polls) {
    let scale = 10.0 / polls.seconds;
    let [ran, waited] = [polls.ran, polls.waited].map(|counts| {
        let counts = counts.map(|count| format!("{:>7.1}", count * scale));
        counts.join(" /")
    });
    println!("{name:<10} {:>7.1} s {ran:>27} {waited:>27}", polls.seconds);
}

/// An executor whose polls are short by themselves.
fn idle(duration: Duration) -> Polls {
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    let other = std::thread::spawn({
        let stop = stop.clone();
        move || while !stop.load(Relaxed) {}
    });
    let task = move || async move {
        let began = Instant::now();
        while began.elapsed() < duration {
            let poll = Instant::now();
            while poll.elapsed() < POLL {}
            rt::breathe().await;
        }
        tell.send(stall::stalls()).expect("it is waited for");
    };
    executor::start(0, PROCESSOR, task).expect("an executor");
    let stalls = told.recv().expect("the executor ends");
    stop.store(true, Relaxed);
    other.join().expect("it only spins");
    let longer = |durations: &stall::Durations| {
        LONGER_THAN_NS.map(|ns| {
            let first = BOUNDS_NS.iter().position(|bound| *bound == ns).expect("a bound") + 1;
            durations.buckets[first..].iter().sum::<u64>() as f64
        })
    };
    Polls {
        ran: longer(&stalls.ran),
        waited: longer(&stalls.waited),
        seconds: stalls.ran.sum_ns as f64 * 1e-9,
    }
}

/// The broker's executor under a load.
fn under(load: &[&str], seconds: u64) -> Polls {
    let broker = Broker::start_with(Some(1), |_| {});
    let before = exported(broker.admin_port());
    let program = std::env::current_exe().expect("this program has a path").with_file_name("nistru-loadtest");
    let status = Command::new(&program)
        .args(["--url", &format!("https://localhost:{}", broker.port()), "--warm-up", "1"])
        .args(["--duration", &seconds.to_string(), "--dir"])
        .arg(broker.dir())
        .args(load)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let status = status.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(status.success(), "the load test found a fault");
    let after = exported(broker.admin_port());
    let since = |after: [f64; LONGER_THAN_NS.len()], before: [f64; LONGER_THAN_NS.len()]| {
        std::array::from_fn(|n| after[n] - before[n])
    };
    Polls {
        ran: since(after.ran, before.ran),
        waited: since(after.waited, before.waited),
        seconds: after.seconds - before.seconds,
    }
}

/// What the broker exports on its admin port.
fn exported(port: u16) -> Polls {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the admin port");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let value = |start: String| {
        let line = text.lines().find_map(|line| line.strip_prefix(&start)).expect("the metric");
        line.trim().parse::<f64>().expect("a number")
    };
    const NAME: &str = "nistru_executor_stall_seconds";
    let longer = |cause: &str| {
        let all = value(format!("{NAME}_count{{core=\"0\",cause=\"{cause}\"}}"));
        LONGER_THAN_NS.map(|ns| {
            let bound = ns as f64 * 1e-9;
            all - value(format!("{NAME}_bucket{{le=\"{bound}\",core=\"0\",cause=\"{cause}\"}}"))
        })
    };
    Polls {
        ran: longer("ran"),
        waited: longer("waited"),
        seconds: value(format!("{NAME}_sum{{core=\"0\",cause=\"ran\"}}")),
    }
}

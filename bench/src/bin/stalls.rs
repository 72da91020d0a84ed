//! For how long single polls keep an executor in each workload, and how often the machine alone makes one stand still.
//!
//! `cargo build --release --workspace && cargo run --release -p nistru-bench --bin stalls [SECONDS [ROUNDS]]`. Broker and load are the release
//! builds beside this program; the broker has one executor. A host that takes a processor away for a moment need not say so, and a
//! poll that was interrupted looks like one that worked for long. So before each workload an executor of this program runs on the same
//! processor, measured in the same way, whose polls never work for longer than [`POLL`], while the other processor is busy as
//! well: polls that took longer are the machine's. The load test tells the broker's.

use nistru::rt::stall::{self, BOUNDS_NS, Stalls};
use nistru::rt::{self, executor};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Work of a poll of the idle executor: about what the broker does for a batch.
const POLL: Duration = Duration::from_micros(200);
/// The processor on which the broker puts its first executor.
const PROCESSOR: usize = 0;
/// Scenarios of the load test.
const WORKLOADS: [&str; 5] = ["w1a", "w1b", "w2", "w3a", "w3b"];
/// Polls that took longer are counted, as the load test does.
const LONG_NS: u64 = 1_000_000;

fn main() {
    let argument = |n, usual| std::env::args().nth(n).map_or(usual, |text| text.parse().expect("a number"));
    let (seconds, rounds) = (argument(1, 10), argument(2, 1));
    println!("{:<10} {:>8} {:>12}", "", "> 1 ms", "longest, ms");
    for _ in 0..rounds {
        for workload in WORKLOADS {
            show("machine", idle(Duration::from_secs(seconds)));
            show(workload, under(workload, seconds));
        }
    }
}

/// `longest_ms` is the bound of a bucket.
fn show(name: &str, (long, longest_ms): (u64, f64)) {
    println!("{name:<10} {long:>8} {longest_ms:>12}");
}

/// An executor whose polls are short by themselves.
fn idle(duration: Duration) -> (u64, f64) {
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
    let Stalls { ran, waited, .. } = told.recv().expect("the executor ends");
    stop.store(true, Relaxed);
    other.join().expect("it only spins");
    let both = ran.buckets.iter().zip(waited.buckets).map(|(ran, waited)| ran + waited);
    let buckets: Vec<_> = BOUNDS_NS.into_iter().chain([u64::MAX]).zip(both).collect();
    let long = buckets.iter().filter(|(bound, _)| *bound > LONG_NS).map(|(_, count)| count).sum();
    let longest = buckets.iter().rfind(|(_, count)| *count > 0).map_or(0, |(bound, _)| *bound);
    (long, longest as f64 / 1e6)
}

/// The broker's executor under a load.
fn under(workload: &str, seconds: u64) -> (u64, f64) {
    let here = std::env::current_exe().expect("this program has a path");
    let program = here.with_file_name("nistru-loadtest");
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/scenarios");
    let output = Command::new(&program)
        .arg("run")
        .arg(scenarios.join(workload).with_extension("toml"))
        .arg("--spawn")
        .arg(here.with_file_name("nistru"))
        .args(["--cores", "1", "--warm-up", "1", "--duration", &seconds.to_string(), "--json", "-"])
        .arg("--work-dir")
        .arg(std::env::temp_dir())
        .stderr(Stdio::null())
        .output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let stalls = &report["server"]["stalls"];
    let figures = stalls["over_1_ms"].as_u64().zip(stalls["longest_ms"].as_f64());
    figures.expect("the load test reads the metrics of a broker that it starts")
}

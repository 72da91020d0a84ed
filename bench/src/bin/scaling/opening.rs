//! Starting on a partition that has become large.

use super::Step;
use super::broker::{self, Broker};
use super::load::{self, BATCH};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::{Duration, Instant};

/// Events that are all in one partition.
const STEPS: [u64; 2] = [100_000, 10_000_000];

pub fn opening() -> Vec<Step> {
    let mut broker = Broker::start(None, |_| {});
    let bodies = [load::batch(0..BATCH, 200, |_| load::DEMO.to_owned(), |_| 1)];
    let mut steps = Vec::new();
    let mut published = 0;
    for events in STEPS {
        load::publish(&broker.endpoint("demo"), 4, (events - published) / BATCH, &bodies);
        published = events;
        let size = format!("{:.1} GiB", size_of(&broker) as f64 / (1 << 30) as f64);
        let step = |how: &str, took: Duration| Step {
            name: format!("{events} events, {how}"),
            cost: took.as_secs_f64() * 1e3,
            note: size.clone(),
        };
        steps.push(step("killed", broker.kill()));
        steps.push(step("stopped", broker.restart()));
    }
    steps
}

impl Broker {
    /// Stops it in good order and starts it again; how long it took to be ready.
    fn restart(&mut self) -> Duration {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("the broker runs");
        self.start_again()
    }

    /// Kills it (SIGKILL) and starts it again; how long it took to be ready.
    fn kill(&mut self) -> Duration {
        self.process.kill().expect("the broker runs");
        self.start_again()
    }

    fn start_again(&mut self) -> Duration {
        self.process.wait().expect("the broker ends");
        let began = Instant::now();
        (self.process, self.port) = broker::spawn(self.dir.path(), None);
        began.elapsed()
    }
}

fn size_of(broker: &Broker) -> u64 {
    let partitions = fs::read_dir(broker.data().join("partitions")).expect("partitions");
    let files = partitions.flat_map(|dir| fs::read_dir(dir.expect("an entry").path()).expect("a directory"));
    files.map(|file| file.expect("an entry").metadata().expect("a file").len()).sum()
}

//! The processor time that a broker takes.

use super::broker::Broker;
use std::fs;
use std::time::Duration;

impl Broker {
    /// Processor time of all its threads so far (`schedstat` of proc(5): nanoseconds on a processor).
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the broker runs");
        let run_ns = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(run_ns).sum())
    }
}

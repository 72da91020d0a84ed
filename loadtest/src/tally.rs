//! Counts of requests and refusals.

use std::collections::BTreeMap;

/// What one thread's producers counted; tallies of threads add up.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests acknowledged within the window.
    pub requests: u64,
    /// Refused events by status, and in each second of the window.
    pub refused_by_status: BTreeMap<u16, u64>,
    pub refused_per_second: Vec<u64>,
}

impl Tally {
    /// Counts refused events. `second`: of the window, if it was within it.
    pub fn refuse(&mut self, status: u16, second: Option<usize>, events: u64) {
        *self.refused_by_status.entry(status).or_default() += events;
        if let Some(second) = second {
            self.add(second, events);
        }
    }

    fn add(&mut self, second: usize, events: u64) {
        if second >= self.refused_per_second.len() {
            self.refused_per_second.resize(second + 1, 0);
        }
        self.refused_per_second[second] += events;
    }

    pub fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        for (status, events) in other.refused_by_status {
            *self.refused_by_status.entry(status).or_default() += events;
        }
        for (second, events) in other.refused_per_second.into_iter().enumerate() {
            self.add(second, events);
        }
    }
}

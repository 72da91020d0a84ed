//! What is counted within the measured time.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Shortest and longest latency told apart, in nanoseconds, to three decimal digits.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 600_000_000_000;

/// The measured part of a run, in nanoseconds of its clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    fn contains(&self, moment_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&moment_ns)
    }
}

/// Events that passed one point, and how long after they were to be sent.
pub struct Flow {
    window: Window,
    events: u64,
    latency: Histogram<u64>,
}

impl Flow {
    pub fn new(window: Window) -> Self {
        let latency = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, 3).expect("bounds that fit");
        Self { window, events: 0, latency }
    }

    /// Notes `events` that were to be sent at `intended_ns` and pass now. The rate counts what passes within the
    /// window; the latency what was to be sent within it, however late it comes.
    pub fn note(&mut self, events: u64, intended_ns: u64, now_ns: u64) {
        if self.window.contains(now_ns) {
            self.events += events;
        }
        if self.window.contains(intended_ns) {
            self.latency.saturating_record_n(now_ns.saturating_sub(intended_ns), events);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.latency.add(&other.latency).expect("the same bounds");
    }

    pub fn summary(&self) -> Summary {
        let ms = |ns: u64| ns as f64 / 1e6;
        let quantile = |q: f64| ms(self.latency.value_at_quantile(q));
        Summary {
            events_per_s: self.events as f64 * 1e9 / (self.window.end_ns - self.window.start_ns) as f64,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: ms(self.latency.max()),
        }
    }
}

/// A flow in numbers, named as `nistru-loadtest` names them.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub events_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_arrivals_and_the_latency_departures() {
        let mut flow = Flow::new(Window { start_ns: 1_000_000_000, end_ns: 3_000_000_000 });
        flow.note(10, 900_000_000, 1_000_000_000);
        flow.note(10, 2_999_000_000, 3_001_000_000);
        let summary = flow.summary();
        assert_eq!(summary.events_per_s, 5.0);
        assert!((1.9..2.1).contains(&summary.p50_ms), "{summary:?}");
    }
}

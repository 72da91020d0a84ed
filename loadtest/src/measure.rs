//! Time and what is counted in it.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Shortest and longest latency told apart, in nanoseconds, to three decimal digits.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 600_000_000_000;

/// Nanoseconds since the start of the run, the same for all threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now_ns(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// The part of the run that is measured, in nanoseconds of its clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    /// Contains nothing: while it is not known yet.
    pub const NEVER: Self = Self { start_ns: u64::MAX, end_ns: u64::MAX };

    pub fn contains(&self, moment_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&moment_ns)
    }

    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.end_ns - self.start_ns).as_secs_f64()
    }
}

/// Events that passed one point, and how long after they were to be sent.
pub struct Flow {
    /// Events and bytes that passed within the window.
    pub events: u64,
    pub bytes: u64,
    latency: Histogram<u64>,
}

impl Flow {
    pub fn new() -> Self {
        let latency = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, 3).expect("bounds that fit");
        Self { events: 0, bytes: 0, latency }
    }

    /// Notes `events` of together `bytes` that were to be sent at `intended_ns` and pass now. The rate counts what
    /// passes within the window; the latency what was to be sent within it, however late it comes.
    pub fn note(&mut self, window: Window, events: u64, bytes: u64, intended_ns: u64, now_ns: u64) {
        if window.contains(now_ns) {
            self.events += events;
            self.bytes += bytes;
        }
        if window.contains(intended_ns) {
            self.latency.saturating_record_n(now_ns.saturating_sub(intended_ns), events);
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).expect("the same bounds");
    }

    pub fn summary(&self, window: Window) -> Summary {
        let ms = |ns: u64| ns as f64 / 1e6;
        let quantile = |q: f64| ms(self.latency.value_at_quantile(q));
        Summary {
            events_per_s: self.events as f64 / window.seconds(),
            mib_per_s: self.bytes as f64 / window.seconds() / f64::from(1 << 20),
            samples: self.latency.len(),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: ms(self.latency.max()),
        }
    }
}

/// A flow in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub events_per_s: f64,
    pub mib_per_s: f64,
    /// Events whose latency was measured.
    pub samples: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// What went wrong, each text with how often.
pub type Problems = BTreeMap<String, u64>;

/// Counts a problem. The numbers in broker texts differ from event to event, so only its start is kept.
pub fn note_problem(problems: &mut Problems, text: &str) {
    const CHARS_MAX: usize = 160;
    const DIFFERENT_MAX: usize = 20;
    let text: String = text.chars().take(CHARS_MAX).collect();
    let known = problems.contains_key(&text) || problems.len() < DIFFERENT_MAX;
    *problems.entry(if known { text } else { "others".to_owned() }).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { start_ns: 1_000_000_000, end_ns: 3_000_000_000 };

    #[test]
    fn the_rate_counts_passing_and_the_latency_sending_within_the_window() {
        let mut flow = Flow::new();
        flow.note(WINDOW, 10, 1 << 20, 900_000_000, 1_100_000_000);
        flow.note(WINDOW, 30, 1 << 20, 2_900_000_000, 3_100_000_000);
        let summary = flow.summary(WINDOW);
        assert_eq!((summary.events_per_s, summary.mib_per_s, summary.samples), (5.0, 0.5, 30));
        assert!((summary.p50_ms - 200.0).abs() < 0.2, "{}", summary.p50_ms);
    }

    #[test]
    fn merged_flows_add_up() {
        let mut all = Flow::new();
        for _ in 0..2 {
            let mut part = Flow::new();
            part.note(WINDOW, 1, 5, 1_500_000_000, 1_600_000_000);
            all.merge(&part);
        }
        assert_eq!((all.events, all.bytes, all.summary(WINDOW).samples), (2, 10, 2));
    }

    #[test]
    fn problems_are_bounded_in_length_and_number() {
        let mut problems = Problems::new();
        for n in 0..100 {
            note_problem(&mut problems, &format!("{n}{}", "x".repeat(1000)));
        }
        assert!(problems.len() <= 21 && problems.keys().all(|text| text.len() <= 160));
        assert_eq!(problems.values().sum::<u64>(), 100);
    }
}

//! Events that pass one point of their way: how many, how late, second by second. Flows of threads, processes and
//! machines add up.

use crate::measure::Window;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Shortest and longest latency told apart, in nanoseconds.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 600_000_000_000;
/// Decimal digits kept of a latency, of a whole run and within a second.
const RUN_DIGITS: u8 = 3;
const SECOND_DIGITS: u8 = 2;

/// Events that passed one point, and how long after they were to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "FlowDocument", into = "FlowDocument")]
pub struct Flow {
    /// Events and bytes that passed within the window.
    pub events: u64,
    pub bytes: u64,
    /// Length of the window, 0 until [`finish`](Self::finish).
    pub seconds: f64,
    /// Of the events that were to be sent within the window, however late they came.
    pub latency: Latency,
    /// How many of the latencies are only how long an event had been awaited when the run ended: that it took longer is known, and
    /// not how long.
    pub lower_bounds: u64,
    /// What passed in each second of the window.
    pub per_second: Vec<Second>,
    /// Latencies of the second that is going on, and which it is.
    current: Option<(usize, Latency)>,
}

/// What passed in one second of the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "SecondDocument", into = "SecondDocument")]
pub struct Second {
    pub events: u64,
    /// Latencies in nanoseconds, each with how often: a histogram would take 30 KiB.
    latencies: Vec<(u64, u64)>,
}

/// A histogram of latencies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "LatencyDocument", into = "LatencyDocument")]
pub struct Latency(Histogram<u64>);

impl Flow {
    pub fn new() -> Self {
        Self {
            events: 0,
            bytes: 0,
            seconds: 0.0,
            latency: Latency::new(RUN_DIGITS),
            lower_bounds: 0,
            per_second: Vec::new(),
            current: None,
        }
    }

    /// Notes `events` of together `bytes` that were to be sent at `intended_ns` and pass now. The rate counts what
    /// passes within the window; the latency what was to be sent within it, however late it comes.
    pub fn note(&mut self, window: Window, events: u64, bytes: u64, intended_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        if let Some(second) = window.second(now_ns) {
            self.events += events;
            self.bytes += bytes;
            self.note_second(second, events, latency_ns);
        }
        if window.contains(intended_ns) {
            self.latency.record(latency_ns, events);
        }
    }

    /// Notes `events` that were to be sent within the window and have not passed, `waited_ns` after the moment they were to
    /// be sent. Without them the latencies would be the better, the more events a broker leaves waiting.
    pub fn note_waiting(&mut self, events: u64, waited_ns: u64) {
        self.lower_bounds += events;
        self.latency.record(waited_ns, events);
    }

    fn note_second(&mut self, number: usize, events: u64, latency_ns: u64) {
        if self.current.as_ref().is_none_or(|(current, _)| *current != number) {
            self.close_second();
            self.current = Some((number, Latency::new(SECOND_DIGITS)));
        }
        self.second(number).events += events;
        if let Some((_, latency)) = &mut self.current {
            latency.record(latency_ns, events);
        }
    }

    fn second(&mut self, number: usize) -> &mut Second {
        if number >= self.per_second.len() {
            self.per_second.resize_with(number + 1, Second::default);
        }
        &mut self.per_second[number]
    }

    fn close_second(&mut self) {
        if let Some((number, latency)) = self.current.take() {
            self.second(number).add_latency(&latency);
        }
    }

    /// Says that nothing more will be noted, and what the window was.
    pub fn finish(&mut self, window: Window) {
        self.close_second();
        self.seconds = window.seconds();
    }

    /// Adds what passed the same point in another thread, process or machine within the same window.
    pub fn merge(&mut self, mut other: Self) {
        other.close_second();
        self.close_second();
        self.events += other.events;
        self.bytes += other.bytes;
        self.seconds = self.seconds.max(other.seconds);
        self.latency.merge(&other.latency);
        self.lower_bounds += other.lower_bounds;
        for (number, theirs) in other.per_second.into_iter().enumerate() {
            self.second(number).merge(&theirs);
        }
    }

    pub fn events_per_s(&self) -> f64 {
        rate(self.events as f64, self.seconds)
    }

    pub fn mib_per_s(&self) -> f64 {
        rate(self.bytes as f64 / f64::from(1 << 20), self.seconds)
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

fn rate(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

impl Second {
    /// The latencies of what passed in it.
    pub fn latency(&self) -> Latency {
        Latency::of(SECOND_DIGITS, &self.latencies)
    }

    fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.add_latency(&other.latency());
    }

    fn add_latency(&mut self, more: &Latency) {
        let mut all = self.latency();
        all.merge(more);
        self.latencies = all.counts().collect();
    }
}

impl Latency {
    fn new(digits: u8) -> Self {
        Self(Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, digits).expect("bounds that fit"))
    }

    fn record(&mut self, latency_ns: u64, events: u64) {
        self.0.saturating_record_n(latency_ns, events);
    }

    /// Those of several seconds.
    pub fn of_seconds(seconds: &[Second]) -> Self {
        let mut all = Self::new(SECOND_DIGITS);
        for (ns, events) in seconds.iter().flat_map(|second| &second.latencies) {
            all.record(*ns, *events);
        }
        all
    }

    fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the same bounds");
    }

    fn of(digits: u8, counts: &[(u64, u64)]) -> Self {
        let mut latency = Self::new(digits);
        counts.iter().for_each(|(ns, events)| latency.record(*ns, *events));
        latency
    }

    /// Each latency in nanoseconds that was recorded, the shortest first, with how often.
    fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    /// How many latencies were recorded.
    pub fn samples(&self) -> u64 {
        self.0.len()
    }

    /// The latency that a share `quantile` (0 to 1) does not exceed, in milliseconds; 0 of none.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        ms(self.0.value_at_quantile(quantile))
    }

    pub fn max_ms(&self) -> f64 {
        ms(self.0.max())
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// A flow as JSON shows it: what can be computed stands beside what it is computed from, for programs without a
/// histogram library.
#[derive(Serialize, Deserialize)]
struct FlowDocument {
    events: u64,
    bytes: u64,
    seconds: f64,
    #[serde(skip_deserializing)]
    events_per_s: f64,
    #[serde(skip_deserializing)]
    mib_per_s: f64,
    #[serde(flatten)]
    latency: Latency,
    /// Reports of format 1 do not have it, nor such latencies.
    #[serde(default)]
    lower_bounds: u64,
    per_second: Vec<Second>,
}

impl From<Flow> for FlowDocument {
    fn from(mut flow: Flow) -> Self {
        flow.close_second();
        let (events_per_s, mib_per_s) = (flow.events_per_s(), flow.mib_per_s());
        let Flow { events, bytes, seconds, latency, lower_bounds, per_second, current: _ } = flow;
        Self { events, bytes, seconds, events_per_s, mib_per_s, latency, lower_bounds, per_second }
    }
}

impl From<FlowDocument> for Flow {
    fn from(document: FlowDocument) -> Self {
        let FlowDocument { events, bytes, seconds, latency, lower_bounds, per_second, .. } = document;
        Self { events, bytes, seconds, latency, lower_bounds, per_second, current: None }
    }
}

#[derive(Serialize, Deserialize)]
struct SecondDocument {
    events: u64,
    #[serde(skip_deserializing)]
    p50_ms: f64,
    #[serde(skip_deserializing)]
    p99_ms: f64,
    #[serde(skip_deserializing)]
    max_ms: f64,
    histogram_ns: String,
}

impl From<Second> for SecondDocument {
    fn from(second: Second) -> Self {
        let latency = second.latency();
        Self {
            events: second.events,
            p50_ms: latency.quantile_ms(0.5),
            p99_ms: latency.quantile_ms(0.99),
            max_ms: latency.max_ms(),
            histogram_ns: counts_text(second.latencies),
        }
    }
}

impl TryFrom<SecondDocument> for Second {
    type Error = String;

    fn try_from(document: SecondDocument) -> Result<Self, String> {
        Ok(Self { events: document.events, latencies: counts_of_text(&document.histogram_ns)? })
    }
}

#[derive(Serialize, Deserialize)]
struct LatencyDocument {
    #[serde(skip_deserializing)]
    samples: u64,
    #[serde(skip_deserializing)]
    p50_ms: f64,
    #[serde(skip_deserializing)]
    p90_ms: f64,
    #[serde(skip_deserializing)]
    p99_ms: f64,
    #[serde(skip_deserializing)]
    p999_ms: f64,
    #[serde(skip_deserializing)]
    max_ms: f64,
    histogram_ns: String,
}

impl From<Latency> for LatencyDocument {
    fn from(latency: Latency) -> Self {
        Self {
            samples: latency.samples(),
            p50_ms: latency.quantile_ms(0.5),
            p90_ms: latency.quantile_ms(0.9),
            p99_ms: latency.quantile_ms(0.99),
            p999_ms: latency.quantile_ms(0.999),
            max_ms: latency.max_ms(),
            histogram_ns: counts_text(latency.counts()),
        }
    }
}

impl TryFrom<LatencyDocument> for Latency {
    type Error = String;

    fn try_from(document: LatencyDocument) -> Result<Self, String> {
        Ok(Self::of(RUN_DIGITS, &counts_of_text(&document.histogram_ns)?))
    }
}

/// A histogram as text: `LATENCY:COUNT` for each latency that occurred, with spaces between. The latency is the upper
/// end of its bucket.
fn counts_text(counts: impl IntoIterator<Item = (u64, u64)>) -> String {
    let mut text = String::new();
    for (ns, events) in counts {
        let space = if text.is_empty() { "" } else { " " };
        write!(text, "{space}{ns}:{events}").expect("writing to memory");
    }
    text
}

fn counts_of_text(text: &str) -> Result<Vec<(u64, u64)>, String> {
    let count = |pair: &str| {
        let (ns, events) = pair.split_once(':')?;
        Some((ns.parse().ok()?, events.parse().ok()?))
    };
    let expected = |pair| format!("histogram_ns: expected LATENCY:COUNT, found {pair:?}");
    text.split(' ')
        .filter(|pair| !pair.is_empty())
        .map(|pair| count(pair).ok_or_else(|| expected(pair)))
        .collect()
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
        flow.finish(WINDOW);
        assert_eq!((flow.events_per_s(), flow.mib_per_s(), flow.latency.samples()), (5.0, 0.5, 30));
        assert!((flow.latency.quantile_ms(0.5) - 200.0).abs() < 0.2, "{}", flow.latency.quantile_ms(0.5));
    }

    #[test]
    fn merged_flows_add_up_second_by_second() {
        let mut all = Flow::new();
        for latency_ns in [1_000_000, 3_000_000] {
            let mut part = Flow::new();
            for now_ns in [1_500_000_000, 2_500_000_000, 1_600_000_000] {
                part.note(WINDOW, 1, 5, now_ns - latency_ns, now_ns);
            }
            all.merge(part);
        }
        assert_eq!((all.events, all.bytes, all.latency.samples()), (6, 30, 6));
        let events: Vec<u64> = all.per_second.iter().map(|second| second.events).collect();
        assert_eq!(events, [4, 2]);
        let first = all.per_second[0].latency();
        assert_eq!(first.samples(), 4);
        assert!((first.max_ms() - 3.0).abs() < 0.1 && (first.quantile_ms(0.5) - 1.0).abs() < 0.1);
    }

    #[test]
    fn events_that_wait_count_as_late_as_they_are_and_as_nothing_that_passed() {
        let mut flow = Flow::new();
        flow.note(WINDOW, 98, 98, 1_000_000_000, 1_001_000_000);
        let mut other = Flow::new();
        other.note_waiting(2, 1_500_000_000);
        flow.merge(other);
        assert_eq!((flow.events, flow.latency.samples(), flow.lower_bounds), (98, 100, 2));
        assert!(flow.latency.quantile_ms(0.98) < 2.0 && flow.latency.quantile_ms(0.99) >= 1_500.0);
    }

    #[test]
    fn a_flow_comes_back_from_json_as_it_was() {
        let mut flow = Flow::new();
        flow.note(WINDOW, 7, 70, 2_000_000_000, 2_005_000_000);
        flow.note_waiting(3, 7_000_000);
        flow.finish(WINDOW);
        let text = serde_json::to_string(&flow).unwrap();
        let back: Flow = serde_json::from_str(&text).unwrap();
        assert_eq!((back.events, back.bytes, back.seconds), (7, 70, 2.0));
        assert_eq!((&back.latency, back.lower_bounds), (&flow.latency, 3));
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn a_broken_histogram_is_told() {
        let flow = serde_json::to_string(&Flow::new()).unwrap();
        let broken = flow.replacen("\"histogram_ns\":\"", "\"histogram_ns\":\"5:x", 1);
        let error = serde_json::from_str::<Flow>(&broken).unwrap_err().to_string();
        assert!(error.contains("found \"5:x\""), "{error}");
    }
}

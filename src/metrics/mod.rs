//! Counters and histograms: kept by each core for itself, gathered by messages, rendered at a scrape.
//!
//! Nothing here is shared between cores while they count, so counting costs an addition.

mod expose;

pub use expose::expose;

use crate::rt::stall::{self, Stalls};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Longest duration a histogram tells apart, in nanoseconds; longer ones count as this.
const LONGEST_NS: u64 = 60_000_000_000;
/// Largest size a histogram tells apart, in bytes.
const LARGEST_BYTES: u64 = 1 << 30;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $help:literal;)*) => {
        /// Numbers that one core counts.
        #[derive(Default)]
        pub struct Numbers {
            $($(#[$doc])* pub $name: Number,)*
        }

        impl Numbers {
            /// All numbers with their names, kinds and help texts, in the order above.
            pub fn list(&self) -> Vec<(&'static str, Kind, &'static str, u64)> {
                vec![$((stringify!($name), Kind::$kind, $help, self.$name.0.get()),)*]
            }
        }
    };
}

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// One counted number.
#[derive(Default)]
pub struct Number(Cell<u64>);

impl Number {
    pub fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

numbers! {
    connections_accepted: Counter, "Connections accepted";
    connections_refused: Counter, "Connections turned away because of a connection limit";
    connections_open: Gauge, "Connections open now";
    handshakes_failed: Counter, "TLS handshakes that failed or took too long";
    requests: Counter, "HTTP requests answered";
    requests_failed: Counter, "HTTP requests answered with a status of 400 or above";
    websockets_open: Gauge, "WebSocket consumers connected now";
    polling_instances_open: Gauge, "Long-polling instances that exist now";
    polls_waiting: Gauge, "Long-polling requests that wait for events now";
    answers_taken_back: Counter, "Answers with events that did not reach their long-polling client";
    events_produced: Counter, "Events acknowledged to producers";
    bytes_produced: Counter, "Bytes of acknowledged events as stored";
    events_deduplicated: Counter, "Events acknowledged and not stored again because they were repeats";
    events_rejected: Counter, "Events refused by authorisation or validation";
    requests_over_rate: Counter, "Requests answered 429 because their client produced more per second than it may";
    connections_over_limit: Counter, "Requests answered 429 because their client has too many connections";
    instances_over_limit: Counter, "Requests answered 429 because their client has too many consumer instances";
    intake_refused: Counter, "Requests answered 503 because the broker could not store";
    events_delivered: Counter, "Events sent to consumers, repeats included";
    bytes_delivered: Counter, "Bytes of events sent to consumers";
    events_confirmed: Counter, "Events confirmed by consumers";
    events_dead: Counter, "Events that consumers reported as dead";
    fetches: Counter, "Reads of partitions on behalf of consumers";
    cold_reads: Counter, "Reads that waited for a helper thread to load pages";
    busy_ns: Counter, "Nanoseconds for which the core was not idle";
    messages_waiting: Gauge, "Messages to other cores that wait for room";
    journal_rounds: Counter, "Journal frames written and synced";
    journal_bytes: Counter, "Bytes written to the journal, padding included";
    checkpoints: Counter, "Checkpoints written";
    registry_requests: Counter, "Requests to the API that clients come from";
    registry_requests_failed: Counter, "Requests to that API without an answer that can be used";
    registry_clients: Gauge, "Clients known from that API";
    registry_certificates_unknown: Gauge, "Certificates remembered as held by no client of that API";
    registry_oldest_answer_ms: Gauge, "Age in milliseconds of the oldest answer of that API that is in use";
}

/// Distributions that one core records.
pub struct Distributions {
    /// From the last byte of a produce request to its answer, nanoseconds.
    pub produce_ns: RefCell<Histogram<u64>>,
    /// From a pulse to the core's reaction, nanoseconds: how long the core was not responsive.
    pub stall_ns: RefCell<Histogram<u64>>,
    /// Of durable writes to the journal, nanoseconds.
    pub sync_ns: RefCell<Histogram<u64>>,
    /// Of requests to the API that clients come from, nanoseconds.
    pub registry_request_ns: RefCell<Histogram<u64>>,
    /// Of journal frames, bytes.
    pub round_bytes: RefCell<Histogram<u64>>,
}

impl Default for Distributions {
    fn default() -> Self {
        let durations = || RefCell::new(histogram(LONGEST_NS));
        Self {
            produce_ns: durations(),
            stall_ns: durations(),
            sync_ns: durations(),
            registry_request_ns: durations(),
            round_bytes: RefCell::new(histogram(LARGEST_BYTES)),
        }
    }
}

fn histogram(highest: u64) -> Histogram<u64> {
    Histogram::new_with_max(highest, 2)
        .expect("two digits up to a constant are within what a histogram can do")
}

/// Adds `duration` to a histogram of nanoseconds.
pub fn record(histogram: &RefCell<Histogram<u64>>, duration: Duration) {
    histogram.borrow_mut().saturating_record(duration.as_nanos().min(u128::from(LONGEST_NS)) as u64);
}

/// Adds a size to a histogram of bytes.
pub fn record_size(histogram: &RefCell<Histogram<u64>>, bytes: usize) {
    histogram.borrow_mut().saturating_record(bytes as u64);
}

/// Everything one core counts.
#[derive(Default)]
pub struct CoreMetrics {
    pub numbers: Numbers,
    pub distributions: Distributions,
}

/// A copy of what one core has counted, for another core.
pub struct Snapshot {
    pub numbers: Vec<(&'static str, Kind, &'static str, u64)>,
    pub produce_ns: Histogram<u64>,
    pub stall_ns: Histogram<u64>,
    pub sync_ns: Histogram<u64>,
    pub registry_request_ns: Histogram<u64>,
    pub round_bytes: Histogram<u64>,
    /// Of the polls of its tasks.
    pub stalls: Stalls,
    pub partitions: Vec<PartitionGauge>,
}

/// What is told of one partition.
#[derive(Clone, Debug)]
pub struct PartitionGauge {
    /// Its number, or `dead` or `test`.
    pub partition: String,
    pub start: u64,
    pub end: u64,
}

/// What is told of one consumer group.
#[derive(Clone, Debug)]
pub struct GroupGauge {
    pub client: String,
    pub group: String,
    /// Sessions connected now.
    pub members: u64,
    /// Events of the client's types after the cursors.
    pub lag: u64,
    /// Events that retention deleted before the group confirmed them.
    pub expired: u64,
}

impl CoreMetrics {
    /// Copies what was counted, on the core itself; `partitions` is what it knows of its partitions.
    pub fn snapshot(&self, partitions: Vec<PartitionGauge>) -> Snapshot {
        Snapshot {
            numbers: self.numbers.list(),
            produce_ns: self.distributions.produce_ns.borrow().clone(),
            stall_ns: self.distributions.stall_ns.borrow().clone(),
            sync_ns: self.distributions.sync_ns.borrow().clone(),
            registry_request_ns: self.distributions.registry_request_ns.borrow().clone(),
            round_bytes: self.distributions.round_bytes.borrow().clone(),
            stalls: stall::stalls(),
            partitions,
        }
    }
}

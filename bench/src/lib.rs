//! Micro-benchmarks of the broker's hot paths. Each is defined once, as a [`HotPath`] in [`BENCHMARKS`], and used three times:
//!
//! | command | what it tells |
//! | --- | --- |
//! | `cargo test -p nistru-bench` | that every path still makes what it made before: part of CI |
//! | `cargo bench -p nistru-bench --bench time [-- FILTER]` | nanoseconds, and events per second |
//! | `cargo bench -p nistru-bench --bench instructions` | instructions: for what is lost in the noise of times |
//!
//! Inputs come from fixed seeds. The tests run each path once and compare length and checksum of what it made (requests read, records
//! and frames built, bytes decrypted) with `tests/outcomes.txt`: a path that does nothing, or something else than before, fails.
//!
//! Times of one run compare with each other; machines and days do not. `-- --save-baseline NAME` and later `-- --baseline NAME` compare
//! two states of the code. Instructions need valgrind and, of the version in `Cargo.toml`, `cargo install gungraun-runner`; each run is
//! compared with the one before, and `callgrind_annotate` tells from the files below `target/gungraun` which functions they go to.
//! A run handles [`Benchmark::events`] events: divide by it.
//!
//! The programs in `src/bin` measure a whole [`broker`] and say in their heads what.

pub mod broker;
pub mod events;
mod http;
mod ingress;
mod journal;
pub mod load;
mod partition;
mod sample;
mod tls;
mod websocket;
mod world;

/// The broker's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many runs [`HotPath::ready`] makes ready.
pub const READY_RUNS: u64 = 16;

/// A hot path of the broker, with inputs of its own.
pub trait HotPath {
    /// Does what the next [`READY_RUNS`] runs need and what is not measured: the work of helper threads and of the other side.
    fn ready(&mut self) {}

    /// The work that is measured.
    fn run(&mut self);

    /// What the first run made. Called once, after it.
    fn outcome(&mut self) -> Vec<u8>;
}

/// A hot path by name.
pub struct Benchmark {
    /// The part of the broker.
    pub group: &'static str,
    /// What one run does, unique in its group.
    pub name: &'static str,
    /// How many events one run handles.
    pub events: usize,
    make: fn(usize) -> Box<dyn HotPath>,
}

impl Benchmark {
    const fn new(
        group: &'static str,
        name: &'static str,
        events: usize,
        make: fn(usize) -> Box<dyn HotPath>,
    ) -> Self {
        Self { group, name, events, make }
    }

    /// Group and name.
    pub fn title(&self) -> String {
        format!("{}, {}", self.group, self.name)
    }

    /// Makes the inputs; the first runs are ready. Takes up to a second.
    pub fn prepare(&self) -> Box<dyn HotPath> {
        let mut path = (self.make)(self.events);
        path.ready();
        path
    }
}

/// Every benchmark, in the order in which data flows. Events are of 1 KiB.
pub static BENCHMARKS: [Benchmark; 14] = [
    Benchmark::new("tls", "decrypt a POST", 1, tls::received),
    Benchmark::new("tls", "decrypt a POST of a batch", 100, tls::received),
    Benchmark::new("http", "parse a POST", 1, http::parsed),
    Benchmark::new("http", "parse a POST of a batch", 100, http::parsed),
    Benchmark::new("ingress", "parse and encode an event", 1, ingress::encoded),
    Benchmark::new("ingress", "parse and encode a batch", 100, ingress::encoded),
    Benchmark::new("ingress", "validate an event", 1, ingress::validated),
    Benchmark::new("ingress", "all of a batch", 100, ingress::admitted),
    Benchmark::new("journal", "frame of single events", 64, journal::singles),
    Benchmark::new("journal", "frame of a batch", 100, journal::batch),
    Benchmark::new("partition", "append", 100, partition::appended),
    Benchmark::new("partition", "read several of many types", 512, partition::read),
    Benchmark::new("websocket", "frame events", 60, websocket::framed),
    Benchmark::new("tls", "encrypt event frames", 60, tls::sent),
];

//! What all threads of a run share.

use crate::arrivals::Arrivals;
use crate::live::Live;
use crate::measure::{Clock, Window};
use crate::scenario::{Mix, Scenario, TypeSet};
use crate::sent::Sent;
use crate::stamp::RunMark;
use nistru::client::Endpoint;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use time::OffsetDateTime;

/// The part of a run that one process does. Producers and groups are dealt out in turn; each is in one process as a whole.
#[derive(Debug, Clone)]
pub struct Share {
    /// Which of how many processes.
    pub index: usize,
    pub of: usize,
    /// Drawn at random once for the whole run: events of other runs are told by it.
    pub run: u32,
    /// What the clocks of all processes count from; not in the future.
    pub epoch: OffsetDateTime,
}

impl Share {
    /// All of a run, from now on.
    pub fn whole(run: u32) -> Self {
        Self { index: 0, of: 1, run, epoch: OffsetDateTime::now_utc() }
    }

    /// Whether this process has the producer or group of that number.
    pub fn has(&self, number: usize) -> bool {
        number % self.of == self.index
    }
}

/// Where the broker is, and as whom to come.
pub struct Access {
    /// As the client that produces.
    pub endpoint: Endpoint,
    /// A directory as `nistru dev` makes it, with the certificates of other clients.
    pub dir: PathBuf,
}

impl Access {
    /// As another client.
    pub fn of(&self, client: Option<&str>) -> Result<Endpoint, String> {
        let Some(name) = client else { return Ok(self.endpoint.clone()) };
        let url = format!("https://{}", self.endpoint.authority());
        Endpoint::of_dev(&url, &self.dir, name).map_err(|error| format!("client {name}: {error}"))
    }
}

/// What all threads share.
pub struct Run {
    pub clock: Clock,
    pub mark: RunMark,
    pub mix: Arc<Mix>,
    pub sent: Sent,
    pub live: Live,
    pub batch: u64,
    /// Groups that read an event, on the average, over all processes.
    pub readers: f64,
    pub expects_refusals: bool,
    pub reconnects: bool,
    /// Workers whose producers are at work.
    pub producing: AtomicUsize,
    /// Events acknowledged so far, of each type.
    acknowledged: Vec<AtomicU64>,
    start: OnceLock<Start>,
    /// Set when the load is to end early.
    stop: AtomicBool,
    /// Set when everything has arrived, or nobody hopes for it any more.
    done: AtomicBool,
}

/// When the load begins, what is measured, and how requests are spread.
#[derive(Debug, Clone)]
pub struct Start {
    pub first_ns: u64,
    pub window: Window,
    /// Threads with producers: in this process, in those before it, and in all.
    pub threads: usize,
    pub threads_before: usize,
    pub threads_of_all: usize,
    /// `None` without a rate.
    pub request_ns: Option<f64>,
    pub how: crate::scenario::Arrival,
}

impl Start {
    /// The requests of a thread; `None` without a rate.
    pub fn arrivals(&self, thread: usize, run: &Run) -> Option<Arrivals> {
        let request_ns = self.request_ns.filter(|_| thread < self.threads)?;
        let (all, number) = (self.threads_of_all, self.threads_before + thread);
        let first_ns = self.first_ns + (number as f64 * request_ns) as u64;
        let seed = u64::from(run.mark.run) << 32 | number as u64;
        Some(Arrivals::new(self.how, first_ns, request_ns * all as f64, seed))
    }
}

impl Run {
    pub fn new(scenario: &Scenario, mix: Arc<Mix>, share: &Share) -> Self {
        Self {
            clock: Clock::since(share.epoch),
            mark: RunMark::new(share.run),
            acknowledged: mix.types.iter().map(|_| AtomicU64::new(0)).collect(),
            readers: mix.readers(&scenario.groups),
            mix,
            sent: Sent::new(scenario.load.producers),
            live: Live::default(),
            batch: scenario.load.batch as u64,
            expects_refusals: scenario.load.expect_refusals,
            reconnects: scenario.connections.reconnect,
            producing: AtomicUsize::new(0),
            start: OnceLock::new(),
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
        }
    }

    /// Lets the load begin.
    pub fn begin(&self, start: Start) {
        self.start.set(start).expect("a run begins once");
    }

    pub fn start(&self) -> Option<&Start> {
        self.start.get()
    }

    /// What is measured; nothing before the load begins.
    pub fn window(&self) -> Window {
        self.start.get().map_or(Window::NEVER, |start| start.window)
    }

    /// Counts events of a producer that were acknowledged.
    pub fn acknowledge(&self, producer: usize, events: Range<u64>) {
        if let [all] = self.acknowledged.as_slice() {
            all.fetch_add(events.end - events.start, Ordering::Relaxed);
            return;
        }
        for sequence in events {
            self.acknowledged[self.mix.type_of(producer, sequence)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Acknowledged events of these types.
    pub fn acknowledged_of(&self, types: &TypeSet) -> u64 {
        let all = self.acknowledged.iter().enumerate();
        all.filter(|(index, _)| types.contains(*index))
            .map(|(_, events)| events.load(Ordering::Relaxed))
            .sum()
    }

    /// Ends the load before its time.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// A consumer is lost: without it the groups cannot keep up with what is asked of them.
    pub fn stop_unless_reconnecting(&self) {
        if !self.reconnects {
            self.stop();
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends all threads.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

//! The course of a run: connect, let the groups catch up, warm up, measure, wait for what is under way, judge.

use crate::args::{Load, Options};
use crate::broker::Broker;
use crate::consuming::{Group, consume};
use crate::ledger::{Ledger, Sent};
use crate::measure::{Clock, Problems, Window, note_problem};
use crate::producer::{Producer, Schedule};
use crate::producing::{Produced, drive};
use crate::report::{self, Flow, Group as GroupReport, Machine, Report, Scenario, Server};
use crate::request::{self, Request};
use crate::stamp::RunMark;
use crate::usage::Usage;
use indicatif::ProgressBar;
use nistru::client::{Consumer, Endpoint, Subscription};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How often the main thread looks.
const TICK: Duration = Duration::from_millis(50);
/// A group has caught up when no event of another run came for so long.
const QUIET: Duration = Duration::from_millis(500);

/// What all threads of a run share.
pub struct Run {
    pub clock: Clock,
    window: OnceLock<Window>,
    /// Set when the run is to end early, because a consumer failed.
    pub stop: AtomicBool,
    /// Events acknowledged so far.
    pub acknowledged: AtomicU64,
}

impl Run {
    /// What is measured; nothing before the load begins.
    pub fn window(&self) -> Window {
        self.window.get().copied().unwrap_or(Window::NEVER)
    }

    fn sleep_until(&self, moment_ns: u64) {
        thread::sleep(Duration::from_nanos(moment_ns.saturating_sub(self.clock.now_ns())).min(TICK));
    }
}

/// Processor time and memory within the window.
#[derive(Debug, Default)]
pub struct Used {
    pub load: Usage,
    /// Of the broker, if it was started here.
    pub broker: Option<Usage>,
}

/// What the consumers' threads give back.
type Consuming<'scope> = Vec<ScopedJoinHandle<'scope, Result<Flow, nistru::client::Error>>>;
type Producing<'scope> = Vec<ScopedJoinHandle<'scope, Result<Produced, rustix::io::Errno>>>;

/// Runs the whole test.
pub fn run(options: &Options, progress: &ProgressBar) -> Result<Report, String> {
    let broker = Broker::open(options)?;
    let load = &options.load;
    let data = data(load)?;
    let mark = RunMark::new(RandomState::new().hash_one(std::process::id()) as u32);
    let groups: Vec<Group> = (0..if load.consumers > 0 { load.groups } else { 0 })
        .map(|_| Group {
            ledger: Ledger::new(load.producers, load.keys),
            mark: mark.clone(),
            foreign: AtomicU64::new(0),
            done: AtomicBool::new(false),
        })
        .collect();
    let run = Run {
        clock: Clock::start(),
        window: OnceLock::new(),
        stop: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
    };
    thread::scope(|scope| {
        let course = Course { scope, load, endpoint: &broker.endpoint, groups: &groups, run: &run, progress };
        course.take(&data, mark.run, &broker)
    })
}

/// One run with its threads.
struct Course<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    load: &'env Load,
    endpoint: &'env Endpoint,
    groups: &'env [Group],
    run: &'env Run,
    progress: &'env ProgressBar,
}

impl<'scope> Course<'scope, '_> {
    fn take(&self, data: &str, run: u32, broker: &Broker) -> Result<Report, String> {
        self.progress.set_message("connecting");
        let producers = self.open_producers(data, run)?;
        let consuming = self.start_consumers()?;
        self.catch_up();
        let producing = self.start_producers(producers);
        let used = self.watch(broker.pid());
        let mut produced = self.collect(producing);
        self.drain(&consuming);
        let consumed = self.end_consumers(consuming, &mut produced.problems);
        Ok(self.report(produced, consumed, &used, broker))
    }

    fn report(&self, mut produced: Produced, mut consumed: Flow, used: &Used, broker: &Broker) -> Report {
        let window = self.run.window();
        produced.flow.finish(window);
        consumed.finish(window);
        let group = |(index, group): (usize, &Group)| GroupReport {
            name: group_name(self.load, index),
            verdict: group.ledger.judge(&produced.sent),
        };
        Report {
            format: report::FORMAT,
            scenario: scenario(self.load),
            broker: broker.facts(),
            machine: Machine::here(broker.data()),
            started: self.run.clock.time_of(window.start_ns),
            seconds: window.seconds(),
            requests: produced.requests,
            groups: self.groups.iter().enumerate().map(group).collect(),
            consumed: (!self.groups.is_empty()).then_some(consumed),
            sent: produced.sent.sent.iter().sum(),
            unsent: produced.unsent,
            refused: produced.sent.refused.len() as u64,
            unanswered: produced.sent.unknown.len() as u64,
            client: report::Client { processes: 1, usage: used.load },
            server: used.broker.map(|usage| Server {
                cpu_s: Some(usage.cpu_s),
                cpu_us_per_event: Some(usage.cpu_s * 1e6 / produced.flow.events as f64)
                    .filter(|us| us.is_finite()),
                ..Server::default()
            }),
            acknowledged: produced.flow,
            refused_by_status: produced.refused_by_status,
            refused_per_second: produced.refused_per_second,
            problems: produced.problems,
            targets: Vec::new(),
        }
    }

    fn open_producers(&self, data: &str, run: u32) -> Result<Vec<Producer>, String> {
        let authority = self.endpoint.authority();
        let open = |number| {
            let request = Request::new(self.load, number, &authority, data);
            Producer::open(self.endpoint, number, run, self.load.batch, request)
                .map_err(|error| format!("producer {number}: {error}"))
        };
        (0..self.load.producers).map(open).collect()
    }

    fn start_consumers(&self) -> Result<Consuming<'scope>, String> {
        let mut threads = Vec::new();
        for index in 0..self.groups.len() {
            let name = group_name(self.load, index);
            for number in 0..self.load.consumers {
                let consumer = Consumer::open(self.endpoint, &Subscription::group(&name))
                    .map_err(|error| self.give_up(format!("consumer {number} of group {name}: {error}")))?;
                threads.push(self.start_consumer(consumer, index));
            }
        }
        Ok(threads)
    }

    fn start_consumer(
        &self,
        consumer: Consumer,
        group: usize,
    ) -> ScopedJoinHandle<'scope, Result<Flow, nistru::client::Error>> {
        let (group, run, confirm_every) = (&self.groups[group], self.run, self.load.confirm_every);
        self.scope.spawn(move || {
            let result = consume(consumer, group, run, confirm_every);
            run.stop.fetch_or(result.is_err(), Ordering::Relaxed);
            result
        })
    }

    /// Ends the consumers that already run, so that the scope can end.
    fn give_up(&self, why: String) -> String {
        self.groups.iter().for_each(|group| group.done.store(true, Ordering::Relaxed));
        why
    }

    /// Waits until the groups have consumed what was there before.
    fn catch_up(&self) {
        let foreign = || self.groups.iter().map(|group| group.foreign.load(Ordering::Relaxed)).sum::<u64>();
        let mut before = foreign();
        let mut since = Instant::now();
        while !self.groups.is_empty() && since.elapsed() < QUIET && !self.run.stop.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            let now = foreign();
            if now != before {
                (before, since) = (now, Instant::now());
                self.progress.set_message(format!("catching up: {now} events of before"));
            }
        }
    }

    fn start_producers(&self, mut producers: Vec<Producer>) -> Producing<'scope> {
        let now_ns = self.run.clock.now_ns();
        let start_ns = now_ns + self.load.warm_up.as_nanos() as u64;
        let window = Window { start_ns, end_ns: start_ns + self.load.duration.as_nanos() as u64 };
        self.run.window.set(window).expect("set only here");
        for producer in &mut producers {
            producer.set_schedule(schedule(self.load, producer.number, now_ns));
        }
        let mut shares: Vec<Vec<Producer>> = (0..self.load.threads).map(|_| Vec::new()).collect();
        for producer in producers {
            shares[producer.number % self.load.threads].push(producer);
        }
        let (total, run) = (self.load.producers, self.run);
        shares.into_iter().map(|share| self.scope.spawn(move || drive(share, total, run))).collect()
    }

    /// Shows progress until the window is over, and takes the usage within it.
    fn watch(&self, broker: Option<u32>) -> Used {
        let usage = || (Usage::of(std::process::id()).unwrap_or_default(), broker.and_then(Usage::of));
        self.show_until(self.run.window().start_ns, "warming up");
        let before = usage();
        self.show_until(self.run.window().end_ns, "measuring");
        let after = usage();
        let since = |(after, before): (Usage, Usage)| after.since(before);
        Used { load: since((after.0, before.0)), broker: after.1.zip(before.1).map(since) }
    }

    fn show_until(&self, moment_ns: u64, what: &str) {
        while self.run.clock.now_ns() < moment_ns && !self.run.stop.load(Ordering::Relaxed) {
            self.run.sleep_until(moment_ns);
            let acknowledged = self.run.acknowledged.load(Ordering::Relaxed);
            self.progress.set_message(format!("{what}: {acknowledged} events acknowledged"));
        }
    }

    fn collect(&self, producing: Producing<'scope>) -> Produced {
        let sent = Sent { sent: vec![0; self.load.producers], ..Sent::default() };
        let mut all = Produced { sent, ..Produced::default() };
        for thread in producing {
            match thread.join().expect("a producers' thread panicked") {
                Ok(produced) => all.merge(produced),
                Err(error) => {
                    note_problem(&mut all.problems, &format!("a producers' thread failed: {error}"))
                }
            }
        }
        all
    }

    /// Waits until every group has received what was acknowledged, or nothing comes any more.
    fn drain(&self, consuming: &Consuming<'_>) {
        let acknowledged = self.run.acknowledged.load(Ordering::Relaxed);
        let received = || self.groups.iter().map(|group| group.ledger.received()).collect::<Vec<_>>();
        let mut before = received();
        let mut since = Instant::now();
        while before.iter().any(|received| *received < acknowledged)
            && since.elapsed() < self.load.drain
            && !consuming.iter().all(ScopedJoinHandle::is_finished)
        {
            self.progress.set_message(format!("waiting for the last of {acknowledged} events"));
            thread::sleep(TICK);
            let now = received();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    fn end_consumers(&self, consuming: Consuming<'scope>, problems: &mut Problems) -> Flow {
        self.groups.iter().for_each(|group| group.done.store(true, Ordering::Relaxed));
        let mut all = Flow::new();
        for thread in consuming {
            match thread.join().expect("a consumer's thread panicked") {
                Ok(flow) => all.merge(flow),
                Err(error) => note_problem(problems, &format!("a consumer failed: {error}")),
            }
        }
        all
    }
}

fn group_name(load: &Load, index: usize) -> String {
    if index == 0 { load.group.clone() } else { format!("{}-{index}", load.group) }
}

/// What was asked for.
fn scenario(load: &Load) -> Scenario {
    let Load { producers, consumers, groups, batch, rate, .. } = load;
    let rate = rate.map_or("as fast as answered".to_owned(), |rate| format!("{rate} events/s"));
    let summary = format!(
        "{producers} producers, {groups} groups of {consumers} consumers, {batch} events in a request, {rate}"
    );
    Scenario { name: load.event_type.clone(), text: String::new(), summary }
}

/// The schedule of a producer: with a rate, all producers take turns evenly.
fn schedule(load: &Load, number: usize, start_ns: u64) -> Schedule {
    let Some(rate) = load.rate else { return Schedule::WhenAnswered { not_before_ns: start_ns } };
    let between_requests_ns = load.batch as f64 / rate * 1e9;
    Schedule::Rate {
        first_ns: start_ns + (number as f64 * between_requests_ns) as u64,
        interval_ns: between_requests_ns * load.producers as f64,
        n: 0,
    }
}

/// The JSON of every event's data.
fn data(load: &Load) -> Result<String, String> {
    let Some(path) = &load.data else { return request::record(load) };
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| wrong(&error))?;
    Ok(text.trim().to_owned())
}

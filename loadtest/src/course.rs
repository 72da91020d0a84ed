//! The course of a run: connect, let the groups catch up, warm up, measure, wait for what is under way, judge.

use crate::connector::{Connector, Opened, Place, Seat};
use crate::consumer::Consumer;
use crate::fleet::{self, Board};
use crate::group::Group;
use crate::ledger::Received;
use crate::live::Progress;
use crate::measure::{Window, note_problem};
use crate::producer::Producer;
use crate::report::{self, Flow, Machine, Report};
use crate::request::{Request, Templates};
use crate::run::{Access, Run, Share, Start};
use crate::scenario::{Mix, Scenario, TypeSet};
use crate::sent::Sent;
use crate::server::Watch;
use crate::usage::Usage;
use crate::wire::{Connection, open_session};
use crate::worker::{self, Done, Worker};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// How often the main thread looks.
const TICK: Duration = Duration::from_millis(50);
/// A group has caught up when no event of another run came for so long.
const QUIET: Duration = Duration::from_millis(500);

/// What one process has found out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Without the judgement on groups, and what is known of the broker only where it was watched.
    pub report: Report,
    pub evidence: Evidence,
}

/// What the judgement on groups needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Evidence {
    pub sent: Sent,
    /// For each group of the scenario, if this process had it.
    pub received: Vec<Option<Received>>,
}

impl Evidence {
    /// Adds what another process of the same run has seen.
    pub fn merge(&mut self, other: Self) {
        self.sent.merge(other.sent);
        for (ours, theirs) in self.received.iter_mut().zip(other.received) {
            *ours = ours.take().or(theirs);
        }
    }

    /// Judges every group of `scenario`, and notes in `consumed` what they still wait for of the events that were never
    /// answered.
    pub fn judge(&self, scenario: &Scenario, mut consumed: Option<&mut Flow>) -> Vec<report::Group> {
        let (mix, keys) = (Mix::new(scenario), scenario.load.keys);
        let kinds = scenario.groups.iter().filter(|kind| kind.consumers > 0);
        let groups = kinds.flat_map(|kind| kind.names().into_iter().map(move |name| (name, kind)));
        let judge = |((name, kind), received): ((String, _), &Option<Received>)| {
            let (types, received) = (mix.set_of(kind), received.as_ref()?);
            if let Some(consumed) = &mut consumed {
                received.note_waiting(&mix, &types, keys, &self.sent, consumed);
            }
            Some(report::Group { name, verdict: received.judge(&mix, &types, keys, &self.sent) })
        };
        groups.zip(&self.received).filter_map(judge).collect()
    }
}

/// Runs this process's share of `scenario`. `board`: where a coordinator says when to begin and to end; without one, the
/// load begins when all are ready and ends when it has arrived.
pub fn run(
    scenario: &Scenario,
    access: &Access,
    share: &Share,
    watch: Option<Watch>,
    progress: &mut Progress,
    board: Option<&Board>,
) -> Result<Outcome, String> {
    let mix = Arc::new(Mix::new(scenario));
    let templates = Templates::new(scenario, mix.clone(), &access.endpoint.authority())?;
    let groups = Group::all(scenario, &mix, &|client| access.of(client))?;
    let run = Run::new(scenario, mix, share);
    let outcome = thread::scope(|scope| {
        let course = Course { scope, scenario, access, share, groups: &groups, run: &run, board };
        let outcome = course.take(Arc::new(templates), watch, progress);
        // Ends the threads of a course that failed on its way, so that the scope can end.
        run.finish();
        outcome
    });
    outcome.map(|report| {
        let received = groups
            .iter()
            .enumerate()
            .map(|(number, group)| share.has(number).then(|| group.ledger.snapshot()));
        Outcome { report, evidence: Evidence { received: received.collect(), sent: run.sent } }
    })
}

/// One run with its threads.
struct Course<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    scenario: &'env Scenario,
    access: &'env Access,
    share: &'env Share,
    groups: &'env [Group],
    run: &'env Run,
    board: Option<&'env Board>,
}

type Working<'scope> = Vec<ScopedJoinHandle<'scope, Result<Done, rustix::io::Errno>>>;

/// A connected producer or consumer with its place.
struct Seated<T>(Vec<(Place, T)>);

impl<'scope, 'env> Course<'scope, 'env> {
    fn take(
        &self,
        templates: Arc<Templates>,
        mut watch: Option<Watch>,
        progress: &mut Progress,
    ) -> Result<Report, String> {
        progress.say("connecting");
        if let Some(watch) = &mut watch {
            watch.idle();
        }
        let working = self.start_threads(templates, progress)?;
        self.catch_up(progress);
        self.begin()?;
        let used = self.measure(&mut watch, progress);
        match self.board {
            None => self.drain(progress),
            Some(board) => self.drain_as_told(board)?,
        }
        let mut done = Done::default();
        for thread in self.end(working) {
            match thread {
                Ok(thread) => done.merge(thread),
                Err(error) => note_problem(&mut done.problems, &format!("a thread failed: {error}")),
            }
        }
        Ok(self.report(done, used, watch))
    }

    /// Connects everybody and lets the threads work, which send nothing yet.
    fn start_threads(
        &self,
        templates: Arc<Templates>,
        progress: &Progress,
    ) -> Result<Working<'scope>, String> {
        let producers = self.open_producers(&templates)?;
        let consumers = self.open_consumers(progress)?;
        let threads = self.scenario.load.threads;
        let (broken_sender, broken) = mpsc::channel();
        let (opened_senders, opened): (Vec<Sender<Opened>>, Vec<_>) =
            (0..threads).map(|_| mpsc::channel()).unzip();
        let seats_of_producers = producers.0.iter().map(|(place, _)| Seat::Producer(*place)).collect();
        let seats_of_consumers =
            consumers.0.iter().map(|(place, (group, _))| Seat::Consumer(*place, *group)).collect();
        let mut shares: Vec<_> = opened
            .into_iter()
            .enumerate()
            .map(|(number, opened)| worker::Share {
                number,
                producers: Vec::new(),
                consumers: Vec::new(),
                opened,
                broken: broken_sender.clone(),
            })
            .collect();
        producers.0.into_iter().for_each(|(place, producer)| shares[place.worker].producers.push(producer));
        consumers.0.into_iter().for_each(|(place, consumer)| shares[place.worker].consumers.push(consumer));
        self.run.producing.store(threads, Ordering::Release);
        let (run, access, groups, scenario) = (self.run, self.access, self.groups, self.scenario);
        self.scope.spawn(move || {
            Connector {
                run,
                endpoint: &access.endpoint,
                groups,
                connections: &scenario.connections,
                producers: seats_of_producers,
                consumers: seats_of_consumers,
                workers: opened_senders,
                broken,
            }
            .work();
        });
        Ok(shares
            .into_iter()
            .map(|share| self.scope.spawn(move || Worker::new(share, run)?.work()))
            .collect())
    }

    fn open_producers(&self, templates: &Arc<Templates>) -> Result<Seated<Producer>, String> {
        let load = &self.scenario.load;
        let open = |number| {
            let wrong = |error| format!("producer {number}: {error}");
            let connection = Connection::open(&self.access.endpoint).map_err(wrong)?;
            connection.unblock().map_err(wrong)?;
            let request = Request::new(templates.clone(), number);
            Ok(Producer::new(number, self.share.run, load.batch, connection, request))
        };
        let numbers = (0..load.producers).filter(|number| self.share.has(*number));
        Seated::new(numbers.map(open), load.threads)
    }

    fn open_consumers(&self, progress: &Progress) -> Result<Seated<(usize, Consumer<'env>)>, String> {
        let groups: &'env [Group] = self.groups;
        let ours = groups.iter().enumerate().filter(|(index, _)| self.share.has(*index));
        let members =
            ours.flat_map(|(index, group)| (0..group.consumers).map(move |number| (index, group, number)));
        let open = |(opened, (index, group, number)): (usize, (usize, &'env Group, usize))| {
            if opened % 100 == 0 && opened > 0 {
                progress.say(format!("connecting: {opened} consumers"));
            }
            let wrong = |error| format!("consumer {number} of group {}: {error}", group.name);
            let (connection, session) = open_session(&group.endpoint, &group.name).map_err(wrong)?;
            connection.unblock().map_err(wrong)?;
            group.unsettle(self.run.clock);
            Ok((index, Consumer::new(group, connection, session)))
        };
        Seated::new(members.enumerate().map(open), self.scenario.load.threads)
    }

    /// Waits until the groups have consumed what was there before.
    fn catch_up(&self, progress: &Progress) {
        let foreign = || self.groups.iter().map(|group| group.foreign.load(Ordering::Relaxed)).sum::<u64>();
        let mut before = foreign();
        let mut since = Instant::now();
        while !self.groups.is_empty() && since.elapsed() < QUIET && !self.run.is_stopping() {
            thread::sleep(TICK);
            let now = foreign();
            if now != before {
                (before, since) = (now, Instant::now());
                progress.say(format!("catching up: {now} events of before"));
            }
        }
        // What came until now is of other runs: members have been there since before the first event of this one.
        self.groups.iter().for_each(|group| group.ledger.settle());
    }

    fn begin(&self) -> Result<(), String> {
        let (load, share) = (&self.scenario.load, self.share);
        let first_ns = match self.board {
            None => self.run.clock.now_ns(),
            Some(board) => {
                self.tell(false);
                board.await_start().ok_or(fleet::ABANDONED)?
            }
        };
        let start_ns = first_ns + load.warm_up().as_nanos() as u64;
        let window = Window { start_ns, end_ns: start_ns + load.duration().as_nanos() as u64 };
        // A process with few producers has few threads for them.
        let threads = |index| {
            let share = Share { index, ..share.clone() };
            load.threads.min((0..load.producers).filter(|number| share.has(*number)).count())
        };
        self.run.begin(Start {
            first_ns,
            window,
            threads: threads(share.index),
            threads_before: (0..share.index).map(threads).sum(),
            threads_of_all: (0..share.of).map(threads).sum(),
            request_ns: load.rate.map(|rate| load.batch as f64 / rate * 1e9),
            how: load.arrival,
        });
        Ok(())
    }

    /// Tells the coordinator how far this process is, if there is one; stops the load if it says so or is gone.
    fn tell(&self, is_sent: bool) {
        let Some(board) = self.board else { return };
        board.show(fleet::Progress {
            is_ready: true,
            is_sent,
            is_stopping: self.run.is_stopping(),
            acknowledged: self.run.acknowledged_of(&TypeSet::All),
            owed: self.groups.iter().map(|group| self.run.acknowledged_of(&group.types)).collect(),
            received: self.groups.iter().map(|group| group.ledger.received()).collect(),
        });
        if board.is_stopped() {
            self.run.stop();
        }
    }

    /// Shows progress until the last answers are in, and takes the usage within the window.
    fn measure(&self, watch: &mut Option<Watch>, progress: &mut Progress) -> Usage {
        let usage = || Usage::of(std::process::id()).unwrap_or_default();
        let window = self.run.window();
        self.show_until(window.start_ns, watch, progress);
        let before = usage();
        if let Some(watch) = watch {
            watch.begin();
        }
        self.show_until(window.end_ns, watch, progress);
        let used = usage().since(before);
        if let Some(watch) = watch {
            watch.end();
        }
        while self.run.producing.load(Ordering::Acquire) > 0 {
            progress.say("waiting for the last answers");
            self.tell(false);
            thread::sleep(TICK);
        }
        used
    }

    fn show_until(&self, moment_ns: u64, watch: &mut Option<Watch>, progress: &mut Progress) {
        loop {
            let now_ns = self.run.clock.now_ns();
            if now_ns >= moment_ns || self.run.is_stopping() {
                return;
            }
            thread::sleep(Duration::from_nanos(moment_ns - now_ns).min(TICK));
            self.groups.iter().for_each(|group| group.settle(self.run.clock));
            if let Some(watch) = watch {
                watch.look();
            }
            self.tell(false);
            progress.show(self.run, self.groups, self.run.window());
        }
    }

    /// Waits until every group has received what was acknowledged, or nothing comes any more.
    fn drain(&self, progress: &Progress) {
        let received = || self.groups.iter().map(|group| group.ledger.received()).sum::<u64>();
        let lag = || self.groups.iter().map(|group| group.lag(self.run)).sum::<u64>();
        let (mut before, mut since) = (received(), Instant::now());
        while lag() > 0 && since.elapsed() < self.scenario.load.drain() && !self.run.is_stopping() {
            progress.say(format!("waiting for the last {} events", lag()));
            thread::sleep(TICK);
            self.groups.iter().for_each(|group| group.settle(self.run.clock));
            let now = received();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Waits until the coordinator, which knows what all processes have sent and received, has seen enough.
    fn drain_as_told(&self, board: &Board) -> Result<(), String> {
        loop {
            self.tell(true);
            self.groups.iter().for_each(|group| group.settle(self.run.clock));
            if board.is_abandoned() {
                return Err(fleet::ABANDONED.to_owned());
            }
            if board.await_finish(TICK) {
                return Ok(());
            }
        }
    }

    fn end(&self, working: Working<'scope>) -> Vec<Result<Done, rustix::io::Errno>> {
        self.run.finish();
        working.into_iter().map(|thread| thread.join().expect("a thread panicked")).collect()
    }

    fn report(&self, done: Done, usage: Usage, watch: Option<Watch>) -> Report {
        let window = self.run.window();
        let Done { acknowledged, consumed, tally, unsent, problems } = done;
        let sent = &self.run.sent;
        Report {
            format: report::FORMAT,
            scenario: self.scenario.facts(),
            broker: report::Broker {
                url: format!("https://{}", self.access.endpoint.authority()),
                ..report::Broker::default()
            },
            machine: Machine::here(None),
            started: self.run.clock.time_of(window.start_ns),
            seconds: window.seconds(),
            requests: tally.requests,
            consumed: (!self.groups.is_empty()).then_some(consumed),
            sent: sent.total(|events| events.sent),
            unsent,
            refused: sent.total(|events| events.refused.count()),
            unanswered: sent.total(|events| events.unknown.count()),
            refused_by_status: tally.refused_by_status,
            refused_per_second: tally.refused_per_second,
            groups: Vec::new(),
            client: report::Client { processes: 1, usage },
            server: watch.map(|watch| watch.facts(&acknowledged)),
            targets: Vec::new(),
            problems,
            acknowledged,
        }
    }
}

impl<T> Seated<T> {
    /// Deals `peers` out to `threads` in turn.
    fn new(peers: impl Iterator<Item = Result<T, String>>, threads: usize) -> Result<Self, String> {
        let seat = |(number, peer): (usize, Result<T, String>)| {
            Ok((Place { worker: number % threads, index: number / threads }, peer?))
        };
        peers.enumerate().map(seat).collect::<Result<_, String>>().map(Self)
    }
}

impl Done {
    /// Adds what another thread did.
    fn merge(&mut self, other: Self) {
        self.acknowledged.merge(other.acknowledged);
        self.consumed.merge(other.consumed);
        self.tally.merge(other.tally);
        self.unsent += other.unsent;
        for (text, count) in other.problems {
            *self.problems.entry(text).or_default() += count;
        }
    }
}

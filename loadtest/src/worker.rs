//! One thread that drives producers and consumers: sends what is due, takes what has come, waits for either.

use crate::arrivals::Arrivals;
use crate::connector::{Opened, Place, Seat};
use crate::consumer::Consumer;
use crate::measure::{Problems, Window, note_problem};
use crate::producer::{Answered, Producer};
use crate::report::Flow;
use crate::run::Run;
use crate::sent::Unanswered;
use crate::tally::Tally;
use crate::wire::Buffers;
use nistru::client::Error;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

/// Longest wait in which a wish to stop is not seen.
const WAIT_MAX_NS: u64 = 50_000_000;
/// Longest wait for the last answers.
const LAST_ANSWERS_NS: u64 = 10_000_000_000;
/// Pause of a producer without a rate after the broker said that it is overloaded.
const OVERLOAD_PAUSE_NS: u64 = 100_000_000;
/// Sockets looked at after one wait.
const EVENTS_AT_ONCE: usize = 512;
/// Set in the number of a socket that is a consumer's.
const CONSUMER: u64 = 1 << 63;
/// How often the live figures are brought up to date.
const LIVE_NS: u64 = 1_000_000_000;

/// What a thread is given.
pub struct Share<'a> {
    pub number: usize,
    pub producers: Vec<Producer>,
    /// With the index of its group.
    pub consumers: Vec<(usize, Consumer<'a>)>,
    pub opened: Receiver<Opened>,
    pub broken: Sender<Seat>,
}

/// What became of a thread's producers and consumers.
#[derive(Default)]
pub struct Done {
    pub acknowledged: Flow,
    pub consumed: Flow,
    pub tally: Tally,
    /// Events that were due before the end of the load and never sent, because the answers before them came late.
    pub unsent: u64,
    pub problems: Problems,
}

/// The thread's state.
pub struct Worker<'a> {
    run: &'a Run,
    number: usize,
    epoll: OwnedFd,
    buffers: Buffers,
    producers: Vec<Slot<Producer>>,
    consumers: Vec<Slot<Consumer<'a>>>,
    groups: Vec<usize>,
    /// Producers that may send, the one that has waited longest first.
    idle: VecDeque<usize>,
    /// Producers that pause, and until when.
    paused: BinaryHeap<Reverse<(u64, usize)>>,
    in_flight: usize,
    /// Requests whose answer will not come: when each was to be sent, its producer and its events.
    unanswered: Vec<(u64, usize, Range<u64>)>,
    /// Connections for producers that wait for an answer.
    renewals: Vec<Opened>,
    opened: Receiver<Opened>,
    broken: Sender<Seat>,
    /// `None` without a rate and before the start.
    arrivals: Option<Arrivals>,
    window: Window,
    phase: Phase,
    live_ns: u64,
    done: Done,
}

struct Slot<T> {
    peer: T,
    /// `false` after its connection broke or the broker refused for good.
    is_active: bool,
    awaits_room: bool,
}

/// What the producers do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Sending,
    /// The last answers are awaited.
    Ending,
    Ended,
}

impl<'a> Worker<'a> {
    pub fn new(share: Share<'a>, run: &'a Run) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let slot_producer = |peer| Slot { peer, is_active: true, awaits_room: false };
        let (groups, consumers): (Vec<usize>, Vec<_>) = share.consumers.into_iter().unzip();
        let worker = Self {
            run,
            number: share.number,
            epoll,
            buffers: Buffers::new(),
            idle: (0..share.producers.len()).collect(),
            producers: share.producers.into_iter().map(slot_producer).collect(),
            consumers: consumers
                .into_iter()
                .map(|peer| Slot { peer, is_active: true, awaits_room: false })
                .collect(),
            groups,
            paused: BinaryHeap::new(),
            in_flight: 0,
            unanswered: Vec::new(),
            renewals: Vec::new(),
            opened: share.opened,
            broken: share.broken,
            arrivals: None,
            window: Window::NEVER,
            phase: Phase::Waiting,
            live_ns: 0,
            done: Done::default(),
        };
        for (index, slot) in worker.producers.iter().enumerate() {
            worker.listen(&slot.peer, index as u64)?;
        }
        for (index, slot) in worker.consumers.iter().enumerate() {
            worker.listen(&slot.peer, index as u64 | CONSUMER)?;
        }
        Ok(worker)
    }

    fn listen(&self, socket: &impl AsFd, number: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, socket, EventData::new_u64(number), EventFlags::IN)
    }

    /// Works until the run is done.
    pub fn work(mut self) -> Result<Done, Errno> {
        (0..self.consumers.len()).try_for_each(|index| self.consume(index))?;
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        while !self.run.is_done() {
            let wait_ns = self.send_due()?;
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as _ };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            for event in events.drain(..) {
                self.handle(event.data.u64(), event.flags)?;
            }
            self.renew()?;
        }
        Ok(self.finish())
    }

    /// Sends what is due and says how long to wait at most.
    fn send_due(&mut self) -> Result<u64, Errno> {
        let now_ns = self.run.clock.now_ns();
        self.step(now_ns);
        if self.phase != Phase::Sending {
            return Ok(WAIT_MAX_NS);
        }
        self.show(now_ns);
        while self.paused.peek().is_some_and(|Reverse((until_ns, _))| *until_ns <= now_ns) {
            self.idle.extend(self.paused.pop().map(|Reverse((_, index))| index));
        }
        while let Some(index) = self.idle.front().copied() {
            let Some(intended_ns) = self.due(now_ns) else { break };
            self.idle.pop_front();
            self.send(index, intended_ns)?;
        }
        if now_ns >= self.window.end_ns || self.run.is_stopping() {
            self.give_up(now_ns.min(self.window.end_ns));
            self.phase = Phase::Ending;
        }
        let pause = self.paused.peek().map(|Reverse((until_ns, _))| *until_ns);
        let next = self.arrivals.as_ref().filter(|_| !self.idle.is_empty()).map(Arrivals::next_ns);
        let wait_ns = [pause, next].into_iter().flatten().map(|then_ns| then_ns.saturating_sub(now_ns)).min();
        Ok(wait_ns.unwrap_or(WAIT_MAX_NS).min(WAIT_MAX_NS))
    }

    /// Goes from one phase to the next.
    fn step(&mut self, now_ns: u64) {
        match self.phase {
            Phase::Waiting => {
                if let Some(start) = self.run.start() {
                    self.window = start.window;
                    self.arrivals = start.arrivals(self.number, self.run);
                    // Before the moment that all processes begin at, nothing is due.
                    self.phase = if now_ns >= start.first_ns { Phase::Sending } else { Phase::Waiting };
                }
            }
            Phase::Ending if self.in_flight == 0 || now_ns >= self.window.end_ns + LAST_ANSWERS_NS => {
                self.phase = Phase::Ended;
                self.account(now_ns);
                self.run.producing.fetch_sub(1, Ordering::AcqRel);
            }
            _ => {}
        }
    }

    /// When the next request was to be sent, if that is now or was before.
    fn due(&mut self, now_ns: u64) -> Option<u64> {
        match &mut self.arrivals {
            None => (now_ns < self.window.end_ns).then_some(now_ns),
            Some(arrivals) => arrivals.pop_before(self.window.end_ns.min(now_ns + 1)),
        }
    }

    fn send(&mut self, index: usize, intended_ns: u64) -> Result<(), Errno> {
        let slot = &mut self.producers[index];
        if !slot.is_active {
            return Ok(());
        }
        self.in_flight += 1;
        match slot.peer.send(intended_ns, &mut self.buffers) {
            Ok(()) => self.watch_producer(index),
            Err(error) => {
                self.lose_producer(index, &error);
                Ok(())
            }
        }
    }

    fn handle(&mut self, number: u64, flags: EventFlags) -> Result<(), Errno> {
        let index = (number & !CONSUMER) as usize;
        if number & CONSUMER != 0 {
            if flags.contains(EventFlags::OUT) {
                let result = self.consumers[index].peer.flush();
                return self.after_consuming(index, result);
            }
            return self.consume(index);
        }
        if !self.producers[index].is_active {
            return forget(&self.epoll, &self.producers[index].peer);
        }
        if flags.contains(EventFlags::OUT) {
            match self.producers[index].peer.flush() {
                Ok(()) => self.watch_producer(index)?,
                Err(error) => self.lose_producer(index, &error),
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            match self.producers[index].peer.receive(&mut self.buffers) {
                Ok(None) => {}
                Ok(Some(answered)) => self.answered(index, answered),
                Err(error) => self.lose_producer(index, &error),
            }
        }
        Ok(())
    }

    fn answered(&mut self, index: usize, answered: Answered) {
        let now_ns = self.run.clock.now_ns();
        self.in_flight -= 1;
        let Answered { events, intended_ns, refusal } = answered;
        let producer = &self.producers[index].peer;
        let Some(answer) = refusal else {
            let count = events.end - events.start;
            self.run.acknowledge(producer.number, events);
            self.done.tally.requests += u64::from(self.window.contains(now_ns));
            self.done.acknowledged.note(self.window, count, producer.body_bytes(), intended_ns, now_ns);
            // It does not send at once: requests that leave together wake the broker once, which is most of what sending costs.
            self.idle.push_back(index);
            return;
        };
        let count = events.end - events.start;
        self.run.live.refused.fetch_add(count, Ordering::Relaxed);
        self.run.sent.of(producer.number).refused.push(events);
        self.done.tally.refuse(answer.status, self.window.second(now_ns), count);
        if !(answer.is_transient() && self.run.expects_refusals) {
            note_problem(&mut self.done.problems, &format!("refused: {answer}"));
        }
        match () {
            // The same request will be refused again.
            () if !answer.is_transient() => self.producers[index].is_active = false,
            () if self.arrivals.is_none() => self.paused.push(Reverse((now_ns + OVERLOAD_PAUSE_NS, index))),
            () => self.idle.push_back(index),
        }
    }

    fn lose_producer(&mut self, index: usize, error: &Error) {
        let slot = &mut self.producers[index];
        slot.is_active = false;
        if let Some((events, intended_ns)) = slot.peer.take_unanswered() {
            self.in_flight -= 1;
            self.run.sent.of(slot.peer.number).unknown.push(events.clone());
            self.unanswered.push((intended_ns, slot.peer.number, events));
        }
        self.idle.retain(|idle| *idle != index);
        let seat = Seat::Producer(Place { worker: self.number, index });
        self.mend(seat, &format!("a producer's connection broke: {error}"));
    }

    fn consume(&mut self, index: usize) -> Result<(), Errno> {
        let slot = &mut self.consumers[index];
        if !slot.is_active {
            return forget(&self.epoll, &slot.peer);
        }
        let result = slot.peer.receive(self.run, &mut self.done.consumed, &mut self.buffers);
        self.after_consuming(index, result)
    }

    fn after_consuming(&mut self, index: usize, result: Result<(), Error>) -> Result<(), Errno> {
        let Err(error) = result else { return self.watch_consumer(index) };
        self.consumers[index].is_active = false;
        self.consumers[index].peer.group.unsettle(self.run.clock);
        let seat = Seat::Consumer(Place { worker: self.number, index }, self.groups[index]);
        self.mend(seat, &format!("a consumer failed: {error}"));
        self.run.stop_unless_reconnecting();
        forget(&self.epoll, &self.consumers[index].peer)
    }

    /// Has a broken connection opened again, or calls it a problem.
    fn mend(&mut self, seat: Seat, why: &str) {
        self.run.live.broken.fetch_add(1, Ordering::Relaxed);
        if self.run.reconnects {
            // The connector works as long as any worker does.
            let _ = self.broken.send(seat);
        } else {
            note_problem(&mut self.done.problems, why);
        }
    }

    /// Puts new connections in the place of old ones, those of producers between two requests.
    fn renew(&mut self) -> Result<(), Errno> {
        self.renewals.extend(self.opened.try_iter());
        if self.renewals.is_empty() {
            return Ok(());
        }
        for opened in std::mem::take(&mut self.renewals) {
            match opened {
                Opened::Producer(index, _) if self.producers[index].peer.is_in_flight() => {
                    self.renewals.push(opened);
                }
                Opened::Producer(index, connection) => {
                    let slot = &mut self.producers[index];
                    slot.peer.reconnect(connection);
                    slot.awaits_room = false;
                    if !std::mem::replace(&mut slot.is_active, true) {
                        self.idle.push_back(index);
                    }
                    self.listen(&self.producers[index].peer, index as u64)?;
                }
                Opened::Consumer(index, connection, session) => {
                    let slot = &mut self.consumers[index];
                    slot.peer.reconnect(connection, session, &mut self.buffers);
                    slot.peer.group.unsettle(self.run.clock);
                    (slot.is_active, slot.awaits_room) = (true, false);
                    self.listen(&self.consumers[index].peer, index as u64 | CONSUMER)?;
                    self.consume(index)?;
                }
            }
        }
        Ok(())
    }

    /// Asks for the event that the producer waits for: an answer, or room for the rest of a request.
    fn watch_producer(&mut self, index: usize) -> Result<(), Errno> {
        let slot = &mut self.producers[index];
        let awaits_room = slot.peer.wants_write();
        slot.watch(awaits_room, &self.epoll, index as u64)
    }

    fn watch_consumer(&mut self, index: usize) -> Result<(), Errno> {
        let slot = &mut self.consumers[index];
        let awaits_room = slot.peer.wants_write();
        slot.watch(awaits_room, &self.epoll, index as u64 | CONSUMER)
    }

    /// Brings what the progress line shows up to date.
    fn show(&mut self, now_ns: u64) {
        if now_ns >= self.live_ns {
            self.live_ns = now_ns + LIVE_NS;
            let Done { acknowledged, consumed, .. } = &self.done;
            self.run.live.show(self.window.second(now_ns), acknowledged, consumed);
        }
    }

    /// Notes what was due and is not sent any more, as late as it is at `end_ns`.
    fn give_up(&mut self, end_ns: u64) {
        let Some(arrivals) = &mut self.arrivals else { return };
        let Done { acknowledged, consumed, unsent, .. } = &mut self.done;
        let batch = self.run.batch;
        // Which types these events would have had nobody knows, so as many groups miss them as read an event on the average.
        let mut missed = 0.0;
        while let Some(intended_ns) = arrivals.pop_before(end_ns) {
            *unsent += batch;
            if !self.window.contains(intended_ns) {
                continue;
            }
            missed += self.run.readers * batch as f64;
            acknowledged.note_waiting(batch, end_ns - intended_ns);
            consumed.note_waiting(missed as u64, end_ns - intended_ns);
            missed = missed.fract();
        }
    }

    /// Says what was sent, and what was not answered.
    fn account(&mut self, now_ns: u64) {
        let broken = self.unanswered.len();
        for slot in &mut self.producers {
            let number = slot.peer.number;
            let mut known = self.run.sent.of(number);
            known.sent = slot.peer.sent();
            if let Some((events, intended_ns)) = slot.peer.take_unanswered() {
                known.unknown.push(events.clone());
                self.unanswered.push((intended_ns, number, events));
            }
        }
        if self.unanswered.len() > broken {
            note_problem(&mut self.done.problems, "some requests were not answered");
        }
        // Without a rate nothing was to be sent at any moment.
        let is_timed = self.arrivals.is_some();
        for (intended_ns, number, events) in self.unanswered.drain(..) {
            if is_timed && self.window.contains(intended_ns) {
                let waited_ns = now_ns - intended_ns;
                self.done.acknowledged.note_waiting(events.end - events.start, waited_ns);
                self.run.sent.of(number).unanswered.push(Unanswered { events, waited_ns });
            }
        }
    }

    fn finish(mut self) -> Done {
        for slot in self.consumers.iter_mut().filter(|slot| slot.is_active) {
            slot.peer.close(&mut self.buffers);
        }
        self.done.acknowledged.finish(self.window);
        self.done.consumed.finish(self.window);
        self.done
    }
}

impl<T: AsFd> Slot<T> {
    fn watch(&mut self, awaits_room: bool, epoll: &OwnedFd, number: u64) -> Result<(), Errno> {
        if awaits_room == self.awaits_room {
            return Ok(());
        }
        self.awaits_room = awaits_room;
        let flags = if awaits_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(epoll, &self.peer, EventData::new_u64(number), flags)
    }
}

/// The end of a connection that nobody uses any more is no event.
fn forget(epoll: &OwnedFd, socket: &impl AsFd) -> Result<(), Errno> {
    match epoll::delete(epoll, socket) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

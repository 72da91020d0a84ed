//! Drives many producers on one thread: sends what is due, takes what is answered, waits for either.

use crate::ledger::Sent;
use crate::measure::{Problems, Window, note_problem};
use crate::producer::{Answered, Producer};
use crate::report::Flow;
use crate::run::Run;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Longest wait in which a wish to stop is not seen.
const WAIT_MAX_NS: u64 = 50_000_000;
/// Longest wait for the last answers.
const LAST_ANSWERS_NS: u64 = 10_000_000_000;
/// Sockets looked at after one wait.
const EVENTS_AT_ONCE: usize = 256;

/// What became of the events of one thread's producers.
#[derive(Default)]
pub struct Produced {
    pub flow: Flow,
    /// Requests acknowledged within the window.
    pub requests: u64,
    /// Refused events by status, and in each second of the window.
    pub refused_by_status: BTreeMap<u16, u64>,
    pub refused_per_second: Vec<u64>,
    /// Events that were due before the end of the window and never sent, because the answers before them came late.
    pub unsent: u64,
    pub sent: Sent,
    pub problems: Problems,
}

impl Produced {
    /// Adds what another thread's producers did.
    pub fn merge(&mut self, other: Self) {
        self.flow.merge(other.flow);
        self.requests += other.requests;
        self.unsent += other.unsent;
        for (status, count) in other.refused_by_status {
            *self.refused_by_status.entry(status).or_default() += count;
        }
        for (second, count) in other.refused_per_second.into_iter().enumerate() {
            self.note_refused(second, count);
        }
        for (sum, sent) in self.sent.sent.iter_mut().zip(other.sent.sent) {
            *sum += sent;
        }
        self.sent.refused.extend(other.sent.refused);
        self.sent.unknown.extend(other.sent.unknown);
        for (text, count) in other.problems {
            *self.problems.entry(text).or_default() += count;
        }
    }

    fn note_refused(&mut self, second: usize, events: u64) {
        if second >= self.refused_per_second.len() {
            self.refused_per_second.resize(second + 1, 0);
        }
        self.refused_per_second[second] += events;
    }
}

/// The thread's state.
struct Driver<'a> {
    run: &'a Run,
    window: Window,
    epoll: OwnedFd,
    producers: Vec<Member>,
    produced: Produced,
}

struct Member {
    producer: Producer,
    /// `false` after its connection broke or the broker refused for good.
    is_active: bool,
    awaits_room: bool,
}

/// Runs `producers` until the window ends and their last answers are in. `total`: producers of all threads.
pub fn drive(producers: Vec<Producer>, total: usize, run: &Run) -> Result<Produced, Errno> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, producer) in producers.iter().enumerate() {
        epoll::add(&epoll, producer, EventData::new_u64(index as u64), EventFlags::IN)?;
    }
    let sent = Sent { sent: vec![0; total], ..Sent::default() };
    let produced = Produced { sent, ..Produced::default() };
    let member = |producer| Member { producer, is_active: true, awaits_room: false };
    let producers = producers.into_iter().map(member).collect();
    Driver { run, window: run.window(), epoll, producers, produced }.drive()
}

impl Driver<'_> {
    fn drive(mut self) -> Result<Produced, Errno> {
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        while let Some(wait_ns) = self.send_due()? {
            let timeout = Timespec { tv_sec: 0, tv_nsec: wait_ns as _ };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            for event in events.drain(..) {
                self.handle(event.data.u64() as usize, event.flags)?;
            }
        }
        Ok(self.finish())
    }

    /// Sends what is due and says how long to wait at most; `None` when all is done.
    fn send_due(&mut self) -> Result<Option<u64>, Errno> {
        let now_ns = self.run.clock.now_ns();
        let is_over = now_ns >= self.window.end_ns || self.run.stop.load(Ordering::Relaxed);
        let mut wait_ns = WAIT_MAX_NS;
        let mut waits = false;
        for index in 0..self.producers.len() {
            match self.producers[index].producer.due_ns() {
                _ if !self.producers[index].is_active => {}
                None => waits = true,
                Some(_) if is_over => {}
                Some(due_ns) if due_ns <= now_ns => {
                    self.send(index, now_ns)?;
                    waits = true;
                }
                Some(due_ns) => {
                    waits = true;
                    wait_ns = wait_ns.min(due_ns - now_ns);
                }
            }
        }
        let is_late = now_ns >= self.window.end_ns + LAST_ANSWERS_NS;
        Ok((waits && !is_late).then_some(wait_ns))
    }

    fn send(&mut self, index: usize, now_ns: u64) -> Result<(), Errno> {
        let result = self.producers[index].producer.send(now_ns);
        self.give_up_on_error(index, result);
        self.watch(index)
    }

    fn handle(&mut self, index: usize, flags: EventFlags) -> Result<(), Errno> {
        if !self.producers[index].is_active {
            return self.forget(index);
        }
        if flags.contains(EventFlags::OUT) {
            let result = self.producers[index].producer.flush();
            self.give_up_on_error(index, result);
            self.watch(index)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let now_ns = self.run.clock.now_ns();
            match self.producers[index].producer.receive(now_ns) {
                Ok(None) => {}
                Ok(Some(answered)) => self.answered(index, &answered, now_ns),
                Err(error) => self.give_up_on_error(index, Err(error)),
            }
        }
        Ok(())
    }

    fn answered(&mut self, index: usize, answered: &Answered, now_ns: u64) {
        let member = &mut self.producers[index];
        let events = answered.first_sequence..member.producer.sent();
        let count = events.end - events.start;
        match &answered.refusal {
            None => {
                self.run.acknowledged.fetch_add(count, Ordering::Relaxed);
                let bytes = member.producer.body_bytes();
                self.produced.flow.note(self.window, count, bytes, answered.intended_ns, now_ns);
                self.produced.requests += u64::from(self.window.contains(now_ns));
            }
            Some(answer) => {
                note_problem(&mut self.produced.problems, &format!("refused: {answer}"));
                *self.produced.refused_by_status.entry(answer.status).or_default() += count;
                if let Some(second) = self.window.second(now_ns) {
                    self.produced.note_refused(second, count);
                }
                let number = member.producer.number;
                self.produced.sent.refused.extend(events.map(|sequence| (number, sequence)));
                // The same request will be refused again, unless the broker was only overloaded.
                member.is_active = answer.is_transient();
            }
        }
    }

    fn give_up_on_error(&mut self, index: usize, result: Result<(), nistru::client::Error>) {
        if let Err(error) = result {
            note_problem(&mut self.produced.problems, &error.to_string());
            self.producers[index].is_active = false;
        }
    }

    /// Asks for the event that the producer waits for: an answer, or room for the rest of a request.
    fn watch(&mut self, index: usize) -> Result<(), Errno> {
        let member = &mut self.producers[index];
        let awaits_room = member.is_active && member.producer.wants_write();
        if awaits_room == member.awaits_room {
            return Ok(());
        }
        member.awaits_room = awaits_room;
        let flags = if awaits_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, &member.producer, EventData::new_u64(index as u64), flags)
    }

    /// The end of a connection that nobody uses any more is no event.
    fn forget(&mut self, index: usize) -> Result<(), Errno> {
        match epoll::delete(&self.epoll, &self.producers[index].producer) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn finish(self) -> Produced {
        let mut produced = self.produced;
        for Member { producer, .. } in &self.producers {
            produced.unsent += producer.unsent(self.window.end_ns);
            produced.sent.sent[producer.number] = producer.sent();
            produced.sent.unknown.extend(producer.unanswered().map(|sequence| (producer.number, sequence)));
        }
        if !produced.sent.unknown.is_empty() {
            note_problem(&mut produced.problems, "some requests were not answered");
        }
        produced
    }
}

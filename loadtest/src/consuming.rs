//! One consumer: receives, notes, confirms.

use crate::ledger::Ledger;
use crate::report::Flow;
use crate::run::Run;
use crate::stamp::{RunMark, Stamp};
use nistru::client::{Consumer, Delivery, Error};
use rustix::event::Timespec;
use rustix::event::{PollFd, PollFlags, poll};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Longest wait in which the wish to end is not seen.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What the consumers of a group share.
pub struct Group {
    pub ledger: Ledger,
    pub mark: RunMark,
    /// Events of other runs that the group had not consumed yet.
    pub foreign: AtomicU64,
    /// Set when everything has arrived, or nobody hopes for it any more.
    pub done: AtomicBool,
}

/// A session at work.
struct Member<'a> {
    consumer: Consumer,
    group: &'a Group,
    run: &'a Run,
    flow: Flow,
    confirm_every: usize,
    unconfirmed: usize,
    last_offset: Option<u64>,
}

/// Consumes until the group is done.
pub fn consume(
    mut consumer: Consumer,
    group: &Group,
    run: &Run,
    confirm_every: usize,
) -> Result<Flow, Error> {
    consumer.set_nonblocking()?;
    let flow = Flow::new();
    let mut member = Member { consumer, group, run, flow, confirm_every, unconfirmed: 0, last_offset: None };
    while !group.done.load(Ordering::Relaxed) {
        member.drain()?;
        member.wait()?;
    }
    member.consumer.close();
    Ok(member.flow)
}

impl Member<'_> {
    /// Takes all that has come and confirms it: one confirm for each burst.
    fn drain(&mut self) -> Result<(), Error> {
        while let Some(delivery) = self.consumer.poll()? {
            self.note(&delivery);
            if self.unconfirmed >= self.confirm_every {
                self.confirm()?;
            }
        }
        self.confirm()?;
        if self.consumer.wants_write() { self.consumer.flush().map(|_| ()) } else { Ok(()) }
    }

    fn note(&mut self, delivery: &Delivery) {
        self.unconfirmed += 1;
        self.last_offset = delivery.offset().or(self.last_offset);
        let Some(stamp) = Stamp::find(&self.group.mark, delivery.text()) else {
            self.group.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if self.group.ledger.arrived(stamp.producer, stamp.sequence) {
            let bytes = delivery.text().len() as u64;
            self.flow.note(self.run.window(), 1, bytes, stamp.intended_ns, self.run.clock.now_ns());
        }
    }

    fn confirm(&mut self) -> Result<(), Error> {
        self.unconfirmed = 0;
        match self.last_offset.take() {
            Some(offset) => self.consumer.confirm(offset),
            None => Ok(()),
        }
    }

    fn wait(&self) -> Result<(), Error> {
        let room = if self.consumer.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
        let mut socket = [PollFd::new(&self.consumer, PollFlags::IN | room)];
        match poll(&mut socket, Some(&WAIT)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

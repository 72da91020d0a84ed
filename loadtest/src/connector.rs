//! Opens connections while the load runs, on a thread of its own: a handshake would hold up everybody on a worker's.

use crate::group::Group;
use crate::run::Run;
use crate::scenario::Connections;
use crate::wire::{Connection, Session, open_session};
use nistru::client::{Endpoint, Error};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Pause before a connection is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// Longest wait in which a wish to stop is not seen.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Where a producer or consumer is: its worker, and its place there.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub worker: usize,
    pub index: usize,
}

/// Somebody who needs a connection.
#[derive(Debug, Clone, Copy)]
pub enum Seat {
    Producer(Place),
    /// With the index of the group.
    Consumer(Place, usize),
}

/// A connection for the producer or consumer of that index at the worker that gets it.
pub enum Opened {
    Producer(usize, Connection),
    Consumer(usize, Connection, Session),
}

/// Everything that takes turns.
pub struct Connector<'a> {
    pub run: &'a Run,
    pub endpoint: &'a Endpoint,
    pub groups: &'a [Group],
    pub connections: &'a Connections,
    pub producers: Vec<Seat>,
    pub consumers: Vec<Seat>,
    pub workers: Vec<Sender<Opened>>,
    /// Those whose connection broke.
    pub broken: Receiver<Seat>,
}

/// Seats that get a new connection at a rate.
struct Turns<'a> {
    seats: &'a [Seat],
    interval_ns: f64,
    next_ns: f64,
    next: usize,
}

impl Connector<'_> {
    /// Works until the run is done.
    pub fn work(&self) {
        let start_ns = self.run.clock.now_ns();
        let mut turns = [
            Turns::new(&self.producers, self.connections.producers_renewed_per_s, start_ns),
            Turns::new(&self.consumers, self.connections.consumers_renewed_per_s, start_ns),
        ];
        while !self.run.is_done() {
            let wait = turns.iter().map(|turn| turn.wait(self.run.clock.now_ns())).min();
            match self.broken.recv_timeout(wait.unwrap_or(WAIT_MAX).min(WAIT_MAX)) {
                Ok(seat) => self.mend(seat),
                Err(RecvTimeoutError::Timeout) => {}
                // Every worker is gone.
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for turn in &mut turns {
                // A turn that fails is a turn missed: the old connection is still there.
                if turn.due(self.run.clock.now_ns()).is_some_and(|seat| self.open(seat).is_ok()) {
                    self.run.live.renewed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Tries until it works.
    fn mend(&self, seat: Seat) {
        while !self.run.is_done() && self.open(seat).is_err() {
            std::thread::sleep(RETRY);
        }
    }

    fn open(&self, seat: Seat) -> Result<(), Error> {
        let (place, opened) = match seat {
            Seat::Producer(place) => {
                let connection = Connection::open(self.endpoint)?;
                connection.unblock()?;
                (place, Opened::Producer(place.index, connection))
            }
            Seat::Consumer(place, group) => {
                let group = &self.groups[group];
                group.unsettle(self.run.clock);
                let (connection, session) = open_session(&group.endpoint, &group.name)?;
                group.unsettle(self.run.clock);
                connection.unblock()?;
                (place, Opened::Consumer(place.index, connection, session))
            }
        };
        // A worker that has ended needs none.
        let _ = self.workers[place.worker].send(opened);
        Ok(())
    }
}

impl<'a> Turns<'a> {
    fn new(seats: &'a [Seat], per_second: f64, start_ns: u64) -> Self {
        let interval_ns =
            if seats.is_empty() || per_second == 0.0 { f64::INFINITY } else { 1e9 / per_second };
        Self { seats, interval_ns, next_ns: start_ns as f64 + interval_ns, next: 0 }
    }

    fn wait(&self, now_ns: u64) -> Duration {
        Duration::from_nanos((self.next_ns - now_ns as f64).max(0.0) as u64)
    }

    fn due(&mut self, now_ns: u64) -> Option<Seat> {
        if now_ns as f64 <= self.next_ns {
            return None;
        }
        self.next_ns += self.interval_ns;
        self.next += 1;
        Some(self.seats[(self.next - 1) % self.seats.len()])
    }
}

//! One producer connection: a request, its answer, the next request.

use crate::request::Request;
use crate::stamp::Stamp;
use crate::wire::{Answers, Buffers, Connection, Refusal};
use nistru::client::Error;
use rustix::fd::{AsFd, BorrowedFd};
use std::ops::Range;

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    first_sequence: u64,
    intended_ns: u64,
}

/// An answered request.
#[derive(Debug)]
pub struct Answered {
    pub events: Range<u64>,
    pub intended_ns: u64,
    /// `None` when the events are accepted, else what the broker said.
    pub refusal: Refusal,
}

/// A connection and the events that go over it.
pub struct Producer {
    pub number: usize,
    run: u32,
    connection: Connection,
    answers: Answers,
    request: Request,
    batch: u64,
    next_sequence: u64,
    in_flight: Option<InFlight>,
}

impl Producer {
    pub fn new(number: usize, run: u32, batch: usize, connection: Connection, request: Request) -> Self {
        Self {
            number,
            run,
            connection,
            answers: Answers::default(),
            request,
            batch: batch as u64,
            next_sequence: 0,
            in_flight: None,
        }
    }

    /// Sends the next request, which was to be sent at `intended_ns`.
    pub fn send(&mut self, intended_ns: u64, buffers: &mut Buffers) -> Result<(), Error> {
        let first_sequence = self.next_sequence;
        self.next_sequence += self.batch;
        self.in_flight = Some(InFlight { first_sequence, intended_ns });
        let stamp = Stamp { run: self.run, producer: self.number, sequence: first_sequence, intended_ns };
        self.connection.send(self.request.stamped(stamp), buffers)
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.connection.flush()
    }

    /// Whether bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Takes what has come; `Some` when that completes the answer.
    pub fn receive(&mut self, buffers: &mut Buffers) -> Result<Option<Answered>, Error> {
        let mut complete = None;
        let answers = &mut self.answers;
        self.connection.receive(buffers, |bytes| {
            if let Some(refusal) = answers.take(bytes)? {
                complete = Some(refusal);
            }
            Ok(())
        })?;
        let Some(refusal) = complete else { return Ok(None) };
        match self.in_flight.take() {
            Some(InFlight { first_sequence, intended_ns }) => {
                Ok(Some(Answered { events: first_sequence..self.next_sequence, intended_ns, refusal }))
            }
            None => Err(Error::Protocol("an answer without a request".to_owned())),
        }
    }

    /// Goes on over another connection, with nothing in flight.
    pub fn reconnect(&mut self, connection: Connection) {
        self.connection = connection;
        self.answers = Answers::default();
    }

    /// The events whose answer did not come, and when they were to be sent; once.
    pub fn take_unanswered(&mut self) -> Option<(Range<u64>, u64)> {
        let InFlight { first_sequence, intended_ns } = self.in_flight.take()?;
        Some((first_sequence..self.next_sequence, intended_ns))
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// How many events were sent.
    pub fn sent(&self) -> u64 {
        self.next_sequence
    }

    /// Bytes of the last request's body.
    pub fn body_bytes(&self) -> u64 {
        self.request.body_bytes() as u64
    }
}

impl AsFd for Producer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

//! One producer connection: a request, its answer, the next request.

use crate::request::Request;
use crate::stamp::Stamp;
use nistru::client::{Answer, Endpoint, Error, Head, Stream};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, Read, Write};

/// Pause of a producer without a rate after the broker said that it is overloaded.
const OVERLOAD_PAUSE_NS: u64 = 100_000_000;
/// Bytes read at a time; answers are short.
const READ_BYTES: usize = 4096;

/// When the next request is to be sent.
#[derive(Debug, Clone, Copy)]
pub enum Schedule {
    /// As soon as the last one was answered, but not before this moment.
    WhenAnswered { not_before_ns: u64 },
    /// The `n`th one at `first_ns + n * interval_ns`, whatever became of those before.
    Rate { first_ns: u64, interval_ns: f64, n: u64 },
}

impl Schedule {
    /// The moment at which the next request is to be sent. Without a rate a moment in the past means now.
    fn due_ns(self) -> u64 {
        match self {
            Self::WhenAnswered { not_before_ns } => not_before_ns,
            Self::Rate { first_ns, interval_ns, n } => first_ns + (n as f64 * interval_ns) as u64,
        }
    }
}

/// A request that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    first_sequence: u64,
    intended_ns: u64,
}

/// An answered request.
#[derive(Debug)]
pub struct Answered {
    pub first_sequence: u64,
    pub intended_ns: u64,
    /// `None` when the events are accepted, else what the broker said.
    pub refusal: Option<Answer>,
}

/// A connection and the events that go over it.
pub struct Producer {
    pub number: usize,
    run: u32,
    stream: Stream,
    request: Request,
    batch: u64,
    schedule: Schedule,
    next_sequence: u64,
    in_flight: Option<InFlight>,
    received: Vec<u8>,
}

impl Producer {
    /// Connects. Afterwards nothing blocks.
    pub fn open(
        endpoint: &Endpoint,
        number: usize,
        run: u32,
        batch: usize,
        request: Request,
    ) -> Result<Self, Error> {
        let mut stream = Stream::open(endpoint)?;
        stream.set_nonblocking(true)?;
        let schedule = Schedule::WhenAnswered { not_before_ns: 0 };
        let (batch, received) = (batch as u64, Vec::with_capacity(READ_BYTES));
        Ok(Self {
            number,
            run,
            stream,
            request,
            batch,
            schedule,
            next_sequence: 0,
            in_flight: None,
            received,
        })
    }

    /// Says when to send; before the first request.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// The moment at which it wants to send; `None` while it waits for an answer.
    pub fn due_ns(&self) -> Option<u64> {
        if self.in_flight.is_some() { None } else { Some(self.schedule.due_ns()) }
    }

    /// Sends the next request.
    pub fn send(&mut self, now_ns: u64) -> Result<(), Error> {
        let intended_ns = match &mut self.schedule {
            Schedule::WhenAnswered { .. } => now_ns,
            rate @ Schedule::Rate { .. } => rate.due_ns(),
        };
        if let Schedule::Rate { n, .. } = &mut self.schedule {
            *n += 1;
        }
        let first_sequence = self.next_sequence;
        self.next_sequence += self.batch;
        self.in_flight = Some(InFlight { first_sequence, intended_ns });
        let stamp = Stamp { run: self.run, producer: self.number, sequence: first_sequence, intended_ns };
        self.stream.write_all(self.request.stamped(stamp))?;
        self.flush()
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> Result<(), Error> {
        match self.stream.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            done => Ok(done?),
        }
    }

    /// Whether bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.stream.wants_write()
    }

    /// Takes what has come; `Some` when that completes the answer.
    pub fn receive(&mut self, now_ns: u64) -> Result<Option<Answered>, Error> {
        let mut chunk = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if let Some(answered) = self.complete(now_ns)? {
                return Ok(Some(answered));
            }
        }
    }

    /// The answer in what was received. That of an accepted request, which has no body, is read without allocation.
    fn complete(&mut self, now_ns: u64) -> Result<Option<Answered>, Error> {
        let Some(head) = Head::parse(&self.received)? else { return Ok(None) };
        let (taken, refusal) = if head.status == 202 {
            (head.bytes, None)
        } else {
            match Answer::parse(&self.received, false)? {
                Some((answer, taken, _)) => (taken, Some(answer)),
                None => return Ok(None),
            }
        };
        self.received.drain(..taken);
        let Some(InFlight { first_sequence, intended_ns }) = self.in_flight.take() else {
            return Err(Error::Protocol("an answer without a request".to_owned()));
        };
        if let (Some(_), Schedule::WhenAnswered { not_before_ns }) = (&refusal, &mut self.schedule) {
            *not_before_ns = now_ns + OVERLOAD_PAUSE_NS;
        }
        Ok(Some(Answered { first_sequence, intended_ns, refusal }))
    }

    /// How many events were sent.
    pub fn sent(&self) -> u64 {
        self.next_sequence
    }

    /// How many events were due before `end_ns` and are not sent. Without a rate nothing is ever overdue.
    pub fn unsent(&self, end_ns: u64) -> u64 {
        match self.schedule {
            Schedule::WhenAnswered { .. } => 0,
            Schedule::Rate { interval_ns, .. } => {
                let overdue_ns = end_ns.saturating_sub(self.schedule.due_ns());
                (overdue_ns as f64 / interval_ns).ceil() as u64 * self.batch
            }
        }
    }

    /// The events whose answer did not come.
    pub fn unanswered(&self) -> std::ops::Range<u64> {
        self.in_flight.map_or(0..0, |request| request.first_sequence..self.next_sequence)
    }

    /// Bytes of a request's body.
    pub fn body_bytes(&self) -> u64 {
        self.request.body_bytes() as u64
    }
}

impl AsFd for Producer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

//! Requests out, answers in, and the count of what became of the events.

use super::batch::Batch;
use super::lines::{InputError, Line};
use super::{Produce, Stop};
use crate::cli::consume::pause;
use crate::cli::stop::LOOK_INTERVAL;
use crate::client::{Answer, Connection, Endpoint, Error};
use indicatif::ProgressBar;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long a batch that is not full waits for another line.
const LINGER: Duration = Duration::from_millis(50);
/// Longest pause that a broker's `Retry-After` is followed for.
const RETRY_AFTER_MAX_S: u64 = 60;

/// What became of the events so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub accepted: u64,
    pub refused: u64,
    /// The lines of a request whose answer never came.
    pub unknown: Option<RangeInclusive<u64>>,
}

impl Tally {
    /// The end of a failure's message.
    pub fn after_failure(&self) -> String {
        match (self.accepted, &self.unknown) {
            (0, None) => String::new(),
            (accepted, None) => format!(" ({accepted} events accepted before)"),
            (accepted, Some(lines)) => {
                format!(
                    " ({accepted} events accepted before; {} may or may not have been accepted)",
                    name(lines)
                )
            }
        }
    }
}

/// Why not everything was sent.
#[derive(Debug)]
pub enum Failure {
    Local(String),
    Broker(Error),
    /// Refused, with the lines and the broker's words.
    Refused(String),
    /// The person at the keyboard asked to stop.
    Stopped,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Setup(what) => Self::Local(what),
            error => Self::Broker(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(what) | Self::Refused(what) => f.write_str(what),
            Self::Broker(error) => error.fmt(f),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// Gathers events into requests and sends them one after the other.
pub struct Sender {
    connection: Connection,
    batch: Batch,
    retries: u32,
    keep_going: bool,
    stop: Stop,
    progress: ProgressBar,
    tally: Tally,
}

impl Sender {
    /// Connects at once, so that a wrong set-up is told before any input is read.
    pub fn open(
        endpoint: &Endpoint,
        options: &Produce,
        stop: Stop,
        progress: ProgressBar,
    ) -> Result<Self, Failure> {
        Ok(Self {
            connection: Connection::open(endpoint)?,
            batch: Batch::new(options.batch, options.request_bytes),
            retries: options.retry,
            keep_going: options.keep_going,
            stop,
            progress,
            tally: Tally::default(),
        })
    }

    /// The next line of input, or `None` at its end when everything was sent. A batch is sent when no line comes for
    /// a moment, so that whoever types or pipes slowly does not wait for it to be full.
    pub fn next_line(
        &mut self,
        lines: &Receiver<Result<Line, InputError>>,
    ) -> Result<Option<Result<Line, InputError>>, Failure> {
        loop {
            let wait = if self.batch.is_empty() { LOOK_INTERVAL } else { LINGER };
            let received = lines.recv_timeout(wait);
            if self.stop.is_wanted() {
                self.send()?;
                return Err(Failure::Stopped);
            }
            match received {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Timeout) => self.send()?,
                Err(RecvTimeoutError::Disconnected) => return self.send().map(|()| None),
            }
        }
    }

    /// Adds the event of a line to the batch, which is sent before or after as its limits demand.
    pub fn add(&mut self, line: u64, event: &[u8]) -> Result<(), Failure> {
        if !self.batch.has_room(event.len()) {
            self.send()?;
        }
        self.batch.add(line, event);
        if self.batch.is_full() { self.send() } else { Ok(()) }
    }

    /// A line that cannot be sent. What came before it is sent first.
    pub fn bad_line(&mut self, line: u64, why: &str) -> Result<(), Failure> {
        self.send()?;
        let message = format!("line {line}: {why}");
        if !self.keep_going {
            return Err(Failure::Local(message));
        }
        self.refused(1, &message);
        Ok(())
    }

    /// Sends the batch, if there is anything in it.
    pub fn send(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let answer = match self.post_with_retries() {
            Ok(answer) => answer,
            Err(error) => {
                self.tally.unknown = Some(self.batch.lines());
                return Err(error.into());
            }
        };
        let events = self.batch.count() as u64;
        let message = format!("{}: the broker answered {answer}", name(&self.batch.lines()));
        self.batch.clear();
        if answer.is_success() {
            self.tally.accepted += events;
            self.progress.set_position(self.tally.accepted);
            return Ok(());
        }
        if !self.keep_going {
            self.tally.refused += events;
            return Err(Failure::Refused(message));
        }
        self.refused(events, &message);
        Ok(())
    }

    fn refused(&mut self, events: u64, message: &str) {
        self.tally.refused += events;
        self.progress.suspend(|| eprintln!("nistru produce: {message}"));
    }

    fn post_with_retries(&mut self) -> Result<Answer, Error> {
        let mut tries = 0;
        loop {
            let (path, content_type, body) = self.batch.request();
            let result = self.connection.post(path, content_type, &[], body);
            let transient = match &result {
                Ok(answer) => answer.is_transient(),
                Err(error) => error.is_transient(),
            };
            if !transient || tries >= self.retries || self.stop.is_wanted() {
                return result;
            }
            tries += 1;
            let asked = result.ok().and_then(|answer| answer.retry_after_s());
            thread::sleep(asked.map_or(pause(tries), |s| Duration::from_secs(s.min(RETRY_AFTER_MAX_S))));
        }
    }

    /// Ends the progress display and gives the count.
    pub fn finish(self) -> Tally {
        self.progress.finish_and_clear();
        self.tally
    }
}

fn name(lines: &RangeInclusive<u64>) -> String {
    if lines.start() == lines.end() {
        format!("line {}", lines.start())
    } else {
        format!("lines {} to {}", lines.start(), lines.end())
    }
}

//! The state of one connection's input: head, the caller's word on the body, body, and again.

use super::chunked::Chunked;
use super::head::{Framing, Head};
use super::lines::{Section, SectionError};
use super::{Error, Exchange};
use crate::http::Request;

/// Most bytes kept free for a body of which nothing has come: a length is only a promise. A usual batch needs no more, and is not moved as
/// it grows.
const BODY_RESERVE_BYTES: usize = 128 << 10;

/// Reads requests from the bytes of a connection. Between requests it holds no memory but itself.
pub struct Parser {
    head_bytes_max: usize,
    state: State,
}

/// What the parser came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The input is used up; more is needed.
    NeedMore,
    /// A head is there, see [`Parser::head`]. Decide with [`Parser::keep_body`] or [`Parser::drop_body`], then go on.
    Head,
    /// A whole request. What is left of the input is the next one.
    Complete(Request, Exchange),
}

enum State {
    /// Gathering a head. One empty line before it is skipped: old clients send one after a body (RFC 9112, 2.2).
    Gathering {
        section: Section,
        skipped: bool,
    },
    /// The caller has not yet decided on the body.
    Decide(Box<Head>),
    Reading(Box<Reading>),
    /// What comes after an error has no meaning. The request is the one whose body was wrong.
    Failed(Error, Option<Box<Request>>),
}

/// A request whose body is coming.
struct Reading {
    request: Request,
    exchange: Exchange,
    left: Left,
    body: Body,
}

/// What is still to come of a body.
enum Left {
    Bytes(u64),
    Chunks(Chunked),
}

impl Parser {
    /// A parser at the start of a connection. Heads of more than `head_bytes_max` bytes are refused.
    pub fn new(head_bytes_max: usize) -> Self {
        Self { head_bytes_max, state: State::gathering() }
    }

    /// Takes bytes from the front of `input` and moves on as far as they lead. Bytes that are left in `input` are to be
    /// given again. After an error every further call gives the same error.
    pub fn advance(&mut self, input: &mut &[u8]) -> Result<Step, Error> {
        let step = match &mut self.state {
            State::Gathering { .. } => self.gather(input),
            State::Decide(_) => Ok(Step::Head),
            State::Reading(reading) => match reading.advance(input) {
                Ok(true) => Ok(self.complete()),
                Ok(false) => Ok(Step::NeedMore),
                Err(error) => Err(error),
            },
            State::Failed(error, _) => Err(*error),
        };
        step.inspect_err(|&error| self.fail(error))
    }

    /// Takes what belongs to a body of known length from the front of `input`, and nothing else: for bytes that can go where they
    /// belong without being kept elsewhere before. Only [`Parser::advance`] tells what they lead to.
    pub fn take_body(&mut self, input: &mut &[u8]) {
        if let State::Reading(reading) = &mut self.state
            && let Left::Bytes(_) = reading.left
        {
            // What is refused is not taken, so that it is refused again.
            let _ = reading.advance(input);
        }
    }

    /// Whether a body is coming.
    pub fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    /// The head whose body waits for a decision.
    pub fn head(&self) -> Option<&Head> {
        match &self.state {
            State::Decide(head) => Some(head),
            _ => None,
        }
    }

    /// The request at hand without its body, once its head is there: it says in which form it wants an error.
    pub fn request(&self) -> Option<&Request> {
        match &self.state {
            State::Gathering { .. } => None,
            State::Decide(head) => Some(&head.request),
            State::Reading(reading) => Some(&reading.request),
            State::Failed(_, request) => request.as_deref(),
        }
    }

    /// Reads the body of the head at hand, up to `bytes_max` bytes. A longer `Content-Length` fails at once.
    pub fn keep_body(&mut self, bytes_max: usize) -> Result<(), Error> {
        self.decide(Body::new(true, bytes_max))
    }

    /// Reads the body of the head at hand without keeping it, so that the connection can go on after a refusal. A body of
    /// more than `bytes_max` bytes fails.
    pub fn drop_body(&mut self, bytes_max: usize) -> Result<(), Error> {
        self.decide(Body::new(false, bytes_max))
    }

    /// Whether no byte of a request has come since the last one. Decides between the idle and the request timeout.
    pub fn is_idle(&self) -> bool {
        matches!(&self.state, State::Gathering { section, .. } if section.is_empty())
    }

    fn gather(&mut self, input: &mut &[u8]) -> Result<Step, Error> {
        let State::Gathering { section, skipped } = &mut self.state else { return Ok(Step::NeedMore) };
        loop {
            match section.take(input, self.head_bytes_max) {
                Ok(None) => return Ok(Step::NeedMore),
                Ok(Some(blank)) if blank == b"\r\n" && !*skipped => *skipped = true,
                Ok(Some(bytes)) => {
                    self.state = State::Decide(Box::new(Head::parse(bytes)?));
                    return Ok(Step::Head);
                }
                Err(SectionError::TooLong) => return Err(Error::HeadTooLarge(self.head_bytes_max)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn decide(&mut self, body: Body) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::gathering()) {
            State::Decide(head) => self.start(*head, body),
            other => {
                debug_assert!(false, "there is no head to decide on");
                self.state = other;
                Ok(())
            }
        }
    }

    fn start(&mut self, head: Head, mut body: Body) -> Result<(), Error> {
        let Head { request, exchange, framing, .. } = head;
        let left = match framing {
            Framing::None => Left::Bytes(0),
            Framing::Length(length) => {
                if let Err(error) = body.expect(length) {
                    self.state = State::Failed(error, Some(Box::new(request)));
                    return Err(error);
                }
                Left::Bytes(length)
            }
            Framing::Chunked => Left::Chunks(Chunked::new()),
        };
        if let Left::Bytes(length) = left {
            body.reserve(length);
        }
        self.state = State::Reading(Box::new(Reading { request, exchange, left, body }));
        Ok(())
    }

    fn fail(&mut self, error: Error) {
        let request = match std::mem::replace(&mut self.state, State::gathering()) {
            State::Reading(reading) => Some(Box::new(reading.request)),
            State::Failed(_, request) => request,
            State::Gathering { .. } | State::Decide(_) => None,
        };
        self.state = State::Failed(error, request);
    }

    fn complete(&mut self) -> Step {
        match std::mem::replace(&mut self.state, State::gathering()) {
            State::Reading(reading) => {
                let Reading { mut request, exchange, body, .. } = *reading;
                request.body = body.into_bytes();
                Step::Complete(request, exchange)
            }
            _ => Step::NeedMore,
        }
    }
}

impl State {
    fn gathering() -> Self {
        Self::Gathering { section: Section::default(), skipped: false }
    }
}

impl Reading {
    /// Takes what belongs to the body; returns whether it is complete.
    fn advance(&mut self, input: &mut &[u8]) -> Result<bool, Error> {
        match &mut self.left {
            Left::Bytes(left) => {
                *left -= self.body.take(input, *left)?;
                Ok(*left == 0)
            }
            Left::Chunks(chunks) => chunks.decode(input, &mut self.body),
        }
    }
}

/// The content of a body as it comes, counted whether it is kept or not.
pub(super) struct Body {
    bytes: Vec<u8>,
    kept: bool,
    /// Bytes taken; at most `bytes_max`.
    taken: u64,
    bytes_max: usize,
}

impl Body {
    pub(super) fn new(kept: bool, bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), kept, taken: 0, bytes_max }
    }

    /// Fails when `count` more bytes would exceed the limit.
    pub(super) fn expect(&self, count: u64) -> Result<(), Error> {
        match self.taken.saturating_add(count) > self.bytes_max as u64 {
            true => Err(Error::BodyTooLarge(self.bytes_max)),
            false => Ok(()),
        }
    }

    /// Takes up to `count` bytes from the front of `input`; returns how many there were.
    pub(super) fn take(&mut self, input: &mut &[u8], count: u64) -> Result<u64, Error> {
        let available = count.min(input.len() as u64);
        self.expect(available)?;
        let (content, rest) = input.split_at(available as usize);
        if self.kept {
            self.bytes.extend_from_slice(content);
        }
        self.taken += available;
        *input = rest;
        Ok(available)
    }

    fn reserve(&mut self, length: u64) {
        if self.kept {
            self.bytes.reserve_exact(length.min(BODY_RESERVE_BYTES as u64) as usize);
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

//! Why a request was not taken: every failing event of it, each with what is wrong and where.

use crate::event::attributes::AttributeError;
use std::fmt;

/// Errors that a rejection spells out: more than a request of 1 MiB can hold events with the attributes they need. The rest
/// is only counted, so that a megabyte of nonsense costs no more.
pub const ERRORS_MAX: usize = 16_384;

/// What kind of fault it is, most important first: a request with several kinds gets the status of the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// The request or an event is malformed.
    Malformed,
    /// The client may not produce this type or from this source.
    NotAllowed,
    /// The event is larger than the limit.
    TooLarge,
    /// The payload does not fit the schema of its type.
    Invalid,
}

/// What of an event a fault is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The request, or an event as a whole.
    Whole,
    /// An attribute, by name.
    Attribute(String),
    /// A header of the request, by name.
    Header(&'static str),
    /// A value in the payload, as JSON Pointer (RFC 6901); empty means all of it.
    Data(String),
}

/// One fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub status: Status,
    pub place: Place,
    /// What was found and expected, for the developer of the client.
    pub reason: String,
}

/// A fault of one event of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventError {
    /// Position of the event in its batch, from 0. `None` outside a batch and for faults of the request itself.
    pub index: Option<u32>,
    /// The event's `id`, if it has one that can be read.
    pub id: Option<String>,
    pub fault: Fault,
}

/// Why a request was not taken. Holds at least one error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// The most important status of all errors, including those not spelt out.
    pub status: Status,
    /// In the order of the events, [`ERRORS_MAX`] at most.
    pub errors: Vec<EventError>,
    /// Errors beyond those.
    pub more: usize,
}

/// Gathers errors while a request is read.
#[derive(Default)]
pub(super) struct Faults {
    status: Option<Status>,
    errors: Vec<EventError>,
    more: usize,
}

impl Status {
    /// The HTTP status.
    pub fn code(self) -> u16 {
        match self {
            Status::Malformed => 400,
            Status::NotAllowed => 401,
            Status::TooLarge => 413,
            Status::Invalid => 422,
        }
    }
}

impl Fault {
    pub(super) fn malformed(reason: impl Into<String>) -> Self {
        Self { status: Status::Malformed, place: Place::Whole, reason: reason.into() }
    }

    pub(super) fn attribute(status: Status, name: &str, reason: impl Into<String>) -> Self {
        Self { status, place: Place::Attribute(name.to_owned()), reason: reason.into() }
    }

    pub(super) fn content_type(reason: impl Into<String>) -> Self {
        Self { status: Status::Malformed, place: Place::Header("Content-Type"), reason: reason.into() }
    }

    pub(super) fn data(status: Status, reason: impl Into<String>) -> Self {
        Self { status, place: Place::Data(String::new()), reason: reason.into() }
    }
}

impl From<AttributeError> for Fault {
    fn from(error: AttributeError) -> Self {
        Self {
            status: Status::Malformed,
            place: Place::Attribute(error.name),
            reason: error.reason.into_owned(),
        }
    }
}

impl Faults {
    pub fn add(&mut self, index: Option<u32>, id: Option<&str>, fault: Fault) {
        self.status = Some(self.status.map_or(fault.status, |status| status.min(fault.status)));
        if self.errors.len() < ERRORS_MAX {
            let id = id.map(|id| id.chars().take(256).collect());
            self.errors.push(EventError { index, id, fault });
        } else {
            self.more += 1;
        }
    }

    /// The rejection, if there was any fault.
    pub fn rejection(self) -> Option<Rejection> {
        self.status.map(|status| Rejection { status, errors: self.errors, more: self.more })
    }
}

/// The plain text of an answer: one line for each error.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more errors"),
        }
    }
}

/// `event 3, id "a": attribute "time" must be …`
impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.index, &self.id) {
            (Some(index), Some(id)) => write!(f, "event {index}, id {id:?}: {}", self.fault),
            (Some(index), None) => write!(f, "event {index}: {}", self.fault),
            (None, Some(id)) => write!(f, "event id {id:?}: {}", self.fault),
            (None, None) => self.fault.fmt(f),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Whole => f.write_str(&self.reason),
            Place::Attribute(name) => write!(f, "attribute {name:?} {}", self.reason),
            Place::Header(name) => write!(f, "header {name} {}", self.reason),
            Place::Data(pointer) if pointer.is_empty() => write!(f, "data {}", self.reason),
            Place::Data(pointer) => write!(f, "data at {pointer:?}: {}", self.reason),
        }
    }
}

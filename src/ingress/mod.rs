//! From an authorised producer's request to a block of records, or to everything that is wrong with it.
//!
//! [`request`] is what the interface hands over, [`binary`] and [`structured`] read its forms into one, [`rules`] judges
//! one event against what the client may do and the type asks for, [`report`] takes dead events whatever they are, [`block`] collects the records, [`rejection`] the
//! faults, and [`admission`] goes through a request event by event. All or nothing: a block holds every event of its
//! request. Nothing here knows HTTP beyond content type, attributes and body, and nothing does I/O.

pub mod admission;
mod binary;
pub mod block;
pub mod rejection;
pub mod report;
pub mod request;
mod rules;
mod structured;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Authority, Rights, STEP_BYTES, Settings};
pub use block::{Block, Span};
pub use rejection::{EventError, Place, Rejection, Status};
pub use request::{Form, Produced};

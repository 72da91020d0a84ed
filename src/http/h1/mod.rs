//! HTTP/1.1 (RFC 9112), server side, strict and sans-IO.
//!
//! The connection feeds bytes to a [`Parser`] as they come. It answers with the head first, so that the caller can route,
//! authorise and choose a limit for the body before any of it is kept, then with the whole [`Request`](super::Request)
//! and the [`Exchange`] that encodes the response to it. Bytes after a request stay in the caller's buffer: they are the
//! next request, or the first frames of another protocol after an upgrade.
//!
//! Whatever two recipients could read differently is an error that ends the connection: both a length and chunks, lengths that
//! are repeated or not plain digits, line ends other than CRLF, folded lines, white space before a colon, several hosts. The
//! outcome does not depend on how the input is cut into pieces.

mod chunked;
mod encode;
mod head;
mod lines;
mod parser;
#[cfg(test)]
mod tests;

pub use encode::{CONTINUE, Exchange};
pub use head::{Framing, HEADERS_MAX, Head, TARGET_BYTES_MAX};
pub(in crate::http) use head::{check_host, check_target, read_expectation, split_query};
pub use parser::{Parser, Step};

use super::Status;
use std::fmt;

/// Default for the most bytes of a request line with its header fields.
pub const HEAD_BYTES_MAX: usize = 16 << 10;

/// Why a request cannot be read. The peer is to blame for each of them, and the connection ends with the answer, because
/// where the next request would begin is no longer certain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Not HTTP/1.1 as it must be; the text says what is wrong.
    Malformed(&'static str),
    /// Request line and header fields exceed this many bytes.
    HeadTooLarge(usize),
    /// More than [`HEADERS_MAX`] header fields.
    TooManyHeaders,
    /// The body exceeds this many bytes.
    BodyTooLarge(usize),
    /// An `Expect` other than `100-continue`.
    Expectation,
}

impl Error {
    /// The status to answer with.
    pub fn status(self) -> Status {
        match self {
            Self::Malformed(_) => Status::BAD_REQUEST,
            Self::HeadTooLarge(_) | Self::TooManyHeaders => Status::HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge(_) => Status::CONTENT_TOO_LARGE,
            Self::Expectation => Status::EXPECTATION_FAILED,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed HTTP request: {what}"),
            Self::HeadTooLarge(max) => write!(f, "request line and headers exceed {max} bytes"),
            Self::TooManyHeaders => write!(f, "more than {HEADERS_MAX} header fields"),
            Self::BodyTooLarge(max) => write!(f, "the request body exceeds {max} bytes"),
            Self::Expectation => f.write_str("the only known Expect is 100-continue"),
        }
    }
}

impl std::error::Error for Error {}

//! How a client command ended, as a number that scripts can test.

use crate::client;
use std::process::ExitCode;

/// Exit codes of `nistru produce` and `nistru consume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Everything asked for was done.
    Done = 0,
    /// Something on this side: arguments, a file, the input, the output.
    Local = 1,
    /// The broker could not be reached, TLS failed, or the connection broke.
    Connection = 2,
    /// The broker said no, and nothing was done before.
    Rejected = 3,
    /// A part was done: some events were accepted, or fewer came than were asked for.
    Partial = 4,
}

/// The text on exit codes for a command's help.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a mistake on this side: arguments, files, input
  2  the broker cannot be reached, TLS failed, or the connection broke
  3  the broker refused; its reason is on stderr
  4  done in part: some events were refused or not sent, or fewer came than --count";

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

impl From<&client::Error> for Outcome {
    fn from(error: &client::Error) -> Self {
        match error {
            client::Error::Setup(_) => Self::Local,
            error if error.is_rejection() => Self::Rejected,
            _ => Self::Connection,
        }
    }
}

//! Why the broker does not store what a producer may produce: never the client's fault, so 503 and worth a retry.

use std::fmt;

/// A reason to answer 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The file system has less free space than the broker keeps in reserve.
    DiskFull,
    /// More is under way than the broker holds at a time.
    Overloaded,
    /// The broker is stopping.
    Stopping,
}

impl Refusal {
    /// Seconds after which a retry makes sense.
    pub fn retry_after_s(self) -> u32 {
        match self {
            Self::DiskFull => 30,
            Self::Overloaded => 1,
            Self::Stopping => 5,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "the broker's storage is full; nothing was stored",
            Self::Overloaded => "the broker is overloaded; nothing was stored",
            Self::Stopping => "the broker is stopping; nothing was stored",
        })
    }
}

//! Why the broker does not store what a producer may produce: worth a retry later.

use std::fmt;

/// A reason to answer 503, or 429 for [`Refusal::RateLimited`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The file system has less free space than the broker keeps in reserve.
    DiskFull,
    /// More is under way than the broker holds at a time.
    Overloaded,
    /// The broker is stopping.
    Stopping,
    /// The client has produced more than it may.
    RateLimited { rate: Rate, per_second: u64, retry_after_s: u32 },
}

/// What a client may only produce so much of in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    Events,
    Bytes,
}

impl Refusal {
    /// Seconds after which a retry makes sense.
    pub fn retry_after_s(self) -> u32 {
        match self {
            Self::DiskFull => 30,
            Self::Overloaded => 1,
            Self::Stopping => 5,
            Self::RateLimited { retry_after_s, .. } => retry_after_s,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "the broker's storage is full; nothing was stored",
            Self::Overloaded => "the broker is overloaded; nothing was stored",
            Self::Stopping => "the broker is stopping; nothing was stored",
            Self::RateLimited { rate, per_second, .. } => {
                let (unit, setting) = match rate {
                    Rate::Events => ("events", "events_per_second_max"),
                    Rate::Bytes => ("bytes", "bytes_per_second_max"),
                };
                return write!(
                    f,
                    "the client has produced more than the {per_second} {unit} per second that it may ({setting}); \
                     nothing was stored"
                );
            }
        })
    }
}

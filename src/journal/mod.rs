//! The journal: one ordered, group-committed log of frames, kept in preallocated files that are used again and again.
//!
//! In reading order: [`frame`] is the unit that is written and synced, [`command`] what its body says, [`sequencer`]
//! decides where each frame goes and what its header says, [`files`] makes and recycles the files, [`recovery`] reads
//! them back at start, [`quarantine`] is the operator's way out of damage. [`disk`] is the file system below.
//!
//! The sequencer is pure: it neither reads nor writes. The journal knows nothing of what commands mean; `state` does.

pub mod command;
pub mod disk;
pub mod files;
pub mod frame;
pub(crate) mod layout;
pub mod quarantine;
pub mod recovery;
mod scan;
#[cfg(test)]
mod scribe;
pub mod sequencer;

use crate::id::{FrameIndex, Term};
use std::fmt;

/// Identifies one data directory (later: one cluster) for life, so that files of two of them are never mixed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A point in the log, named by the frame before it: what a checkpoint covers, and what the next frame must continue.
/// All zero is the point before the first frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Index of the last frame before this point.
    pub index: FrameIndex,
    /// Term of that frame.
    pub term: Term,
    /// Chain CRC of that frame, which stands for the whole log up to it.
    pub chain: u32,
    /// Time of that frame, Unix milliseconds. Frame times never decrease.
    pub time_ms: u64,
}

/// Eight random bytes for one life of a journal file.
pub fn random_nonce() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 ^ uuid::Uuid::new_v4().as_u64_pair().0
}

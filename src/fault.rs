//! Deliberate bugs, which the simulation has to find: a simulation that finds none of them proves nothing.
//!
//! They exist only in tests and with the feature `simulation`; otherwise [`planted`] is the constant `false` and the compiler
//! removes the branches that ask.

/// One bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The coordinator counts a confirm of an epoch that has passed.
    OldEpochConfirms,
    /// The coordinator gives a partition to its next reader before the old one has stopped.
    HandOverAtOnce,
    /// The session confirms what it fetched instead of what the consumer confirmed.
    ConfirmsFetched,
    /// The session drops what it fetched and did not send, and does not read it again.
    RereadSkips,
    /// A journal file is taken for ready before its name is durable.
    UnsyncedName,
    /// A recycled journal file keeps the nonce of its life before.
    OldNonce,
    /// Recovery trusts what it reads without syncing it first.
    UnsyncedStart,
    /// A frame says that the one before it was synced while that is still on its way to the disk.
    HastySyncedUpto,
    /// Recovery takes damage to synced frames for a torn tail.
    CorruptionCut,
    /// A frame's body is not checked against its checksum.
    UncheckedBody,
    /// Journal files become spare although a checkpoint needs them.
    EarlyRecycling,
    /// A checkpoint leaves out which events were seen within their deduplication windows.
    ForgottenRepeats,
    /// A confirm moves its cursor back as well as forward.
    CursorBack,
    /// A segment counts as durable when it is sealed, but was not synced.
    UnsyncedSeal,
    /// A partition says that it is durable up to its end without syncing anything.
    UnsyncedFlush,
    /// A reader who comes to the last event of a type in a sealed segment passes it over.
    MissedEvents,
}

#[cfg(any(test, feature = "simulation"))]
mod planting {
    use super::Fault;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Plants `fault` in all that this thread does from now on, instead of what was planted before.
    pub fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    /// Whether this thread is to have that bug.
    pub fn planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }
}

#[cfg(any(test, feature = "simulation"))]
pub use planting::{plant, planted};

/// No bug is planted in a build that people run.
#[cfg(not(any(test, feature = "simulation")))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

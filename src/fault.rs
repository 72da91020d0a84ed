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

//! Delivery: which session of a group reads which partition, and what a session has sent and had confirmed.
//!
//! Two state machines without clocks, sockets or threads. Both take inputs as method calls and give outputs by `poll`:
//!
//! - [`coordinator::Coordinator`], one for the whole broker, on core 0: members of groups, sticky assignment, epochs, and the
//!   accepted confirms that go into the journal;
//! - [`session::Session`], one for each consumer, on the core that holds its socket: fetches, the window of unconfirmed
//!   events, session offsets, confirms, and the drain of a partition that is taken away.
//!
//! ```text
//!            join, leave, confirm, revoked                       fetched
//!  Session ──────────────────────────────▶ Coordinator    Session ◀──────── owner of the partition
//!          ◀──────────────────────────────                        ────────▶
//!                  assign, revoke                                  fetch, cancel
//! ```
//!
//! What one session sends to the coordinator must arrive in the order in which it was sent: a confirm that overtakes the
//! `revoked` after it would be refused, and its events delivered again.
//!
//! A third, [`readings::Readings`], remembers for a long-polling instance which events of its session went out in which answer.
//!
//! None of them knows the journal, the partitions' files, or the wire: events are whatever implements [`session::Event`].

pub mod coordinator;
mod group;
mod lane;
pub mod readings;
pub mod session;
#[cfg(test)]
mod session_properties;
mod window;

use crate::id::{Epoch, Offset, Partition};

/// What a consumer wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Ordinary events of the client's types, shared with the other members of the group.
    pub events: bool,
    /// Test events of the client, all of them.
    pub test: bool,
    /// Dead events of the client, all of them.
    pub dead: bool,
}

/// Everything of `partition` before `offset` is consumed, says the session that read it at `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    pub partition: Partition,
    pub epoch: Epoch,
    /// The first offset that is not confirmed.
    pub offset: Offset,
}

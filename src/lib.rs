//! nistru: an event broker for registers.

pub mod delivery;
pub mod event;
pub mod fault;
pub mod id;
pub mod journal;
pub mod partition;
pub mod registry;
pub mod state;

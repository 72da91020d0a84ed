//! nistru: an event broker for registers.

pub mod event;
pub mod id;
pub mod journal;
pub mod registry;
pub mod state;

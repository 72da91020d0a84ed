//! nistru: an event broker for registers.

pub mod cli;
pub mod client;
pub mod event;
pub mod id;
pub mod journal;
pub mod registry;

//! nistru: an event broker for registers.

pub mod auth;
pub mod config;
pub mod event;
pub mod id;
pub mod journal;
pub mod registry;

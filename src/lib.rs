//! nistru: an event broker for registers.

pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod dev;
pub mod event;
pub mod id;
pub mod journal;
pub mod registry;

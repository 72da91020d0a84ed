//! nistru: an event broker for registers.

pub mod auth;
pub mod config;
pub mod delivery;
pub mod client;
pub mod event;
pub mod http;
pub mod fault;
pub mod id;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod net;
pub mod partition;
pub mod registry;
pub mod rt;
pub mod ws;

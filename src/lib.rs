//! nistru: an event broker for registers.

pub mod api;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod fault;
pub mod http;
pub mod id;
pub mod ingress;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod net;
pub mod partition;
pub mod registry;
pub mod rt;
pub mod schema;
pub mod server;
pub mod state;
pub mod ws;

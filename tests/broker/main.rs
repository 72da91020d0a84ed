//! Whole-broker tests: one process a test, real sockets, real TLS, real files.

mod authority;
mod certificates;
mod commands;
mod consuming;
mod dead_events;
mod documentation;
mod dry_run;
mod errors;
mod fairness;
mod harness;
mod hostile;
mod http2;
mod http2_client;
mod http2_hostile;
mod limits;
mod mpass;
mod my_settings;
mod operating;
mod producing;
mod reloading;
mod restarting;
mod service;
mod storing;
mod test_events;
mod tracing;
mod transport;

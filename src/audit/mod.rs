//! Personal data: who received whose, when and on what legal basis.
//!
//! A rule ([`rule`], with JSON paths of [`path`]) says which events of a consumer hold personal data. Before such an event leaves the
//! broker, what its record says is found in it ([`extract`]) and written to a file ([`ledger`]) whose lines are chained by hashes
//! ([`chain`]), by one thread for all cores ([`writer`]). Another thread sends the records to MLog ([`outbox`]). [`verify`] checks
//! the files as an auditor does.
//!
//! The order in which a record comes to be: `found ≤ queued ≤ written ≤ synced ≤ event sent`, and `synced ≤ sent to MLog`.

mod chain;
mod directory;
pub mod extract;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod line;
pub mod marks;
mod outbox;
mod parcel;
pub mod path;
mod position;
pub mod progress;
mod recovery;
mod round;
pub mod rule;
mod scan;
pub mod verify;
pub mod writer;

use crate::config::Config;
use crate::journal::disk::RealDisk;
use ledger::Terms;
use progress::Progress;
use std::sync::Arc;
use writer::Recorder;

/// Starts the writer, and the outbox if there is an MLog. The error says why they cannot start.
pub fn start(config: &Config) -> Result<Recorder, String> {
    let audit = &config.audit;
    let progress = Arc::<Progress>::default();
    if let Some(mlog) = &audit.mlog {
        outbox::start(audit.dir.clone(), mlog.clone(), progress.clone())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    }
    let terms = Terms {
        dir: audit.dir.clone(),
        event_type: audit.event_type.clone(),
        file_bytes_max: audit.file_bytes_max,
        retention: audit.retention,
        events_live_for: config.storage.retention,
    };
    Recorder::start(RealDisk, terms, audit.on_failure, progress)
        .map_err(|error| format!("the thread that records personal data does not start: {error}"))
}

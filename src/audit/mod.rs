//! Personal data: who received whose, when and on what legal basis.

mod chain;
mod directory;
pub mod extract;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod line;
mod marks;
mod outbox;
mod parcel;
pub mod path;
mod position;
mod progress;
mod recovery;
mod round;
pub mod rule;
mod scan;
pub mod verify;
mod writer;

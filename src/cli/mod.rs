//! The commands of the `nistru` binary, one module each.

pub mod check;
pub mod consume;
pub mod outcome;
pub mod produce;
mod progress;
mod stop;
pub mod target;

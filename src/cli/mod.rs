//! The commands of the `nistru` binary, one module each.

pub mod check;

//! Personal data: who received whose, when and on what legal basis.

pub mod path;
pub mod rule;

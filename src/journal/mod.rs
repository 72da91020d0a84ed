//! The journal: one ordered, group-committed log of frames.

pub mod disk;

//! CloudEvents: reading the three produced forms, checking attributes, and the record that is stored.

pub mod record;

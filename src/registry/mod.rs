//! Clients and event types: the model, and where it comes from.

pub mod model;

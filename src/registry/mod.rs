//! Clients and event types: the model, and where it comes from.

mod certificate;
pub mod model;
pub mod name;

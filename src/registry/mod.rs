//! Clients and event types: the model, and where it comes from.

mod certificate;
mod client_file;
pub mod files;
pub mod model;
mod name;
mod type_file;

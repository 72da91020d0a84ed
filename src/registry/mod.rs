//! Clients and event types: the model, and where it comes from.

mod certificate;
mod client_file;
pub mod files;
pub mod model;
pub mod mpass;
mod name;
mod personal_data;
mod type_file;

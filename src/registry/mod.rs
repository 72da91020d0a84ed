//! Clients and event types: the model, and where it comes from.

mod certificate;
mod client_file;
pub mod files;
pub mod model;
pub mod mpass;
mod name;
mod personal_data;
mod type_file;

use crate::config::{Config, Problem};

/// Reads what `[registry]` names: types and schemas, and clients unless they come from elsewhere. Blocks.
pub fn load(config: &Config) -> Result<files::Loaded, Vec<Problem>> {
    match config.registry.mpass() {
        None => files::load(config.registry.dir(), &config.storage, &config.audit.defaults),
        Some(_) => files::load_without_clients(config.registry.dir(), &config.storage),
    }
}

//! `nistru quarantine`: the operator's explicit way out of a damaged journal.

use crate::broker::store;
use crate::config::Config;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Move damaged parts of the journal aside, so that the broker starts again.
///
/// Only for a broker that refuses to start because its journal is damaged. Events in the damaged parts are lost, although they were
/// acknowledged; the damaged bytes stay in the journal's directory under other names. Events after the damage are kept, and may be
/// delivered again.
#[derive(Args)]
pub struct Quarantine {
    /// The configuration of the broker, which must not run.
    #[arg(long, value_name = "FILE", default_value = "/etc/nistru/nistru.toml")]
    pub config: PathBuf,
}

impl Quarantine {
    pub fn run(&self) -> ExitCode {
        let config = match Config::load(&self.config) {
            Ok(config) => config,
            Err(problems) => {
                problems.iter().for_each(|problem| eprintln!("nistru: {problem}"));
                return ExitCode::FAILURE;
            }
        };
        match store::quarantine(&config.storage, |step| println!("{step}")) {
            Ok(0) => {
                println!("the journal is not damaged; nothing was changed");
                ExitCode::SUCCESS
            }
            Ok(_) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("nistru: {problem}");
                ExitCode::FAILURE
            }
        }
    }
}

//! `nistru serve` and `nistru dev`: run the broker until it is told to stop.

use crate::config::{Config, LogFormat};
use crate::dev;
use crate::log::{self, Format};
use crate::server;
use clap::Args;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the broker with a configuration file.
///
/// Stops on SIGTERM in good order, reads registry and certificates again on SIGHUP. A second SIGTERM ends it at once,
/// which loses nothing that was acknowledged.
#[derive(Args)]
pub struct Serve {
    /// The configuration; `nistru check` tells whether it is sound.
    #[arg(long, value_name = "FILE", default_value = "/etc/nistru/nistru.toml")]
    pub config: PathBuf,
}

/// Run a broker to try things out, with its own certificates, clients and event types.
///
/// Makes what is missing in the directory: a certificate authority and certificates in pki/, clients and event types in
/// registry/, nistru.toml, and data/. Edit them as you like; nothing that exists is overwritten.
#[derive(Args)]
pub struct Dev {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "nistru-dev")]
    pub dir: PathBuf,
    /// Port of the HTTPS listener; 0 takes a free one. [default: that of nistru.toml, 8443 in a new directory]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Number of cores to use. [default: all that the process may use]
    #[arg(long, value_name = "N")]
    pub cores: Option<usize>,
}

impl Serve {
    pub fn run(&self) -> ExitCode {
        match Config::load(&self.config) {
            Ok(config) => broker(config, |_| Ok(())),
            Err(problems) => refuse(problems.iter().map(ToString::to_string)),
        }
    }
}

impl Dev {
    pub fn run(&self) -> ExitCode {
        let config = match dev::config(&self.dir, self.port, self.cores) {
            Ok(config) => config,
            Err(problems) => return refuse(problems.iter().map(ToString::to_string)),
        };
        broker(config, |port| {
            let mut out = io::stdout().lock();
            writeln!(out, "ready https://localhost:{port}")?;
            if out.is_terminal() {
                let program = std::env::args().next().unwrap_or_else(|| "nistru".into());
                writeln!(out, "\n{}", dev::commands(&self.dir, port, &program))?;
            }
            out.flush()
        })
    }
}

/// Runs a broker; `ready` is told the port when it serves.
fn broker(config: Config, ready: impl FnOnce(u16) -> io::Result<()>) -> ExitCode {
    let format = match config.log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    };
    if let Err(problem) = log::start(&config.log.level, format) {
        return refuse([problem].into_iter());
    }
    let running = match server::start(config) {
        Ok(running) => running,
        Err(problems) => return refuse(problems.into_iter()),
    };
    let addresses: Vec<_> = running.addresses.iter().map(ToString::to_string).collect();
    let admin: Vec<_> = running.admin.iter().map(ToString::to_string).collect();
    tracing::info!(listen = addresses.join(" "), admin = admin.join(" "), "serving");
    let port = running.addresses.first().map_or(0, |address| address.port());
    if let Err(error) = ready(port) {
        // Whoever started the broker does not listen; it serves all the same.
        tracing::warn!(%error, "the ready line could not be written");
    }
    running.wait();
    ExitCode::SUCCESS
}

/// Tells every reason why the broker does not start.
fn refuse(problems: impl Iterator<Item = String>) -> ExitCode {
    for problem in problems {
        eprintln!("nistru: {problem}");
    }
    ExitCode::FAILURE
}

//! The commands of the `nistru` binary, one module each.

pub mod audit;
pub mod check;
pub mod consume;
pub mod outcome;
pub mod produce;
mod progress;
pub mod quarantine;
pub mod serve;
mod stop;
pub mod target;

use crate::server;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An event broker for registers: CloudEvents in over HTTPS, durable, out over WebSocket.
///
/// First event in a minute: run `nistru dev` in one terminal and paste the commands it prints into another.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Nistru {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(serve::Dev),
    Serve(serve::Serve),
    Check(check::Check),
    Audit(audit::Audit),
    Quarantine(quarantine::Quarantine),
    Produce(produce::Produce),
    Consume(consume::Consume),
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    // Before much memory is touched.
    server::forbid_huge_pages();
    match Nistru::parse().command {
        Command::Dev(dev) => dev.run(),
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Audit(audit) => audit.run(),
        Command::Quarantine(quarantine) => quarantine.run(),
        Command::Produce(produce) => produce.run().into(),
        Command::Consume(consume) => consume.run().into(),
    }
}

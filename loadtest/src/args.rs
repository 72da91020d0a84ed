//! What to do, as given on the command line.

use crate::comparing::Compare;
use crate::fleet::{Agent, Members};
use crate::report::Targets;
use crate::scenario::Overrides;
use clap::{Args, Parser, Subcommand};
use nistru::cli::target::Target;
use std::path::PathBuf;

/// Puts load on a nistru broker and checks what it promises: every acknowledged event arrives in every group that
/// reads its type, in the order of its partition key, and comes again only when a member of the group came or went.
///
/// Latencies count from the moment at which a request was to be sent, so a broker that falls behind the rate shows it
/// (no coordinated omission). Events that still wait in the end, sent or not, count as late as they are then, and the report
/// says how many. Without --rate every producer sends as soon as its last request was answered.
#[derive(Parser, Debug, Clone)]
#[command(version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Program {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Without a command, the load is what the flags say.
    #[command(flatten)]
    pub options: Options,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    Run(Box<Run>),
    Compare(Compare),
    Agent(Agent),
}

/// Run a scenario file. Flags stand in place of what it says.
#[derive(Args, Debug, Clone)]
pub struct Run {
    /// The scenario, a TOML file; `scenarios/example.toml` explains every key
    pub scenario: PathBuf,
    #[command(flatten)]
    pub options: Options,
}

/// Where and how to run.
#[derive(Args, Debug, Clone)]
pub struct Options {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub start: Start,
    #[command(flatten)]
    pub members: Members,
    #[command(flatten)]
    pub load: Overrides,
    /// A target in place of the scenario's, such as end_to_end_p99_ms=5; may be given several times
    #[arg(long = "target", value_name = "FIGURE=BOUND", value_parser = target)]
    pub targets: Vec<(String, f64)>,
    /// Write the result as JSON to FILE, - for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the result as a page with plots to FILE; it needs no other file and no network
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done, and every promise kept
  1  the test could not run
  2  an acknowledged event was lost, came out of order or twice, or a refused one was delivered
  3  no promise broken, but some requests were refused or some connections broke
  4  no promise broken, but a target of the scenario was missed
  5  of compare: a figure got worse by more than --tolerance";

/// Starting a broker for the test.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Start a broker")]
pub struct Start {
    /// Start `PATH dev` on a temporary directory and a free port, and stop it at the end
    #[arg(long, value_name = "PATH")]
    pub spawn: Option<PathBuf>,
    /// The process of a broker that runs on this machine already, to tell what it uses
    #[arg(long, value_name = "PID", conflicts_with = "spawn")]
    pub pid: Option<u32>,
    /// Cores for the broker that is started [default: all]
    #[arg(long, value_name = "N", requires = "spawn")]
    pub cores: Option<usize>,
    /// Where to make the temporary directory; its file system is part of what is measured
    #[arg(long, value_name = "DIR", requires = "spawn", default_value = ".")]
    pub work_dir: PathBuf,
}

fn target(text: &str) -> Result<(String, f64), String> {
    let (name, bound) = text.split_once('=').ok_or("expected FIGURE=BOUND")?;
    let bound = bound.parse().map_err(|_| format!("{name}: expected a number"))?;
    Targets::default().state(name, bound)?;
    Ok((name.to_owned(), bound))
}

//! What to do, as given on the command line.

use crate::comparing::Compare;
use crate::report::Targets;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use nistru::cli::target::Target;
use std::path::PathBuf;
use std::time::Duration;

/// Puts load on a nistru broker and checks what it promises: every acknowledged event arrives at least once in every
/// group, in the order of its partition key.
///
/// Latencies count from the moment at which a request was to be sent, so a broker that falls behind the rate shows it
/// (no coordinated omission). Without --rate every producer sends as soon as its last request was answered.
#[derive(Parser, Debug, Clone)]
#[command(version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Program {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    Compare(Compare),
}

/// A run.
#[derive(Parser, Debug, Clone)]
pub struct Options {
    #[command(flatten)]
    pub target: Target,
    #[command(flatten)]
    pub start: Start,
    #[command(flatten)]
    pub load: Load,
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
  2  an acknowledged event was lost, came out of order, or a refused one was delivered
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
    /// Cores for the broker that is started [default: all]
    #[arg(long, value_name = "N", requires = "spawn")]
    pub cores: Option<usize>,
    /// Where to make the temporary directory; its file system is part of what is measured
    #[arg(long, value_name = "DIR", requires = "spawn", default_value = ".")]
    pub work_dir: PathBuf,
}

/// The load itself.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Load")]
pub struct Load {
    /// Producer connections, each with one request in flight
    #[arg(long, short, value_name = "N", default_value_t = 32, value_parser = RangedU64ValueParser::<usize>::new().range(1..=0xffff))]
    pub producers: usize,
    /// Consumers in each group
    #[arg(long, short, value_name = "N", default_value_t = 4)]
    pub consumers: usize,
    /// Consumer groups; every group gets every event
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub groups: usize,
    /// Name of the first group; the others get a number after it
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub group: String,
    /// Events in a request
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub batch: usize,
    /// Events a second, over all producers [default: as many as the broker takes]
    #[arg(long, short, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Size of an event in bytes, as produced
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub bytes: usize,
    /// Partition keys of each producer
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=0xff))]
    pub keys: usize,
    /// Seconds of load before the measurement
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub warm_up: Duration,
    /// Seconds of measurement
    #[arg(long, short, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub duration: Duration,
    /// Longest wait for events that are still under way, in seconds without any progress
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub drain: Duration,
    /// Threads that drive the producers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub threads: usize,
    /// Confirm at least after every N events of a consumer
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub confirm_every: usize,
    /// Event type
    #[arg(long = "type", value_name = "TYPE", default_value = "Demo.Load.Record.Created")]
    pub event_type: String,
    /// Source
    #[arg(long, value_name = "URI", default_value = "urn:demo")]
    pub source: String,
    /// A JSON file that is the `data` of every event, in place of a generated record; --bytes has no effect then
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}

fn target(text: &str) -> Result<(String, f64), String> {
    let (name, bound) = text.split_once('=').ok_or("expected FIGURE=BOUND")?;
    let bound = bound.parse().map_err(|_| format!("{name}: expected a number"))?;
    Targets::default().state(name, bound)?;
    Ok((name.to_owned(), bound))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number of events a second above 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 =
        text.parse().map_err(|_| "expected a number of seconds, such as 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

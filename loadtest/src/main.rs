//! A load generator and checker for nistru. `--help` says how to use it.

mod args;
mod broker;
mod consuming;
mod ledger;
mod measure;
mod producer;
mod producing;
mod report;
mod request;
mod run;
mod stamp;
mod usage;

use args::Options;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use report::Report;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let options = Options::parse();
    let progress = progress();
    let result = run::run(&options, &progress);
    progress.finish_and_clear();
    match result.and_then(|report| publish(&report, options.json.as_deref()).map(|()| report.exit_code())) {
        Ok(code) => code.into(),
        Err(why) => {
            eprintln!("nistru-loadtest: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A line on stderr, drawn when it is a terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn publish(report: &Report, json: Option<&Path>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    match json {
        Some(path) if path == "-" => println!("{text}"),
        Some(path) => {
            print!("{report}");
            fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        }
        None => print!("{report}"),
    }
    Ok(())
}

//! A load generator and checker for nistru. `--help` says how to use it.

mod args;
mod broker;
mod comparing;
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

use args::{Command, Options, Program};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Report, Targets};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let program = Program::parse();
    let result = match &program.command {
        None => run(&program.options),
        Some(Command::Compare(compare)) => compare.run(),
    };
    result.unwrap_or_else(|why| {
        eprintln!("nistru-loadtest: {why}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> Result<ExitCode, String> {
    let progress = progress();
    let result = run::run(options, &progress);
    progress.finish_and_clear();
    let mut report = result?;
    let mut targets = Targets::default();
    options.targets.iter().try_for_each(|(name, bound)| targets.state(name, *bound))?;
    report.targets = targets.judge(&report);
    publish(&report, options)?;
    Ok(report.exit_code().into())
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

fn publish(report: &Report, options: &Options) -> Result<(), String> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &options.html {
        write(path, &report::page(report))?;
    }
    match &options.json {
        Some(path) if path == "-" => println!("{}", report.to_json()),
        Some(path) => {
            print!("{report}");
            write(path, &(report.to_json() + "\n"))?;
        }
        None => print!("{report}"),
    }
    Ok(())
}

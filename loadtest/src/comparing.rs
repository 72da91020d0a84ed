//! `nistru-loadtest compare`.

use crate::report::{Comparison, Report, comparison_page};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code when something got worse by more than `--tolerance`.
const WORSE: u8 = 5;

/// Compare two reports written with --json, A the earlier one.
///
/// Differences between runs on the same machine of up to 20 % are noise. Exits with 5 when a figure of B is worse than
/// that of A by more than --tolerance, with 1 when a report cannot be read.
#[derive(Args, Debug, Clone)]
pub struct Compare {
    /// A report, JSON
    pub before: PathBuf,
    /// The report to compare it with, JSON
    pub after: PathBuf,
    /// Changes up to so many per cent are noise
    #[arg(long, value_name = "PERCENT", default_value_t = 20.0, value_parser = percent)]
    pub noise: f64,
    /// Fail when a figure got worse by more than so many per cent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub tolerance: Option<f64>,
    /// Write the comparison as a page with plots to FILE
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the comparison as JSON to FILE, - for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Compare {
    pub fn run(&self) -> Result<ExitCode, String> {
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let comparison = Comparison::of(&before, &after, self.noise / 100.0);
        if let Some(path) = &self.html {
            write(path, &comparison_page(&comparison))?;
        }
        match &self.json {
            Some(path) if path == "-" => println!("{:#}", comparison.json()),
            Some(path) => {
                print!("{comparison}");
                write(path, &format!("{:#}\n", comparison.json()))?;
            }
            None => print!("{comparison}"),
        }
        let is_worse = self.tolerance.is_some_and(|percent| comparison.worst() > 1.0 + percent / 100.0);
        Ok(if is_worse { WORSE.into() } else { ExitCode::SUCCESS })
    }
}

/// Reads a report.
fn read(path: &Path) -> Result<Report, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Report::of_json(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent >= 0.0 && percent.is_finite() => Ok(percent),
        _ => Err("expected a number of per cent, such as 20".to_owned()),
    }
}

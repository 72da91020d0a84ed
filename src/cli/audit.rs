//! `nistru audit`: the records of transfers of personal data, as an auditor sees them.

use crate::audit::verify::{Report, verify};
use crate::config::Config;
use crate::journal::disk::RealDisk;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Work with the records of transfers of personal data.
#[derive(Args)]
pub struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Verify(Verify),
}

/// Check that no record was removed, changed or moved.
///
/// Reads all files and tells every place at which they are not as they were written; the exit code is 1 when there is one. Changes
/// nothing and may run beside the broker. Prints the number and the chain value of the last record: kept elsewhere, they show later
/// that none is missing at the end, which the files alone cannot. MLog has the chain value of each record too.
#[derive(Args)]
struct Verify {
    /// The configuration of the broker.
    #[arg(long, value_name = "FILE", default_value = "/etc/nistru/nistru.toml")]
    config: PathBuf,
    /// The directory of the records, instead of that of the configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    dir: Option<PathBuf>,
}

impl Audit {
    pub fn run(&self) -> ExitCode {
        let Command::Verify(verify) = &self.command;
        verify.run().unwrap_or_else(|problem| {
            eprintln!("nistru: {problem}");
            ExitCode::FAILURE
        })
    }
}

impl Verify {
    fn run(&self) -> Result<ExitCode, String> {
        let dir = self.dir()?;
        let report = verify(&RealDisk, &dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        tell(&report, &dir, io::stdout().lock()).map_err(|error| error.to_string())
    }

    fn dir(&self) -> Result<PathBuf, String> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let config = Config::load(&self.config).map_err(|problems| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nnistru: ")
        })?;
        Ok(config.audit.dir)
    }
}

fn tell(report: &Report, dir: &Path, mut out: impl Write) -> io::Result<ExitCode> {
    for found in &report.breaks {
        writeln!(out, "broken: {found}")?;
    }
    for found in &report.notes {
        writeln!(out, "note: {found}")?;
    }
    writeln!(out, "{}: {} records in {} files", dir.display(), report.records, report.files)?;
    match &report.end {
        Some((seq, chain)) => writeln!(out, "last record {seq}, chain {chain}")?,
        None => writeln!(out, "there are no records")?,
    }
    match report.breaks.len() {
        0 => writeln!(out, "the chain is whole")?,
        count => writeln!(out, "the chain is broken in {count} places")?,
    }
    Ok(if report.breaks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_exit_code_and_the_last_line_say_whether_the_chain_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let told = |expected: ExitCode| {
            let mut out = Vec::new();
            let report = verify(&RealDisk, dir.path()).unwrap();
            assert_eq!(tell(&report, dir.path(), &mut out).unwrap(), expected);
            String::from_utf8(out).unwrap()
        };
        assert!(told(ExitCode::SUCCESS).contains("there are no records\nthe chain is whole"));
        fs::write(dir.path().join("00000001.jsonl"), "{}\n").unwrap();
        let text = told(ExitCode::FAILURE);
        assert!(text.starts_with("broken: 00000001.jsonl:1: not a line of this format"), "{text}");
        assert!(text.ends_with("the chain is broken in 1 places\n"), "{text}");
    }
}

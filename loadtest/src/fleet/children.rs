//! Agents that are processes of our own, on this machine.

use super::agent::identity_files;
use nistru::cli::target::Target;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

/// An agent; dropping it ends the process.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts an agent that serves one run as the client that `target` names.
    pub fn start(target: &Target) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("cannot start a process for the load: {error}");
        let (certificate, key) = identity_files(target);
        let mut command = Command::new(env::current_exe().map_err(|error| wrong(&error))?);
        command.args(["agent", "--once", "--listen", "127.0.0.1:0", "--as", &target.name, "--dir"]);
        command.arg(&target.dir).arg("--cert").arg(certificate).arg("--key").arg(key);
        if let Some(ca) = &target.ca {
            command.arg("--ca").arg(ca);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| wrong(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| wrong(&"it has no standard output"))?;
        let mut process = Self { child, address: String::new(), _stdout: BufReader::new(stdout) };
        // It says where it listens, or ends and closes its output.
        let mut line = String::new();
        process._stdout.read_line(&mut line).map_err(|error| wrong(&error))?;
        let address = line.strip_prefix("listening ").ok_or_else(|| wrong(&"it ended at once"))?;
        process.address = address.trim().to_owned();
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After a whole run it has ended already; both calls then do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

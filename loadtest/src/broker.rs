//! The broker under test: one that runs, or one started here and stopped by its process id.

use crate::args::Options;
use crate::registry;
use crate::report;
use crate::run::Access;
use crate::scenario::Scenario;
use crate::server::Watch;
use nistru::cli::target::Target;
use nistru::client::{Connection, Endpoint};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for the broker's ready line, before which it compiles all schemas, and for its end.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Where to connect, and the process if it is ours or was named.
pub struct Broker {
    pub access: Access,
    cores: Option<usize>,
    pid: Option<u32>,
    started: Option<Started>,
}

/// Dropping it stops the process, then removes the directory.
struct Started {
    child: Child,
    /// The broker would be killed by its next line if nobody held the other end.
    _stdout: BufReader<ChildStdout>,
    dir: TempDir,
}

impl Broker {
    /// Starts a broker for the scenario if the options ask for one.
    pub fn open(scenario: &Scenario, options: &Options) -> Result<Self, String> {
        match &options.start.spawn {
            None => {
                let endpoint = options.target.endpoint().map_err(|error| error.to_string())?;
                let access = Access { endpoint, dir: options.target.dir.clone() };
                Ok(Self { access, cores: None, pid: options.start.pid, started: None })
            }
            Some(program) => Self::start(program, scenario, options),
        }
    }

    fn start(program: &Path, scenario: &Scenario, options: &Options) -> Result<Self, String> {
        let (work_dir, cores) = (&options.start.work_dir, options.start.cores);
        let dir = tempfile::Builder::new()
            .prefix("nistru-load-")
            .tempdir_in(work_dir)
            .map_err(|error| format!("{}: {error}", work_dir.display()))?;
        registry::prepare(dir.path(), scenario, &options.target.name)?;
        let (child, stdout) = spawn(program, cores, &dir)?;
        let (url, started) = await_ready(child, stdout, dir)?;
        let dir = started.dir.path();
        let endpoint = Endpoint::of_dev(&url, dir, &options.target.name);
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let (access, pid) = (Access { endpoint, dir: dir.to_owned() }, Some(started.child.id()));
        Ok(Self { access, cores, pid, started: Some(started) })
    }

    /// How other processes come to it as the client of `target`.
    pub fn target(&self, target: &Target) -> Target {
        let url = Some(format!("https://{}", self.access.endpoint.authority()));
        match &self.started {
            None => Target { url, ..target.clone() },
            Some(started) => {
                let (dir, name) = (started.dir.path().to_owned(), target.name.clone());
                Target { url, cert: None, key: None, ca: None, dir, name }
            }
        }
    }

    /// What a report says about it.
    pub fn facts(&self) -> report::Broker {
        report::Broker {
            url: format!("https://{}", self.access.endpoint.authority()),
            version: version(&self.access.endpoint),
            started: self.started.is_some(),
            cores: self.cores,
        }
    }

    /// Where its data are, if it was started here.
    pub fn data(&self) -> Option<&Path> {
        self.started.as_ref().map(|started| started.dir.path())
    }

    /// What looks at its process, if that is known.
    pub fn watch(&self) -> Result<Option<Watch>, String> {
        self.pid.map(|pid| Watch::of(pid, self.data().map(Path::to_owned))).transpose()
    }
}

/// The version that the documentation of its interface names, which everybody may read. Not every broker serves it.
fn version(endpoint: &Endpoint) -> Option<String> {
    let answer = Connection::open(endpoint).ok()?.get("/openapi.json", &[]).ok()?;
    let document: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    document["info"]["version"].as_str().filter(|_| answer.is_success()).map(str::to_owned)
}

fn spawn(program: &Path, cores: Option<usize>, dir: &TempDir) -> Result<(Child, ChildStdout), String> {
    let mut command = Command::new(program);
    command.args(["dev", "--port", "0", "--dir"]).arg(dir.path());
    if let Some(cores) = cores {
        command.args(["--cores", &cores.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let stdout = child.stdout.take().ok_or("the broker has no standard output")?;
    Ok((child, stdout))
}

/// Waits for the line `ready URL`.
fn await_ready(child: Child, stdout: ChildStdout, dir: TempDir) -> Result<(String, Started), String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let url = loop {
            line.clear();
            match stdout.read_line(&mut line) {
                Ok(0) | Err(_) => break None,
                Ok(_) => {}
            }
            if let Some(url) = line.strip_prefix("ready ") {
                break Some(url.trim().to_owned());
            }
        };
        let _ = sender.send((url, stdout));
    });
    let mut child = child;
    match receiver.recv_timeout(START_PATIENCE) {
        Ok((Some(url), stdout)) => Ok((url, Started { child, _stdout: stdout, dir })),
        Ok((None, _)) => Err(format!("the broker ended before it was ready ({})", stop(&mut child))),
        Err(_) => Err(format!("the broker was not ready within {START_PATIENCE:?} ({})", stop(&mut child))),
    }
}

/// Asks the process to end, kills it if it does not, and says how it ended.
fn stop(child: &mut Child) -> String {
    // It may have ended by itself, which the wait below tells.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + STOP_PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            Err(error) => return error.to_string(),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    format!("killed: it did not end within {STOP_PATIENCE:?}")
}

impl Drop for Started {
    fn drop(&mut self) {
        let end = stop(&mut self.child);
        if end != "exit status: 0" {
            eprintln!("nistru-loadtest: the broker's end: {end}");
        }
    }
}

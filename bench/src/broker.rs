//! A broker of its own for a measurement: the release build beside the program, with the certificates and clients of `nistru dev`.

use nistru::client::Endpoint;
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running broker. Dropping it kills the process and removes its directory.
pub struct Broker {
    dir: tempfile::TempDir,
    process: Child,
    port: u16,
    /// Executors; as many as there are processors unless told.
    cores: Option<usize>,
}

/// Memory of a process, in MiB: what it would give back if it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All of it, pages of mapped files included.
    pub pss: f64,
    /// Without pages of files.
    pub anonymous: f64,
}

impl Broker {
    /// Starts a broker on a free port and an empty directory.
    pub fn start() -> Self {
        Self::start_with(None, |_| {})
    }

    /// The same with this many executors, after `prepare` has changed what it wants to in the directory.
    pub fn start_with(cores: Option<usize>, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        nistru::dev::scaffold(dir.path(), 0).unwrap_or_else(|problem| panic!("{problem}"));
        prepare(dir.path());
        let (process, port) = spawn(dir.path(), cores);
        Self { dir, process, port, cores }
    }

    /// Starts a broker that has ended again, on the same directory and another port.
    pub fn start_again(&mut self) {
        (self.process, self.port) = spawn(self.dir.path(), self.cores);
    }

    /// Stops the process in good order.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("the broker runs");
        self.process.wait().expect("the broker ends");
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        // It may have ended by itself, which the wait tells.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Where its client `demo` connects.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint_of("demo")
    }

    /// Where another of its clients connects.
    pub fn endpoint_of(&self, client: &str) -> Endpoint {
        Endpoint::of_dev(&format!("https://localhost:{}", self.port), self.dir.path(), client)
            .expect("the files of the client")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it takes now.
    pub fn memory(&self) -> Memory {
        let path = format!("/proc/{}/smaps_rollup", self.process.id());
        let text = fs::read_to_string(path).expect("the broker runs");
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of KiB") / 1024.0
        };
        Memory { pss: of("Pss:"), anonymous: of("Pss_Anon:") }
    }

    /// Processor time of all its threads so far (`schedstat` of proc(5): nanoseconds on a processor).
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the broker runs");
        let run_ns = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(tasks.filter_map(run_ns).sum())
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Bytes of the files in a directory of its data, such as `journal`.
    pub fn bytes_in(&self, name: &str) -> u64 {
        bytes_below(&self.data().join(name))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The directory goes with it, so nothing has to be stored in good order.
        self.kill();
    }
}

fn spawn(dir: &Path, cores: Option<usize>) -> (Child, u16) {
    let program = std::env::current_exe().expect("this program has a path").with_file_name("nistru");
    let cores = cores.map(|cores| ["--cores".to_owned(), cores.to_string()]);
    let mut command = Command::new(&program);
    command
        .args(["dev", "--port", "0", "--dir"])
        .arg(dir)
        .args(cores.iter().flatten())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    // A measurement that is interrupted, or whose output nobody reads any more, drops nothing.
    // SAFETY: between fork and exec this makes one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    let mut process = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}: run cargo build --release first", program.display()));
    let port = ready_port(process.stdout.take().expect("stdout is piped"));
    (process, port)
}

/// Reads what the broker says until it is ready, and goes on reading so that it never waits.
fn ready_port(stdout: impl Read + Send + 'static) -> u16 {
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let port =
        lines.by_ref().find_map(|line| line.strip_prefix("ready https://localhost:")?.trim().parse().ok());
    std::thread::spawn(move || lines.for_each(drop));
    port.expect("the broker starts")
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

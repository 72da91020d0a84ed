//! A broker of its own for a measurement: the release build beside the program, with the certificates and clients of `nistru dev`.

use nistru::client::Endpoint;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running broker. Dropping it kills the process and removes its directory.
pub struct Broker {
    dir: tempfile::TempDir,
    process: Child,
    port: u16,
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
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (process, port) = spawn(dir.path());
        Self { dir, process, port }
    }

    /// Kills the process as a power cut would and starts it again on the same directory, on another port.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        (self.process, self.port) = spawn(self.dir.path());
    }

    fn kill(&mut self) {
        // It may have ended by itself, which the wait tells.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Where its client `demo` connects.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::of_dev(&format!("https://localhost:{}", self.port), self.dir.path(), "demo")
            .expect("the files of demo")
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

    /// Bytes of the files in a directory of its data, such as `journal`.
    pub fn bytes_in(&self, name: &str) -> u64 {
        bytes_below(&self.dir.path().join("data").join(name))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // The directory goes with it, so nothing has to be stored in good order.
        self.kill();
    }
}

fn spawn(dir: &Path) -> (Child, u16) {
    let program = std::env::current_exe().expect("this program has a path").with_file_name("nistru");
    let mut process = Command::new(&program)
        .args(["dev", "--port", "0", "--dir"])
        .arg(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
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

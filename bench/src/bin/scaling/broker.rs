//! A broker in a process of its own, in a directory of `nistru dev`, and what it has used.

use nistru::client::Endpoint;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The release build beside this program. Its directory goes when it is dropped.
pub struct Broker {
    pub dir: tempfile::TempDir,
    pub process: Child,
    pub port: u16,
}

impl Broker {
    /// Starts a broker with this many executors, or as many as there are processors. `prepare` may change what is in the new
    /// directory before.
    pub fn start(cores: Option<usize>, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        nistru::dev::scaffold(dir.path(), 0).unwrap_or_else(|problem| panic!("{problem}"));
        prepare(dir.path());
        let (process, port) = spawn(dir.path(), cores);
        Self { dir, process, port }
    }

    /// Where one of the clients of `nistru dev` finds it.
    pub fn endpoint(&self, client: &str) -> Endpoint {
        Endpoint::of_dev(&format!("https://localhost:{}", self.port), self.dir.path(), client)
            .expect("the files of the client")
    }

    /// Its data directory.
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Memory without what its files take in the page cache, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let rollup =
            fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).expect("the broker runs");
        let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        anonymous.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).expect("a size")
    }
}

/// Starts the broker of a directory; the process and its port.
pub fn spawn(dir: &Path, cores: Option<usize>) -> (Child, u16) {
    let program = std::env::current_exe().expect("this program has a path").with_file_name("nistru");
    let mut command = Command::new(&program);
    command.args(["dev", "--port", "0", "--dir"]).arg(dir);
    if let Some(cores) = cores {
        command.args(["--cores", &cores.to_string()]);
    }
    let mut process =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap_or_else(|error| {
            panic!("{}: {error}: run cargo build --release first", program.display())
        });
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

impl Drop for Broker {
    fn drop(&mut self) {
        // The directory goes with it, so nothing has to be stored in good order.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

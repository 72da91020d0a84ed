//! A whole broker as its own process, over real TLS sockets and real files, and the clients that talk to it.

use nistru::client::{Answer, Connection, Consumer, Endpoint, Error, Subscription};
use nistru::dev;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take that should take a moment. Long, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test.
pub const NISTRU: &str = env!("CARGO_BIN_EXE_nistru");

/// A running broker with the clients, types and certificates of `nistru dev`, on free ports, in its own directory.
pub struct Broker {
    dir: tempfile::TempDir,
    process: Option<Process>,
}

struct Process {
    child: Child,
    port: u16,
    admin_port: u16,
    log: Arc<Mutex<String>>,
}

/// Settings that differ from those of a test broker: `("storage", "retention", "\"1s\"")`.
pub type Setting<'a> = (&'a str, &'a str, &'a str);

impl Broker {
    /// A broker with small files on two cores.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A broker with other settings.
    pub fn with(settings: &[Setting<'_>]) -> Self {
        let mut broker = Self::prepare(settings);
        broker.launch();
        broker
    }

    /// The directory of a broker that does not run yet.
    pub fn prepare(settings: &[Setting<'_>]) -> Self {
        let dir = tempfile::Builder::new().prefix("nistru-test-").tempdir().expect("a temporary directory");
        dev::scaffold(dir.path(), 0).expect("a development directory");
        let broker = Self { dir, process: None };
        broker.configure(settings);
        broker
    }

    /// Writes `nistru.toml` with the settings of a test broker and these.
    pub fn configure(&self, settings: &[Setting<'_>]) {
        let mut sections: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        let usual = [
            ("server", "listen", r#"["127.0.0.1:0"]"#),
            ("server", "cores", "2"),
            ("server", "max_connections_per_address", "2000"),
            ("tls", "certificate", r#""pki/server.pem""#),
            ("tls", "key", r#""pki/server.key""#),
            ("tls", "client_ca", r#"["pki/ca.pem"]"#),
            ("storage", "dir", r#""data""#),
            ("storage", "segment_bytes", r#""1 MiB""#),
            ("storage", "journal_file_bytes", r#""16 MiB""#),
            ("storage", "min_free_bytes", r#""64 MiB""#),
            ("registry", "dir", r#""registry""#),
            ("admin", "listen", r#"["127.0.0.1:0"]"#),
            ("log", "level", r#""info""#),
        ];
        for (section, key, value) in usual.into_iter().chain(settings.iter().copied()) {
            sections.entry(section).or_default().insert(key, value);
        }
        let text: String = sections
            .iter()
            .map(|(section, values)| {
                let lines: String = values.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
                format!("[{section}]\n{lines}\n")
            })
            .collect();
        std::fs::write(self.config_file(), text).expect("the configuration is written");
    }

    /// Starts the process and waits until it serves.
    pub fn launch(&mut self) {
        self.try_launch().unwrap_or_else(|log| panic!("the broker does not start:\n{log}"));
    }

    /// Starts the process; the error is what it said when it ended instead of serving.
    pub fn try_launch(&mut self) -> Result<(), String> {
        let mut child = Command::new(NISTRU)
            .args(["serve", "--config"])
            .arg(self.config_file())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary runs");
        let log = Arc::new(Mutex::new(String::new()));
        let (serving, started) = std::sync::mpsc::channel();
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let written = log.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if let Some(ports) = ports_in(&line) {
                    let _ = serving.send(ports);
                }
                written.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        match started.recv_timeout(PATIENCE) {
            Ok((port, admin_port)) => {
                self.process = Some(Process { child, port, admin_port, log });
                Ok(())
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(log.lock().unwrap().clone())
            }
        }
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the broker runs")
    }

    /// Ends the process as a crash does.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.child.kill().expect("SIGKILL can be sent");
        process.child.wait().expect("the process ends");
    }

    /// Asks the process to stop and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait_for_end()
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the broker runs");
        wait_for("the broker's end", || process.child.try_wait().expect("the process can be waited for"))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    pub fn port(&self) -> u16 {
        self.running().port
    }

    pub fn admin_port(&self) -> u16 {
        self.running().admin_port
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port())
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config_file(&self) -> PathBuf {
        dev::config_file(self.dir.path())
    }

    /// A file of `pki/`.
    pub fn pki(&self, name: &str) -> PathBuf {
        self.dir.path().join("pki").join(name)
    }

    /// A file of `registry/`.
    pub fn registry(&self, name: &str) -> PathBuf {
        self.dir.path().join("registry").join(name)
    }

    /// Everything the process has logged so far.
    pub fn log(&self) -> String {
        self.running().log.lock().unwrap().clone()
    }

    /// Waits until the log says this.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || self.log().contains(text).then_some(()));
    }

    /// Changes a file of the registry and has the broker read it again.
    pub fn reload_with(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.registry(file);
        let text = std::fs::read_to_string(&path).expect("the registry file is there");
        std::fs::write(&path, change(text)).expect("the registry file is written");
        let before = self.reloads();
        self.signal("HUP");
        wait_for("the reload", || (self.reloads() > before).then_some(()));
    }

    fn reloads(&self) -> usize {
        let log = self.log();
        log.matches("the registry was loaded").count() + log.matches("the running registry stays").count()
    }

    /// How the client `name` reaches the broker.
    pub fn endpoint(&self, name: &str) -> Endpoint {
        Endpoint::of_dev(&self.url(), self.dir.path(), name)
            .expect("the client's files are there")
            .patient(PATIENCE)
    }

    /// An HTTP connection of the client `name`.
    pub fn connect(&self, name: &str) -> Connection {
        Connection::open(&self.endpoint(name)).expect("the broker accepts a connection")
    }

    /// A consumer session of the client `name`.
    pub fn consume(&self, name: &str, group: &str) -> Consumer {
        self.try_consume(name, group).expect("the broker accepts a consumer")
    }

    pub fn try_consume(&self, name: &str, group: &str) -> Result<Consumer, Error> {
        Consumer::open(&self.endpoint(name), &Subscription::group(group))
    }

    /// What the admin listener answers.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.admin_port())).expect("the admin listener accepts");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    /// Whether the first bytes of a segment are mapped from its file, where memory was before.
    pub fn reads_a_segment_from_its_file(&self) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("the process runs");
        maps.lines().any(|line| line.ends_with(".seg") && line.split_whitespace().nth(2) == Some("00000000"))
    }

    /// The sum over all cores and labels of a metric, by its name without the prefix.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let of_name = |line: &&str| {
            line.strip_prefix("nistru_")
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
        text.lines().filter(of_name).filter_map(value).sum()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            if std::thread::panicking() {
                eprintln!("--- log of the broker ---\n{}", process.log.lock().unwrap());
            }
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Ports of the line that the broker logs when it serves.
fn ports_in(line: &str) -> Option<(u16, u16)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let port = |name: &str| line[name].as_str()?.split(' ').next()?.rsplit(':').next()?.parse().ok();
    (line["message"] == "serving").then(|| Some((port("listen")?, port("admin").unwrap_or(0))))?
}

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        // Between two looks at a condition that another process fulfils and nobody signals.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A structured event of the type without much of a schema.
pub fn record(id: &str, number: i64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"urn:demo","type":"Demo.Load.Record.Created","data":{{"number":{number},"name":"{id}"}}}}"#
    )
}

/// The same with a partition key.
pub fn keyed(id: &str, key: &str, number: i64) -> String {
    record(id, number).replacen("\"data\"", &format!("\"partitionkey\":\"{key}\",\"data\""), 1)
}

pub fn post_event(connection: &mut Connection, event: &str) -> Answer {
    connection
        .post("/ce/produce/event", "application/cloudevents+json", &[], event.as_bytes())
        .expect("an answer to a single event")
}

pub fn post_batch(connection: &mut Connection, events: &[String]) -> Answer {
    post_batch_or_error(connection, events).expect("an answer to a batch")
}

/// The same for a broker that may die meanwhile.
pub fn post_batch_or_error(connection: &mut Connection, events: &[String]) -> Result<Answer, Error> {
    let body = format!("[{}]", events.join(","));
    connection.post("/ce/produce/events", "application/cloudevents-batch+json", &[], body.as_bytes())
}

/// Asserts the status and gives the body.
pub fn expect(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.text()
}

/// The next event as JSON, which must come.
pub fn next_event(consumer: &mut Consumer) -> serde_json::Value {
    let delivery = consumer.next(PATIENCE).expect("the session goes on").expect("an event comes");
    serde_json::from_str(delivery.text()).expect("an event is JSON")
}

/// The ids of the next events.
pub fn next_ids(consumer: &mut Consumer, count: usize) -> Vec<String> {
    (0..count).map(|_| next_event(consumer)["id"].as_str().expect("an id").to_owned()).collect()
}

/// Why a session ended: its close code and reason.
pub fn closed(consumer: &mut Consumer) -> (u16, String) {
    loop {
        match consumer.next(PATIENCE) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the session does not end"),
            Err(Error::Closed { code, reason }) => return (code, reason),
            Err(error) => panic!("the session breaks: {error}"),
        }
    }
}

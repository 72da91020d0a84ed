//! Runs over several processes.

use crate::fake::{Fake, Fault};
use crate::{command, run, run_against};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// An agent; dropping it ends the process.
struct Agent {
    process: Child,
    /// It would fail to write if nobody held the other end.
    _stdout: BufReader<ChildStdout>,
    address: String,
}

impl Agent {
    fn start(fake: &Fake, name: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
            .args(["agent", "--listen", "127.0.0.1:0", "--as", name, "--dir"])
            .arg(fake.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening ").unwrap().trim().to_owned();
        Self { process, _stdout: stdout, address }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_processes_see_every_event_that_one_of_them_sent() {
    let (code, result) = run(Fault::Nothing, &["--processes", "2", "--groups", "3"]);
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["client"]["processes"], 2);
    let groups = result["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    for group in groups {
        assert_eq!((&group["received"], &group["lost"]), (&result["sent"], &0.into()));
    }
    assert!(result["consumed"]["p99_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn two_processes_find_a_lost_event() {
    let (code, result) = run(Fault::Lose, &["--processes", "2"]);
    assert_eq!(code, 2, "{result}");
    assert!(result["groups"][0]["lost"].as_u64().unwrap() > 0);
}

#[test]
fn two_processes_find_a_refused_event_that_was_delivered() {
    let (code, result) = run(Fault::RefuseAndStore, &["--processes", "2"]);
    assert_eq!(code, 2, "{result}");
    assert!(result["groups"][0]["unexpected"].as_u64().unwrap() > 0);
}

#[test]
fn agents_share_a_rate_between_them() {
    let fake = Fake::start(Fault::Nothing);
    let agents = [Agent::start(&fake, "demo"), Agent::start(&fake, "demo")];
    let addresses = format!("{},{}", agents[0].address, agents[1].address);
    let (code, result) = run_against(&fake, &["--agents", &addresses, "--rate", "1000"]);
    assert_eq!(code, 0, "{result}");
    // A twentieth of a second of warming up and half a second of measurement.
    assert_eq!(result["sent"].as_u64().unwrap() + result["unsent"].as_u64().unwrap(), 550);
    assert_eq!(result["groups"][0]["received"], result["sent"]);
}

#[test]
fn an_agent_that_dies_voids_the_run() {
    let fake = Fake::start(Fault::Nothing);
    let mut agents = [Agent::start(&fake, "demo"), Agent::start(&fake, "demo")];
    let addresses = format!("{},{}", agents[0].address, agents[1].address);
    let mut coordinator = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
        .args(["--url", &fake.url, "--dir", fake.dir.path().to_str().unwrap()])
        .args(["--consumers", "1", "--duration", "60", "--agents", &addresses])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fake.await_events(100);
    agents[1].kill();
    let mut errors = String::new();
    coordinator.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(coordinator.wait().unwrap().code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("agent {} is gone", agents[1].address)), "{errors}");
    assert!(!errors.contains("docs.rs"), "what TLS has to say about it helps nobody: {errors}");
    // The other one is free for the next run.
    let (code, result) = run_against(&fake, &["--agents", &agents[0].address]);
    assert_eq!(code, 0, "{result}");
}

#[test]
fn a_consumer_that_is_lost_ends_the_load_of_all_processes() {
    let fake = Fake::start(Fault::EndSession);
    // The consumer is in one process; the producers are in both.
    let output = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
        .args(["--url", &fake.url, "--dir", fake.dir.path().to_str().unwrap()])
        .args(["--consumers", "1", "--processes", "2", "--producers", "4", "--rate", "1000"])
        .args(["--warm-up", "0", "--duration", "60", "--drain", "0.2", "--json", "-"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let due = report["sent"].as_u64().unwrap() + report["unsent"].as_u64().unwrap();
    // Half of the load alone would have had 30,000.
    assert!(due < 30_000, "{report}");
}

#[test]
fn an_agent_obeys_nobody_without_its_key() {
    let fake = Fake::start(Fault::Nothing);
    let agent = Agent::start(&fake, "server");
    let output = command(&fake).args(["--agents", &agent.address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains(&agent.address), "{errors}");
}

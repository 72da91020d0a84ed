//! The commands of the binary, as a person or a script uses them.

use crate::harness::{Broker, NISTRU, PATIENCE, record};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Runs a client command as `demo` with this input.
fn client(broker: &Broker, command: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(NISTRU)
        .arg(command)
        .args(["--url", &broker.url(), "--as", "demo", "--dir"])
        .arg(broker.dir())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn dev_makes_everything_says_that_it_is_ready_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut child = Command::new(NISTRU)
            .args(["dev", "--port", "0", "--cores", "1", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let url = ready.trim().strip_prefix("ready ").expect("the ready line").to_owned();
        assert!(url.starts_with("https://localhost:"), "{ready}");
        let answer = Command::new("curl")
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-H",
                "Content-Type: application/cloudevents+json",
            ])
            .args(["--cacert", &pki(dir.path(), "ca.pem"), "--cert", &pki(dir.path(), "demo.pem")])
            .args([
                "--key",
                &pki(dir.path(), "demo.key"),
                "-d",
                &record("1", 1),
                &format!("{url}/ce/produce/event"),
            ])
            .output()
            .unwrap();
        assert_eq!(text(&answer.stdout), "202");
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(child.wait().unwrap().success());
    }
    for name in ["server", "asp", "ms", "police", "cnam", "demo"] {
        assert!(
            dir.path().join(format!("pki/{name}.pem")).exists()
                && dir.path().join(format!("pki/{name}.key")).exists()
        );
    }
}

fn pki(dir: &Path, name: &str) -> String {
    dir.join("pki").join(name).display().to_string()
}

#[test]
fn json_lines_go_in_and_come_out() {
    let broker = Broker::start();
    let lines: String = (0..25).map(|n| record(&n.to_string(), n) + "\n").collect();
    let produced = client(&broker, "produce", &["--batch", "10"], &lines);
    assert!(produced.status.success(), "{}", text(&produced.stderr));
    let consumed = client(&broker, "consume", &["--count", "25", "--group", "g"], "");
    assert!(consumed.status.success(), "{}", text(&consumed.stderr));
    let mut ids: Vec<i64> = text(&consumed.stdout)
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["number"].as_i64().unwrap()
        })
        .collect();
    ids.sort();
    assert_eq!(ids, (0..25).collect::<Vec<_>>());
}

#[test]
fn scripts_can_tell_from_the_exit_code_what_went_wrong() {
    let broker = Broker::start();
    let refused = client(&broker, "produce", &[], &record("1", 1).replace("urn:demo", "urn:other"));
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("source"), "{}", text(&refused.stderr));
    let garbage = client(&broker, "produce", &[], "not json\n");
    assert_ne!(garbage.status.code(), Some(0));
    let nobody = Command::new(NISTRU)
        .args(["produce", "--url", "https://localhost:1", "--as", "demo", "--dir"])
        .arg(broker.dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(2), "{}", text(&nobody.stderr));
}

#[test]
fn check_reports_every_problem_in_one_run_with_its_place() {
    let broker = Broker::prepare(&[("server", "colour", "\"red\""), ("storage", "retention", "\"soon\"")]);
    let check =
        || Command::new(NISTRU).args(["check", "--config"]).arg(broker.config_file()).output().unwrap();
    let output = check();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("`colour` is unknown") && said.contains("nistru.toml:20:13: expected a duration"),
        "{said}"
    );
    broker.configure(&[]);
    let output = check();
    assert!(output.status.success(), "{}", text(&output.stdout));
}

#[test]
fn every_command_explains_itself() {
    for command in ["dev", "serve", "check", "quarantine", "produce", "consume"] {
        let output = Command::new(NISTRU).args([command, "--help"]).output().unwrap();
        assert!(output.status.success() && output.stdout.len() > 300, "{command}");
    }
}

#[test]
fn a_first_event_comes_within_moments_of_joining() {
    let broker = Broker::start();
    let produced = client(&broker, "produce", &[], &record("1", 1));
    assert!(produced.status.success());
    let started = Instant::now();
    let consumed = client(&broker, "consume", &["--count", "1", "--no-confirm"], "");
    assert!(consumed.status.success() && started.elapsed() < PATIENCE);
}

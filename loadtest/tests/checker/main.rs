//! The load generator against brokers in memory that keep their promises or break one.

mod compare;
mod fake;
mod fleet;
mod lateness;

use fake::{Fake, Fault};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The load generator with `scenario` (none: what flags say), set up for a short run against `fake`.
fn command_of(fake: &Fake, scenario: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"));
    match scenario {
        Some(file) => command.arg("run").arg(file),
        None => command.args(["--consumers", "1"]),
    };
    command.args(["--url", &fake.url, "--dir", fake.dir.path().to_str().unwrap()]);
    command.args(["--warm-up", "0.05", "--duration", "0.5", "--drain", "0.5", "--producers", "4"]);
    command
}

fn command(fake: &Fake) -> Command {
    command_of(fake, None)
}

/// Runs the load generator with flags and returns its exit code and its result.
fn run(fault: Fault, args: &[&str]) -> (i32, Value) {
    run_against(&Fake::start(fault), args)
}

fn run_against(fake: &Fake, args: &[&str]) -> (i32, Value) {
    result(command(fake).args(args))
}

/// Runs it with the scenario `text`.
fn run_scenario(fault: Fault, text: &str) -> (i32, Value) {
    let fake = Fake::start(fault);
    let file = fake.dir.path().join("scenario.toml");
    std::fs::write(&file, text).unwrap();
    result(&mut command_of(&fake, Some(&file)))
}

fn result(command: &mut Command) -> (i32, Value) {
    let output = command.args(["--json", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), serde_json::from_str(&text).expect(&errors))
}

#[test]
fn a_broker_that_keeps_its_promises_passes() {
    let (code, result) = run(Fault::Nothing, &["--groups", "2"]);
    assert_eq!(code, 0, "{result}");
    for group in result["groups"].as_array().unwrap() {
        assert_eq!((&group["received"], &group["lost"]), (&result["sent"], &0.into()));
    }
    assert!(result["acknowledged"]["events_per_s"].as_f64().unwrap() > 0.0);
    // It tells no version.
    assert_eq!(result["broker"].get("version"), None);
    assert!(result["consumed"]["p99_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn batches_are_counted_by_their_events() {
    let (code, result) = run(Fault::Nothing, &["--batch", "10", "--threads", "2"]);
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["sent"].as_u64().unwrap() % 10, 0);
    assert_eq!(result["groups"][0]["received"], result["sent"]);
}

#[test]
fn a_rate_sends_as_many_as_were_asked_for() {
    let (code, result) = run(Fault::Nothing, &["--rate", "1000"]);
    assert_eq!(code, 0, "{result}");
    // A twentieth of a second of warming up and half a second of measurement.
    assert_eq!(result["sent"].as_u64().unwrap() + result["unsent"].as_u64().unwrap(), 550);
}

#[test]
fn a_repeat_without_a_reason_is_found() {
    let (code, result) = run(Fault::Repeat, &[]);
    assert_eq!(code, 2, "{result}");
    let group = &result["groups"][0];
    assert!(group["repeated"].as_u64().unwrap() > 0);
    assert_eq!(group["repeated"], group["unexcused"]);
}

#[test]
fn a_lost_event_is_found() {
    let (code, result) = run(Fault::Lose, &[]);
    assert_eq!(code, 2, "{result}");
    assert!(result["groups"][0]["lost"].as_u64().unwrap() > 0);
}

#[test]
fn an_event_out_of_order_is_found() {
    let (code, result) = run(Fault::Delay, &["--keys", "1"]);
    assert_eq!(code, 2, "{result}");
    assert!(result["groups"][0]["out_of_order"].as_u64().unwrap() > 0);
}

#[test]
fn a_refused_request_is_no_loss_but_told() {
    let (code, result) = run(Fault::Refuse, &[]);
    assert_eq!(code, 3, "{result}");
    assert!(result["refused"].as_u64().unwrap() > 0);
    assert_eq!(result["groups"][0]["lost"], 0);
}

#[test]
fn refusals_that_a_scenario_expects_are_counted_and_no_problem() {
    let text = "[load]\nexpect_refusals = true\n[[groups]]\nname = \"load\"\n[targets]\nlost = 0\n";
    let (code, result) = run_scenario(Fault::Refuse, text);
    assert_eq!(code, 0, "{result}");
    assert!(result["refused_by_status"]["503"].as_u64().unwrap() > 0);
    assert_eq!(result["targets"][0]["met"], true);
}

#[test]
fn a_target_of_a_scenario_that_is_missed_ends_with_a_code_of_its_own() {
    let (code, result) = run_scenario(Fault::Nothing, "[targets]\nacknowledged_per_s = 1e9\n");
    assert_eq!(code, 4, "{result}");
}

#[test]
fn producers_that_come_and_go_lose_nothing() {
    let text = "[load]\nrate = 2000\narrival = \"poisson\"\n[[groups]]\nname = \"load\"\n\
                [connections]\nproducers_renewed_per_s = 50\n";
    let (code, result) = run_scenario(Fault::Nothing, text);
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["groups"][0]["received"], result["sent"]);
}

#[test]
fn a_scenario_that_cannot_be_read_tells_where() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    std::fs::write(&file, "[load]\nproducer = 1\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest")).arg("run").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("wrong.toml:2:1: unknown field `producer`, expected one of `producers`"),
        "{error}"
    );
}

#[test]
fn a_refused_event_that_is_delivered_is_found() {
    let (code, result) = run(Fault::RefuseAndStore, &[]);
    assert_eq!(code, 2, "{result}");
    assert!(result["groups"][0]["unexpected"].as_u64().unwrap() > 0);
}

#[test]
fn a_run_without_a_broker_says_so_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    nistru::dev::scaffold(dir.path(), 0).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"))
        .args(["--url", &format!("https://localhost:{free}"), "--dir", dir.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot connect to localhost:"));
}

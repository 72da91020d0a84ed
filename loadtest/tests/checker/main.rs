//! The load generator against brokers in memory that keep their promises or break one.

mod compare;
mod fake;

use fake::{Fake, Fault};
use serde_json::Value;
use std::process::Command;

/// The load generator, set up for a short run against `fake`.
fn command(fake: &Fake) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nistru-loadtest"));
    command.args(["--url", &fake.url, "--dir", fake.dir.path().to_str().unwrap(), "--consumers", "1"]);
    command.args(["--warm-up", "0.05", "--duration", "0.5", "--drain", "0.5", "--producers", "4"]);
    command
}

/// Runs the load generator and returns its exit code and its result.
fn run(fault: Fault, args: &[&str]) -> (i32, Value) {
    run_against(&Fake::start(fault), args)
}

fn run_against(fake: &Fake, args: &[&str]) -> (i32, Value) {
    let output = command(fake).args(["--json", "-"]).args(args).output().unwrap();
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
fn repeats_are_allowed_and_counted() {
    let (code, result) = run(Fault::Repeat, &[]);
    assert_eq!(code, 0, "{result}");
    assert!(result["groups"][0]["repeated"].as_u64().unwrap() > 0);
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

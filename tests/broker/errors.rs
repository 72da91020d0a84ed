//! Every status with which a request can fail, as text for people and as problem details for who asks for them.

use crate::harness::{Broker, PATIENCE, expect, post_batch, record};
use nistru::client::{Answer, Connection, Endpoint, Stream};
use std::io::{Read, Write};

const EVENT: &str = "application/cloudevents+json";
const WANTS_PROBLEM: (&str, &str) = ("Accept", "application/problem+json");

/// Has `ask` send its request twice and checks both forms of the answer: the same status, and the same thing said.
fn in_both_forms(status: u16, says: &str, mut ask: impl FnMut(&[(&str, &str)]) -> Answer) -> [Answer; 2] {
    let (text, problem) = (ask(&[]), ask(&[WANTS_PROBLEM]));
    assert_eq!((text.status, problem.status), (status, status), "{text} / {problem}");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"), "{status}");
    assert!(text.text().contains(says), "{status}: {text}");
    assert_eq!(problem.header("content-type"), Some("application/problem+json"), "{status}");
    let json: serde_json::Value = serde_json::from_slice(&problem.body).unwrap();
    assert_eq!((&json["status"], json["title"].is_string()), (&status.into(), true), "{json}");
    assert!(json.to_string().contains(&says.replace('"', "\\\"")), "{status}: {json}");
    [text, problem]
}

fn post(connection: &mut Connection, headers: &[(&str, &str)], event: &str) -> Answer {
    connection.post("/ce/produce/event", EVENT, headers, event.as_bytes()).unwrap()
}

/// The answer to bytes after which the connection ends, written as the client `demo`.
fn answer_to(broker: &Broker, bytes: &str) -> Answer {
    let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end of the connection may come with or without a farewell.
    let _ = stream.read_to_end(&mut answer);
    Answer::parse(&answer, true).unwrap().expect("a whole answer").0
}

/// The head of a request with a body in chunks.
fn chunked(headers: &[(&str, &str)]) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: {EVENT}\r\n{more}Transfer-Encoding: chunked\r\n\r\n"
    )
}

#[test]
fn what_a_client_did_wrong_is_said_in_the_form_it_asks_for() {
    let broker = Broker::start();
    let mut demo = broker.connect("demo");
    in_both_forms(400, "specversion", |headers| post(&mut demo, headers, "{}"));
    in_both_forms(401, "sources of this client", |headers| {
        post(&mut demo, headers, &record("1", 1).replace("urn:demo", "urn:asp"))
    });
    in_both_forms(422, "/number", |headers| {
        post(&mut demo, headers, &record("1", 1).replace("\"number\":1", "\"number\":\"one\""))
    });
    in_both_forms(413, "65536", |headers| post(&mut demo, headers, &record(&"x".repeat(40_000), 1)));
    in_both_forms(400, "colour", |headers| {
        demo.post("/ce/produce/event?colour=red", EVENT, headers, b"{}").unwrap()
    });
    in_both_forms(404, "no such endpoint", |headers| demo.get("/ce/other", headers).unwrap());
    for answer in in_both_forms(405, "POST", |headers| demo.get("/ce/produce/raw", headers).unwrap()) {
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    for answer in in_both_forms(426, "WebSocket", |headers| demo.get("/ce/consume/ws", headers).unwrap()) {
        assert_eq!(answer.header("upgrade"), Some("websocket"));
    }
    let mut police = broker.connect("police");
    in_both_forms(401, "not registered as a producer", |headers| post(&mut police, headers, "{}"));
    let nobody = Endpoint::new(&broker.url(), &broker.pki("ca.pem"), None).unwrap().patient(PATIENCE);
    let mut nobody = Connection::open(&nobody).unwrap();
    in_both_forms(400, "certificate", |headers| post(&mut nobody, headers, "{}"));
}

#[test]
fn a_body_that_is_too_long_or_broken_is_refused_in_the_form_its_head_asks_for() {
    let broker = Broker::start();
    let large = " ".repeat((1 << 20) + 1);
    in_both_forms(413, "1048576 bytes", |headers| post(&mut broker.connect("demo"), headers, &large));
    in_both_forms(413, "1048576 bytes", |headers| {
        answer_to(&broker, &format!("{}100001\r\n{large}\r\n0\r\n\r\n", chunked(headers)))
    });
    in_both_forms(400, "chunk", |headers| answer_to(&broker, &format!("{}zz\r\n", chunked(headers))));
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_408_in_the_form_its_head_asks_for() {
    let broker = Broker::with(&[("server", "request_timeout", "\"1s\"")]);
    in_both_forms(408, "did not arrive", |headers| {
        answer_to(&broker, &format!("{}5\r\nab", chunked(headers)))
    });
    let answer =
        answer_to(&broker, "POST /ce/produce/event HTTP/1.1\r\nAccept: application/problem+json\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (408, Some("text/plain; charset=utf-8")));
}

#[test]
fn what_is_worth_a_retry_says_after_how_long() {
    let broker = Broker::start();
    let mut only = broker.connect("demo");
    broker.reload_with("clients/demo.toml", |text| {
        text + "\n[limits]\nconnections_max = 1\nevents_per_second_max = 1\n"
    });
    let one_too_many =
        in_both_forms(429, "connections_max", |headers| post(&mut broker.connect("demo"), headers, "{}"));
    let batch: Vec<_> = (0..1000).map(|n| record(&n.to_string(), n)).collect();
    expect(&post_batch(&mut only, &batch), 202);
    let event = record("late", 1);
    let too_fast = in_both_forms(429, "events_per_second_max", |headers| post(&mut only, headers, &event));
    for answer in one_too_many.iter().chain(&too_fast) {
        assert!(answer.retry_after_s().is_some());
    }
}

/// Asserts that a nearly full broker says so in both forms, and when to come again.
pub fn refuses_as_full(connection: &mut Connection, event: &str) {
    for answer in in_both_forms(503, "storage is full", |headers| post(connection, headers, event)) {
        assert!(answer.retry_after_s().is_some());
    }
}

//! Tracing: what producers say of their traces arrives, and the trace of a request is in the broker's log.

use crate::harness::{Broker, expect, next_event, post_batch, post_event, record, wait_for};
use nistru::client::{Connection, Endpoint};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const EVENT: &str = "application/cloudevents+json";

fn traceparent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// The lines of requests in the log that belong to the trace.
fn lines(broker: &Broker, trace: &str) -> Vec<serde_json::Value> {
    let log = broker.log();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["trace_id"] == trace).collect()
}

fn post(producer: &mut Connection, traceparent: &str, event: &str) -> u16 {
    let headers = [("traceparent", traceparent), ("tracestate", "vendor=1")];
    producer.post("/ce/produce/event", EVENT, &headers, event.as_bytes()).unwrap().status
}

#[test]
fn trace_attributes_of_events_are_delivered_untouched() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut consumer = broker.consume("demo", "readers");
    // Also what the Trace Context specification would not like: these are attributes like any others.
    let pairs =
        [(traceparent(), "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"), ("NOT a traceparent \u{e9}".into(), "")];
    for (traceparent, tracestate) in &pairs {
        let attributes = format!(r#""traceparent":"{traceparent}","tracestate":"{tracestate}","data""#);
        let event = |id: &str| record(id, 1).replacen("\"data\"", &attributes, 1);
        expect(&post_event(&mut producer, &event("one")), 202);
        expect(&post_batch(&mut producer, &[event("two")]), 202);
        let encoded = traceparent.replace('\u{e9}', "%C3%A9").replace(' ', "%20");
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "three"),
            ("ce-source", "urn:demo"),
            ("ce-type", "Demo.Load.Blob.Created"),
            ("ce-traceparent", &encoded),
            ("ce-tracestate", tracestate),
            // Of the request, not of the event.
            ("traceparent", "00-11111111111111111111111111111111-2222222222222222-01"),
        ];
        expect(&producer.post("/ce/produce/raw", "text/plain", &headers, b"text").unwrap(), 202);
        for _ in 0..3 {
            let event = next_event(&mut consumer);
            assert_eq!(event["traceparent"], traceparent.as_str(), "{event}");
            assert_eq!(event["tracestate"], *tracestate, "{event}");
        }
    }
}

#[test]
fn the_trace_of_a_refused_request_is_in_the_log() {
    let broker = Broker::start();
    let event = record("secret-id", 1).replace("urn:demo", "urn:secret-source");
    assert_eq!(post(&mut broker.connect("demo"), &traceparent(), &event), 401);
    assert_eq!(post(&mut broker.connect("police"), &traceparent(), &event), 401);
    let stranger = Endpoint::new(&broker.url(), &broker.pki("ca.pem"), None).unwrap();
    let mut stranger = Connection::open(&stranger).unwrap();
    assert_eq!(post(&mut stranger, &traceparent(), &event), 400);
    let lines = wait_for("the lines", || Some(lines(&broker, TRACE)).filter(|lines| lines.len() == 3));
    assert_eq!(
        lines.iter().map(|line| line["status"].as_u64().unwrap()).collect::<Vec<_>>(),
        [401, 401, 400],
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line["parent_id"] == PARENT && line["endpoint"] == "Produce(Event)"));
    assert!(lines[0]["client"].is_string() && lines[2]["client"].is_null(), "{lines:?}");
    assert!(lines[2]["reason"].as_str().unwrap().contains("certificate"), "{lines:?}");
    assert!(!broker.log().contains("secret"), "{}", broker.log());
}

#[test]
fn the_trace_of_a_stored_event_is_in_the_log_at_debug_level() {
    let broker = Broker::with(&[("log", "level", "\"debug\"")]);
    assert_eq!(post(&mut broker.connect("demo"), &traceparent(), &record("secret-id", 1)), 202);
    let lines = wait_for("the line", || Some(lines(&broker, TRACE)).filter(|lines| !lines.is_empty()));
    assert_eq!((&lines[0]["status"], &lines[0]["level"]), (&202.into(), &"DEBUG".into()));
    assert!(!broker.log().contains("secret"), "{}", broker.log());
}

#[test]
fn a_malformed_traceparent_is_ignored() {
    let broker = Broker::with(&[("log", "level", "\"debug\"")]);
    let mut producer = broker.connect("demo");
    let malformed = format!("00-{}-{PARENT}-01", TRACE.to_uppercase());
    assert_eq!(post(&mut producer, &malformed, &record("1", 1)), 202);
    assert_eq!(post(&mut producer, "", &record("2", 1)), 202);
    broker.wait_for_log("a request was answered");
    assert!(!broker.log().contains(&TRACE.to_uppercase()) && !broker.log().contains("trace_id"));
}

#[test]
fn a_client_that_makes_nothing_but_mistakes_does_not_fill_the_log() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    for _ in 0..2000 {
        assert_eq!(post(&mut producer, "", "{"), 400);
    }
    let mut seconds = std::collections::BTreeMap::<String, usize>::new();
    for line in broker.log().lines().filter(|line| line.contains("a request was refused")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        *seconds.entry(line["timestamp"].as_str().unwrap()[..19].to_owned()).or_default() += 1;
    }
    // The broker's seconds begin elsewhere than those of the clock.
    assert!(seconds.values().all(|&lines| lines <= 200), "{seconds:?}");
}

//! Dry runs: `?validate=only` says what would come of producing, and does nothing.

use crate::harness::{Broker, expect, next_ids, post_batch, post_event, record};
use nistru::client::{Answer, Connection};

const EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// Posts to `path` twice, first as a dry run; gives both answers.
fn both(
    producer: &mut Connection,
    path: &str,
    content_type: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (Answer, Answer) {
    let mut post = |path: &str| producer.post(path, content_type, headers, body).unwrap();
    (post(&format!("{path}?validate=only")), post(path))
}

#[test]
fn what_passes_a_dry_run_is_neither_stored_nor_delivered() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "readers");
    let mut producer = broker.connect("demo");
    let raw = [
        ("ce-specversion", "1.0"),
        ("ce-id", "raw"),
        ("ce-source", "urn:demo"),
        ("ce-type", "Demo.Load.Blob.Created"),
    ];
    let dry = [
        producer.post("/ce/produce/raw?validate=only", "text/plain", &raw, b"text").unwrap(),
        producer.post("/ce/produce/event?validate=only", EVENT, &[], record("one", 1).as_bytes()).unwrap(),
        producer
            .post(
                "/ce/produce/events?validate=only",
                BATCH,
                &[],
                format!("[{}]", record("two", 2)).as_bytes(),
            )
            .unwrap(),
        producer.post("/ce/produce/events?validate=only", BATCH, &[], b"[]").unwrap(),
    ];
    for answer in dry {
        assert_eq!(expect(&answer, 204), "");
    }
    assert_eq!((broker.metric("events_produced_total"), broker.metric("partition_end_offset")), (0.0, 0.0));
    // A dry run is no first occurrence either: the same event is stored afterwards.
    expect(&post_event(&mut producer, &record("one", 1)), 202);
    assert_eq!(next_ids(&mut consumer, 1), ["one"]);
    assert_eq!(broker.metric("partition_end_offset"), 1.0);
}

#[test]
fn a_dry_run_lists_every_error_exactly_as_the_real_call_does() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut batch: Vec<String> = (0..6).map(|n| record(&format!("e{n}"), n)).collect();
    batch[1] = batch[1].replace("urn:demo", "urn:other");
    batch[3] = batch[3].replace("\"number\":3", "\"number\":\"three\"");
    batch[4] = batch[4].replace("\"id\":\"e4\"", "\"id\":\"e5\"");
    let batch = format!("[{}]", batch.join(","));
    let wrong_type = record("1", 1).replace("Demo.Load.Record", "Demo.Load.Other");
    let cases = [
        ("/ce/produce/events", BATCH, batch.as_bytes(), 400),
        ("/ce/produce/event", EVENT, wrong_type.as_bytes(), 401),
        ("/ce/produce/event", EVENT, b"{".as_slice(), 400),
        ("/ce/produce/event", "text/plain", b"{}", 400),
        ("/ce/produce/raw", "text/plain", b"no attributes", 400),
    ];
    for (path, content_type, body, status) in cases {
        for accept in ["text/plain", "application/problem+json"] {
            let (dry, real) = both(&mut producer, path, content_type, &[("Accept", accept)], body);
            assert_eq!(expect(&dry, status), expect(&real, status), "{path}");
            assert_eq!(dry.header("content-type"), real.header("content-type"));
        }
    }
    let (dry, _) = both(&mut producer, "/ce/produce/events", BATCH, &[], batch.as_bytes());
    let text = dry.text();
    for place in ["event 1, id \"e1\"", "event 3, id \"e3\"", "event 5, id \"e5\""] {
        assert!(text.contains(place), "{text}");
    }
}

#[test]
fn a_dry_run_is_for_producers_only() {
    let broker = Broker::start();
    let answer = broker
        .connect("police")
        .post("/ce/produce/event?validate=only", EVENT, &[], record("1", 1).as_bytes())
        .unwrap();
    assert!(expect(&answer, 401).contains("not registered as a producer"));
}

#[test]
fn another_word_than_only_is_refused_and_stores_nothing() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    for query in ["validate=yes", "validate=", "validate=ONLY", "validated=only"] {
        let path = format!("/ce/produce/event?{query}");
        let answer = producer.post(&path, EVENT, &[], record("1", 1).as_bytes()).unwrap();
        assert!(expect(&answer, 400).contains("validate"), "{query}");
    }
    expect(&post_batch(&mut producer, &[]), 202);
    assert_eq!(broker.metric("events_produced_total"), 0.0);
}

//! Test events: produced by a client for its own consumers, seen by all of them at once and by nobody else.

use crate::harness::{Broker, PATIENCE, expect, next_event, next_ids, post_event, record};
use nistru::client::{Answer, Connection, Consumer, Subscription};
use std::time::Duration;

/// Posts a test event of a type that the demo client consumes, from a source that it may not produce from.
fn try_out(connection: &mut Connection, id: &str, kind: &str, body: &str) -> Answer {
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "urn:somebody"), ("ce-type", kind)];
    connection
        .post("/ce/tools/consumer/test", "application/json", &headers, body.as_bytes())
        .expect("an answer to a test event")
}

const KIND: &str = "Demo.Load.Record.Created";
const BODY: &str = r#"{"number":1,"name":"test"}"#;

fn consume(broker: &Broker, client: &str, wanted: Subscription) -> Consumer {
    Consumer::open(&broker.endpoint(client), &wanted).expect("the broker accepts a consumer")
}

#[test]
fn every_instance_of_the_caller_gets_it_whatever_its_group_and_nobody_else_does() {
    let broker = Broker::start();
    let (mut a, mut b) = (broker.consume("demo", "g"), broker.consume("demo", "g"));
    let mut c = broker.consume("demo", "other");
    let mut none = consume(&broker, "demo", Subscription { test: Some(false), ..Subscription::group("g3") });
    let mut stranger = broker.consume("police", "g");
    expect(&try_out(&mut broker.connect("demo"), "t1", KIND, BODY), 202);
    for consumer in [&mut a, &mut b, &mut c] {
        let event = next_event(consumer);
        assert_eq!((&event["id"], &event["source"]), (&"t1".into(), &"urn:somebody".into()));
        assert_eq!(event["data"]["number"], 1);
    }
    for consumer in [&mut none, &mut stranger] {
        assert!(consumer.next(Duration::from_millis(300)).unwrap().is_none());
    }
}

#[test]
fn a_test_event_is_confirmed_like_any_other_and_survives_a_crash() {
    let mut broker = Broker::start();
    let mut connection = broker.connect("demo");
    for id in ["t1", "t2", "t3"] {
        expect(&try_out(&mut connection, id, KIND, BODY), 202);
    }
    expect(&post_event(&mut connection, &record("ordinary", 1)), 202);
    let only_tests = || Subscription { events: Some(false), ..Subscription::group("g") };
    let mut consumer = consume(&broker, "demo", only_tests());
    assert_eq!(next_ids(&mut consumer, 3), ["t1", "t2", "t3"]);
    consumer.confirm(1).unwrap();
    consumer.close();
    assert_eq!(next_ids(&mut consume(&broker, "demo", only_tests()), 2), ["t2", "t3"]);
    broker.kill();
    broker.launch();
    let fresh = Subscription { events: Some(false), ..Subscription::group("fresh") };
    assert_eq!(next_ids(&mut consume(&broker, "demo", fresh), 3), ["t1", "t2", "t3"]);
}

#[test]
fn it_is_held_against_types_and_schemas_like_a_produced_event() {
    let broker = Broker::start();
    let mut demo = broker.connect("demo");
    let text = expect(&try_out(&mut demo, "1", "MS.eCMND.Person.Born", "{}"), 401);
    assert!(text.contains("may consume"), "{text}");
    let text = expect(&try_out(&mut demo, "1", KIND, r#"{"number":"x"}"#), 422);
    assert!(text.contains("/number"), "{text}");
    expect(&try_out(&mut demo, "", KIND, BODY), 400);
    let text = expect(&try_out(&mut broker.connect("asp"), "1", KIND, BODY), 401);
    assert!(text.contains("not registered as a consumer"), "{text}");
    let unknown = demo.post("/ce/tools/consumer/test?validate=only", "application/json", &[], b"{}").unwrap();
    expect(&unknown, 400);
}

#[test]
fn test_events_go_when_their_own_retention_is_over() {
    let broker = Broker::with(&[("storage", "test_retention", "\"1s\"")]);
    let mut connection = broker.connect("demo");
    expect(&post_event(&mut connection, &record("kept", 1)), 202);
    expect(&try_out(&mut connection, "gone", KIND, BODY), 202);
    crate::harness::wait_for("the test event to go", || {
        let wanted = Subscription { events: Some(false), ..Subscription::group("lookers") };
        consume(&broker, "demo", wanted).next(Duration::from_millis(300)).unwrap().is_none().then_some(())
    });
    let mut ordinary =
        consume(&broker, "demo", Subscription { test: Some(false), ..Subscription::group("other") });
    assert_eq!(ordinary.next(PATIENCE).unwrap().map(|event| event.text().contains("kept")), Some(true));
}

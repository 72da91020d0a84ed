//! Limits of one client: off by default, exact over all cores, and never felt by others.

use crate::harness::{Broker, expect, next_ids, post_batch, post_event, record, wait_for};
use nistru::client::Answer;

/// A broker whose client `demo` has these limits. Its connections take turns on two cores.
fn limited(limits: &str) -> Broker {
    let mut broker = Broker::prepare(&[]);
    let file = broker.registry("clients/demo.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[limits]\n{limits}\n")).unwrap();
    broker.launch();
    broker
}

/// Asserts that the answer is 429 with a time to wait, and gives both time and text.
fn too_many(answer: &Answer) -> (u64, String) {
    let text = expect(answer, 429);
    (answer.retry_after_s().expect("a Retry-After"), text)
}

fn records(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| record(&format!("{prefix}{number}"), 1)).collect()
}

#[test]
fn events_per_second_are_counted_over_all_connections_and_a_batch_may_be_owed() {
    let broker = limited("events_per_second_max = 5");
    let (mut one, mut other) = (broker.connect("demo"), broker.connect("demo"));
    let mut consumer = broker.consume("demo", "readers");
    // More than comes in a second is taken as a whole, and owed for the next three minutes.
    expect(&post_batch(&mut one, &records("first", 1000)), 202);
    for connection in [&mut one, &mut other] {
        let (wait_s, text) = too_many(&post_event(connection, &record("late", 1)));
        assert!((100..=200).contains(&wait_s), "{wait_s}");
        assert!(text.contains("5 events per second") && text.contains("events_per_second_max"), "{text}");
    }
    let event = record("late", 1);
    let problem = [("Accept", "application/problem+json")];
    let answer =
        other.post("/ce/produce/event", "application/cloudevents+json", &problem, event.as_bytes()).unwrap();
    too_many(&answer);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    // A dry run costs nothing and owes nothing, and what is refused for another reason hears that reason.
    let dry = "/ce/produce/event?validate=only";
    expect(&one.post(dry, "application/cloudevents+json", &[], event.as_bytes()).unwrap(), 204);
    expect(&post_event(&mut one, "{}"), 400);

    assert_eq!(broker.metric("requests_over_rate_total"), 3.0);
    assert_eq!(broker.metric("events_produced_total"), 1000.0);
    let mut ids = next_ids(&mut consumer, 1000);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1000);
    assert_eq!(broker.metric("partition_end_offset"), 1000.0);
}

#[test]
fn bytes_per_second_are_limited_and_other_clients_are_not() {
    let broker = limited("bytes_per_second_max = \"1 KiB\"");
    let mut producer = broker.connect("demo");
    expect(&post_batch(&mut producer, &records("a", 2000)), 202);
    let (_, text) = too_many(&post_event(&mut broker.connect("demo"), &record("b", 1)));
    assert!(text.contains("1024 bytes per second"), "{text}");
    let event =
        r#"{"specversion":"1.0","id":"1","source":"urn:asp","type":"ASP.RST.VP.Invalidated","data":{}}"#;
    assert_eq!(post_event(&mut broker.connect("asp"), event).status, 422);
}

#[test]
fn without_limits_nobody_is_limited_and_a_limit_comes_and_goes_with_the_registry() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    for batch in ["a", "b", "c"] {
        expect(&post_batch(&mut producer, &records(batch, 1000)), 202);
    }
    broker.reload_with("clients/demo.toml", |text| text + "\n[limits]\nevents_per_second_max = 1\n");
    expect(&post_batch(&mut producer, &records("d", 1000)), 202);
    too_many(&post_event(&mut producer, &record("e", 1)));
    broker.reload_with("clients/demo.toml", |text| text.replace("events_per_second_max = 1", ""));
    expect(&post_event(&mut producer, &record("f", 1)), 202);
}

#[test]
fn one_connection_too_many_is_told_so_and_ended_until_another_goes() {
    let broker = limited("connections_max = 2");
    let mut open = [broker.connect("demo"), broker.connect("demo")];
    for connection in &mut open {
        expect(&post_event(connection, &record("1", 1)), 202);
    }
    for _ in 0..3 {
        let mut third = broker.connect("demo");
        let answer = post_event(&mut third, &record("1", 1));
        let (_, text) = too_many(&answer);
        assert!(text.contains("2 connections") && text.contains("connections_max"), "{text}");
        assert!(!third.is_open());
    }
    assert!(broker.metric("connections_over_limit_total") >= 3.0);
    expect(&post_event(&mut broker.connect("asp"), "{}"), 400);
    // A consumer's connection counts too, and leaves room as it goes.
    let [mut kept, gone] = open;
    drop(gone);
    let consumer = wait_for("room for a consumer", || broker.try_consume("demo", "readers").ok());
    too_many(&post_event(&mut broker.connect("demo"), &record("1", 1)));
    drop(consumer);
    wait_for("room for a producer", || {
        (post_event(&mut broker.connect("demo"), &record("1", 1)).status == 202).then_some(())
    });
    expect(&post_event(&mut kept, &record("1", 1)), 202);
}

#[test]
fn a_connection_that_sends_no_request_counts_as_well() {
    let broker = limited("connections_max = 1");
    let idle = broker.connect("demo");
    wait_for("the idle connection", || (broker.metric("connections_open") >= 1.0).then_some(()));
    wait_for("a refusal", || {
        (post_event(&mut broker.connect("demo"), &record("1", 1)).status == 429).then_some(())
    });
    drop(idle);
    wait_for("room", || {
        (post_event(&mut broker.connect("demo"), &record("1", 1)).status == 202).then_some(())
    });
}

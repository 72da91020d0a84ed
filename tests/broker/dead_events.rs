//! Dead events: reported by consumers, durable before they count, read back by the client that reported them.

use crate::harness::{
    Broker, PATIENCE, closed, expect, keyed, next_event, next_ids, post_batch, post_event, record, wait_for,
};
use nistru::client::{Consumer, Subscription};
use std::time::Duration;

/// A session that reads dead events only.
fn consume_dead(broker: &Broker, client: &str, group: &str) -> Consumer {
    let wanted = Subscription {
        events: Some(false),
        test: Some(false),
        dead: Some(true),
        ..Subscription::group(group)
    };
    Consumer::open(&broker.endpoint(client), &wanted).expect("the broker accepts a consumer")
}

fn next_text(consumer: &mut Consumer) -> String {
    let delivery = consumer.next(PATIENCE).expect("the session goes on").expect("an event comes");
    delivery.text().to_owned()
}

#[test]
fn a_reported_event_is_consumed_and_comes_back_to_its_client_only() {
    let broker = Broker::start();
    let batch: Vec<_> = (0..3).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut first = broker.consume("demo", "g");
    let events: Vec<_> = (0..3).map(|_| next_text(&mut first)).collect();
    first.send(&format!("dead:{}", events[0])).unwrap();
    let mut dead = consume_dead(&broker, "demo", "lookers");
    let found = next_text(&mut dead);
    assert_eq!(found, events[0], "the same event, at offset 1 here too");
    first.close();
    assert_eq!(
        next_ids(&mut broker.consume("demo", "g"), 2),
        ["1", "2"],
        "the dead one is not delivered again"
    );
    let mut others = consume_dead(&broker, "police", "lookers");
    assert!(others.next(Duration::from_millis(300)).unwrap().is_none());
}

#[test]
fn only_the_reported_event_counts_as_consumed() {
    let broker = Broker::start();
    let batch: Vec<_> = (0..4).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut first = broker.consume("demo", "g");
    let events: Vec<_> = (0..4).map(|_| next_text(&mut first)).collect();
    first.send(&format!("dead:{}", events[2])).unwrap();
    let mut dead = consume_dead(&broker, "demo", "lookers");
    assert_eq!(next_event(&mut dead)["id"], "2");
    first.confirm(2).unwrap();
    first.close();
    // The cursor stands behind the reported event, which was consumed out of turn.
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["3"]);
}

#[test]
fn a_report_may_be_changed_and_may_be_no_event_at_all() {
    let broker = Broker::start();
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
    let mut consumer = broker.consume("demo", "g");
    let event = next_text(&mut consumer);
    let changed = event.replacen("\"data\"", "\"reason\":\"cannot \\u0061pply\",\"data\"", 1);
    consumer.send(&format!("dead:{changed}")).unwrap();
    let gibberish = "{\"id\": nonsense \u{7} ă\"";
    consumer.send(&format!("dead:{gibberish}")).unwrap();
    consumer.send("dead:").unwrap();
    let mut dead = consume_dead(&broker, "demo", "lookers");
    assert_eq!(next_event(&mut dead)["reason"], "cannot apply");
    let envelope = next_event(&mut dead);
    assert_eq!(envelope["data"], gibberish);
    assert_eq!(envelope["datacontenttype"], "text/plain");
    assert_eq!(next_event(&mut dead)["data"], "");
}

#[test]
fn dead_events_survive_a_crash_and_each_group_has_a_cursor() {
    let mut broker = Broker::start();
    let mut consumer = broker.consume("demo", "g");
    for n in 0..5 {
        consumer.send(&format!("dead:report {n}")).unwrap();
    }
    let mut dead = consume_dead(&broker, "demo", "a");
    let reports: Vec<_> = (0..5).map(|_| next_event(&mut dead)["data"].clone()).collect();
    assert_eq!(reports, ["report 0", "report 1", "report 2", "report 3", "report 4"]);
    dead.confirm(2).unwrap();
    dead.close();
    let mut again = consume_dead(&broker, "demo", "a");
    assert_eq!(next_event(&mut again)["data"], "report 2");
    broker.kill();
    broker.launch();
    assert_eq!(next_event(&mut consume_dead(&broker, "demo", "b"))["data"], "report 0");
}

#[test]
fn every_session_of_a_group_gets_every_dead_event() {
    let broker = Broker::start();
    let (mut a, mut b) = (consume_dead(&broker, "demo", "g"), consume_dead(&broker, "demo", "g"));
    let mut reporter = broker.consume("demo", "other");
    reporter.send("dead:x").unwrap();
    assert_eq!((&next_event(&mut a)["data"], &next_event(&mut b)["data"]), (&"x".into(), &"x".into()));
}

#[test]
fn what_follows_a_report_counts_after_it() {
    let broker = Broker::start();
    let batch: Vec<_> = (0..40).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut consumer = broker.consume("demo", "g");
    let events: Vec<_> = (0..40).map(|_| next_text(&mut consumer)).collect();
    for (n, event) in events.iter().enumerate() {
        consumer.send(&format!("dead:{event}")).unwrap();
        consumer.send(&format!("confirm:{}", n + 1)).unwrap();
    }
    consumer.send("confirm:999").unwrap();
    let (code, reason) = closed(&mut consumer);
    assert_eq!(code, 1008);
    assert!(reason.contains("999"), "{reason}");
    let mut dead = consume_dead(&broker, "demo", "lookers");
    let expected: Vec<_> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(next_ids(&mut dead, 40), expected);
}

#[test]
fn a_report_that_cannot_be_stored_ends_the_session_and_the_event_comes_again() {
    let mut broker = Broker::start();
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
    broker.stop();
    // More than any disk has free: nothing is taken in.
    broker.configure(&[("storage", "min_free_bytes", "\"1024 GiB\"")]);
    broker.launch();
    broker.wait_for_log("storage is nearly full");
    let mut consumer = broker.consume("demo", "g");
    let event = next_text(&mut consumer);
    consumer.send(&format!("dead:{event}")).unwrap();
    let (code, reason) = closed(&mut consumer);
    assert_eq!(code, 1013, "{reason}");
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["1"]);
}

#[test]
fn dead_events_have_a_retention_of_their_own() {
    let broker = Broker::with(&[("storage", "dead_retention", "\"1s\"")]);
    expect(&post_event(&mut broker.connect("demo"), &record("kept", 1)), 202);
    let mut consumer = broker.consume("demo", "g");
    consumer.send("dead:gone").unwrap();
    wait_for("the dead event to be stored", || (broker.metric("events_dead_total") > 0.0).then_some(()));
    wait_for("the dead event to go", || {
        let mut dead = consume_dead(&broker, "demo", "lookers");
        dead.next(Duration::from_millis(300)).unwrap().is_none().then_some(())
    });
    assert_eq!(next_ids(&mut broker.consume("demo", "other"), 1), ["kept"]);
}

//! Consuming by WebSocket: groups, confirms, redelivery, hand-over.

use crate::harness::{
    Broker, PATIENCE, closed, expect, keyed, next_event, next_ids, post_batch, post_event, record,
};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn a_group_goes_on_after_its_last_confirm() {
    let broker = Broker::start();
    let batch: Vec<_> = (0..10).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut first = broker.consume("demo", "g");
    assert_eq!(next_ids(&mut first, 6), ["0", "1", "2", "3", "4", "5"]);
    first.confirm(4).unwrap();
    first.close();
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 6), ["4", "5", "6", "7", "8", "9"]);
}

#[test]
fn every_group_gets_all_events_and_members_of_a_group_share_them() {
    let broker = Broker::start();
    let (mut a, mut b) = (broker.consume("demo", "shared"), broker.consume("demo", "shared"));
    let batch: Vec<_> = (0..200).map(|n| record(&n.to_string(), n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut seen = BTreeSet::new();
    let mut of_a = 0;
    while seen.len() < 200 {
        for (consumer, count) in [(&mut a, &mut of_a), (&mut b, &mut 0)] {
            if let Some(delivery) = consumer.next(Duration::from_millis(50)).unwrap() {
                let event: serde_json::Value = serde_json::from_str(delivery.text()).unwrap();
                assert!(
                    seen.insert(event["id"].as_str().unwrap().to_owned()),
                    "delivered twice to one group"
                );
                *count += 1;
            }
        }
    }
    assert!((1..200).contains(&of_a), "{of_a} of 200 went to one member");
    assert_eq!(next_ids(&mut broker.consume("demo", "alone"), 200).len(), 200);
}

#[test]
fn what_a_session_did_not_confirm_goes_to_the_remaining_member() {
    let broker = Broker::start();
    let mut first = broker.consume("demo", "g");
    let batch: Vec<_> = (0..50).map(|n| record(&n.to_string(), n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    next_ids(&mut first, 50);
    drop(first);
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 50).len(), 50);
}

#[test]
fn a_confirm_of_what_was_never_sent_closes_the_session_with_the_reason() {
    let broker = Broker::start();
    for (message, reason) in [
        ("confirm:1", "never sent"),
        ("confirm:", "whole number"),
        ("confirm:-1", "whole number"),
        ("confirm:one", "whole number"),
        ("hello", "unknown message"),
    ] {
        let mut consumer = broker.consume("demo", "g");
        consumer.send(message).unwrap();
        let (code, text) = closed(&mut consumer);
        assert!(code == 1008 && text.contains(reason), "{message}: {code} {text}");
    }
}

#[test]
fn a_repeated_confirm_is_harmless() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &record("1", 1)), 202);
    next_event(&mut consumer);
    for _ in 0..3 {
        consumer.confirm(1).unwrap();
    }
    expect(&post_event(&mut producer, &record("2", 2)), 202);
    assert_eq!(next_event(&mut consumer)["offset"], "2");
}

#[test]
fn a_consumer_gets_only_the_types_it_may_consume() {
    let broker = Broker::start();
    let mut police = broker.consume("police", "g");
    expect(&post_event(&mut broker.connect("demo"), &record("demo", 1)), 202);
    assert!(police.next(Duration::from_millis(300)).unwrap().is_none());
    assert!(broker.try_consume("asp", "g").is_err_and(|error| error.is_rejection()));
}

#[test]
fn a_window_of_unconfirmed_events_holds_back_the_rest_until_some_are_confirmed() {
    let broker = Broker::with(&[("delivery", "window_events", "10")]);
    let batch: Vec<_> = (0..30).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut consumer = broker.consume("demo", "g");
    next_ids(&mut consumer, 10);
    assert!(consumer.next(Duration::from_millis(300)).unwrap().is_none());
    consumer.confirm(10).unwrap();
    assert_eq!(next_event(&mut consumer)["offset"], "11");
}

#[test]
fn joining_moves_partitions_without_losing_or_reordering_a_key() {
    let broker = Broker::with(&[("delivery", "revoke_grace", "\"200ms\"")]);
    let mut producer = broker.connect("demo");
    let mut first = broker.consume("demo", "g");
    let batch: Vec<_> = (0..120).map(|n| keyed(&n.to_string(), &format!("k{}", n % 24), n)).collect();
    expect(&post_batch(&mut producer, &batch), 202);
    let mut seen: BTreeSet<String> = next_ids(&mut first, 120).into_iter().collect();
    first.confirm(60).unwrap();
    let mut second = broker.consume("demo", "g");
    let more: Vec<_> = (120..240).map(|n| keyed(&n.to_string(), &format!("k{}", n % 24), n)).collect();
    expect(&post_batch(&mut producer, &more), 202);
    let mut last = std::collections::BTreeMap::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while seen.len() < 240 && std::time::Instant::now() < deadline {
        for (member, consumer) in [&mut first, &mut second].into_iter().enumerate() {
            while let Some(delivery) = consumer.next(Duration::from_millis(20)).unwrap() {
                let event: serde_json::Value = serde_json::from_str(delivery.text()).unwrap();
                let number = event["data"]["number"].as_i64().unwrap();
                let key = (member, event["partitionkey"].as_str().unwrap().to_owned());
                let before = last.insert(key, number);
                assert!(before.is_none_or(|before| before < number), "a key went back within one session");
                seen.insert(number.to_string());
            }
        }
    }
    assert_eq!(seen.len(), 240);
}

#[test]
fn sessions_that_come_and_go_before_their_group_is_known_do_no_harm() {
    let broker = Broker::start();
    for _ in 0..20 {
        for group in ["a", "b", "c"] {
            drop(broker.consume("demo", group));
        }
    }
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
    assert_eq!(next_event(&mut broker.consume("demo", "a"))["id"], "1");
}

//! Producing: what is accepted, and what every refusal says.

use crate::harness::{Broker, expect, keyed, next_event, next_ids, post_batch, post_event, record};

#[test]
fn an_event_goes_through_from_post_to_confirm() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "readers");
    let answer = post_event(&mut broker.connect("demo"), &record("first", 1));
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    let event = next_event(&mut consumer);
    assert_eq!(event["id"], "first");
    assert_eq!(event["offset"], "1");
    assert_eq!(event["datacontenttype"], "application/json");
    consumer.confirm(1).unwrap();
}

#[test]
fn data_is_delivered_byte_for_byte() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "readers");
    let data = r#"{ "number" : 1,"name":"\u0041 ü", "more":[1.50, 1e3 ,123456789012345678901234567890] }"#;
    let event = format!(
        r#"{{"data":{data},"specversion":"1.0","id":"1","source":"urn:demo","type":"Demo.Load.Record.Created"}}"#
    );
    expect(&post_event(&mut broker.connect("demo"), &event), 202);
    let delivery = consumer.next(crate::harness::PATIENCE).unwrap().unwrap();
    assert!(delivery.text().contains(&format!(r#""data":{data},"offset":"1"}}"#)), "{}", delivery.text());
}

#[test]
fn raw_text_and_binary_payloads_are_delivered_in_their_json_forms() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "readers");
    let mut producer = broker.connect("demo");
    let headers = |id: &'static str| {
        [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "urn:demo"),
            ("ce-type", "Demo.Load.Blob.Created"),
            ("ce-partitionkey", "k"),
        ]
    };
    let text = producer.post("/ce/produce/raw", "text/plain", &headers("t"), "gr\u{fc}n".as_bytes()).unwrap();
    expect(&text, 202);
    let binary =
        producer.post("/ce/produce/raw", "application/octet-stream", &headers("b"), &[0, 255]).unwrap();
    expect(&binary, 202);
    let event = next_event(&mut consumer);
    assert_eq!((&event["data"], &event["datacontenttype"]), (&"grün".into(), &"text/plain".into()));
    let event = next_event(&mut consumer);
    assert_eq!(event["data_base64"], "AP8=");
}

#[test]
fn a_batch_is_all_or_nothing_and_every_failing_event_is_named() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut batch: Vec<String> = (0..5).map(|n| record(&format!("e{n}"), n)).collect();
    batch[1] = batch[1].replace("urn:demo", "urn:other");
    batch[3] = batch[3].replace("\"number\":3", "\"number\":\"three\"");
    let text = expect(&post_batch(&mut producer, &batch), 401);
    assert!(text.contains("event 1, id \"e1\"") && text.contains("source"), "{text}");
    assert!(text.contains("event 3, id \"e3\"") && text.contains("/number"), "{text}");
    expect(&post_batch(&mut producer, &[record("only", 1)]), 202);
    assert_eq!(next_ids(&mut broker.consume("demo", "readers"), 1), ["only"]);
}

#[test]
fn an_empty_batch_is_accepted_and_stores_nothing() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    expect(&post_batch(&mut producer, &[]), 202);
    assert_eq!(broker.metric("events_produced_total"), 0.0);
}

#[test]
fn events_of_one_key_arrive_in_the_order_of_their_acknowledgement() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut expected = Vec::new();
    for round in 0..20 {
        let batch: Vec<_> = (0..10).map(|n| keyed(&format!("{round}-{n}"), "same", n)).collect();
        expected.extend((0..10).map(|n| format!("{round}-{n}")));
        expect(&post_batch(&mut producer, &batch), 202);
    }
    assert_eq!(next_ids(&mut broker.consume("demo", "readers"), 200), expected);
}

#[test]
fn a_client_produces_only_what_it_may() {
    let broker = Broker::start();
    let event = record("1", 1).replace("urn:demo", "urn:asp");
    let text = expect(&post_event(&mut broker.connect("asp"), &event), 401);
    assert!(text.contains("Demo.Load.Record.Created"), "{text}");
    let text = expect(&post_event(&mut broker.connect("police"), &record("1", 1)), 401);
    assert!(text.contains("not registered as a producer"), "{text}");
}

#[test]
fn one_mib_is_the_limit_of_a_request() {
    let broker = Broker::start();
    let large = vec![b' '; (1 << 20) + 1];
    let answer =
        broker.connect("demo").post("/ce/produce/events", "application/cloudevents-batch+json", &[], &large);
    expect(&answer.unwrap(), 413);
}

#[test]
fn an_event_larger_than_64_kib_as_delivered_is_refused_and_one_just_below_arrives_in_one_frame() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let blob = |size: usize| {
        format!(
            r#"{{"specversion":"1.0","id":"x","source":"urn:demo","type":"Demo.Load.Blob.Created","time":"2026-01-01T00:00:00Z","data":"{}"}}"#,
            "x".repeat(size)
        )
    };
    expect(&post_event(&mut producer, &blob(65_536)), 413);
    let largest =
        (64_000..65_536).rev().find(|&size| post_event(&mut producer, &blob(size)).status == 202).unwrap();
    let delivery = broker.consume("demo", "readers").next(crate::harness::PATIENCE).unwrap().unwrap();
    let longest_offset = "18446744073709551615".len() - 1;
    assert_eq!(delivery.text().len() + longest_offset, 65_536, "data of {largest} bytes");
}

#[test]
fn every_failing_event_of_a_large_batch_is_listed() {
    let broker = Broker::start();
    let batch: Vec<_> =
        (0..2000).map(|n| record(&n.to_string(), n).replace("\"number\":", "\"numbre\":")).collect();
    let body = format!("[{}]", batch.join(","));
    let accept = [("Accept", "application/problem+json")];
    let answer = broker
        .connect("demo")
        .post("/ce/produce/events", "application/cloudevents-batch+json", &accept, body.as_bytes())
        .unwrap();
    let problem: serde_json::Value = serde_json::from_str(&expect(&answer, 422)).unwrap();
    let listed: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["event"].as_u64().unwrap()).collect();
    assert_eq!(listed, (0..2000).collect::<Vec<_>>());
}

//! Long polling over HTTP/2, where many requests share a connection and each can be taken back.

use crate::harness::{Broker, expect, post_event, record, wait_for};
use crate::http2_client::Http2;
use std::task::Poll;

/// Makes an instance and gives its path.
fn open(client: &mut Http2, query: &str) -> String {
    let request = client.send(client.ask("POST", &format!("/ce/consumers{query}")), None);
    let answer = client.receive(request);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let location = answer.header("location").expect("a Location");
    let path = location.strip_prefix("https://localhost:").expect("an absolute address");
    path.split_once('/').map(|(_, path)| format!("/{path}")).expect("a path")
}

/// Moves the connection until so many polls wait.
fn until_polls_wait(client: &mut Http2, broker: &Broker, count: f64) {
    client.drive(|_, _| match broker.metric("polls_waiting") == count {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
}

#[test]
fn every_call_of_an_instance_works_over_http2() {
    let broker = Broker::with(&[("polling", "timeout", "\"1s\"")]);
    let mut client = Http2::open(&broker, "demo");
    let base = open(&mut client, "?group=g");
    for id in ["a", "b", "c"] {
        assert_eq!(
            client
                .post_event(&record(id, 1).replacen("\"data\"", "\"partitionkey\":\"k\",\"data\"", 1))
                .status,
            202
        );
    }
    let raw = client.get(&format!("{base}/raw"));
    assert_eq!((raw.status, raw.header("ce-id"), raw.header("ce-offset")), (200, Some("a"), Some("1")));
    assert!(client.get(&format!("{base}/event?confirm=true")).text().contains("\"id\":\"b\""));
    let events = client.get(&format!("{base}/events?confirm=true"));
    assert_eq!(events.header("content-type"), Some("application/cloudevents-batch+json"));
    assert!(events.text().contains("\"offset\":\"3\""));
    let confirm = client.send(client.ask("POST", &format!("{base}/confirm")), None);
    assert_eq!(client.receive(confirm).status, 204);
    wait_for("the confirms", || (broker.metric("events_confirmed_total") == 3.0).then_some(()));
    assert_eq!(client.get(&format!("{base}/event")).status, 204);
    let delete = client.send(client.ask("DELETE", &base), None);
    assert_eq!(client.receive(delete).status, 204);
    assert_eq!(client.get(&format!("{base}/event")).status, 404);
}

#[test]
fn a_poll_that_is_taken_back_takes_no_event_and_the_connection_goes_on() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut client = Http2::open(&broker, "demo");
    let base = open(&mut client, "");
    let poll = client.send(client.ask("GET", &format!("{base}/event")), None);
    until_polls_wait(&mut client, &broker, 1.0);
    // Dropping the future of an answer resets its stream.
    drop(poll);
    until_polls_wait(&mut client, &broker, 0.0);
    expect(&post_event(&mut producer, &record("a", 1)), 202);
    assert!(client.get(&format!("{base}/event")).text().contains("\"id\":\"a\""));
}

#[test]
fn a_connection_that_breaks_takes_its_poll_with_it() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let mut client = Http2::open(&broker, "demo");
    let base = open(&mut client, "");
    let poll = client.send(client.ask("GET", &format!("{base}/events")), None);
    until_polls_wait(&mut client, &broker, 1.0);
    drop((poll, client));
    wait_for("the withdrawal", || (broker.metric("polls_waiting") == 0.0).then_some(()));
    expect(&post_event(&mut producer, &record("a", 1)), 202);
    let answer = producer.get(&format!("{base}/event"), &[]).unwrap();
    assert!(expect(&answer, 200).contains("\"offset\":\"1\""));
}

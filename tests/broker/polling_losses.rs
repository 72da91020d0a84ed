//! Long polling when clients, connections and the broker break off: nothing is lost, and nothing counts as read that was not.

use crate::harness::{Broker, PATIENCE, expect, keyed, post_batch, post_event, record, wait_for};
use crate::polling::{Instance, SHORT_POLLS, blob, connections, keyed_events, nothing};
use nistru::client::{Answer, Connection};
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Mutex;
use std::time::Instant;

#[test]
fn a_crash_loses_no_event_and_brings_back_what_was_not_confirmed() {
    let mut broker = Broker::start();
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    expect(&post_batch(&mut one, &keyed_events(&["a", "b", "c"])), 202);
    assert_eq!(instance.event(&mut one, "").0, "a");
    nothing(&instance.confirm(&mut other, "?offset=1"));
    assert_eq!(instance.event(&mut other, "").0, "b");
    // The confirm is in the journal when the head has written it, at the latest with the next event.
    wait_for("the confirm", || (broker.metric("group_lag_events") == 2.0).then_some(()));
    expect(&post_event(&mut one, &keyed("d", "same", 1)), 202);
    broker.kill();
    broker.launch();
    let mut connection = broker.connect("demo");
    expect(&instance.get(&mut connection, "event"), 404);
    let instance = Instance::open(&mut connection, "?group=g");
    assert_eq!(instance.ids(&mut connection, 3), ["b", "c", "d"]);
}

#[test]
fn a_client_that_goes_away_while_its_poll_waits_takes_no_event() {
    let broker = Broker::start();
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "");
    let waiting = || broker.metric("polls_waiting");
    let stream = instance.unread_poll(&broker, "event");
    wait_for("the poll", || (waiting() == 1.0).then_some(()));
    drop(stream);
    wait_for("the withdrawal", || (waiting() == 0.0).then_some(()));
    expect(&post_event(&mut connection, &record("a", 1)), 202);
    assert_eq!(instance.event(&mut connection, "?confirm=true"), ("a".into(), "1".into()));
}

#[test]
fn an_answer_that_breaks_off_comes_again_and_reading_on_does_not_confirm_it() {
    let broker = Broker::with(&SHORT_POLLS);
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "?group=g");
    for id in 0..12 {
        expect(&post_event(&mut producer, &blob(id)), 202);
    }
    // More than the socket takes, of which the client reads a little before it breaks the connection.
    let mut stream = instance.unread_poll(&broker, "events");
    stream.read_exact(&mut [0; 1000]).unwrap();
    drop(stream);
    wait_for("the answer to be taken back", || {
        (broker.metric("answers_taken_back_total") == 1.0).then_some(())
    });
    let ids = instance.events(&mut consumer, "?confirm=true");
    assert_eq!(ids.first().map(String::as_str), Some("0"));
    assert_eq!(broker.metric("events_confirmed_total"), 0.0);
    let read = ids.len();
    nothing(&instance.confirm(&mut consumer, ""));
    wait_for("the confirm", || (broker.metric("events_confirmed_total") == read as f64).then_some(()));
}

#[test]
fn an_answer_that_comes_again_after_its_events_left_memory_is_whole() {
    let broker = Broker::with(&[SHORT_POLLS[0], ("storage", "segment_bytes", "\"16 MiB\"")]);
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "?group=g");
    for id in 0..12 {
        expect(&post_event(&mut producer, &blob(id)), 202);
    }
    // Dropped before its answer begins, the poll would take no event.
    let mut stream = instance.unread_poll(&broker, "events");
    stream.read_exact(&mut [0; 1000]).unwrap();
    drop(stream);
    wait_for("the answer to be taken back", || {
        (broker.metric("answers_taken_back_total") == 1.0).then_some(())
    });
    for id in 12..120 {
        expect(&post_event(&mut producer, &blob(id)), 202);
    }
    wait_for("the file in the place of memory", || broker.reads_a_segment_from_its_file().then_some(()));
    let expected: Vec<_> = (0..120).map(|id| id.to_string()).collect();
    assert_eq!(instance.ids(&mut consumer, 120), expected);
}

#[test]
fn what_has_not_reached_the_clients_machine_is_not_confirmed_by_reading_on() {
    let broker = Broker::with(&[
        ("polling", "timeout", "\"1s\""),
        ("server", "event_bytes_max", "\"1 MiB\""),
        ("storage", "segment_bytes", "\"8 MiB\""),
    ]);
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "?group=g");
    // An event larger than what the client's kernel takes as long as nobody reads it.
    let large = record("large", 1)
        .replace("Record", "Blob")
        .replace("\"number\"", &format!("\"text\":\"{}\",\"number\"", "x".repeat(900_000)));
    expect(&post_event(&mut producer, &large), 202);
    let mut stream = instance.unread_poll(&broker, "event");
    wait_for("the answer", || (broker.metric("events_delivered_total") == 1.0).then_some(()));
    nothing(&instance.confirm(&mut consumer, ""));
    expect(&post_event(&mut producer, &record("small", 1)), 202);
    assert_eq!(instance.event(&mut consumer, "?confirm=true"), ("small".into(), "2".into()));
    assert_eq!(broker.metric("events_confirmed_total"), 0.0);
    let mut received = 0;
    while received < large.len() {
        received += stream.read(&mut [0; 65_536]).unwrap();
    }
    wait_for("the confirms", || {
        nothing(&instance.confirm(&mut consumer, ""));
        (broker.metric("events_confirmed_total") == 2.0).then_some(())
    });
}

#[test]
fn an_event_that_comes_back_is_not_for_a_client_that_may_not_see_it_any_more() {
    let broker = Broker::with(&SHORT_POLLS);
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "?group=g");
    expect(&post_event(&mut producer, &record("a", 1)), 202);
    let unread = instance.unread_poll(&broker, "event");
    wait_for("the answer", || (broker.metric("events_delivered_total") == 1.0).then_some(()));
    drop(unread);
    wait_for("the answer to be taken back", || {
        (broker.metric("answers_taken_back_total") == 1.0).then_some(())
    });
    broker.reload_with("clients/demo.toml", |text| {
        let (before, _) = text.split_once("[consumer]").unwrap();
        format!("{before}[consumer]\ntypes = [\"Demo.Load.Blob.Created\"]\n")
    });
    wait_for("the reload on every core", || {
        nothing(&instance.get(&mut consumer, "event"));
        (broker.metric("events_confirmed_total") == 1.0).then_some(())
    });
    expect(&post_event(&mut producer, &blob(7)), 202);
    assert_eq!(instance.event(&mut consumer, "").0, "7");
}

/// What a restless client does with its next poll.
fn restless(broker: &Broker, instance: &mut Instance, connection: &mut Connection, turn: u64, seen: &Seen) {
    match turn % 8 {
        0 => drop(instance.unread_poll(broker, "events?confirm=true")),
        1 => {
            let _unread = instance.unread_poll(broker, "events?confirm=true");
            // Long enough for an answer to come in most cases.
            broker.admin("/healthz");
        }
        2 => {
            instance.delete(connection);
            *instance = Instance::open(connection, "?group=g");
        }
        3 => *connection = broker.connect("demo"),
        4 => {
            let _overtaken = instance.unread_poll(broker, "raw");
            seen.read(&instance.get(connection, "events?confirm=false"));
        }
        _ => seen.read(&instance.get(connection, "events?confirm=true")),
    }
}

/// The ids of all events that some client has read to their end.
#[derive(Default)]
struct Seen(Mutex<BTreeSet<String>>);

impl Seen {
    fn read(&self, answer: &Answer) {
        match answer.status {
            204 => {}
            200 => {
                let events: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).unwrap();
                let ids = events.iter().map(|event| event["id"].as_str().unwrap().to_owned());
                self.0.lock().unwrap().extend(ids);
            }
            _ => panic!("{answer}"),
        }
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[test]
fn no_event_is_lost_whatever_restless_clients_do() {
    const EVENTS: usize = 3000;
    let broker = Broker::with(&SHORT_POLLS);
    let seen = Seen::default();
    let deadline = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        for client in 0..3_u64 {
            let (broker, seen) = (&broker, &seen);
            scope.spawn(move || {
                let mut connection = broker.connect("demo");
                let mut instance = Instance::open(&mut connection, "?group=g");
                let mut random = client + 1;
                while seen.count() < EVENTS {
                    assert!(Instant::now() < deadline, "{} of {EVENTS} events came", seen.count());
                    // xorshift64
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    restless(broker, &mut instance, &mut connection, random >> 8, seen);
                }
            });
        }
        let mut producer = broker.connect("demo");
        for batch in 0..EVENTS / 100 {
            let events: Vec<_> = (0..100).map(|n| record(&(batch * 100 + n).to_string(), 1)).collect();
            expect(&post_batch(&mut producer, &events), 202);
        }
    });
}

//! Consuming by long polling: what each call answers, and how instances come and go.

use crate::harness::{Broker, expect, keyed, next_event, next_ids, post_batch, post_event, record, wait_for};
use crate::transport::replace_line;
use nistru::client::{Answer, Connection, Stream};
use std::collections::BTreeSet;
use std::io::Write;
use std::thread::JoinHandle;
use std::time::Duration;

/// Settings with which polls end soon and instances live long.
pub const SHORT_POLLS: [(&str, &str, &str); 1] = [("polling", "timeout", "\"1s\"")];

/// The path of an instance.
#[derive(Clone)]
pub struct Instance(String);

impl Instance {
    /// Makes an instance for `query`.
    pub fn open(connection: &mut Connection, query: &str) -> Self {
        let answer = connection.request("POST", &format!("/ce/consumers{query}"), &[]).unwrap();
        expect(&answer, 201);
        assert!(answer.body.is_empty());
        let location = answer.header("location").expect("a Location").to_owned();
        let path = location.strip_prefix("https://localhost:").expect("an absolute address");
        Self(path.split_once('/').map(|(_, path)| format!("/{path}")).expect("a path"))
    }

    pub fn get(&self, connection: &mut Connection, what: &str) -> Answer {
        connection.get(&format!("{}/{what}", self.0), &[]).unwrap()
    }

    /// The id and offset of the next event.
    pub fn event(&self, connection: &mut Connection, query: &str) -> (String, String) {
        let answer = self.get(connection, &format!("event{query}"));
        assert_eq!(answer.header("content-type"), Some("application/cloudevents+json"), "{answer}");
        let event: serde_json::Value = serde_json::from_str(&expect(&answer, 200)).unwrap();
        (event["id"].as_str().unwrap().to_owned(), event["offset"].as_str().unwrap().to_owned())
    }

    /// The ids of the next events, in one answer.
    pub fn events(&self, connection: &mut Connection, query: &str) -> Vec<String> {
        let answer = self.get(connection, &format!("events{query}"));
        assert_eq!(answer.header("content-type"), Some("application/cloudevents-batch+json"), "{answer}");
        let events: Vec<serde_json::Value> = serde_json::from_str(&expect(&answer, 200)).unwrap();
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The ids of so many events, in however many answers.
    pub fn ids(&self, connection: &mut Connection, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.extend(self.events(connection, "?confirm=true"));
        }
        ids
    }

    pub fn confirm(&self, connection: &mut Connection, query: &str) -> Answer {
        connection.request("POST", &format!("{}/confirm{query}", self.0), &[]).unwrap()
    }

    pub fn delete(&self, connection: &mut Connection) -> Answer {
        connection.request("DELETE", &self.0, &[]).unwrap()
    }

    /// A poll on a connection of its own that is under way until it is answered.
    pub fn poll(&self, broker: &Broker, what: &str) -> JoinHandle<Answer> {
        let mut connection = broker.connect("demo");
        let path = format!("{}/{what}", self.0);
        let before = broker.metric("polls_waiting");
        let poll = std::thread::spawn(move || connection.get(&path, &[]).unwrap());
        wait_for("the poll to wait", || (broker.metric("polls_waiting") > before).then_some(()));
        poll
    }

    /// A connection on which a poll was sent and nothing is read.
    pub fn unread_poll(&self, broker: &Broker, what: &str) -> Stream {
        let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
        let request = format!("GET {}/{what} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.0);
        stream.write_all(request.as_bytes()).unwrap();
        stream.flush().unwrap();
        stream
    }
}

pub fn connections(broker: &Broker) -> (Connection, Connection) {
    (broker.connect("demo"), broker.connect("demo"))
}

pub fn keyed_events(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| keyed(id, "same", 1)).collect()
}

/// A large event.
pub fn blob(id: usize) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"urn:demo","type":"Demo.Load.Blob.Created","partitionkey":"k","data":"{}"}}"#,
        "x".repeat(60_000)
    )
}

pub fn nothing(answer: &Answer) {
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer}");
}

#[test]
fn events_are_read_one_by_one_and_confirmed_by_reading_on_from_any_connection() {
    let broker = Broker::with(&SHORT_POLLS);
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    expect(&post_batch(&mut one, &keyed_events(&["a", "b", "c", "d"])), 202);
    let pair = |id: &str, offset: &str| (id.to_owned(), offset.to_owned());
    assert_eq!(instance.event(&mut one, ""), pair("a", "1"));
    assert_eq!(instance.event(&mut other, "?confirm=true"), pair("b", "2"));
    wait_for("the confirm", || (broker.metric("events_confirmed_total") == 1.0).then_some(()));
    assert_eq!(instance.events(&mut one, "?confirm=false"), ["c", "d"]);
    nothing(&instance.confirm(&mut other, ""));
    wait_for("the confirms", || (broker.metric("events_confirmed_total") == 4.0).then_some(()));
    for call in ["raw", "event", "events?confirm=true"] {
        nothing(&instance.get(&mut other, call));
    }
    nothing(&instance.delete(&mut other));
    // All was confirmed: the next consumer of the group starts behind it.
    expect(&post_event(&mut one, &keyed("e", "same", 1)), 202);
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["e"]);
}

#[test]
fn a_poll_that_waits_is_answered_when_an_event_comes() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let instance = Instance::open(&mut producer, "");
    for call in ["raw", "event", "events"] {
        let poll = instance.poll(&broker, call);
        expect(&post_event(&mut producer, &record(call, 1)), 202);
        let answer = poll.join().unwrap();
        assert!(expect(&answer, 200).contains(call), "{answer}");
    }
}

#[test]
fn raw_mode_gives_back_the_payload_and_the_attributes_as_headers() {
    let broker = Broker::start();
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "");
    let json = br#"{ "number" : 1.50e0, "name":"\u0103" }"#;
    let cases: [(&str, &[u8]); 3] = [
        ("application/json; charset=utf-8", json),
        ("text/plain", "gr\u{fc}n \"x\"\n".as_bytes()),
        ("application/octet-stream", &[0, 255, 10]),
    ];
    for (content_type, body) in cases {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "%C8%99%20%F0%9F%98%80%25"),
            ("ce-source", "urn:demo"),
            ("ce-type", "Demo.Load.Blob.Created"),
            ("ce-subject", "\"a b\""),
            ("ce-partitionkey", "k"),
            ("ce-retries", "3"),
        ];
        expect(&producer.post("/ce/produce/raw", content_type, &headers, body).unwrap(), 202);
        let answer = instance.get(&mut consumer, "raw?confirm=true");
        expect(&answer, 200);
        assert_eq!(answer.body, body);
        assert_eq!(answer.header("content-type"), Some(content_type));
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "%C8%99%20%F0%9F%98%80%25"),
            ("ce-source", "urn:demo"),
            ("ce-type", "Demo.Load.Blob.Created"),
            ("ce-subject", "a%20b"),
            ("ce-retries", "3"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
        assert!(answer.header("ce-time").is_some() && answer.header("ce-datacontenttype").is_none());
        // What was read raw can be produced raw.
        let again: Vec<_> = answer.headers.iter().filter(|(name, _)| name.starts_with("ce-")).collect();
        let again: Vec<_> = again.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let without_offset: Vec<_> = again.iter().filter(|(name, _)| *name != "ce-offset").copied().collect();
        assert_eq!(without_offset.len() + 1, again.len());
        let produced = producer.post("/ce/produce/raw?validate=only", content_type, &without_offset, body);
        expect(&produced.unwrap(), 204);
    }
}

#[test]
fn a_batch_has_as_many_events_as_allowed_and_is_never_above_one_mebibyte() {
    let broker = Broker::with(&[("polling", "timeout", "\"1s\""), ("polling", "batch_events", "30")]);
    let (mut producer, mut consumer) = connections(&broker);
    let instance = Instance::open(&mut consumer, "");
    for id in 0..40 {
        expect(&post_event(&mut producer, &blob(id)), 202);
    }
    let mut ids = Vec::new();
    while ids.len() < 40 {
        let answer = instance.get(&mut consumer, "events?confirm=true");
        assert!(answer.body.len() <= 1 << 20, "{}", answer.body.len());
        let events: Vec<serde_json::Value> = serde_json::from_str(&expect(&answer, 200)).unwrap();
        assert!(events.len() <= 17, "{}", events.len());
        ids.extend(events.iter().map(|event| event["id"].as_str().unwrap().to_owned()));
    }
    assert_eq!(ids, (0..40).map(|id| id.to_string()).collect::<Vec<_>>());
    expect(
        &post_batch(&mut producer, &(0..50).map(|id| keyed(&id.to_string(), "k", 1)).collect::<Vec<_>>()),
        202,
    );
    let sizes: Vec<_> = (0..2).map(|_| instance.events(&mut consumer, "?confirm=true").len()).collect();
    assert_eq!(sizes, [30, 20]);
}

#[test]
fn an_offset_confirms_up_to_it_and_one_that_was_never_read_is_400() {
    let broker = Broker::with(&SHORT_POLLS);
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    expect(&instance.confirm(&mut one, "?offset=1"), 400);
    expect(&post_batch(&mut one, &keyed_events(&["a", "b", "c"])), 202);
    assert_eq!(instance.events(&mut one, ""), ["a", "b", "c"]);
    for wrong in
        ["?offset=0", "?offset=4", "?offset=-1", "?offset=two", "?offset=", "?offset=99999999999999999999"]
    {
        let text = expect(&instance.confirm(&mut other, wrong), 400);
        assert!(text.contains("offset"), "{wrong}: {text}");
    }
    expect(&instance.confirm(&mut other, "?upto=1"), 400);
    expect(&instance.get(&mut other, "event?confirm=maybe"), 400);
    expect(&instance.get(&mut other, "event?group=g"), 400);
    for _ in 0..2 {
        nothing(&instance.confirm(&mut other, "?offset=2"));
    }
    nothing(&instance.delete(&mut one));
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["c"]);
}

#[test]
fn a_dead_event_is_stored_and_counts_as_consumed_by_its_offset() {
    let broker = Broker::with(&SHORT_POLLS);
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    expect(&post_batch(&mut one, &keyed_events(&["a", "b"])), 202);
    let event = instance.get(&mut one, "raw");
    let headers: Vec<_> = event.headers.iter().filter(|(name, _)| name.starts_with("ce-")).collect();
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("ce-reason", "cannot%20be%20used"));
    let path = format!("{}/dead", instance.0);
    expect(&other.post(&path, "application/json", &headers, &event.body).unwrap(), 202);
    expect(&other.post(&path, "application/json", &headers[..1], b"{}").unwrap(), 400);
    wait_for("the event to be consumed", || (broker.metric("events_confirmed_total") == 1.0).then_some(()));
    nothing(&instance.delete(&mut one));
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["b"]);
    let dead = Instance::open(&mut one, "?group=undertaker&events=false&dead=true");
    let answer = dead.get(&mut other, "raw");
    expect(&answer, 200);
    assert_eq!((answer.header("ce-id"), answer.header("ce-reason")), (Some("a"), Some("cannot%20be%20used")));
    assert_eq!((&answer.body, answer.header("ce-offset")), (&event.body, Some("1")));
}

#[test]
fn of_two_polls_the_later_one_takes_over() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let instance = Instance::open(&mut producer, "");
    let first = instance.poll(&broker, "event");
    let mut connection = broker.connect("demo");
    let path = format!("{}/event", instance.0);
    let second = std::thread::spawn(move || connection.get(&path, &[]).unwrap());
    nothing(&first.join().unwrap());
    expect(&post_event(&mut producer, &record("a", 1)), 202);
    assert!(expect(&second.join().unwrap(), 200).contains("\"id\":\"a\""));
}

#[test]
fn a_confirm_holds_whatever_else_is_asked_at_the_same_time() {
    let broker = Broker::start();
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    for offset in 1..=20 {
        expect(&post_event(&mut other, &record(&offset.to_string(), 1)), 202);
        assert_eq!(instance.event(&mut one, "").1, offset.to_string());
        std::thread::scope(|scope| {
            let confirm = scope.spawn(|| nothing(&instance.confirm(&mut other, "")));
            drop(instance.unread_poll(&broker, "event"));
            confirm.join().unwrap();
        });
        wait_for("the confirm", || {
            (broker.metric("events_confirmed_total") == f64::from(offset)).then_some(())
        });
    }
}

#[test]
fn deleting_ends_a_poll_and_gives_its_partitions_to_the_others_at_once() {
    let broker = Broker::start();
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "?group=g");
    let poll = instance.poll(&broker, "events");
    nothing(&instance.delete(&mut connection));
    let text = expect(&poll.join().unwrap(), 404);
    assert!(text.contains("no such consumer instance"), "{text}");
    expect(&instance.get(&mut connection, "event"), 404);
    expect(&instance.delete(&mut connection), 404);
    expect(&instance.confirm(&mut connection, ""), 404);
    expect(&post_event(&mut connection, &record("a", 1)), 202);
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["a"]);
}

#[test]
fn a_rebalance_that_takes_partitions_away_ends_a_poll() {
    let broker = Broker::start();
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "?group=g");
    let poll = instance.poll(&broker, "events");
    let mut other = broker.consume("demo", "g");
    nothing(&poll.join().unwrap());
    // Both share the partitions now.
    let events: Vec<_> = (0..200).map(|id| record(&id.to_string(), id)).collect();
    expect(&post_batch(&mut connection, &events), 202);
    let of_other: BTreeSet<_> = (0..20).map(|_| next_event(&mut other)["id"].to_string()).collect();
    let own: BTreeSet<_> = instance.ids(&mut connection, 20).into_iter().collect();
    assert!(own.is_disjoint(&of_other));
}

#[test]
fn a_broker_that_stops_answers_polls_with_503_and_its_instances_do_not_survive() {
    let mut broker = Broker::start();
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "?group=g");
    expect(&post_event(&mut connection, &keyed("a", "k", 1)), 202);
    assert_eq!(instance.event(&mut connection, "").0, "a");
    let poll = instance.poll(&broker, "events");
    assert!(broker.stop().success());
    let answer = poll.join().unwrap();
    expect(&answer, 503);
    assert!(answer.retry_after_s().is_some());
    broker.launch();
    let mut connection = broker.connect("demo");
    expect(&instance.get(&mut connection, "event"), 404);
    let instance = Instance::open(&mut connection, "?group=g");
    assert_eq!(instance.event(&mut connection, "").0, "a");
}

#[test]
fn an_instance_is_unknown_to_other_clients_groups_and_bridges() {
    let broker = Broker::start();
    let mut demo = broker.connect("demo");
    let instance = Instance::open(&mut demo, "?group=g");
    let mut police = broker.connect("police");
    for answer in [
        instance.get(&mut police, "event"),
        instance.confirm(&mut police, ""),
        instance.delete(&mut police),
        Instance(instance.0.replace("/g/", "/h/")).get(&mut demo, "event"),
        Instance(format!("/00000000{}", &instance.0[9..])).get(&mut demo, "event"),
        Instance(format!("{}0", &instance.0[..instance.0.len() - 1])).get(&mut demo, "events"),
        Instance(instance.0.replace("instances/", "instances/x")).get(&mut demo, "raw"),
    ] {
        // The last digit of the id may have been 0 to begin with.
        if answer.status != 204 {
            expect(&answer, 404);
        }
    }
    expect(&instance.get(&mut demo, "other"), 404);
    let answer = demo.request("POST", &format!("{}/event", instance.0), &[]).unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
    let answer = demo.get(&instance.0, &[]).unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("DELETE")));
    assert_eq!(demo.get("/ce/consumers", &[]).unwrap().status, 405);
    assert_eq!(demo.request("POST", "/ce/consumers?group=", &[]).unwrap().status, 400);
    let text = expect(&broker.connect("asp").request("POST", "/ce/consumers", &[]).unwrap(), 401);
    assert!(text.contains("consumer"), "{text}");
}

#[test]
fn an_instance_that_was_made_up_is_404_whatever_core_it_names() {
    let broker = Broker::start();
    let mut demo = broker.connect("demo");
    let Instance(path) = Instance::open(&mut demo, "?group=g");
    let (base, name) = path.rsplit_once('/').unwrap();
    for core in ["00", "01", "02", "40", "ff"] {
        let made_up = Instance(format!("{base}/{core}{}", "0".repeat(name.len() - 2)));
        expect(&made_up.get(&mut demo, "event"), 404);
        expect(&made_up.confirm(&mut demo, ""), 404);
        expect(&made_up.delete(&mut demo), 404);
    }
    expect(&Instance(path).delete(&mut demo), 204);
}

#[test]
fn an_instance_that_nobody_polls_is_deleted_and_its_partitions_are_freed() {
    let broker = Broker::with(&[("polling", "timeout", "\"1s\""), ("polling", "instance_timeout", "\"2s\"")]);
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "?group=g");
    expect(&post_event(&mut connection, &record("a", 1)), 202);
    assert_eq!(instance.event(&mut connection, "").0, "a");
    // The other member gets the partition, and the event with it, when the instance is gone.
    let mut other = broker.consume("demo", "g");
    assert_eq!(next_ids(&mut other, 1), ["a"]);
    wait_for("the instance to go", || (broker.metric("polling_instances_open") == 0.0).then_some(()));
    expect(&instance.get(&mut connection, "event"), 404);
}

#[test]
fn web_sockets_and_polling_instances_share_a_group() {
    let broker = Broker::start();
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=g");
    let mut web_socket = broker.consume("demo", "g");
    wait_for("both members", || (broker.metric("group_members") == 2.0).then_some(()));
    let events: Vec<_> = (0..300).map(|id| record(&id.to_string(), id)).collect();
    expect(&post_batch(&mut other, &events), 202);
    let mut seen = BTreeSet::new();
    let mut by_web_socket = 0;
    while let Ok(Some(delivery)) = web_socket.next(Duration::from_millis(500)) {
        let event: serde_json::Value = serde_json::from_str(delivery.text()).unwrap();
        assert!(seen.insert(event["id"].as_str().unwrap().to_owned()));
        web_socket.confirm(delivery.offset().unwrap()).unwrap();
        by_web_socket += 1;
    }
    assert!((1..300).contains(&by_web_socket), "{by_web_socket}");
    for id in instance.ids(&mut one, 300 - by_web_socket) {
        assert!(seen.insert(id));
    }
    assert_eq!(seen.len(), 300);
}

#[test]
fn a_client_that_may_no_longer_consume_loses_its_instance() {
    let broker = Broker::start();
    let mut connection = broker.connect("demo");
    let instance = Instance::open(&mut connection, "");
    let poll = instance.poll(&broker, "event");
    broker.reload_with("clients/demo.toml", |text| text.split_once("[consumer]").unwrap().0.to_owned());
    let text = expect(&poll.join().unwrap(), 404);
    assert!(text.contains("not registered as a consumer"), "{text}");
    let mut answers_at_last = |status: u16, says: &str| {
        wait_for("the registry on every core", || {
            let answer = instance.get(&mut connection, "event");
            (answer.status == status && answer.text().contains(says)).then_some(())
        });
    };
    answers_at_last(401, "consumer");
    broker.reload_with("clients/demo.toml", |text| {
        let text = text + "[consumer]\ntypes = [\"Demo.Load.Record.Created\"]\n";
        replace_line(&text, "name", "name = \"Demonstration\"")
    });
    answers_at_last(404, "has ended");
}

#[test]
fn instances_of_a_client_are_limited_over_all_cores_whichever_way_they_are_connected() {
    let broker = Broker::start();
    broker.reload_with("clients/demo.toml", |text| text + "\n[limits]\ninstances_max = 2\n");
    let (mut one, mut other) = connections(&broker);
    let instance = Instance::open(&mut one, "?group=a");
    let web_socket = broker.consume("demo", "b");
    for connection in [&mut one, &mut other] {
        let answer = connection.request("POST", "/ce/consumers", &[]).unwrap();
        let text = expect(&answer, 429);
        assert!(text.contains("2 consumer instances") && text.contains("instances_max"), "{text}");
        assert!(answer.retry_after_s().is_some());
        assert!(broker.try_consume("demo", "c").is_err_and(|error| error.to_string().contains("429")));
    }
    nothing(&instance.delete(&mut other));
    let mut third = broker.consume("demo", "c");
    drop(web_socket);
    wait_for("room", || (one.request("POST", "/ce/consumers", &[]).unwrap().status == 201).then_some(()));
    assert!(third.next(Duration::from_millis(1)).unwrap().is_none());
}

#[test]
fn polling_instances_are_bounded_also_without_a_limit() {
    let broker = Broker::with(&[("polling", "max_instances_per_client", "3")]);
    let (mut one, mut other) = connections(&broker);
    let open: Vec<_> = (0..3).map(|_| Instance::open(&mut one, "")).collect();
    let text = expect(&other.request("POST", "/ce/consumers", &[]).unwrap(), 429);
    assert!(text.contains("3 long-polling instances"), "{text}");
    nothing(&open[0].delete(&mut other));
    Instance::open(&mut other, "");
    let broker = Broker::with(&[("polling", "max_instances", "2")]);
    let mut one = broker.connect("demo");
    Instance::open(&mut one, "");
    let answer = one.request("POST", "/ce/consumers", &[]).unwrap();
    expect(&answer, 503);
    assert!(answer.retry_after_s().is_some());
}

#[test]
fn the_location_is_the_public_address_where_there_is_one() {
    let broker = Broker::with(&[("server", "public_url", "\"https://events.example\"")]);
    let answer = broker.connect("demo").request("POST", "/ce/consumers?group=a%2Fb", &[]).unwrap();
    let location = answer.header("location").unwrap();
    assert!(location.starts_with("https://events.example/"), "{location}");
    assert!(location.contains("/ce/consumers/a%2Fb/instances/"), "{location}");
}

#[test]
fn a_group_too_many_is_told_to_whoever_polls_and_takes_no_room_of_others() {
    let broker = Broker::with(&[SHORT_POLLS[0], ("polling", "max_instances", "40")]);
    let mut connection = broker.connect("demo");
    for group in 0..1000 {
        Instance::open(&mut connection, &format!("?group={group}")).delete(&mut connection);
    }
    // Some of them may have been gone again before they were members of their group, and then there is room for as many more.
    let mut others = 0..;
    let text = wait_for("a group too many", || {
        let query = format!("?group=another-{}", others.next()?);
        let instance = Instance::open(&mut connection, &query);
        let answer = instance.get(&mut connection, "event");
        (answer.status != 204).then(|| expect(&answer, 404))
    });
    assert!(text.contains("has all the consumer groups"), "{text}");
    for more in 0..40 {
        let instance = Instance::open(&mut connection, &format!("?group=more-{more}"));
        expect(&instance.get(&mut connection, "event"), 404);
    }
}

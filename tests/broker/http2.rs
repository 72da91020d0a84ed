//! HTTP/2: the same interface on streams, WebSockets by extended CONNECT, and clients that mean no good.

use crate::harness::{Broker, keyed, next_event, record, wait_for};
use crate::http2_client::Http2;
use bytes::Bytes;
use h2::Reason;
use h2::ext::Protocol;
use nistru::client::Stream;
use std::io::{Read, Write};
use std::task::Poll;

const EVENT: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

#[test]
fn every_way_to_produce_works_over_http2() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let answer = client.post_event(&record("1", 1));
    assert_eq!((answer.status, answer.text().as_str()), (202, ""));
    assert_eq!(answer.header("content-length"), Some("0"));
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!(client.post("/ce/produce/events", BATCH, format!("[{}]", record("2", 2))).status, 202);
    let raw = [
        ("ce-specversion", "1.0"),
        ("ce-id", "3"),
        ("ce-source", "urn:demo"),
        ("ce-type", "Demo.Load.Record.Created"),
        ("content-type", "application/json"),
    ];
    let request = raw
        .iter()
        .fold(client.ask("POST", "/ce/produce/raw"), |request, (name, value)| request.header(*name, *value));
    let answer = client.send(request, Some(br#"{"number":3,"name":"three"}"#.to_vec()));
    assert_eq!(client.receive(answer).status, 202);
    let mut consumer = broker.consume("demo", "g");
    let mut ids: Vec<_> =
        (0..3).map(|_| next_event(&mut consumer)["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3"]);
    assert_eq!(broker.metric("requests_total"), 4.0, "three requests and a consumer");
}

#[test]
fn what_is_wrong_is_said_as_over_http1() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    assert_eq!(client.get("/ce/other").status, 404);
    let answer = client.get("/ce/produce/event");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
    let answer = client.post("/ce/produce/event", "text/html", record("1", 1));
    assert!(answer.status == 400 && answer.text().contains("Content-Type"), "{answer:?}");
    let odd = record("1", 1).replace("\"number\":1", "\"number\":\"one\"");
    let request = client
        .ask("POST", "/ce/produce/event")
        .header("content-type", EVENT)
        .header("accept", "application/problem+json");
    let answer = client.send(request, Some(odd.into_bytes()));
    let answer = client.receive(answer);
    assert_eq!((answer.status, answer.header("content-type")), (422, Some("application/problem+json")));
    let answer = client.send(client.ask("HEAD", "/ce/other"), None);
    let answer = client.receive(answer);
    assert_eq!((answer.status, answer.body.len()), (404, 0));
    assert_ne!(answer.header("content-length"), Some("0"));
    let answer = client.send(client.ask("GET", "/ce/other").header("x-long", "a".repeat(25_000)), None);
    assert_eq!(client.receive(answer).status, 431);
    let many =
        (0..101).fold(client.ask("GET", "/ce/other"), |request, n| request.header(format!("x-{n}"), "a"));
    let answer = client.send(many, None);
    assert_eq!(client.receive(answer).status, 431);
    assert!(client.end.is_none(), "the connection goes on");
    assert_eq!(broker.metric("requests_failed_total"), 6.0, "all but the one that h2 refuses itself");
}

#[test]
fn a_client_that_does_not_ask_for_http2_gets_http1() {
    let broker = Broker::start();
    for offered in [&[][..], &[&b"http/1.1"[..]]] {
        let mut stream = Stream::open(&broker.endpoint("demo").offering(offered)).unwrap();
        assert_eq!(stream.alpn(), offered.first().copied());
        stream.write_all(b"GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream.flush().unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 404 "));
    }
}

#[test]
fn a_hundred_requests_at_once_are_all_answered() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    for round in 0..3 {
        let answers: Vec<_> = (0..100)
            .map(|n| {
                let request = client.ask("POST", "/ce/produce/event").header("content-type", EVENT);
                client.send(request, Some(record(&format!("{round}-{n}"), n).into_bytes()))
            })
            .collect();
        for answer in answers {
            assert_eq!(client.receive(answer).status, 202);
        }
    }
    assert_eq!(broker.metric("events_produced_total"), 300.0);
}

#[test]
fn large_batches_pass_through_the_windows_next_to_each_other() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let batch = |round: usize| {
        let note = "x".repeat(900);
        let event = |n| {
            record(&format!("{round}-{n}"), n).replacen(
                "\"data\":{",
                &format!("\"data\":{{\"note\":\"{note}\","),
                1,
            )
        };
        format!("[{}]", (0..900).map(event).collect::<Vec<_>>().join(",")).into_bytes()
    };
    let answers: Vec<_> = (0..8)
        .map(|round| {
            let request = client.ask("POST", "/ce/produce/events").header("content-type", BATCH);
            client.send(request, Some(batch(round)))
        })
        .collect();
    for answer in answers {
        let answer = client.receive(answer);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(broker.metric("events_produced_total"), 7200.0);
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_length_or_as_soon_as_it_is() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let request = client.ask("POST", "/ce/produce/events").header("content-type", BATCH);
    let (answer, _held) = client.begin(request.header("content-length", 2 << 20), false);
    let answer = client.receive(answer);
    assert!(answer.status == 413 && answer.text().contains("1048576"), "{answer:?}");
    let request = client.ask("POST", "/ce/produce/events").header("content-type", BATCH);
    let answer = client.send(request, Some(vec![b' '; 2 << 20]));
    assert_eq!(client.receive(answer).status, 413);
    assert_eq!(client.post_event(&record("1", 1)).status, 202, "the connection goes on");
}

#[test]
fn a_body_that_does_not_come_in_time_is_answered_408_and_others_go_on() {
    let broker = Broker::with(&[("server", "request_timeout", "\"1s\"")]);
    let mut client = Http2::open(&broker, "demo");
    let request = client.ask("POST", "/ce/produce/event").header("content-type", EVENT);
    let (answer, mut slow) = client.begin(request, false);
    slow.send_data(Bytes::from_static(b"{"), false).unwrap();
    let answer = client.receive(answer);
    assert!(answer.status == 408 && answer.text().contains("1s"), "{answer:?}");
    assert_eq!(client.post_event(&record("1", 1)).status, 202);
}

#[test]
fn a_body_that_is_waited_for_is_asked_for() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let request = client.ask("POST", "/ce/produce/event").header("content-type", EVENT);
    let (mut answer, mut body) = client.begin(request.header("expect", "100-continue"), false);
    let interim = client.drive(|_, cx| answer.poll_informational(cx)).unwrap().unwrap();
    assert_eq!(interim.status(), 100);
    body.send_data(record("1", 1).into(), true).unwrap();
    assert_eq!(client.receive(answer).status, 202);
    let odd = client.ask("POST", "/ce/produce/event").header("expect", "miracles");
    let answer = client.send(odd, Some(Vec::new()));
    assert_eq!(client.receive(answer).status, 417);
}

#[test]
fn a_stranger_hears_why_it_may_not_come_in() {
    let broker = Broker::start();
    let endpoint = nistru::client::Endpoint::new(&broker.url(), &broker.pki("ca.pem"), None).unwrap();
    let mut client =
        Http2::over(Stream::open(&endpoint.offering(&[b"h2"])).unwrap(), "localhost", &Default::default());
    let answer = client.get("/ce/produce/event");
    assert!(answer.status == 400 && answer.text().contains("certificate"), "{answer:?}");
    broker.reload_with("clients/demo.toml", |text| {
        crate::transport::replace_line(&text, "networks", r#"networks = ["192.0.2.0/24"]"#)
    });
    assert_eq!(Http2::open(&broker, "demo").post_event(&record("1", 1)).status, 401);
}

#[test]
fn a_web_socket_delivers_and_confirms_and_the_next_one_goes_on_there() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let events: Vec<_> = (0..10).map(|n| keyed(&n.to_string(), "k", n)).collect();
    assert_eq!(client.post("/ce/produce/events", BATCH, format!("[{}]", events.join(","))).status, 202);
    let mut first = client.consume("g");
    let event = first.next_event(&mut client);
    assert_eq!((&event["id"], &event["offset"]), (&"0".into(), &"1".into()));
    assert_eq!(first.next_ids(&mut client, 5), ["1", "2", "3", "4", "5"]);
    first.say("confirm:4");
    wait_for_metric(&mut client, &broker, "events_confirmed_total", 4.0);
    first.outgoing.send_reset(Reason::CANCEL);
    drop(first);
    let mut second = client.consume("g");
    assert_eq!(second.next_ids(&mut client, 6), ["4", "5", "6", "7", "8", "9"]);
    second.say("confirm:100");
    let (code, reason) = second.closed(&mut client);
    assert!(code == 1008 && reason.contains("never sent"), "{code} {reason}");
    assert_eq!(client.post_event(&record("10", 10)).status, 202, "the connection goes on");
}

/// Moves the connection until the metric has the value.
fn wait_for_metric(client: &mut Http2, broker: &Broker, name: &str, value: f64) {
    client.drive(|_, _| if broker.metric(name) == value { Poll::Ready(()) } else { Poll::Pending });
}

#[test]
fn several_web_sockets_and_requests_share_a_connection() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let (mut a, mut b) = (client.consume("a"), client.consume("b"));
    for n in 0..50 {
        assert_eq!(client.post_event(&keyed(&n.to_string(), "k", n)).status, 202);
        let expected = n.to_string();
        assert_eq!(a.next_event(&mut client)["id"], expected.as_str());
        assert_eq!(b.next_event(&mut client)["id"], expected.as_str());
        a.say(&format!("confirm:{}", n + 1));
    }
    wait_for_metric(&mut client, &broker, "events_confirmed_total", 50.0);
    assert_eq!(broker.metric("websockets_open"), 2.0);
    assert_eq!(broker.metric("connections_open"), 1.0);
    drop(client);
    wait_for("the sessions' end", || (broker.metric("websockets_open") == 0.0).then_some(()));
}

#[test]
fn events_of_many_windows_arrive_in_order() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let note = "x".repeat(2000);
    for round in 0..10 {
        let event = |n: i64| {
            keyed(&n.to_string(), "k", n).replacen(
                "\"data\":{",
                &format!("\"data\":{{\"note\":\"{note}\","),
                1,
            )
        };
        let batch: Vec<_> = (round * 100..(round + 1) * 100).map(event).collect();
        assert_eq!(client.post("/ce/produce/events", BATCH, format!("[{}]", batch.join(","))).status, 202);
    }
    let mut consumer = client.consume("g");
    for n in 0..1000 {
        assert_eq!(consumer.next_event(&mut client)["data"]["number"], n);
        if n % 100 == 99 {
            consumer.say(&format!("confirm:{}", n + 1));
        }
    }
}

#[test]
fn a_web_socket_that_is_not_asked_for_well_is_refused_with_the_reason() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let (version, protocol) =
        (("sec-websocket-version", "13"), ("sec-websocket-protocol", "cloudevents.json"));
    for (path, fields, status, reason) in [
        ("/ce/consume/ws", &[protocol][..], 426, "13"),
        ("/ce/consume/ws", &[version], 400, "cloudevents.json"),
        ("/ce/consume/ws?events=maybe", &[version, protocol], 400, "events"),
        ("/ce/other", &[version, protocol], 404, "endpoint"),
        ("/ce/produce/event", &[version, protocol], 405, "POST"),
    ] {
        let (answer, _stream) = client.connect(path, fields);
        let answer = client.receive(answer);
        assert!(answer.status == status && answer.text().contains(reason), "{path}: {answer:?}");
        assert_eq!(answer.header("upgrade"), None);
    }
    let answer = client.get("/ce/consume/ws");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("CONNECT")));
    let tunnel = http::Request::builder().method("CONNECT").uri(format!("localhost:{}", broker.port()));
    let (answer, _stream) = client.begin(tunnel, false);
    let answer = client.receive(answer);
    assert!(answer.status == 400 && answer.text().contains(":protocol"), "{answer:?}");
    let udp = client.ask("CONNECT", "/ce/consume/ws").extension(Protocol::from_static("connect-udp"));
    let (answer, _stream) = client.begin(udp, false);
    let answer = client.receive(answer);
    assert!(answer.status == 400 && answer.text().contains("websocket"), "{answer:?}");
    let mut stranger = Http2::open(&broker, "asp");
    let (answer, _stream) = stranger.connect("/ce/consume/ws", &[version, protocol]);
    assert_eq!(stranger.receive(answer).status, 401);
}

/// Makes a long-polling instance and gives its path.
fn instance(client: &mut Http2, query: &str) -> String {
    let answer = client.send(client.ask("POST", &format!("/ce/consumers{query}")), None);
    let answer = client.receive(answer);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let location = answer.header("location").expect("a Location");
    let path = location.strip_prefix("https://localhost:").expect("the authority the client asked");
    path.split_once('/').map(|(_, path)| format!("/{path}")).expect("a path")
}

#[test]
fn instances_are_polled_next_to_each_other_and_go_through_all_their_calls() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let bases: Vec<_> = (0..3).map(|n| instance(&mut client, &format!("?group=g{n}"))).collect();
    let waiting: Vec<_> =
        bases.iter().map(|base| client.send(client.ask("GET", &format!("{base}/event")), None)).collect();
    wait_for_metric(&mut client, &broker, "polls_waiting", 3.0);
    assert_eq!(client.post_event(&keyed("1", "k", 1)).status, 202);
    for answer in waiting {
        let answer = client.receive(answer);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(EVENT)));
        assert!(answer.text().contains(r#""id":"1""#), "{}", answer.text());
    }
    assert_eq!(client.post_event(&keyed("2", "k", 2)).status, 202);
    let base = &bases[0];
    let answer = client.get(&format!("{base}/raw?confirm=true"));
    assert_eq!(
        (answer.status, answer.header("ce-id"), answer.header("ce-offset")),
        (200, Some("2"), Some("2"))
    );
    let confirm = client.send(client.ask("POST", &format!("{base}/confirm")), None);
    assert_eq!(client.receive(confirm).status, 204);
    wait_for_metric(&mut client, &broker, "events_confirmed_total", 2.0);
    let delete = client.send(client.ask("DELETE", base), None);
    let answer = client.receive(delete);
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(client.get(&format!("{base}/event")).status, 404);
}

#[test]
fn a_poll_that_is_taken_back_takes_no_event_and_one_that_is_not_read_gives_them_back() {
    let broker = Broker::with(&[("server", "request_timeout", "\"2s\"")]);
    let mut client = Http2::open(&broker, "demo");
    let base = instance(&mut client, "");
    let waiting = client.send(client.ask("GET", &format!("{base}/event")), None);
    wait_for_metric(&mut client, &broker, "polls_waiting", 1.0);
    drop(waiting);
    wait_for_metric(&mut client, &broker, "polls_waiting", 0.0);
    let event =
        record("1", 1).replacen("\"data\":{", &format!("\"data\":{{\"note\":\"{}\",", "x".repeat(5000)), 1);
    assert_eq!(client.post_event(&event).status, 202);

    let mut narrow = h2::client::Builder::new();
    narrow.initial_window_size(1000);
    let mut other = Http2::with(&broker, "demo", &narrow);
    let unread = other.send(other.ask("GET", &format!("{base}/event")), None);
    let unread = other.run(unread).expect("the head of the answer");
    assert_eq!(unread.status(), 200);
    // Only the first piece fits, and no more room comes in time.
    wait_for_metric(&mut other, &broker, "answers_taken_back_total", 1.0);
    let again = client.get(&format!("{base}/event?confirm=true"));
    assert!(again.status == 200 && again.text().contains(r#""id":"1""#), "{again:?}");
    assert_eq!(broker.metric("events_confirmed_total"), 0.0);
}

/// Settings with which streams that are not read leave room to others.
fn roomy() -> h2::client::Builder {
    let mut settings = h2::client::Builder::new();
    settings.initial_connection_window_size(16 << 20);
    settings
}

#[test]
fn documents_larger_than_the_window_of_their_stream_arrive_whole() {
    let broker = Broker::start();
    let mut client = Http2::with(&broker, "demo", &roomy());
    let mut paths: Vec<_> =
        ["/openapi.yaml", "/swagger/swagger-ui-bundle.js"].iter().cycle().take(10).collect();
    paths.sort();
    let answers: Vec<_> = paths.iter().map(|path| client.send(client.ask("GET", path), None)).collect();
    for (path, answer) in paths.iter().zip(answers) {
        let answer = client.receive(answer);
        assert_eq!(answer.status, 200, "{path}");
        let expected = broker.connect("demo").get(path, &[]).unwrap();
        assert!(answer.body == expected.body && answer.body.len() > 16 << 10, "{path}");
        assert_eq!(answer.header("content-type"), expected.header("content-type"));
        assert_eq!(answer.header("content-security-policy"), expected.header("content-security-policy"));
    }
}

#[test]
fn test_and_dead_events_go_over_streams_too() {
    let broker = Broker::start();
    let mut client = Http2::open(&broker, "demo");
    let mut consumer = client.consume("g&dead=true");
    let raw = [
        ("ce-specversion", "1.0"),
        ("ce-id", "tried"),
        ("ce-source", "urn:demo"),
        ("ce-type", "Demo.Load.Blob.Created"),
        ("content-type", "text/plain"),
    ];
    let request = raw.iter().fold(client.ask("POST", "/ce/tools/consumer/test"), |request, (name, value)| {
        request.header(*name, *value)
    });
    let answer = client.send(request, Some(b"hello".to_vec()));
    assert_eq!(client.receive(answer).status, 202);
    let tried = consumer.next_event(&mut client);
    assert_eq!((&tried["id"], &tried["data"]), (&"tried".into(), &"hello".into()));
    consumer.say(&format!("dead:{tried}"));
    assert_eq!(consumer.next_event(&mut client)["id"], "tried", "as a dead event");
}

#[test]
fn a_client_with_too_many_connections_hears_so_and_loses_the_last() {
    let mut broker = Broker::prepare(&[]);
    let file = broker.registry("clients/demo.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[limits]\nconnections_max = 1\n")).unwrap();
    broker.launch();
    let mut first = Http2::open(&broker, "demo");
    assert_eq!(first.post_event(&record("1", 1)).status, 202);
    let mut second = Http2::open(&broker, "demo");
    let answer = second.post_event(&record("2", 2));
    assert!(answer.status == 429 && answer.header("retry-after").is_some(), "{answer:?}");
    second.wait_for_goodbye();
    assert_eq!(first.post_event(&record("2", 2)).status, 202);
}

#[test]
fn a_stopping_broker_finishes_requests_closes_sessions_and_says_goodbye() {
    let broker = &mut Broker::start();
    let mut client = Http2::open(broker, "demo");
    let mut idle = Http2::open(broker, "demo");
    let mut consumer = client.consume("g");
    let request = client.ask("POST", "/ce/produce/event").header("content-type", EVENT);
    let (mut answer, mut body) = client.begin(request.header("expect", "100-continue"), false);
    client.drive(|_, cx| answer.poll_informational(cx)).unwrap().unwrap();
    let event = record("1", 1);
    body.send_data(Bytes::from(event[..20].to_owned()), false).unwrap();
    broker.signal("TERM");
    assert_eq!(consumer.closed(&mut client).0, 1012);
    assert_eq!(consumer.next(&mut client), None, "the stream ends");
    body.send_data(Bytes::from(event[20..].to_owned()), true).unwrap();
    assert_eq!(client.receive(answer).status, 202);
    client.wait_for_goodbye();
    idle.wait_for_goodbye();
    assert!(broker.wait_for_end().success());
}

#[test]
fn a_consumer_that_does_not_open_its_window_costs_no_memory_and_disturbs_nobody() {
    let broker = Broker::start();
    let mut client = Http2::with(&broker, "demo", &roomy());
    let mut stalled: Vec<_> = (0..20).map(|n| client.consume(&format!("stalled-{n}"))).collect();
    let mut quick = client.consume("quick");
    let note = "x".repeat(1000);
    let mut before = 0;
    for round in 0..60 {
        let event = |n| {
            record(&format!("{round}-{n}"), n).replacen(
                "\"data\":{",
                &format!("\"data\":{{\"note\":\"{note}\","),
                1,
            )
        };
        let batch: Vec<_> = (0..100).map(event).collect();
        assert_eq!(client.post("/ce/produce/events", BATCH, format!("[{}]", batch.join(","))).status, 202);
        quick.next_ids(&mut client, 100);
        quick.say(&format!("confirm:{}", (round + 1) * 100));
        if round == 20 {
            before = crate::fairness::usage(&broker).0;
        }
    }
    // 4,000 more events of a KiB for each of 20 consumers would be 80 MiB.
    let grown = crate::fairness::usage(&broker).0.saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    assert_eq!(stalled[0].next_event(&mut client)["offset"], "1");
}

#[test]
fn streams_and_connections_that_come_and_go_leave_nothing_behind() {
    let broker = Broker::start();
    let come_and_go = |count: usize| {
        for n in 0..count {
            let mut client = Http2::open(&broker, "demo");
            assert_eq!(client.get("/none").status, 404);
            let consumer = client.consume("g");
            let request = client.ask("POST", "/ce/produce/event").header("content-type", EVENT);
            let (_answer, mut body) = client.begin(request, false);
            assert_eq!(client.get("/none").status, 404);
            if n % 2 == 0 {
                body.send_reset(Reason::CANCEL);
                assert_eq!(client.get("/none").status, 404);
            }
            drop((consumer, client));
        }
        wait_for("all connections to be gone", || (broker.metric("connections_open") == 0.0).then_some(()));
    };
    come_and_go(200);
    let (memory, descriptors) = crate::fairness::usage(&broker);
    come_and_go(200);
    let (memory_after, descriptors_after) = crate::fairness::usage(&broker);
    assert!(descriptors_after <= descriptors + 2, "{descriptors} descriptors became {descriptors_after}");
    assert!(memory_after < memory + 4096, "{memory} KiB became {memory_after} KiB");
}

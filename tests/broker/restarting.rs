//! The life of the process: stop, crash, restart, other cores, a directory in use.

use crate::harness::{Broker, closed, expect, keyed, next_ids, post_batch, post_event, record};
use nistru::client::Stream;
use std::io::{Read, Write};
use std::process::Command;

#[test]
fn stopping_closes_sessions_with_1012_and_exits_0() {
    let mut broker = Broker::start();
    let mut consumer = broker.consume("demo", "g");
    let status = std::thread::scope(|scope| {
        let ended = scope.spawn(|| closed(&mut consumer));
        let status = broker.stop();
        assert_eq!(ended.join().unwrap().0, 1012);
        status
    });
    assert!(status.success(), "{status}");
}

#[test]
fn a_request_under_way_is_finished_and_no_new_one_begun_when_the_broker_stops() {
    let mut broker = Broker::start();
    let event = record("under way", 1);
    let (head, rest) = event.split_at(10);
    let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
    write!(
        stream,
        "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n{head}",
        event.len()
    )
    .unwrap();
    stream.flush().unwrap();
    // Requests are read in the order of the connections, so the first one's head is there when the second is answered.
    expect(&broker.connect("demo").get("/none", &[]).unwrap(), 404);
    broker.signal("TERM");
    broker.wait_for_log("stopping");
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 202 ") && answer.contains("Connection: close"), "{answer}");
    assert!(broker.wait_for_end().success());
    broker.launch();
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["under way"]);
}

#[test]
fn a_session_that_begins_while_the_broker_stops_does_not_keep_it() {
    let mut broker = Broker::with(&[("server", "stop_timeout", "\"1h\"")]);
    let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
    write!(
        stream,
        "GET /ce/consume/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: cloudevents.json\r\n"
    )
    .unwrap();
    stream.flush().unwrap();
    expect(&broker.connect("demo").get("/none", &[]).unwrap(), 404);
    broker.signal("TERM");
    broker.wait_for_log("stopping");
    write!(stream, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").unwrap();
    stream.flush().unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    assert!(answer.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1012u16.to_be_bytes()));
    assert!(broker.wait_for_end().success());
}

#[test]
fn what_was_acknowledged_survives_a_crash_and_a_stop() {
    let mut broker = Broker::start();
    let mut expected = Vec::new();
    for round in 0..6 {
        let batch: Vec<_> = (0..100).map(|n| keyed(&format!("{round}-{n}"), "k", n)).collect();
        expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
        expected.extend((0..100).map(|n| format!("{round}-{n}")));
        if round % 2 == 0 {
            broker.kill();
        } else {
            assert!(broker.stop().success());
        }
        broker.launch();
    }
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 600), expected);
}

#[test]
fn a_confirm_survives_a_stop() {
    let mut broker = Broker::start();
    let batch: Vec<_> = (0..10).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut consumer = broker.consume("demo", "g");
    next_ids(&mut consumer, 10);
    consumer.confirm(7).unwrap();
    consumer.close();
    assert!(broker.stop().success());
    broker.launch();
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 3), ["7", "8", "9"]);
}

#[test]
fn the_number_of_cores_may_change_between_runs() {
    let mut broker = Broker::start();
    let mut expected = Vec::new();
    for (round, cores) in ["1", "3", "2"].into_iter().enumerate() {
        let batch: Vec<_> = (0..50).map(|n| keyed(&format!("{round}-{n}"), "k", n)).collect();
        expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
        expected.extend((0..50).map(|n| format!("{round}-{n}")));
        broker.stop();
        broker.configure(&[("server", "cores", cores)]);
        broker.launch();
    }
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 150), expected);
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let broker = Broker::start();
    let second = Command::new(crate::harness::NISTRU)
        .args(["serve", "--config"])
        .arg(broker.config_file())
        .output()
        .unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("in use"), "{text}");
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
}

#[test]
fn a_directory_of_another_format_version_is_refused() {
    let mut broker = Broker::start();
    broker.stop();
    let genesis = broker.dir().join("data/genesis");
    let mut bytes = std::fs::read(&genesis).unwrap();
    bytes[8] = 99;
    std::fs::write(&genesis, bytes).unwrap();
    let said = broker.try_launch().unwrap_err();
    assert!(said.contains("version"), "{said}");
}

#[test]
fn a_damaged_journal_is_refused_until_an_operator_moves_the_damage_aside() {
    let mut broker = Broker::start();
    let mut producer = broker.connect("demo");
    for n in 0..5 {
        expect(&post_event(&mut producer, &keyed(&format!("e{n}"), "k", n)), 202);
    }
    broker.kill();
    let journal = broker.dir().join("data/journal/00000001.jrn");
    let mut bytes = std::fs::read(&journal).unwrap();
    let victim =
        bytes.windows(4).position(|window| window == b"\"e1\"").expect("the second event is in the journal");
    bytes[victim] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let said = broker.try_launch().unwrap_err();
    assert!(
        said.contains("00000001.jrn is damaged in bytes") && said.contains("nistru quarantine"),
        "{said}"
    );

    let quarantined = Command::new(crate::harness::NISTRU)
        .args(["quarantine", "--config"])
        .arg(broker.config_file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&quarantined.stdout).into_owned();
    assert!(quarantined.status.success() && said.contains("lost"), "{said}");
    broker.launch();
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 4), ["e0", "e2", "e3", "e4"]);
}

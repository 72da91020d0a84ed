//! One client never hurts another, and nothing grows.

use crate::harness::{
    Broker, PATIENCE, expect, keyed, next_event, next_ids, post_batch, post_event, record, wait_for,
};
use crate::http2_client::Http2;
use crate::polling::blob;
use nistru::client::Stream;
use std::io::Write;

/// Resident memory of the broker, in KiB, and its open descriptors.
pub fn usage(broker: &Broker) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (kib, std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count())
}

#[test]
fn a_consumer_that_does_not_read_costs_no_memory_and_disturbs_nobody() {
    let broker = Broker::start();
    let mut stalled: Vec<_> = (0..20).map(|n| broker.consume("demo", &format!("stalled-{n}"))).collect();
    let mut quick = broker.consume("demo", "quick");
    let mut producer = broker.connect("demo");
    let filling = "x".repeat(1000);
    let mut before = 0;
    for round in 0..60 {
        let batch: Vec<_> = (0..100)
            .map(|n| {
                record(&format!("{round}-{n}"), n)
                    .replace("\"data\":{", &format!("\"data\":{{\"note\":\"{filling}\","))
            })
            .collect();
        expect(&post_batch(&mut producer, &batch), 202);
        next_ids(&mut quick, 100);
        quick.confirm((round + 1) * 100).unwrap();
        if round == 20 {
            before = usage(&broker).0;
        }
    }
    // 4,000 more events of a KiB for each of 20 consumers would be 80 MiB.
    let grown = usage(&broker).0.saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    assert_eq!(next_event(&mut stalled[0])["offset"], "1");
}

#[test]
fn events_that_wait_for_a_consumer_until_they_leave_memory_are_read_again() {
    let mut broker =
        Broker::prepare(&[("delivery", "window_events", "4"), ("storage", "segment_bytes", "\"16 MiB\"")]);
    let client = broker.registry("clients/demo.toml");
    let (produced, consumed) = {
        let text = std::fs::read_to_string(&client).unwrap();
        let (produced, consumed) = text.split_once("[consumer]").unwrap();
        (produced.to_owned(), consumed.replace(", \"Demo.Load.Blob.Created\"", ""))
    };
    std::fs::write(&client, format!("{produced}[consumer]{consumed}")).unwrap();
    broker.launch();
    let (mut consumer, mut producer) = (broker.consume("demo", "g"), broker.connect("demo"));
    let ids: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    expect(&post_batch(&mut producer, &ids.iter().map(|id| keyed(id, "k", 1)).collect::<Vec<_>>()), 202);
    assert_eq!(next_ids(&mut consumer, 4), ids[..4]);
    // Nothing that it consumes, but of the same partition.
    (0..100).for_each(|n| drop(expect(&post_event(&mut producer, &blob(n)), 202)));
    wait_for("the file in the place of memory", || broker.reads_a_segment_from_its_file().then_some(()));
    assert_eq!(broker.metric("cold_reads_total"), 0.0);
    for (read, four) in (4..).step_by(4).zip(ids[4..].chunks(4)) {
        consumer.confirm(read).unwrap();
        assert_eq!(next_ids(&mut consumer, four.len()), four);
    }
    assert!(broker.metric("cold_reads_total") >= 1.0);
}

#[test]
fn slow_and_half_open_clients_do_not_keep_others_waiting() {
    let broker = Broker::with(&[("server", "request_timeout", "\"60s\"")]);
    let mut slow: Vec<_> = (0..50).map(|_| Stream::open(&broker.endpoint("demo")).unwrap()).collect();
    for (at, stream) in slow.iter_mut().enumerate() {
        let part = [
            "POST /ce/produce/event HTTP/1.1\r\nHo",
            "POST /ce/produce/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n[",
        ][at % 2];
        stream.write_all(part.as_bytes()).unwrap();
        stream.flush().unwrap();
    }
    let mut producer = broker.connect("demo");
    for n in 0..50 {
        expect(&post_event(&mut producer, &record(&n.to_string(), n)), 202);
    }
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 50).len(), 50);
}

#[test]
fn bodies_that_one_client_announces_and_does_not_send_keep_no_other_waiting() {
    let broker = Broker::with(&[("server", "request_timeout", "\"120s\"")]);
    // More than both cores together would read at a time.
    let mut slow: Vec<_> = (0..100).map(|_| Stream::open(&broker.endpoint("demo")).unwrap()).collect();
    for stream in &mut slow {
        let part = "POST /ce/produce/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n[";
        stream.write_all(part.as_bytes()).unwrap();
        stream.flush().unwrap();
    }
    let event = r#"{"specversion":"1.0","id":"ID","source":"urn:asp","type":"ASP.RST.VP.Invalidated","data":{"IDNP":"2000000000001","Number":"A1"}}"#;
    for n in 0..8 {
        let batch = [padded(event.replacen("ID", &format!("{n}"), 1))];
        expect(&post_batch(&mut broker.connect("asp"), &batch), 202);
    }
}

#[test]
fn requests_of_one_connection_wait_for_each_other_before_others_wait_for_them() {
    let broker = Broker::with(&[("server", "request_timeout", "\"120s\"")]);
    let mut greedy = Http2::open(&broker, "demo");
    let mut held: Vec<_> = (0..90)
        .map(|_| {
            greedy.begin(greedy.ask("POST", "/ce/produce/events").header("content-length", 1_000_000), false)
        })
        .collect();
    for (_, body) in &mut held {
        body.send_data(vec![b' '; 500].into(), false).unwrap();
    }
    assert_eq!(greedy.get("/none").status, 404, "all of it has been sent");
    for n in 0..8 {
        expect(&post_batch(&mut broker.connect("demo"), &[padded(record(&n.to_string(), n))]), 202);
    }
}

/// An event in so much white space that its request is none of the small ones, which wait for no large one anyway.
fn padded(event: String) -> String {
    event + &" ".repeat(70_000)
}

/// Connects: `NISTRU_CONNECTS` (default 400) after a warm-up of as many, half requests, half consumers.
#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let broker = Broker::start();
    let count =
        std::env::var("NISTRU_CONNECTS").map_or(400, |text| text.parse().expect("a number of connects"));
    let come_and_go = |count: usize| {
        for n in 0..count / 2 {
            let mut connection = broker.connect("demo");
            if n % 2 == 0 {
                expect(&connection.get("/none", &[]).unwrap(), 404);
            }
            drop(broker.consume("demo", "g"));
        }
        wait_for("all connections to be gone", || (broker.metric("connections_open") == 0.0).then_some(()));
    };
    come_and_go(count);
    let (memory, descriptors) = usage(&broker);
    come_and_go(count);
    let (memory_after, descriptors_after) = usage(&broker);
    println!(
        "{count} connects: {memory} KiB before, {memory_after} KiB after, {descriptors} and {descriptors_after} descriptors"
    );
    assert!(descriptors_after <= descriptors + 2, "{descriptors} descriptors became {descriptors_after}");
    assert!(memory_after < memory + 2048 + count as u64 / 100, "{memory} KiB became {memory_after} KiB");
}

#[test]
fn a_dead_peer_is_noticed_and_its_partitions_go_to_others() {
    let settings = [("delivery", "ping_interval", "\"1s\""), ("delivery", "pong_timeout", "\"1s\"")];
    let broker = Broker::with(&settings);
    let silent = broker.consume("demo", "g");
    expect(&post_event(&mut broker.connect("demo"), &keyed("1", "k", 1)), 202);
    let mut other = broker.consume("demo", "g");
    let event = wait_for("the event of the dead member", || other.next(PATIENCE).unwrap());
    assert!(event.text().contains("\"id\":\"1\""));
    drop(silent);
}

#[test]
fn a_consumer_of_a_rare_type_is_not_sent_through_the_traffic_of_others() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    for round in 0..20 {
        let batch: Vec<_> = (0..100).map(|n| keyed(&format!("{round}-{n}"), "k", n)).collect();
        expect(&post_batch(&mut producer, &batch), 202);
    }
    let mut police = broker.consume("police", "g");
    let rare = r#"{"specversion":"1.0","id":"rare","source":"urn:asp","type":"ASP.RST.VP.Invalidated","partitionkey":"k","data":{"IDNP":"2000000000001","Number":"A1"}}"#;
    expect(&post_event(&mut broker.connect("asp"), rare), 202);
    assert_eq!(next_event(&mut police)["id"], "rare");
    assert!(broker.metric("fetches_total") < 40.0, "{} fetches", broker.metric("fetches_total"));
}

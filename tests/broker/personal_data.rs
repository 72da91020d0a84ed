//! Personal data: a durable record before an event leaves, what it says, what happens when it cannot be made, and where it goes.

use crate::harness::{
    Broker, NISTRU, PATIENCE, Setting, closed, expect, keyed, next_event, next_ids, post_batch, post_event,
    record, wait_for,
};
use crate::mlog::{Mlog, Reply};
use nistru::client::{Connection, Consumer, Subscription};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const RULE: &str = r#"
[[consumer.personal_data]]
types = ["Demo.Load.Record.Created"]
legal_basis = "Law 133/2011, art. 5"
legal_reason = "$.note"
subject = "$.name"
subject_type = "natural person"
"#;

/// A broker whose client `demo` gets records as personal data by `rule`, and `police` gets the same events without one.
fn prepare(settings: &[Setting<'_>], rule: &str) -> Broker {
    let broker = Broker::prepare(settings);
    add_rule(&broker, rule);
    let police = broker.registry("clients/police.toml");
    let text = fs::read_to_string(&police).unwrap();
    let types = "types = [\"Demo.Load.Record.Created\", ";
    fs::write(&police, text.replacen("types = [", types, 1)).unwrap();
    broker
}

fn add_rule(broker: &Broker, rule: &str) {
    let path = broker.registry("clients/demo.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap() + rule).unwrap();
}

fn start(settings: &[Setting<'_>], rule: &str) -> Broker {
    let mut broker = prepare(settings, rule);
    broker.launch();
    broker
}

fn audit_dir(broker: &Broker) -> PathBuf {
    broker.dir().join("data/audit")
}

/// Every record on disk, in order.
fn records(broker: &Broker) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(audit_dir(broker))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "jsonl"))
        .filter(|path| path.file_stem().is_some_and(|stem| stem != "refused"))
        .collect();
    files.sort();
    let lines = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect::<String>();
    // A crash may have cut off a line.
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line.get("seq").is_some()).collect()
}

fn marked(broker: &Broker) -> Vec<(String, bool)> {
    let told = |record: &Value| (record["id"].as_str().unwrap().to_owned(), record["redelivery"] == true);
    records(broker).iter().map(told).collect()
}

fn note(id: &str, note: &str) -> String {
    record(id, 1).replacen("\"number\"", &format!("\"note\":\"{note}\",\"number\""), 1)
}

fn is_silent(consumer: &mut Consumer) -> bool {
    consumer.next(Duration::from_millis(300)).unwrap().is_none()
}

fn verify(broker: &Broker) -> (bool, String) {
    let verify = |option: &str, path: PathBuf| {
        Command::new(NISTRU).args(["audit", "verify", option]).arg(path).output().unwrap()
    };
    let output = verify("--config", broker.config_file());
    assert_eq!(output.stdout, verify("--dir", audit_dir(broker)).stdout);
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_record_is_on_disk_when_the_event_arrives_and_says_who_received_whose_data_and_why() {
    let broker = start(&[], RULE);
    let (mut demo, mut police) = (broker.consume("demo", "g"), broker.consume("police", "g"));
    let mut producer = broker.connect("demo");
    for number in 0..20 {
        expect(&post_event(&mut producer, &note(&format!("p{number}"), "birth")), 202);
        let event = next_event(&mut demo);
        assert_eq!(event["offset"], (number + 1).to_string());
        let records = records(&broker);
        assert_eq!(records.len(), number + 1);
        let record = &records[number];
        let expected = [
            ("event_type", json!("Nistru.PersonalData.Transfer")),
            ("legal_entity", json!("1000000000001")),
            ("legal_basis", json!("Law 133/2011, art. 5")),
            ("legal_reason", json!("birth")),
            ("subject", event["id"].clone()),
            ("subject_type", json!("natural person")),
            ("user", json!("636a42bd-e9a8-4f69-ad04-092012f31b0e")),
            ("user_name", json!("Demonstration")),
            ("user_address", json!("127.0.0.1")),
            ("group", json!("g")),
            ("source", event["source"].clone()),
            ("id", event["id"].clone()),
            ("type", event["type"].clone()),
            ("redelivery", json!(false)),
            ("missing", json!([])),
        ];
        for (name, value) in expected {
            assert_eq!(record[name], value, "{name} of {record}");
        }
        for name in ["event_time", "event_id", "partition", "offset", "chain"] {
            assert!(!record[name].is_null(), "{name} of {record}");
        }
    }
    next_ids(&mut police, 20);
    assert_eq!(records(&broker).len(), 20, "the other client has no rule");
    assert_eq!(broker.metric("audit_records_total"), 20.0);
    assert!(verify(&broker).0);
}

#[test]
fn nothing_with_personal_data_arrives_before_it_can_be_recorded_and_others_are_not_held_up() {
    let mut broker = prepare(&[("audit", "dir", "\"blocked/audit\"")], RULE);
    let blocked = broker.dir().join("blocked");
    fs::write(&blocked, "in the way").unwrap();
    broker.launch();
    let (mut demo, mut police) = (broker.consume("demo", "g"), broker.consume("police", "g"));
    let batch: Vec<_> = (0..50).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    next_ids(&mut police, 50);
    assert!(is_silent(&mut demo));
    assert_eq!(broker.metric("audit_failing"), 1.0);
    assert_eq!(broker.metric("audit_waiting"), 1.0);
    broker.wait_for_log("records of personal data cannot be written");
    fs::remove_file(&blocked).unwrap();
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(next_ids(&mut demo, 50), expected, "in their order");
    assert_eq!(broker.metric("audit_failing"), 0.0);
}

#[test]
fn a_directory_that_vanishes_under_the_broker_holds_personal_data_back_until_it_is_there_again() {
    let broker = start(&[], RULE);
    let mut demo = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &record("1", 1)), 202);
    next_event(&mut demo);
    let (here, away) = (audit_dir(&broker), broker.dir().join("away"));
    fs::rename(&here, &away).unwrap();
    fs::write(&here, "in the way").unwrap();
    expect(&post_event(&mut producer, &record("2", 1)), 202);
    broker.wait_for_log("records of personal data cannot be written");
    assert!(is_silent(&mut demo));
    // What is held back cannot be confirmed either.
    let mut other = broker.consume("demo", "other");
    assert!(is_silent(&mut other));
    other.send("confirm:1").unwrap();
    let (code, reason) = closed(&mut other);
    assert!(code == 1008 && reason.contains("never sent"), "{code} {reason}");
    fs::remove_file(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    assert_eq!(next_event(&mut demo)["id"], "2");
    assert_eq!(marked(&broker), [("1".to_owned(), false), ("2".to_owned(), false)]);
    assert!(verify(&broker).0);
}

#[test]
fn a_consumer_that_leaves_while_it_waits_is_not_recorded_and_gets_everything_later() {
    let mut broker = prepare(&[("audit", "dir", "\"blocked/audit\"")], RULE);
    let blocked = broker.dir().join("blocked");
    fs::write(&blocked, "in the way").unwrap();
    broker.launch();
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
    let mut first = broker.consume("demo", "g");
    assert!(is_silent(&mut first));
    first.close();
    wait_for("the batch to be let go", || (broker.metric("audit_waiting") == 0.0).then_some(()));
    fs::remove_file(&blocked).unwrap();
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["1"]);
    assert_eq!(broker.metric("audit_records_total"), 1.0);
}

#[test]
fn an_operator_may_have_events_delivered_without_records() {
    let settings = [("audit", "dir", "\"blocked/audit\""), ("audit", "on_failure", "\"deliver\"")];
    let mut broker = prepare(&settings, RULE);
    fs::write(broker.dir().join("blocked"), "in the way").unwrap();
    broker.launch();
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 1), ["1"]);
    assert_eq!(broker.metric("audit_unrecorded_total"), 1.0);
    broker.wait_for_log("personal data is delivered without a record");
}

#[test]
fn redelivery_is_recorded_again_and_marked_also_after_a_crash() {
    let mut broker = start(&[], RULE);
    let batch: Vec<_> = (0..3).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    for _ in 0..2 {
        let mut consumer = broker.consume("demo", "g");
        assert_eq!(next_ids(&mut consumer, 3), ["0", "1", "2"]);
        consumer.close();
    }
    broker.kill();
    broker.launch();
    expect(&post_event(&mut broker.connect("demo"), &keyed("3", "k", 3)), 202);
    assert_eq!(next_ids(&mut broker.consume("demo", "g"), 4), ["0", "1", "2", "3"]);
    assert_eq!(next_ids(&mut broker.consume("demo", "other"), 1), ["0"]);
    let marked: Vec<_> = marked(&broker).into_iter().map(|(id, again)| format!("{id} {again}")).collect();
    let again = ["0 true", "1 true", "2 true"];
    assert_eq!(marked[..3], ["0 false", "1 false", "2 false"]);
    assert_eq!((&marked[3..6], &marked[6..9]), (&again.map(String::from)[..], &again.map(String::from)[..]));
    assert_eq!(marked[9], "3 false");
    assert_eq!(marked[10], "0 false", "another group receives it for the first time");
    assert!(verify(&broker).0);
}

#[test]
fn no_crash_lets_an_event_out_without_a_record() {
    let mut broker = start(&[("audit", "file_bytes_max", "\"16 KiB\"")], RULE);
    let batch: Vec<_> = (0..400).map(|n| record(&n.to_string(), n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut received = BTreeMap::<String, usize>::new();
    for crash in 0..4 {
        let mut demo = broker.consume("demo", "g");
        for id in next_ids(&mut demo, 40 + crash * 70) {
            *received.entry(id).or_default() += 1;
        }
        broker.kill();
        // What had left the broker still arrives.
        while let Ok(Some(delivery)) = demo.next(PATIENCE) {
            let event: Value = serde_json::from_str(delivery.text()).unwrap();
            *received.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let (whole, text) = verify(&broker);
        assert!(whole, "{text}");
        broker.launch();
    }
    let mut recorded = BTreeMap::<String, usize>::new();
    for (id, _) in marked(&broker) {
        *recorded.entry(id).or_default() += 1;
    }
    for (id, times) in received {
        assert!(recorded.get(&id).is_some_and(|&records| records >= times), "{id} received {times} times");
    }
}

#[test]
fn tampering_is_found_and_a_crash_is_none() {
    let mut broker = start(&[("audit", "file_bytes_max", "\"4 KiB\"")], RULE);
    let mut demo = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    for number in 0..20 {
        expect(&post_event(&mut producer, &note(&number.to_string(), "r")), 202);
        next_event(&mut demo);
    }
    broker.kill();
    let (whole, text) = verify(&broker);
    assert!(whole && text.contains("20 records in") && text.contains("last record 20, chain "), "{text}");
    let file = audit_dir(&broker).join("00000002.jsonl");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before.replacen("\"subject\":\"", "\"subject\":\"x", 1)).unwrap();
    let (whole, text) = verify(&broker);
    assert!(!whole && text.contains("broken: 00000002.jsonl:"), "{text}");
    fs::remove_file(&file).unwrap();
    let (whole, text) = verify(&broker);
    assert!(!whole && text.contains("broken: 00000002.jsonl: missing"), "{text}");
    fs::write(&file, before).unwrap();
    assert!(verify(&broker).0);
}

#[test]
fn events_without_the_values_of_a_record_are_delivered_and_flagged_or_become_dead() {
    let withhold = RULE.to_owned() + "missing = \"withhold\"\n";
    for rule in [RULE, &withhold] {
        let broker = start(&[], rule);
        let mut demo = broker.consume("demo", "g");
        let batch =
            [keyed("1", "k", 1), note("2", "r").replacen("\"data\"", "\"partitionkey\":\"k\",\"data\"", 1)];
        expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
        if rule == RULE {
            assert_eq!(next_ids(&mut demo, 2), ["1", "2"]);
            let told: Vec<_> = records(&broker).iter().map(|record| record["missing"].clone()).collect();
            assert_eq!(told, [json!(["legal_reason"]), json!([])]);
            continue;
        }
        assert_eq!(next_ids(&mut demo, 1), ["2"]);
        let wanted = Subscription { events: Some(false), dead: Some(true), ..Subscription::group("d") };
        let mut dead = Consumer::open(&broker.endpoint("demo"), &wanted).unwrap();
        let found = next_event(&mut dead);
        assert_eq!((&found["id"], &found["data"]["name"]), (&json!("1"), &json!("1")));
        assert_eq!(broker.metric("audit_withheld_total"), 1.0);
        assert_eq!(records(&broker).len(), 1, "dead events are the client's own");
        demo.confirm(2).unwrap();
        demo.close();
        assert!(is_silent(&mut broker.consume("demo", "g")), "the withheld event counts as consumed");
    }
}

#[test]
fn a_rule_for_a_source_covers_all_types_but_no_test_events() {
    let broker =
        start(&[], &RULE.replace("types = [\"Demo.Load.Record.Created\"]", "sources = [\"urn:demo\"]"));
    let mut demo = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    let binary = |path: &str, id: &str| {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "urn:demo"),
            ("ce-type", "Demo.Load.Blob.Created"),
        ];
        let mut connection = broker.connect("demo");
        connection.post(path, "application/json", &headers, br#"{"name":"7","note":"r"}"#).unwrap()
    };
    expect(&binary("/ce/tools/consumer/test", "tried out"), 202);
    assert_eq!(next_event(&mut demo)["id"], "tried out");
    expect(&binary("/ce/produce/raw", "blob"), 202);
    assert_eq!(next_event(&mut demo)["id"], "blob");
    expect(&post_event(&mut producer, &record("record", 1)), 202);
    assert_eq!(next_event(&mut demo)["id"], "record");
    assert_eq!(marked(&broker), [("blob".to_owned(), false), ("record".to_owned(), false)]);
}

#[test]
fn a_rule_that_comes_with_a_reload_holds_for_sessions_that_are_open() {
    let broker = Broker::start();
    let mut demo = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &record("1", 1)), 202);
    next_event(&mut demo);
    assert!(records(&broker).is_empty());
    broker.reload_with("clients/demo.toml", |text| text + RULE);
    expect(&post_event(&mut producer, &record("2", 1)), 202);
    next_event(&mut demo);
    assert_eq!(marked(&broker), [("2".to_owned(), false)]);
    broker.reload_with("clients/demo.toml", |text| text.replace("\"$.name\"", "\"$.name[\""));
    broker.wait_for_log("is no JSON path as of RFC 9535");
    expect(&post_event(&mut producer, &record("3", 1)), 202);
    next_event(&mut demo);
    assert_eq!(records(&broker).len(), 2, "the running rules stay");
}

/// Makes a long-polling instance; gives its path.
fn open_instance(connection: &mut Connection) -> String {
    let opened = connection.request("POST", "/ce/consumers?group=g", &[]).unwrap();
    let location = opened.header("location").expect("a Location").to_owned();
    let (_, path) = location.strip_prefix("https://").and_then(|rest| rest.split_once('/')).unwrap();
    format!("/{path}")
}

#[test]
fn a_rule_that_comes_with_a_reload_holds_for_events_that_had_passed_and_not_gone() {
    let broker = start(&[], &RULE.replacen("subject", "sources = [\"urn:nobody\"]\nsubject", 1));
    let mut connection = broker.connect("demo");
    let path = open_instance(&mut connection);
    let batch: Vec<_> = (0..3).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let mut next = || {
        let answer = connection.get(&format!("{path}/event?confirm=true"), &[]).unwrap();
        let event: Value = serde_json::from_str(&expect(&answer, 200)).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(next(), "0");
    assert!(records(&broker).is_empty());
    broker.reload_with("clients/demo.toml", |text| text.replace("sources = [\"urn:nobody\"]\n", ""));
    assert_eq!([next(), next()], ["1", "2"]);
    assert_eq!(marked(&broker), [("1".to_owned(), false), ("2".to_owned(), false)]);
}

#[test]
fn long_polling_passes_the_same_gate() {
    let broker = start(&[], RULE);
    let mut connection = broker.connect("demo");
    let path = open_instance(&mut connection);
    let batch: Vec<_> = (0..5).map(|n| keyed(&n.to_string(), "k", n)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    let answer = connection.get(&format!("{path}/events?confirm=true"), &[]).unwrap();
    let events: Vec<Value> = serde_json::from_str(&expect(&answer, 200)).unwrap();
    let received: Vec<_> = events.iter().map(|event| event["id"].clone()).collect();
    let recorded: Vec<_> = records(&broker).iter().map(|record| record["id"].clone()).collect();
    assert!(!received.is_empty() && recorded[..received.len()] == received, "{recorded:?} {received:?}");
}

/// Settings for a broker that sends to `mlog`.
fn sending_to(mlog: &Mlog) -> Vec<Setting<'static>> {
    let url: &'static str = format!("\"{}\"", mlog.url()).leak();
    vec![
        ("audit", "file_bytes_max", "\"64 KiB\""),
        ("audit.mlog", "url", url),
        ("audit.mlog", "certificate", "\"pki/demo.pem\""),
        ("audit.mlog", "key", "\"pki/demo.key\""),
        ("audit.mlog", "ca", "[\"pki/ca.pem\"]"),
        ("audit.mlog", "timeout", "\"1s\""),
        ("audit.mlog", "retry_interval", "\"20ms\""),
    ]
}

#[test]
fn every_record_reaches_mlog_while_it_fails_hangs_and_restarts_and_the_broker_is_killed() {
    let mlog = Mlog::reserve();
    let mut broker = prepare(&sending_to(&mlog), RULE);
    let mut service = mlog.serve(&broker, |_, number| match number {
        0 => Reply::Status(500),
        1 => Reply::Hang,
        _ => Reply::Status(200),
    });
    broker.launch();
    let mut number = 0;
    let mut deliver = |broker: &Broker, count: usize| {
        let mut demo = broker.consume("demo", "g");
        let filling = "x".repeat(900);
        for _ in 0..count / 50 {
            let batch: Vec<_> = (0..50)
                .map(|_| {
                    number += 1;
                    note(&format!("e{number}"), &filling)
                })
                .collect();
            expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
            next_ids(&mut demo, 50);
            demo.confirm(1).unwrap();
        }
    };
    deliver(&broker, 400);
    wait_for("the first records", || (service.accepted().len() >= 100).then_some(()));
    broker.kill();
    drop(service);
    broker.launch();
    deliver(&broker, 200);
    assert!(broker.metric("mlog_requests_failed_total") > 0.0 || broker.metric("mlog_oldest_ms") > 0.0);
    service = mlog.serve(&broker, |_, _| Reply::Status(200));
    let numbers = |broker: &Broker| -> Vec<u64> {
        records(broker).iter().map(|record| record["seq"].as_u64().unwrap()).collect()
    };
    // A session that has just ended may still have had its last batch recorded.
    let all = wait_for("each record at least once", || {
        let all = numbers(&broker);
        mlog.seen().iter().copied().eq(all.iter().copied()).then_some(all)
    });
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(service.sizes().iter().all(|&bytes| bytes <= 256 << 10));
    wait_for("no lag", || (broker.metric("mlog_oldest_ms") == 0.0).then_some(()));
    assert_eq!(broker.metric("mlog_last_record"), broker.metric("audit_last_record"));
    assert!(verify(&broker).0);
}

#[test]
fn a_record_that_mlog_refuses_is_set_aside_and_the_others_go_on() {
    let mlog = Mlog::reserve();
    let mut broker = prepare(&sending_to(&mlog), RULE);
    let service = mlog.serve(&broker, |body, _| match body.contains("\"id\":\"bad\"") {
        true => Reply::Status(422),
        false => Reply::Status(200),
    });
    broker.launch();
    let mut demo = broker.consume("demo", "g");
    let batch: Vec<_> = ["a", "b", "bad", "c", "d"].iter().map(|id| keyed(id, "k", 1)).collect();
    expect(&post_batch(&mut broker.connect("demo"), &batch), 202);
    next_ids(&mut demo, 5);
    wait_for("the others", || (service.accepted().len() == 4).then_some(()));
    wait_for("the refused one", || (broker.metric("mlog_refused_total") == 1.0).then_some(()));
    let refused = fs::read_to_string(audit_dir(&broker).join("refused.jsonl")).unwrap();
    let refused: Value = serde_json::from_str(refused.trim()).unwrap();
    assert_eq!((&refused["status"], &refused["record"]["id"]), (&json!(422), &json!("bad")));
    assert!(verify(&broker).0);
}

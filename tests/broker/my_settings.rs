//! `GET /ce/tools/my-settings`: what a client is told about itself.

use crate::harness::{Broker, expect, keyed, next_event, next_ids, post_batch, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

fn settings(broker: &Broker, client: &str) -> Value {
    let answer = broker.connect(client).get("/ce/tools/my-settings", &[]).unwrap();
    let text = expect(&answer, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_str(&text).unwrap()
}

fn events(count: i64) -> Vec<String> {
    (0..count).map(|n| keyed(&n.to_string(), &n.to_string(), n)).collect()
}

#[test]
fn a_client_sees_its_registration_and_its_certificate() {
    let broker = Broker::start();
    let demo = settings(&broker, "demo");
    assert_eq!(demo["id"], "636a42bd-e9a8-4f69-ad04-092012f31b0e");
    assert_eq!((&demo["name"], &demo["owner_idno"]), (&json!("Demonstration"), &json!("1000000000001")));
    assert_eq!((&demo["enabled"], &demo["networks"]), (&json!(true), &json!(["127.0.0.0/8", "::1/128"])));
    let types = json!(["Demo.Load.Blob.Created", "Demo.Load.Record.Created"]);
    assert_eq!(demo["producer"], json!({"sources": ["urn:demo"], "types": types}));
    assert_eq!(demo["consumer"], json!({"types": types, "personal_data": []}));
    assert_eq!((&demo["groups"], &demo["dead_events"]), (&json!([]), &json!(0)));
    let certificate = &demo["certificate"];
    let pem = std::fs::read_to_string(broker.pki("demo.pem")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let parsed = pem.parse_x509().unwrap();
    let expires = time::OffsetDateTime::from_unix_timestamp(parsed.validity().not_after.timestamp()).unwrap();
    let format = time::format_description::well_known::Rfc3339;
    assert_eq!(certificate["expires"], expires.format(&format).unwrap());
    assert!(certificate["issuer"].as_str().unwrap().contains("CN="), "{certificate}");
    assert!(certificate["serial"].as_str().unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(settings(&broker, "asp")["consumer"], Value::Null);
    assert_eq!(settings(&broker, "police")["producer"], Value::Null);
}

#[test]
fn the_limits_are_those_that_hold() {
    let broker = Broker::with(&[("server", "event_bytes_max", "\"32 KiB\"")]);
    let usual = json!({
        "request_bytes": 1 << 20, "event_bytes": 32 << 10, "events_per_second": null, "bytes_per_second": null,
        "connections": null, "instances": null, "polling_instances": 100,
    });
    assert_eq!(settings(&broker, "demo")["limits"], usual);
    let limits = "\n[limits]\nevent_bytes_max = \"16 KiB\"\nrequest_bytes_max = \"128 KiB\"\nevents_per_second_max = 50\n\
                  connections_max = 9\n";
    broker.reload_with("clients/demo.toml", |text| text + limits);
    wait_for("the new limits", || {
        let limits = settings(&broker, "demo")["limits"].clone();
        let expected = json!({
            "request_bytes": 128 << 10, "event_bytes": 16 << 10, "events_per_second": 50, "bytes_per_second": null,
            "connections": 9, "instances": null, "polling_instances": 100,
        });
        (limits == expected).then_some(())
    });
}

#[test]
fn rules_on_personal_data_are_shown_as_they_hold() {
    let broker = Broker::start();
    let rule = "\n[[consumer.personal_data]]\ntypes = [\"Demo.Load.Record.Created\"]\nlegal_basis = \"Law 1\"\n\
                legal_reason = \"$.name\"\nsubject = \"$.person.idnp\"\nsubject_type = \"person\"\nmissing = \"withhold\"\n";
    broker.reload_with("clients/demo.toml", |text| text + rule);
    wait_for("the rule", || {
        let rules = settings(&broker, "demo")["consumer"]["personal_data"].clone();
        let expected = json!([{
            "types": ["Demo.Load.Record.Created"], "sources": [], "legal_basis": "Law 1", "legal_reason": "$.name",
            "subject": "$.person.idnp", "subject_type": "person", "missing": "withhold",
        }]);
        (rules == expected).then_some(())
    });
}

#[test]
fn each_group_has_its_lag_in_events_and_in_seconds() {
    let broker = Broker::start();
    let before = SystemTime::now();
    expect(&post_batch(&mut broker.connect("demo"), &events(30)), 202);
    let mut reader = broker.consume("demo", "reader");
    next_ids(&mut reader, 30);
    let mut sleeper = broker.consume("demo", "sleeper");
    next_event(&mut sleeper);
    drop(sleeper);
    reader.confirm(30).unwrap();
    let groups = wait_for("the confirm", || {
        let groups = settings(&broker, "demo")["groups"].clone();
        (groups[0]["lag_events"] == 0 && groups[1]["members"] == 0).then_some(groups)
    });
    assert_eq!(groups[0], json!({"name": "reader", "members": 1, "lag_events": 0, "lag_seconds": 0.0}));
    assert_eq!((&groups[1]["name"], &groups[1]["lag_events"]), (&json!("sleeper"), &json!(30)));
    let lag = |groups: &Value| Duration::from_secs_f64(groups[1]["lag_seconds"].as_f64().unwrap());
    let first = lag(&groups);
    assert!(first <= before.elapsed().unwrap() + Duration::from_millis(1), "{first:?}");
    wait_for("a greater age", || (lag(&settings(&broker, "demo")["groups"]) > first).then_some(()));
    assert_eq!(settings(&broker, "police")["groups"], json!([]));
}

#[test]
fn the_oldest_event_is_found_also_where_it_is_not_in_memory() {
    let mut broker = Broker::start();
    let consumer = broker.consume("demo", "g");
    wait_for("the group", || settings(&broker, "demo")["groups"].get(0).cloned());
    drop(consumer);
    let mut producer = broker.connect("demo");
    // More than the eight sealed segments of 1 MiB whose indexes one partition keeps in memory.
    let blob = "x".repeat(60_000);
    for batch in 0..12 {
        let event = |n| {
            format!(
                r#"{{"specversion":"1.0","id":"{batch}-{n}","source":"urn:demo","type":"Demo.Load.Blob.Created","partitionkey":"k","data":"{blob}"}}"#
            )
        };
        let batch: Vec<_> = (0..16).map(event).collect();
        expect(&post_batch(&mut producer, &batch), 202);
    }
    assert!(broker.stop().success());
    broker.launch();
    let group = settings(&broker, "demo")["groups"][0].clone();
    assert_eq!(group["lag_events"], 192);
    assert!(group["lag_seconds"].as_f64().unwrap() > 0.0, "{group}");
}

#[test]
fn dead_events_are_counted() {
    let broker = Broker::start();
    expect(&post_batch(&mut broker.connect("demo"), &events(3)), 202);
    let mut consumer = broker.consume("demo", "g");
    for _ in 0..3 {
        let event = next_event(&mut consumer);
        consumer.send(&format!("dead:{event}")).unwrap();
    }
    wait_for("the dead events", || (settings(&broker, "demo")["dead_events"] == 3).then_some(()));
    wait_for("the cursor", || (settings(&broker, "demo")["groups"][0]["lag_events"] == 0).then_some(()));
    assert_eq!(settings(&broker, "police")["dead_events"], 0);
}

#[test]
fn a_client_with_many_groups_gets_them_all_and_the_same_answer_for_many_who_ask_at_once() {
    let broker = Broker::start();
    let consumers: Vec<_> = (0..70).map(|n| broker.consume("demo", &format!("g{n}"))).collect();
    let names = || {
        let settings = settings(&broker, "demo");
        let groups = settings["groups"].as_array().unwrap().clone();
        let mut names: Vec<_> =
            groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let mut expected: Vec<_> = (0..70).map(|n| format!("g{n}")).collect();
    expected.sort();
    wait_for("all groups", || (names() == expected).then_some(()));
    drop(consumers);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(names)).collect();
        asking.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap(), expected));
    });
}

#[test]
fn another_query_or_method_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect("demo");
    expect(&client.get("/ce/tools/my-settings?verbose=true", &[]).unwrap(), 400);
    let answer = client.request("POST", "/ce/tools/my-settings", &[]).unwrap();
    expect(&answer, 405);
    assert_eq!(answer.header("allow"), Some("GET"));
}

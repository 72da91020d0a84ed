//! Changing the registry while the broker runs.

use crate::harness::{Broker, closed, expect, next_event, post_event, record};
use crate::transport::replace_line;
use std::time::Duration;

fn invalidated(id: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"urn:demo","type":"Demo.Load.Blob.Created","datacontenttype":"text/plain","data":"x"}}"#
    )
}

#[test]
fn a_consumer_that_is_given_a_type_gets_its_events_on_the_open_session() {
    let broker = Broker::start();
    let mut police = broker.consume("police", "g");
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &invalidated("before")), 202);
    assert!(police.next(Duration::from_millis(200)).unwrap().is_none());
    broker.reload_with("clients/police.toml", |text| {
        let consumer = text.split_once("[consumer]").unwrap().0.to_owned();
        consumer + "[consumer]\ntypes = [\"Demo.Load.Blob.Created\"]\n"
    });
    expect(&post_event(&mut producer, &invalidated("after")), 202);
    assert_eq!(next_event(&mut police)["id"], "before");
    assert_eq!(next_event(&mut police)["id"], "after");
}

#[test]
fn a_broken_change_is_refused_with_its_reason_and_the_running_registry_stays() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    broker.reload_with("clients/demo.toml", |text| text + "\ncolour = \"red\"\n");
    let log = broker.log();
    assert!(log.contains("demo.toml") && log.contains("colour"), "{log}");
    expect(&post_event(&mut producer, &record("1", 1)), 202);
}

#[test]
fn a_disabled_client_loses_its_sessions_and_its_requests() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "g");
    let mut producer = broker.connect("demo");
    expect(&post_event(&mut producer, &record("1", 1)), 202);
    broker.reload_with("clients/demo.toml", |text| {
        replace_line(&text, "name", "name = \"Demonstration\"\nenabled = false")
    });
    let (code, reason) = closed(&mut consumer);
    assert!(code == 1008 && reason.contains("disabled"), "{code} {reason}");
    assert!(expect(&post_event(&mut producer, &record("2", 2)), 401).contains("disabled"));
}

#[test]
fn a_removed_client_loses_its_sessions() {
    let broker = Broker::start();
    let mut consumer = broker.consume("demo", "g");
    std::fs::remove_file(broker.registry("clients/demo.toml")).unwrap();
    broker.reload_with("clients/asp.toml", |text| text);
    assert_eq!(closed(&mut consumer).0, 1008);
}

#[test]
fn a_changed_schema_counts_from_the_reload_on_without_a_dropped_connection() {
    let broker = Broker::start();
    let mut producer = broker.connect("demo");
    let odd = record("1", 1).replace("\"number\":1", "\"number\":\"one\"");
    expect(&post_event(&mut producer, &odd), 422);
    broker.reload_with("schemas/Demo.Load.Record.Created.json", |_| "{}".into());
    expect(&post_event(&mut producer, &odd), 202);
}

#[test]
fn a_new_type_can_be_produced_and_consumed_after_a_reload() {
    let broker = Broker::start();
    std::fs::write(broker.registry("types/Demo.New.Thing.Made.toml"), "name = \"Demo.New.Thing.Made\"\n")
        .unwrap();
    broker.reload_with("clients/demo.toml", |text| {
        text.replace("\"Demo.Load.Blob.Created\"]", "\"Demo.Load.Blob.Created\", \"Demo.New.Thing.Made\"]")
    });
    let mut consumer = broker.consume("demo", "g");
    let event = invalidated("new").replace("Demo.Load.Blob.Created", "Demo.New.Thing.Made");
    expect(&post_event(&mut broker.connect("demo"), &event), 202);
    assert_eq!(next_event(&mut consumer)["type"], "Demo.New.Thing.Made");
}

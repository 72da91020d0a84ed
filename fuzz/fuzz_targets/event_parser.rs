//! A produce request gives the same block or the same rejection however much of it is looked at in one step, and what is taken
//! is one JSON object per record, as consumers parse it. The first byte of the input chooses the form, the second the step.
#![no_main]

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use nistru::event::record;
use nistru::id::{ClientId, TypeId};
use nistru::ingress::{Admission, Authority, Block, Form, Produced, Rejection, Rights, Settings};
use nistru::registry::model::{Client, ClientLimits, EventType, PayloadKinds, Producer, Registry};
use nistru::schema::SchemaSet;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::sync::LazyLock;

const EVENT_TYPE: &str = "A.B.C.D";
const SOURCE: &str = "urn:a";
const EVENT_BYTES_MAX: usize = 2048;

struct World {
    client: Client,
    producer: Producer,
    registry: Registry,
    schemas: SchemaSet,
    settings: Settings,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let registry = Registry::new(vec![event_type()], Vec::new());
    let schemas = SchemaSet::compile(&registry).expect("a registry without schemas");
    let settings = Settings {
        now_ms: 1_700_000_000_000,
        skew_ms: 5_000,
        partitions: NonZeroU8::new(12).expect("not zero"),
        event_bytes_max: EVENT_BYTES_MAX,
    };
    let producer = Producer { sources: [SOURCE.to_owned()].into(), types: [EVENT_TYPE.to_owned()].into() };
    World { client: client(), producer, registry, schemas, settings }
});

fuzz_target!(|data: &[u8]| {
    let [choice, step, body @ ..] = data else { return };
    let produced = Produced {
        form: [Form::Raw, Form::Event, Form::Batch][usize::from(choice % 3)],
        content_type: Some(content_type(*choice)),
        attributes: &[("specversion", b"1.0"), ("id", b"1"), ("source", b"urn:a"), ("type", b"A.B.C.D")],
        body,
    };
    let whole = admit(produced, usize::MAX);
    assert_eq!(whole, admit(produced, usize::from(*step).max(1)));
    match whole {
        Ok(block) => check_block(&block),
        Err(rejection) => assert!(!rejection.errors.is_empty()),
    }
});

fn admit(produced: Produced<'_>, step_bytes: usize) -> Result<Block, Rejection> {
    let World { client, producer, registry, schemas, settings } = &*WORLD;
    let mut admission = Admission::new(Authority { client, rights: Rights::Produce(producer), registry, schemas, settings }, produced);
    loop {
        if let Some(outcome) = admission.step(step_bytes) {
            return outcome;
        }
    }
}

/// The content types of each form; for the raw one a JSON, a text and a binary one.
fn content_type(choice: u8) -> &'static [u8] {
    match (choice % 3, choice / 3 % 3) {
        (0, 0) => b"application/json",
        (0, 1) => b"text/plain; charset=utf-8",
        (0, _) => b"application/octet-stream",
        (1, _) => b"application/cloudevents+json",
        _ => b"application/cloudevents-batch+json",
    }
}

fn check_block(block: &Block) {
    assert_eq!(block.spans.len(), block.count as usize);
    let records: Vec<_> = record::records(&block.bytes).map(|read| read.expect("a record").1).collect();
    assert_eq!(records.len(), block.spans.len());
    records.iter().for_each(|record| check_event(record.event()));
}

/// The event as a consumer gets it: one object within the limit, with what it must have and the offset.
fn check_event(event: &[u8]) {
    let delivered = [event, br#","offset":"18446744073709551615"}"#].concat();
    assert!(delivered.len() <= EVENT_BYTES_MAX);
    // Members as they are written: `data` may hold numbers that no machine type can.
    let read: BTreeMap<&str, &RawValue> = serde_json::from_slice(&delivered).expect("an event is JSON");
    let is = |name: &str, text: &str| assert_eq!(read[name].get(), format!("\"{text}\""));
    is("specversion", "1.0");
    is("type", EVENT_TYPE);
    is("source", SOURCE);
    is("offset", "18446744073709551615");
    assert!(read["id"].get().len() > 2);
    assert!(!read.contains_key("data") || read.contains_key("datacontenttype"));
}

fn event_type() -> EventType {
    EventType {
        slot: 0,
        name: EVENT_TYPE.to_owned(),
        id: TypeId(1),
        schema: None,
        payloads: PayloadKinds { json: true, text: true, binary: true },
        event_bytes_max: None,
        dedup_window_s: 0,
    }
}

fn client() -> Client {
    Client {
        id: ClientId([1; 16]),
        name: "fuzz".to_owned(),
        owner_idno: "1000000000000".to_owned(),
        enabled: true,
        certificates: Vec::new(),
        networks: vec![IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]))],
        producer: None,
        consumer: None,
        limits: ClientLimits::default(),
    }
}

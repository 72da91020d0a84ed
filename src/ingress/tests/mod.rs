//! Whole requests against the rules, form by form.

mod batched;
mod property;
mod raw;
mod single;

use super::*;
use crate::event::record::Record;
use crate::id::{ClientId, TypeId};
use crate::registry::model::*;
use crate::schema::SchemaSet;
use std::num::NonZeroU8;
use std::sync::Arc;

/// 2024-02-29T12:34:56.789Z
const NOW_MS: u64 = 1_709_210_096_789;
const NOW: &str = "2024-02-29T12:34:56.789Z";

/// A type with a schema: an object with `name`, a string, and maybe `age`, an integer from 0.
const BORN: &str = "Org.Sys.Person.Born";
/// A type that takes anything.
const ANY: &str = "Org.Sys.Any.Happened";
/// A type that takes JSON without a schema, 300 bytes at most.
const SMALL: &str = "Org.Sys.Small.Happened";
/// A registered type that the client may not produce.
const OTHERS: &str = "Org.Sys.Others.Happened";

/// A client that may produce, with all that an admission needs.
struct World {
    client: Client,
    registry: Registry,
    schemas: SchemaSet,
    settings: Settings,
}

fn event_type(slot: usize, name: &str) -> EventType {
    EventType {
        slot,
        name: name.to_owned(),
        id: TypeId(100 + slot as u32),
        schema: None,
        payloads: PayloadKinds { json: true, text: true, binary: true },
        event_bytes_max: None,
        dedup_window_s: 0,
    }
}

fn types() -> Vec<Arc<EventType>> {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "additionalProperties": false
    });
    let json_only = PayloadKinds { json: true, text: false, binary: false };
    [
        event_type(0, ANY),
        event_type(1, OTHERS),
        EventType {
            schema: Some(SchemaSource { json: schema }),
            payloads: json_only,
            dedup_window_s: 60,
            ..event_type(2, BORN)
        },
        EventType { payloads: json_only, event_bytes_max: Some(300), ..event_type(3, SMALL) },
    ]
    .map(Arc::new)
    .to_vec()
}

fn client() -> Client {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Client {
        id: ClientId([7; 16]),
        name: "test".to_owned(),
        owner_idno: String::new(),
        enabled: true,
        certificates: Vec::new(),
        networks: Vec::new(),
        producer: Some(Producer { sources: names(&["urn:a", "urn:b"]), types: names(&[ANY, BORN, SMALL]) }),
        consumer: None,
        limits: ClientLimits::default(),
    }
}

impl World {
    fn new() -> Self {
        let types = types();
        let type_by_name = types.iter().map(|known| (known.name.clone(), known.clone())).collect();
        let event_bytes_max = types.iter().filter_map(|known| known.event_bytes_max).max();
        let registry = Registry { types, type_by_name, event_bytes_max, ..Registry::default() };
        let schemas = SchemaSet::compile(&registry).unwrap();
        let partitions = NonZeroU8::new(12).unwrap();
        let settings = Settings { now_ms: NOW_MS, skew_ms: 5000, partitions, event_bytes_max: 64 << 10 };
        Self { client: client(), registry, schemas, settings }
    }

    fn authority(&self) -> Authority<'_> {
        Authority {
            client: &self.client,
            rights: Rights::Produce(self.client.producer.as_ref().unwrap()),
            registry: &self.registry,
            schemas: &self.schemas,
            settings: &self.settings,
        }
    }

    fn admit(&self, produced: Produced<'_>) -> Result<Block, Rejection> {
        Admission::new(self.authority(), produced).run()
    }

    fn raw(&self, content_type: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Result<Block, Rejection> {
        let content_type = Some(content_type.as_bytes()).filter(|given| !given.is_empty());
        self.admit(Produced { form: Form::Raw, content_type, attributes: headers, body })
    }

    fn event(&self, body: impl AsRef<[u8]>) -> Result<Block, Rejection> {
        let content_type = Some(&b"application/cloudevents+json"[..]);
        self.admit(Produced { form: Form::Event, content_type, attributes: &[], body: body.as_ref() })
    }

    fn batch(&self, body: impl AsRef<[u8]>) -> Result<Block, Rejection> {
        let content_type = Some(&b"application/cloudevents-batch+json"[..]);
        self.admit(Produced { form: Form::Batch, content_type, attributes: &[], body: body.as_ref() })
    }
}

/// An event of the type [`ANY`] with more members appended.
fn any_event(id: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"urn:a","type":"{ANY}"{more}}}"#)
}

/// The events of a block as delivered with offset 1, each checked to be JSON and a sound record.
fn delivered(block: &Block) -> Vec<String> {
    let deliver = |span: &Span| {
        let record = Record::read(block.record(*span)).unwrap();
        let text = format!("{},\"offset\":\"1\"}}", std::str::from_utf8(record.event()).unwrap());
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    };
    block.spans.iter().map(deliver).collect()
}

/// Status and text of a rejection.
fn refusal(outcome: Result<Block, Rejection>) -> (u16, String) {
    let rejection = outcome.unwrap_err();
    assert!(!rejection.errors.is_empty());
    (rejection.status.code(), rejection.to_string())
}

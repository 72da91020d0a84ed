//! A registry with a producer, an event type and its schema, as `nistru dev` makes it.

use crate::sample;
use nistru::id::{ClientId, TypeId};
use nistru::ingress::{Admission, Authority, Block, Form, Produced, Rights, Settings};
use nistru::registry::model::Registry;
use nistru::schema::SchemaSet;
use std::num::NonZeroU8;

pub const NOW_MS: u64 = 1_800_000_000_000;
/// The number of the only event type that is produced.
pub const RECORD_TYPE: TypeId = TypeId(1);

/// What the broker knows while it takes events.
pub struct World {
    registry: Registry,
    pub schemas: SchemaSet,
    client: ClientId,
    settings: Settings,
}

impl World {
    /// A world of so many partitions.
    pub fn new(partitions: u8) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = nistru::dev::config(dir.path(), Some(0), None).expect("a development directory");
        let registry_dir = dir.path().join("registry");
        let loaded = nistru::registry::files::load(&registry_dir, &config.storage, &config.audit.defaults)
            .expect("a sound registry");
        let registry = loaded.registry.with_type_ids(|_| RECORD_TYPE);
        let schemas = SchemaSet::compile(&registry).expect("the schemas of `nistru dev` compile");
        let demo = registry.clients.values().find(|client| client.name == "Demonstration");
        let client = demo.expect("the demo client").id;
        let settings = Settings {
            now_ms: NOW_MS,
            skew_ms: 5000,
            partitions: NonZeroU8::new(partitions).expect("not zero"),
            event_bytes_max: 64 << 10,
        };
        Self { registry, schemas, client, settings }
    }

    /// Where `data` of the sample events has its schema.
    pub fn slot(&self) -> usize {
        self.registry.type_by_name["Demo.Load.Record.Created"].slot
    }

    /// The records of the events in `body`, which is that of a POST of so many.
    pub fn admit(&self, events: usize, body: &[u8]) -> Block {
        let client = &self.registry.clients[&self.client];
        let rights = Rights::Produce(client.producer.as_ref().expect("the demo client produces"));
        let (registry, schemas, settings) = (&self.registry, &self.schemas, &self.settings);
        let authority = Authority { client, rights, registry, schemas, settings };
        let (form, content_type) = match events {
            1 => (Form::Event, "application/cloudevents+json"),
            _ => (Form::Batch, "application/cloudevents-batch+json"),
        };
        let content_type = Some(content_type.as_bytes());
        let produced = Produced { form, content_type, attributes: &[], body };
        Admission::new(authority, produced).run().expect("the sample events are good")
    }
}

/// The records of a POST of so many sample events, in a world of so many partitions.
pub fn block(partitions: u8, events: usize) -> Block {
    World::new(partitions).admit(events, sample::body(events).as_bytes())
}

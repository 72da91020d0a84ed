//! JSON Schemas of event types: which draft, whether it is safe to run, compiled, and what `data` does wrong.
//!
//! [`draft`] tells the dialect, [`guard`] refuses what would burn time or reach for the network, [`view`] lets the
//! validator read our own JSON tape, [`compiled`] puts it together for one schema and this module for a registry.
//! Compiling takes milliseconds and belongs on a helper thread; each core has a set of its own, because a compiled
//! regular expression keeps scratch memory for one thread.

mod compiled;
mod draft;
mod guard;
mod keywords;
mod view;

use crate::event::json::Value;
use crate::registry::model::Registry;
use compiled::Compiled;
use std::fmt;

/// The compiled schemas of a registry.
#[derive(Default)]
pub struct SchemaSet {
    /// By `EventType::slot`.
    by_slot: Vec<Option<Compiled>>,
}

/// What a payload does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// JSON Pointer (RFC 6901) into the payload.
    pub pointer: String,
    /// What was expected there, without the value that was found.
    pub reason: String,
}

/// Why the schema of an event type cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaProblem {
    /// The event type's name.
    pub event_type: String,
    /// JSON Pointer into the schema; empty means the schema as a whole.
    pub pointer: String,
    /// What is wrong and what was expected.
    pub reason: String,
}

/// Why one schema cannot be used: JSON Pointer into it and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    pub pointer: String,
    pub reason: String,
}

impl SchemaSet {
    /// Compiles every schema of `registry`, or tells what is wrong with each that cannot be used. Takes milliseconds
    /// for each schema: for a helper thread.
    pub fn compile(registry: &Registry) -> Result<Self, Vec<SchemaProblem>> {
        let mut problems = Vec::new();
        let mut by_slot = Vec::with_capacity(registry.types.len());
        for event_type in &registry.types {
            by_slot.push(event_type.schema.as_ref().and_then(|schema| {
                let problem = |error: SchemaError| problems.push(error.of(&event_type.name));
                Compiled::new(&schema.json).map_err(problem).ok()
            }));
        }
        if problems.is_empty() { Ok(Self { by_slot }) } else { Err(problems) }
    }

    /// What `data` does wrong by the schema of the event type at `slot`: nothing if the type has none.
    pub fn check(&self, slot: usize, data: Value<'_>) -> Vec<Mismatch> {
        match self.by_slot.get(slot) {
            Some(Some(schema)) => schema.check(data),
            _ => Vec::new(),
        }
    }
}

/// Whether `schema` can be used, without keeping what was compiled: for checks of a registry before it goes live.
pub fn verify(schema: &serde_json::Value) -> Result<(), SchemaError> {
    Compiled::new(schema).map(|_| ())
}

impl SchemaError {
    fn new(pointer: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), reason: reason.into() }
    }

    fn of(self, event_type: &str) -> SchemaProblem {
        SchemaProblem { event_type: event_type.to_owned(), pointer: self.pointer, reason: self.reason }
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.pointer {
            "" => write!(f, "schema {}", self.reason),
            pointer => write!(f, "schema at {pointer:?}: {}", self.reason),
        }
    }
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = SchemaError::new(&*self.pointer, &*self.reason);
        write!(f, "event type {:?}: {error}", self.event_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::Tape;
    use crate::id::TypeId;
    use crate::registry::model::{EventType, PayloadKinds, SchemaSource};
    use serde_json::json;
    use std::sync::Arc;

    fn registry(schemas: &[Option<serde_json::Value>]) -> Registry {
        let event_type = |(slot, schema): (usize, &Option<serde_json::Value>)| {
            Arc::new(EventType {
                slot,
                name: format!("A.B.C.D{slot}"),
                id: TypeId(0),
                schema: schema.clone().map(|json| SchemaSource { json }),
                payloads: PayloadKinds { json: true, text: false, binary: false },
                event_bytes_max: None,
                dedup_window_s: 0,
            })
        };
        Registry { types: schemas.iter().enumerate().map(event_type).collect(), ..Registry::default() }
    }

    #[test]
    fn every_unusable_schema_of_a_registry_is_named() {
        let registry = registry(&[
            Some(json!({"type": 7})),
            Some(json!({})),
            None,
            Some(json!({"$schema": "draft-04"})),
        ]);
        let problems = SchemaSet::compile(&registry).err().unwrap();
        let places: Vec<_> =
            problems.iter().map(|problem| (&*problem.event_type, &*problem.pointer)).collect();
        assert_eq!(places, [("A.B.C.D0", "/type"), ("A.B.C.D3", "/$schema")]);
        assert!(problems[1].to_string().starts_with("event type \"A.B.C.D3\": schema at \"/$schema\": "));
    }

    #[test]
    fn data_is_held_against_the_schema_of_its_own_type() {
        let set = SchemaSet::compile(&registry(&[Some(json!({"type": "string"})), None])).unwrap();
        let mut tape = Tape::default();
        let document = tape.read_all(b"7").unwrap();
        assert_eq!(set.check(0, document.root()).len(), 1);
        assert_eq!(set.check(1, document.root()), []);
    }

    #[test]
    fn a_set_can_be_made_on_another_thread() {
        fn sendable<T: Send>() {}
        sendable::<SchemaSet>();
    }
}

//! `types/*.toml`: one event type a file.

use super::model::{EventType, PayloadKinds, SchemaSource};
use crate::config::document::{Document, Located, Section, Setting};
use crate::config::units::Bytes;
use crate::config::{Problem, Storage};
use crate::id::TypeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// Longest window of deduplication: its table is kept in memory.
const DEDUPLICATION_MAX: Duration = Duration::from_secs(86_400);

/// Schemas by file name; `None` is one that exists and is broken, which is reported already.
pub type Schemas = BTreeMap<String, Option<serde_json::Value>>;

/// The event types read so far.
#[derive(Default)]
pub struct Types {
    /// Those without a mistake.
    pub types: Vec<EventType>,
    /// The schema file of each type that has one.
    pub schema_files: BTreeMap<String, String>,
    /// Every name that a file defines, and which.
    defined: BTreeMap<String, PathBuf>,
    /// Whether some file could not be read far enough to know which type it defines.
    has_unknown: bool,
}

impl Types {
    /// Reads one more file.
    pub fn add(
        &mut self,
        file: &Path,
        text: &str,
        schemas: &Schemas,
        storage: &Storage,
    ) -> Result<(), Vec<Problem>> {
        let mut name = None;
        let read = Document::read(file, text, |document, mut top| {
            name = type_name(document, &mut top);
            if let Some(name) = &name {
                self.define(document, file, name);
            }
            let rest = event_type(document, &mut top, name.as_ref(), schemas, storage);
            top.finish();
            rest
        });
        self.has_unknown |= name.is_none();
        let (event_type, schema_file) = read?;
        self.schema_files.extend(schema_file.map(|file| (event_type.name.clone(), file)));
        self.types.push(event_type);
        Ok(())
    }

    /// Whether no file defines `name`, as far as one can know.
    pub fn lacks(&self, name: &str) -> bool {
        !self.has_unknown && !self.defined.contains_key(name)
    }

    fn define(&mut self, document: &Document<'_>, file: &Path, name: &Located<String>) {
        match self.defined.get(&name.value) {
            Some(other) => document.report(
                name.at,
                format!("the event type {} is already defined in {}", name.value, other.display()),
            ),
            None => drop(self.defined.insert(name.value.clone(), file.to_owned())),
        }
    }
}

fn type_name(document: &Document<'_>, top: &mut Section<'_, '_>) -> Option<Located<String>> {
    let name: Located<String> = top.required("name")?;
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let parts: Vec<&str> = name.value.split('.').collect();
    if parts.len() < 4 || !parts.iter().all(|part| is_part(part)) {
        document.report(
            name.at,
            format!(
                "\"{}\" is no name of an event type; expected Organization.System.Entity.Action, each part of \
                 letters, digits, - and _",
                name.value
            ),
        );
    }
    Some(name)
}

/// The type and the name of its schema file.
fn event_type(
    document: &Document<'_>,
    top: &mut Section<'_, '_>,
    name: Option<&Located<String>>,
    schemas: &Schemas,
    storage: &Storage,
) -> Option<(EventType, Option<String>)> {
    let schema: Option<Located<String>> = top.optional("schema");
    let json = schema.as_ref().and_then(|schema| find_schema(document, schema, schemas));
    let payloads = payloads(document, top, schema.is_some());
    let event_bytes_max = event_bytes_max(top, storage);
    let dedup_window_s = deduplication(document, top);
    let event_type = EventType {
        slot: 0,
        name: name?.value.clone(),
        id: TypeId::default(),
        payloads,
        schema: json.map(|json| SchemaSource { json }),
        event_bytes_max,
        dedup_window_s,
    };
    Some((event_type, schema.map(|schema| schema.value)))
}

fn find_schema(
    document: &Document<'_>,
    schema: &Located<String>,
    schemas: &Schemas,
) -> Option<serde_json::Value> {
    let found = schemas.get(&schema.value);
    if found.is_none() {
        document.report(schema.at, format!("schemas/{} does not exist; expected a file there", schema.value));
    }
    found?.clone()
}

/// Types with a schema take JSON, as the schema says nothing about anything else; the others take all kinds.
fn payloads(document: &Document<'_>, top: &mut Section<'_, '_>, has_schema: bool) -> PayloadKinds {
    let at = top.at("payloads");
    let kinds: Option<Vec<PayloadKind>> = top.non_empty("payloads");
    let Some(kinds) = kinds else {
        return PayloadKinds { json: true, text: !has_schema, binary: !has_schema };
    };
    let payloads = PayloadKinds {
        json: kinds.contains(&PayloadKind::Json),
        text: kinds.contains(&PayloadKind::Text),
        binary: kinds.contains(&PayloadKind::Binary),
    };
    if has_schema && (payloads.text || payloads.binary) {
        document.report(at, "a type with a schema takes only [\"json\"]");
    }
    payloads
}

fn deduplication(document: &Document<'_>, top: &mut Section<'_, '_>) -> u32 {
    let window = top.within("deduplicate_for", Duration::ZERO..=DEDUPLICATION_MAX, Duration::ZERO);
    if window.subsec_nanos() != 0 {
        document.report(top.at("deduplicate_for"), "expected whole seconds");
    }
    u32::try_from(window.as_secs()).unwrap_or(u32::MAX)
}

/// `event_bytes_max`, of a type or of a client.
pub fn event_bytes_max(section: &mut Section<'_, '_>, storage: &Storage) -> Option<usize> {
    let bounds = Bytes(1024)..=Bytes(storage.event_bytes_bound());
    section.optional_within("event_bytes_max", bounds).and_then(|Bytes(bytes)| bytes.try_into().ok())
}

#[derive(PartialEq)]
enum PayloadKind {
    Json,
    Text,
    Binary,
}

impl Setting for PayloadKind {
    const EXPECTED: &'static str = "\"json\", \"text\" or \"binary\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            "binary" => Some(Self::Binary),
            _ => None,
        }
    }
}

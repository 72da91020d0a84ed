//! The `Settings` string: what a client may do. Its schema is `settings.schema.json` beside this file.

use crate::audit::rule::Written;
use crate::config::Storage;
use crate::registry::client_file::{Network, REQUEST_BYTES_MIN, check_source};
use crate::registry::model::{ClientLimits, Consumer, Producer, Rates};
use ipnet::IpNet;
use jsonschema::Validator;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// The schema, as text.
pub const SCHEMA: &str = include_str!("settings.schema.json");

/// Mistakes told of one client.
const PROBLEMS_MAX: usize = 10;

/// What a client may do.
#[derive(Debug)]
pub struct Rights {
    pub enabled: bool,
    pub networks: Vec<IpNet>,
    pub producer: Option<Producer>,
    pub consumer: Option<Consumer>,
    pub limits: ClientLimits,
}

/// What is checked against.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub storage: Storage,
    /// What rules on personal data leave open.
    pub defaults: Written,
}

/// The members as they are written, once the schema has been checked.
#[derive(Deserialize)]
struct Settings {
    #[serde(default = "yes")]
    enabled: bool,
    networks: Vec<String>,
    producer: Option<ProducerSettings>,
    consumer: Option<ConsumerSettings>,
    #[serde(default)]
    limits: LimitSettings,
}

#[derive(Deserialize)]
struct ProducerSettings {
    sources: BTreeSet<String>,
    types: BTreeSet<String>,
}

#[derive(Deserialize)]
struct ConsumerSettings {
    types: BTreeSet<String>,
    #[serde(default)]
    personal_data: Vec<Written>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LimitSettings {
    event_bytes_max: Option<u64>,
    request_bytes_max: Option<u64>,
    events_per_second_max: Option<u64>,
    bytes_per_second_max: Option<u64>,
    connections_max: Option<usize>,
    instances_max: Option<usize>,
}

fn yes() -> bool {
    true
}

/// Reads the string, or tells what is wrong with it.
pub fn read(text: &str, bounds: &Bounds) -> Result<Rights, Vec<String>> {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
        jsonschema::draft202012::new(&schema).expect("the schema is a JSON Schema")
    });
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| vec![format!("Settings: expected JSON: {error}")])?;
    let mut problems: Vec<_> =
        VALIDATOR.iter_errors(&json).take(PROBLEMS_MAX).map(|error| told(&error)).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let settings: Settings =
        serde_json::from_value(json).map_err(|error| vec![format!("Settings: {error}")])?;
    let rights = settings.rights(bounds, &mut problems);
    if problems.is_empty() { Ok(rights) } else { Err(problems) }
}

fn told(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().as_str();
    let text: String = error.to_string().chars().take(300).collect();
    format!("Settings{}{place}: {text}", if place.is_empty() { "" } else { " at " })
}

impl Settings {
    fn rights(self, bounds: &Bounds, problems: &mut Vec<String>) -> Rights {
        let networks = networks(&self.networks, problems);
        let producer = self.producer.map(|producer| producer.read(problems));
        let consumer = self.consumer.map(|consumer| consumer.read(&bounds.defaults, problems));
        let limits = self.limits.read(&bounds.storage, problems);
        Rights { enabled: self.enabled, networks, producer, consumer, limits }
    }
}

fn networks(texts: &[String], problems: &mut Vec<String>) -> Vec<IpNet> {
    let mut read = Vec::with_capacity(texts.len());
    for (number, text) in texts.iter().enumerate() {
        match Network::parse(text) {
            Some(Network(network)) => read.push(network),
            None => problems.push(format!(
                "Settings at /networks/{number}: \"{text}\" is neither an IP address nor a network without bits \
                 after its prefix"
            )),
        }
    }
    read
}

impl ProducerSettings {
    fn read(self, problems: &mut Vec<String>) -> Producer {
        let wrong = self.sources.iter().filter_map(|source| check_source(source).err());
        problems.extend(wrong.map(|reason| format!("Settings at /producer/sources: {reason}")));
        Producer { sources: self.sources, types: self.types }
    }
}

impl ConsumerSettings {
    fn read(self, defaults: &Written, problems: &mut Vec<String>) -> Consumer {
        let rules = Consumer::compile_rules(&self.personal_data, &self.types, defaults);
        let personal_data = rules.unwrap_or_else(|errors| {
            problems.extend(errors.iter().map(|(number, error)| {
                format!("Settings at /consumer/personal_data/{number}/{}: {}", error.field, error.message)
            }));
            Vec::new()
        });
        Consumer { types: self.types, personal_data }
    }
}

impl LimitSettings {
    fn read(self, storage: &Storage, problems: &mut Vec<String>) -> ClientLimits {
        let mut size = |name: &str, bytes: Option<u64>, range: RangeInclusive<u64>| {
            let bytes = bytes?;
            if !range.contains(&bytes) {
                let (least, most) = (range.start(), range.end());
                problems.push(format!(
                    "Settings at /limits/{name}: {bytes} is not between {least} and {most}, the most that [storage] allows"
                ));
            }
            usize::try_from(bytes).ok()
        };
        ClientLimits {
            event_bytes_max: size(
                "event_bytes_max",
                self.event_bytes_max,
                REQUEST_BYTES_MIN..=storage.event_bytes_bound(),
            ),
            request_bytes_max: size(
                "request_bytes_max",
                self.request_bytes_max,
                REQUEST_BYTES_MIN..=storage.request_bytes_bound(),
            ),
            rates: Rates {
                events_per_second_max: self.events_per_second_max,
                bytes_per_second_max: self.bytes_per_second_max,
            },
            connections_max: self.connections_max,
            instances_max: self.instances_max,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::registry::client_file::{COUNT_MAX, RATE_MAX};
    use serde_json::json;

    pub fn bounds() -> Bounds {
        Bounds { storage: Storage::new("data".into()), defaults: Written::default() }
    }

    fn problems(settings: serde_json::Value) -> Vec<String> {
        read(&settings.to_string(), &bounds()).unwrap_err()
    }

    #[test]
    fn the_examples_of_the_schema_are_settings() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let examples = schema["examples"].as_array().unwrap();
        let read: Vec<_> =
            examples.iter().map(|example| read(&example.to_string(), &bounds()).unwrap()).collect();
        assert!(read[0].producer.as_ref().unwrap().sources.contains("urn:asp") && read[0].consumer.is_none());
        let consumer = read[1].consumer.as_ref().unwrap();
        assert_eq!((consumer.types.len(), consumer.personal_data.len()), (2, 1));
        assert_eq!(read[1].networks.len(), 2);
        assert_eq!(read[1].limits.request_bytes_max, Some(262_144));
        assert_eq!(read[1].limits.connections_max, Some(20));
    }

    #[test]
    fn limits_have_the_bounds_of_those_in_files() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let limits = &schema["properties"]["limits"]["properties"];
        assert_eq!(limits["events_per_second_max"]["maximum"], RATE_MAX);
        assert_eq!(limits["bytes_per_second_max"]["maximum"], RATE_MAX);
        assert_eq!(limits["connections_max"]["maximum"], COUNT_MAX);
        assert_eq!(limits["request_bytes_max"]["minimum"], REQUEST_BYTES_MIN);
        let found = problems(json!({"networks": ["::1"], "limits": {"event_bytes_max": 1u64 << 40}}));
        assert!(found[0].starts_with("Settings at /limits/event_bytes_max: "), "{found:?}");
    }

    #[test]
    fn members_nobody_knows_are_ignored() {
        let settings = json!({"networks": ["::1"], "colour": "red", "limits": {"colour": 1}}).to_string();
        assert!(read(&settings, &bounds()).unwrap().enabled);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (settings, place) in [
            (json!([]), "Settings: "),
            (json!({}), "Settings: "),
            (json!({"networks": []}), "Settings at /networks: "),
            (json!({"networks": ["10.0.0.1/8"]}), "Settings at /networks/0: "),
            (json!({"networks": ["::1"], "enabled": "no"}), "Settings at /enabled: "),
            (
                json!({"networks": ["::1"], "producer": {"sources": ["a b"], "types": ["t"]}}),
                "Settings at /producer/sources: ",
            ),
            (json!({"networks": ["::1"], "producer": {"sources": ["a"]}}), "Settings at /producer: "),
            (
                json!({"networks": ["::1"], "limits": {"connections_max": 0}}),
                "Settings at /limits/connections_max: ",
            ),
            (
                json!({"networks": ["::1"], "consumer": {"types": ["t"], "personal_data": [{"types": ["t"], "sbject": "$.a"}]}}),
                "Settings at /consumer/personal_data/0: ",
            ),
            (
                json!({"networks": ["::1"], "consumer": {"types": ["t"], "personal_data": [
                    {"types": ["t"], "subject": "$.a[", "legal_basis": "b", "legal_reason": "r", "subject_type": "p"}]}}),
                "Settings at /consumer/personal_data/0/subject: ",
            ),
        ] {
            let found = problems(settings.clone());
            assert!(found[0].starts_with(place), "{settings}: {found:?}");
        }
        assert!(read("{", &bounds()).unwrap_err()[0].starts_with("Settings: expected JSON"));
    }
}

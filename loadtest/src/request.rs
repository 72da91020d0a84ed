//! Requests built once and stamped anew for each sending: only digits of fixed width change.

use crate::scenario::{Load, Mix, MixedType, Scenario};
use crate::stamp::{ID_BYTES, Stamp, write_hex};
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Digits of a producer and of a key in a partition key.
const PRODUCER_DIGITS: usize = 4;
const KEY_DIGITS: usize = 2;

/// What the requests of all producers are made of.
pub struct Templates {
    batch: usize,
    keys: u64,
    mix: Arc<Mix>,
    /// An event of each type, with nobody's producer number in it.
    events: Vec<Event>,
    /// The head up to the length of the body.
    head: String,
}

struct Event {
    bytes: Vec<u8>,
    id: Range<usize>,
    producer: Range<usize>,
    key: Range<usize>,
}

/// The bytes of one HTTP request of a producer.
pub struct Request {
    templates: Arc<Templates>,
    producer: usize,
    bytes: Vec<u8>,
    /// Where each event begins, if the same bytes are stamped again and again.
    starts: Vec<usize>,
    head_bytes: usize,
}

impl Templates {
    /// Requests of `scenario` to the broker at `authority`.
    pub fn new(scenario: &Scenario, mix: Arc<Mix>, authority: &str) -> Result<Self, String> {
        let load = &scenario.load;
        let data = load.data.as_ref().map(|path| read_data(path)).transpose()?;
        let event = |kind: &MixedType| match &data {
            Some(data) => Ok(Event::new(load, &kind.name, data)),
            None => Event::of_bytes(load, &kind.name, kind.bytes),
        };
        let events = mix.types.iter().map(event).collect::<Result<_, String>>()?;
        let (path, media) = match load.batch {
            1 => ("event", "application/cloudevents+json"),
            _ => ("events", "application/cloudevents-batch+json"),
        };
        let head = format!(
            "POST /ce/produce/{path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {media}\r\nContent-Length: "
        );
        Ok(Self { batch: load.batch, keys: load.keys as u64, mix, events, head })
    }
}

impl Request {
    pub fn new(templates: Arc<Templates>, producer: usize) -> Self {
        let mut request = Self { templates, producer, bytes: Vec::new(), starts: Vec::new(), head_bytes: 0 };
        if request.templates.events.len() == 1 {
            request.build(0);
        }
        request
    }

    /// The request with `first` as its first event's stamp; the events after it count on from there.
    pub fn stamped(&mut self, first: Stamp) -> &[u8] {
        if self.templates.events.len() > 1 {
            self.build(first.sequence);
        }
        let Templates { keys, events, mix, .. } = &*self.templates;
        for (start, sequence) in self.starts.iter().zip(first.sequence..) {
            let event = &events[mix.type_of(self.producer, sequence)];
            let bytes = &mut self.bytes[*start..];
            Stamp { sequence, ..first }.write(&mut bytes[event.id.clone()]);
            write_hex(&mut bytes[event.key.clone()], sequence % keys);
        }
        &self.bytes
    }

    /// Puts the request together from the templates of its events' types.
    fn build(&mut self, first: u64) {
        let Templates { batch, events, mix, head, .. } = &*self.templates;
        let event = |index: usize| &events[mix.type_of(self.producer, first + index as u64)];
        let length: usize = (0..*batch).map(|index| event(index).bytes.len()).sum();
        let is_single = *batch == 1;
        let length = if is_single { length } else { length + batch + 1 };
        self.bytes.clear();
        self.starts.clear();
        write!(self.bytes, "{head}{length}\r\n\r\n").expect("writing to memory");
        self.head_bytes = self.bytes.len();
        for index in 0..*batch {
            if !is_single {
                self.bytes.push(if index == 0 { b'[' } else { b',' });
            }
            let (start, event) = (self.bytes.len(), event(index));
            self.starts.push(start);
            self.bytes.extend_from_slice(&event.bytes);
            write_hex(&mut self.bytes[start..][event.producer.clone()], self.producer as u64);
        }
        if !is_single {
            self.bytes.push(b']');
        }
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.bytes.len() - self.head_bytes
    }
}

impl Event {
    fn new(load: &Load, event_type: &str, data: &str) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let (source, event_type) = (text(&load.source), text(event_type));
        let (id, producer, key) = ("0".repeat(ID_BYTES), "0".repeat(PRODUCER_DIGITS), "0".repeat(KEY_DIGITS));
        let event = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":{source},\"type\":{event_type},\
             \"partitionkey\":\"load-{producer}-{key}\",\"datacontenttype\":\"application/json\",\"data\":{data}}}"
        );
        let after = |needle: &str| event.find(needle).map_or(0, |found| found + needle.len());
        let (id, producer) = (after("\"id\":\""), after("\"partitionkey\":\"load-"));
        let key = producer + PRODUCER_DIGITS + 1;
        Self {
            id: id..id + ID_BYTES,
            producer: producer..producer + PRODUCER_DIGITS,
            key: key..key + KEY_DIGITS,
            bytes: event.into_bytes(),
        }
    }

    /// A record such as a register might send, with a note that fills the event up to `bytes`.
    fn of_bytes(load: &Load, event_type: &str, bytes: usize) -> Result<Self, String> {
        let with_note = |note: &str| {
            let data = format!(
                "{{\"number\":4711,\"name\":\"Load record\",\"registered\":\"2024-05-17T09:30:00+03:00\",\
                 \"person\":{{\"idnp\":\"2000000000000\",\"given\":\"Ion\",\"family\":\"Popescu\",\"born\":\"1987-11-03\"}},\
                 \"address\":{{\"street\":\"strada Alexandru cel Bun\",\"house\":\"41\",\"city\":\"Chișinău\",\
                 \"postcode\":\"MD-2012\"}},\"valid\":true,\"amount\":1204.50,\"tags\":[\"a\",\"b\",\"c\"],\"note\":\"{note}\"}}"
            );
            Self::new(load, event_type, &data)
        };
        let bare = with_note("").bytes.len();
        let fill = bytes
            .checked_sub(bare)
            .ok_or_else(|| format!("bytes: an event of {event_type} has at least {bare}, not {bytes}"))?;
        Ok(with_note(&"the quick brown fox jumps over the lazy dog. ".repeat(fill / 45 + 1)[..fill]))
    }
}

/// The JSON of every event's data.
fn read_data(path: &Path) -> Result<String, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| wrong(&error))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::EventType;
    use serde_json::Value;

    fn request(scenario: &Scenario, producer: usize) -> Request {
        let mix = Arc::new(Mix::new(scenario));
        Request::new(Arc::new(Templates::new(scenario, mix, "localhost:1").unwrap()), producer)
    }

    fn stamp(sequence: u64) -> Stamp {
        Stamp { run: 7, producer: 0x1234, sequence, intended_ns: 99 }
    }

    fn body(request: &[u8]) -> Value {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn a_single_event_has_the_size_asked_for() {
        let mut request = request(&Scenario::default(), 0x1234);
        assert_eq!(request.body_bytes(), 1024);
        let event = body(request.stamped(stamp(18)));
        assert_eq!(event["id"], "00000007-1234-0000000012-000000000063");
        assert_eq!(event["partitionkey"], "load-1234-02");
        assert_eq!(event["data"]["number"], 4711);
    }

    #[test]
    fn the_events_of_a_batch_count_on_and_their_keys_go_round() {
        let mut scenario = Scenario::default();
        (scenario.load.batch, scenario.load.keys) = (3, 2);
        let mut request = request(&scenario, 1);
        for first in [5, 8] {
            let events = body(request.stamped(stamp(first)));
            let events = events.as_array().unwrap();
            assert_eq!(events.len(), 3);
            for (event, sequence) in events.iter().zip(first..) {
                assert!(event["id"].as_str().unwrap().contains(&format!("-{sequence:010x}-")));
                assert_eq!(event["partitionkey"], format!("load-0001-{:02x}", sequence % 2));
            }
        }
    }

    #[test]
    fn events_of_several_types_and_sizes_mix() {
        let types = ["A.B.C.Short", "A.B.C.Long"].map(EventType::named);
        let mut scenario = Scenario { types: types.to_vec(), ..Scenario::default() };
        (scenario.load.batch, scenario.types[1].bytes) = (20, Some(2048));
        let mix = Mix::new(&scenario);
        let mut request = request(&scenario, 9);
        let events = body(request.stamped(stamp(40)));
        for (event, sequence) in events.as_array().unwrap().iter().zip(40..) {
            let kind = &mix.types[mix.type_of(9, sequence)];
            assert_eq!(event["type"], *kind.name);
            assert_eq!(event["partitionkey"].as_str().unwrap(), format!("load-0009-{:02x}", sequence % 16));
            assert_eq!(event["data"]["note"].as_str().unwrap().len() > 1024, kind.bytes == 2048);
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_told() {
        let mut scenario = Scenario::default();
        scenario.load.bytes = 100;
        let mix = Arc::new(Mix::new(&scenario));
        let error = Templates::new(&scenario, mix, "localhost:1").err().unwrap();
        assert!(error.contains("has at least"), "{error}");
    }
}

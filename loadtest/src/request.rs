//! A request built once and stamped anew for each sending: only digits of fixed width change.

use crate::args::Load;
use crate::stamp::{ID_BYTES, Stamp, write_hex};
use std::ops::Range;

/// Digits of a producer and of a key in a partition key.
const PRODUCER_DIGITS: usize = 4;
const KEY_DIGITS: usize = 2;

/// The bytes of one HTTP request of a producer.
pub struct Request {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    keys: u64,
    head_bytes: usize,
}

/// Where an event's changing parts lie.
struct Slot {
    id: Range<usize>,
    key: Range<usize>,
}

impl Request {
    /// The request of `producer` to the broker at `authority`. `data` is the JSON of every event's data.
    pub fn new(load: &Load, producer: usize, authority: &str, data: &str) -> Self {
        let event = event(load, producer, data);
        let single = load.batch == 1;
        let body_bytes = if single { event.len() } else { load.batch * (event.len() + 1) + 1 };
        let mut bytes = head(single, authority, body_bytes).into_bytes();
        let head_bytes = bytes.len();
        let mut slots = Vec::with_capacity(load.batch);
        for index in 0..load.batch {
            if !single {
                bytes.push(if index == 0 { b'[' } else { b',' });
            }
            slots.push(Slot::of(&event, bytes.len()));
            bytes.extend_from_slice(event.as_bytes());
        }
        if !single {
            bytes.push(b']');
        }
        Self { bytes, slots, keys: load.keys as u64, head_bytes }
    }

    /// The request with `first` as its first event's stamp; the events after it count on from there.
    pub fn stamped(&mut self, first: Stamp) -> &[u8] {
        for (slot, sequence) in self.slots.iter().zip(first.sequence..) {
            Stamp { sequence, ..first }.write(&mut self.bytes[slot.id.clone()]);
            write_hex(&mut self.bytes[slot.key.clone()], sequence % self.keys);
        }
        &self.bytes
    }

    /// Bytes of the body.
    pub fn body_bytes(&self) -> usize {
        self.bytes.len() - self.head_bytes
    }
}

impl Slot {
    /// The slots of `event` when it is put at `start`.
    fn of(event: &str, start: usize) -> Self {
        let at = |needle: &str| start + event.find(needle).map_or(0, |found| found + needle.len());
        let id = at("\"id\":\"");
        let key = at("\"partitionkey\":\"load-") + PRODUCER_DIGITS + 1;
        Self { id: id..id + ID_BYTES, key: key..key + KEY_DIGITS }
    }
}

fn head(single: bool, authority: &str, body_bytes: usize) -> String {
    let (path, media) = match single {
        true => ("event", "application/cloudevents+json"),
        false => ("events", "application/cloudevents-batch+json"),
    };
    format!(
        "POST /ce/produce/{path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {media}\r\n\
         Content-Length: {body_bytes}\r\n\r\n"
    )
}

fn event(load: &Load, producer: usize, data: &str) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let (source, event_type) = (text(&load.source), text(&load.event_type));
    let (id, key) = ("0".repeat(ID_BYTES), "0".repeat(KEY_DIGITS));
    format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":{source},\"type\":{event_type},\
         \"partitionkey\":\"load-{producer:04x}-{key}\",\"datacontenttype\":\"application/json\",\"data\":{data}}}"
    )
}

/// A record such as a register might send, with a note that fills the event up to `--bytes`.
pub fn record(load: &Load) -> Result<String, String> {
    let with_note = |note: &str| {
        format!(
            "{{\"number\":4711,\"name\":\"Load record\",\"registered\":\"2024-05-17T09:30:00+03:00\",\
             \"person\":{{\"idnp\":\"2000000000000\",\"given\":\"Ion\",\"family\":\"Popescu\",\"born\":\"1987-11-03\"}},\
             \"address\":{{\"street\":\"strada Alexandru cel Bun\",\"house\":\"41\",\"city\":\"Chișinău\",\
             \"postcode\":\"MD-2012\"}},\"valid\":true,\"amount\":1204.50,\"tags\":[\"a\",\"b\",\"c\"],\"note\":\"{note}\"}}"
        )
    };
    let bare = event(load, 0, &with_note("")).len();
    let fill = load.bytes.checked_sub(bare).ok_or(format!("--bytes: an event has at least {bare} bytes"))?;
    Ok(with_note(&"the quick brown fox jumps over the lazy dog. ".repeat(fill / 45 + 1)[..fill]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Options;
    use clap::Parser;
    use serde_json::Value;

    fn load(args: &[&str]) -> Load {
        Options::try_parse_from(["loadtest"].iter().chain(args)).unwrap().load
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
        let load = load(&["--bytes", "1024"]);
        let data = record(&load).unwrap();
        let mut request = Request::new(&load, 0x1234, "localhost:1", &data);
        assert_eq!(request.body_bytes(), 1024);
        let event = body(request.stamped(stamp(18)));
        assert_eq!(event["id"], "00000007-1234-0000000012-000000000063");
        assert_eq!(event["partitionkey"], "load-1234-02");
        assert_eq!(event["data"]["number"], 4711);
    }

    #[test]
    fn the_events_of_a_batch_count_on_and_their_keys_go_round() {
        let load = load(&["--batch", "3", "--keys", "2"]);
        let mut request = Request::new(&load, 1, "localhost:1", "{}");
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
    fn a_size_that_cannot_be_is_told() {
        assert!(record(&load(&["--bytes", "100"])).unwrap_err().contains("at least"));
    }
}

//! The events: structured-mode CloudEvents of one size, each with the moment at which it was to be sent.

use anyhow::{Context, Result};
use bytes::Bytes;
use std::io::Write;
use std::ops::Range;

const BEFORE_ID: &str = "{\"specversion\":\"1.0\",\"id\":\"";
/// An id is that moment in nanoseconds, a hyphen and a running number.
const MOMENT_DIGITS: usize = 20;
const NUMBER_DIGITS: usize = 10;
const ID_BYTES: usize = MOMENT_DIGITS + 1 + NUMBER_DIGITS;
const MOMENT: Range<usize> = BEFORE_ID.len()..BEFORE_ID.len() + MOMENT_DIGITS;
const END: &str = "\"}}";

/// The events of one producer.
pub struct Events {
    after_id: String,
    number: u64,
}

impl Events {
    /// Events of `bytes` bytes.
    pub fn new(producer: usize, bytes: usize) -> Result<Self> {
        let start = format!(
            "\",\"source\":\"urn:demo\",\"type\":\"Demo.Load.Record.Created\",\"partitionkey\":\"load-{producer:04x}\",\
             \"datacontenttype\":\"application/json\",\"data\":{{\"number\":4711,\"name\":\"Load record\",\
             \"registered\":\"2024-05-17T09:30:00+03:00\",\"valid\":true,\"amount\":1204.50,\"note\":\""
        );
        let bare = BEFORE_ID.len() + ID_BYTES + start.len() + END.len();
        let fill =
            bytes.checked_sub(bare).with_context(|| format!("--bytes: an event has at least {bare}"))?;
        let note = "the quick brown fox jumps over the lazy dog. ".repeat(fill / 45 + 1);
        Ok(Self { after_id: start + &note[..fill] + END, number: 0 })
    }

    /// The next one, to be sent at `intended_ns` of the run's clock.
    pub fn next(&mut self, intended_ns: u64) -> Bytes {
        let mut event = Vec::with_capacity(BEFORE_ID.len() + ID_BYTES + self.after_id.len());
        write!(
            event,
            "{BEFORE_ID}{intended_ns:0MOMENT_DIGITS$}-{:0NUMBER_DIGITS$}{}",
            self.number, self.after_id
        )
        .expect("memory takes every byte");
        self.number += 1;
        event.into()
    }
}

/// When `event` was to be sent, if it is one of these.
pub fn intended_ns(event: &[u8]) -> Option<u64> {
    std::str::from_utf8(event.get(MOMENT)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_size_asked_for_and_tells_its_moment() {
        let mut events = Events::new(3, 1024).unwrap();
        for moment in [7, u64::MAX / 2] {
            let event = events.next(moment);
            assert_eq!((event.len(), intended_ns(&event)), (1024, Some(moment)));
            let json: serde_json::Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(json["partitionkey"], "load-0003");
        }
    }

    #[test]
    fn other_bytes_tell_no_moment() {
        assert_eq!(intended_ns(b"{}"), None);
        assert!(Events::new(0, 10).is_err());
    }
}

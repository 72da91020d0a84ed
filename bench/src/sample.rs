//! Events and requests made from a seed: the same in every run, on every machine.

use std::fmt::Write;

/// Bytes of an event as sent.
const EVENT_BYTES: usize = 1024;
const SEED: u64 = 0x6e69_7374_7275;

/// Numbers that look random (SplitMix64).
pub struct Numbers(u64);

impl Default for Numbers {
    fn default() -> Self {
        Self(SEED)
    }
}

impl Numbers {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Appends words of lower-case letters, `bytes` bytes in all.
    fn write_words(&mut self, out: &mut String, bytes: usize) {
        let letters = b"abcdefghijklmnopqrstuvwxyz      ";
        out.extend((0..bytes).map(|_| char::from(letters[(self.draw() % 32) as usize])));
    }
}

/// The payload of one event: what is left of [`EVENT_BYTES`] after `taken`.
pub fn data(numbers: &mut Numbers, taken: usize) -> String {
    let mut data = format!(r#"{{"number":{},"name":"Record","note":""#, numbers.draw() % 1_000_000);
    let filling = EVENT_BYTES - taken - data.len() - 2;
    numbers.write_words(&mut data, filling);
    data.push_str("\"}");
    data
}

/// One event of the type `Demo.Load.Record.Created`.
pub fn event(numbers: &mut Numbers) -> String {
    let mut event = format!(
        r#"{{"specversion":"1.0","id":"{:016x}","source":"urn:demo","type":"Demo.Load.Record.Created","partitionkey":"person-{}","data":"#,
        numbers.draw(),
        numbers.draw() % 100_000
    );
    let data = data(numbers, event.len() + 1);
    write!(event, "{data}}}").expect("strings take everything");
    event
}

/// The body of a POST: one event, or a batch of several.
pub fn body(events: usize) -> String {
    let mut numbers = Numbers::default();
    match events {
        1 => event(&mut numbers),
        _ => format!("[{}]", (0..events).map(|_| event(&mut numbers)).collect::<Vec<_>>().join(",")),
    }
}

/// A whole POST of so many events, as a client sends it.
pub fn post(events: usize) -> Vec<u8> {
    let (path, content_type) = match events {
        1 => ("event", "application/cloudevents+json"),
        _ => ("events", "application/cloudevents-batch+json"),
    };
    let body = body(events);
    let bytes = body.len();
    format!(
        "POST /ce/produce/{path} HTTP/1.1\r\nHost: localhost:8443\r\nContent-Type: {content_type}\r\n\
         Accept: */*\r\nContent-Length: {bytes}\r\n\r\n{body}"
    )
    .into_bytes()
}

//! Events as producers send them: 1 KiB of JSON of the type `Demo.Load.Record.Created`.

const EVENT_BYTES: usize = 1024;
/// Partition keys that the events of a batch are spread over.
const KEYS: usize = 64;

/// One event in the JSON format.
pub fn event(number: usize) -> String {
    let head = format!(
        r#"{{"specversion":"1.0","id":"{number}","source":"urn:demo","type":"Demo.Load.Record.Created","partitionkey":"key-{}","data":{{"number":{number},"name":"first","note":""#,
        number % KEYS
    );
    let note = "x".repeat(EVENT_BYTES - head.len() - 3);
    format!("{head}{note}\"}}}}")
}

/// A batch of `count` events.
pub fn batch(count: usize) -> String {
    let events: Vec<_> = (0..count).map(event).collect();
    format!("[{}]", events.join(","))
}

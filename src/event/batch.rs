//! Stored events written for consumers: one in structured mode, several as a JSON batch (JSON format 1.0.2, 3 and 4).

use super::encode::OFFSET_BYTES_MAX;

/// Bytes that one event takes in a batch at most, its share of brackets and commas included. A batch has one byte beside.
pub fn bytes_in_batch(event: &[u8]) -> usize {
    event.len() + OFFSET_BYTES_MAX + 1
}

/// Appends one event: its stored bytes, which lack the closing brace, and the offset under which it is delivered.
pub fn write_event(out: &mut Vec<u8>, event: &[u8], offset: u64) {
    let mut digits = itoa::Buffer::new();
    for piece in [event, b",\"offset\":\"", digits.format(offset).as_bytes(), b"\"}"] {
        out.extend_from_slice(piece);
    }
}

/// Appends the array of these events, each with its offset.
pub fn write_batch<'e>(out: &mut Vec<u8>, events: impl IntoIterator<Item = (u64, &'e [u8])>) {
    out.push(b'[');
    for (at, (offset, event)) in events.into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_event(out, event, offset);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[u8] = br#"{"id":"1""#;

    #[test]
    fn events_end_with_their_offset_and_take_no_more_than_counted() {
        let mut out = Vec::new();
        write_batch(&mut out, [(7, EVENT), (u64::MAX, EVENT)]);
        assert!(out.len() <= 2 * bytes_in_batch(EVENT) + 1);
        let expected = r#"[{"id":"1","offset":"7"},{"id":"1","offset":"18446744073709551615"}]"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut longest = Vec::new();
        write_batch(&mut longest, [(u64::MAX, EVENT), (u64::MAX, EVENT)]);
        assert_eq!(longest.len(), 2 * bytes_in_batch(EVENT) + 1);
        let mut none = Vec::new();
        write_batch(&mut none, []);
        assert_eq!(none, b"[]");
    }
}

//! Stored events written for consumers: one in structured mode, several as a JSON batch (JSON format 1.0.2, 3 and 4).

/// Appends one event: its stored bytes, which lack the closing brace, and the offset under which it is delivered.
pub fn write_event(out: &mut Vec<u8>, event: &[u8], offset: u64) {
    let mut digits = itoa::Buffer::new();
    for piece in [event, b",\"offset\":\"", digits.format(offset).as_bytes(), b"\"}"] {
        out.extend_from_slice(piece);
    }
}

/// An array of events under way.
pub struct Batch {
    text: Vec<u8>,
    events: usize,
    events_max: usize,
    bytes_max: usize,
}

impl Batch {
    /// An empty array that is to hold so many events and bytes at most. A single event longer than that goes alone, as it
    /// would never go at all otherwise.
    pub fn new(events_max: usize, bytes_max: usize) -> Self {
        Self { text: vec![b'['], events: 0, events_max, bytes_max }
    }

    /// Adds an event, unless the array would become too large by it.
    pub fn add(&mut self, event: &[u8], offset: u64) -> bool {
        let (end, first) = (self.text.len(), self.events == 0);
        if self.events >= self.events_max {
            return false;
        }
        if !first {
            self.text.push(b',');
        }
        write_event(&mut self.text, event, offset);
        if self.text.len() + 1 > self.bytes_max && !first {
            self.text.truncate(end);
            return false;
        }
        self.events += 1;
        true
    }

    /// Number of events in the array.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The text of the array.
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push(b']');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &[u8] = br#"{"id":"1""#;

    #[test]
    fn events_end_with_their_offset() {
        let mut batch = Batch::new(9, 1000);
        assert!(batch.add(EVENT, 7) && batch.add(EVENT, u64::MAX));
        let expected = r#"[{"id":"1","offset":"7"},{"id":"1","offset":"18446744073709551615"}]"#;
        assert_eq!(String::from_utf8(batch.finish()).unwrap(), expected);
        assert_eq!(Batch::new(9, 9).finish(), b"[]");
    }

    #[test]
    fn a_batch_is_never_longer_than_it_may_be_and_takes_what_fits_exactly() {
        let whole = br#"[{"id":"1","offset":"7"},{"id":"1","offset":"8"}]"#;
        for bytes_max in 0..whole.len() + 2 {
            let mut batch = Batch::new(9, bytes_max);
            assert!(batch.add(EVENT, 7));
            assert_eq!(batch.add(EVENT, 8), bytes_max >= whole.len());
            let events = batch.events();
            let text = batch.finish();
            assert!(text.len() <= bytes_max || events == 1, "{bytes_max}");
            assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn a_batch_has_no_more_events_than_asked_for() {
        let mut batch = Batch::new(2, 1000);
        assert_eq!([1, 2, 3].map(|offset| batch.add(EVENT, offset)), [true, true, false]);
    }
}

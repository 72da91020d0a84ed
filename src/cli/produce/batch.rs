//! Events gathered for one request.

use std::ops::RangeInclusive;

/// A JSON array in the making.
pub struct Batch {
    events_max: usize,
    bytes_max: usize,
    body: Vec<u8>,
    count: usize,
    first_line: u64,
    last_line: u64,
}

impl Batch {
    /// An empty batch of at most `events_max` events and `bytes_max` bytes.
    pub fn new(events_max: usize, bytes_max: usize) -> Self {
        Self { events_max, bytes_max, body: Vec::new(), count: 0, first_line: 0, last_line: 0 }
    }

    /// Whether another event of `bytes` fits. Any event fits into an empty batch: the broker says if it is too large.
    pub fn has_room(&self, bytes: usize) -> bool {
        // The event, its comma or opening bracket, and the closing bracket.
        self.count == 0 || (self.count < self.events_max && self.body.len() + bytes + 2 <= self.bytes_max)
    }

    /// Adds the event of a line.
    pub fn add(&mut self, line: u64, event: &[u8]) {
        if self.count == 0 {
            self.first_line = line;
        }
        if self.events_max > 1 {
            self.body.push(if self.count == 0 { b'[' } else { b',' });
        }
        self.body.extend_from_slice(event);
        self.count += 1;
        self.last_line = line;
    }

    /// Whether the batch is as large as it may become.
    pub fn is_full(&self) -> bool {
        self.count >= self.events_max
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn lines(&self) -> RangeInclusive<u64> {
        self.first_line..=self.last_line
    }

    /// Path, content type and body of the request. Batches of one are sent as single events when no more were allowed.
    pub fn request(&mut self) -> (&'static str, &'static str, &[u8]) {
        if self.events_max == 1 {
            return ("/ce/produce/event", "application/cloudevents+json", &self.body);
        }
        if self.body.last() != Some(&b']') {
            self.body.push(b']');
        }
        ("/ce/produce/events", "application/cloudevents-batch+json", &self.body)
    }

    pub fn clear(&mut self) {
        self.body.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_and_its_request_may_be_asked_for_twice() {
        let mut batch = Batch::new(3, 100);
        batch.add(4, b"{\"a\":1}");
        batch.add(6, b"{}");
        for _ in 0..2 {
            let (path, media, body) = batch.request();
            assert_eq!((path, media), ("/ce/produce/events", "application/cloudevents-batch+json"));
            assert_eq!(body, b"[{\"a\":1},{}]");
        }
        assert_eq!((batch.lines(), batch.count()), (4..=6, 2));
        batch.clear();
        batch.add(7, b"{}");
        assert_eq!(batch.lines(), 7..=7);
        assert_eq!(batch.request().2, b"[{}]");
    }

    #[test]
    fn an_event_alone_is_sent_as_it_is() {
        let mut batch = Batch::new(1, 10);
        batch.add(1, b"{}");
        assert!(batch.is_full() && !batch.has_room(1));
        assert_eq!(batch.request(), ("/ce/produce/event", "application/cloudevents+json", &b"{}"[..]));
    }

    #[test]
    fn a_batch_never_grows_over_its_bytes_except_by_one_event_that_is_too_large_alone() {
        let mut batch = Batch::new(10, 10);
        assert!(batch.has_room(50));
        batch.add(1, b"1234");
        assert!(batch.has_room(3) && !batch.has_room(4));
        batch.add(2, b"123");
        assert_eq!(batch.request().2.len(), 10);
    }
}

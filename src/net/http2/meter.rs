//! Counts frames on their way to and from the `h2` crate, and notices who sends many that come to nothing.
//!
//! What `h2` bounds itself: continuation frames and the size of a header list, DATA frames without content, streams that are reset
//! before they were accepted, streams that break the protocol, and the one PING or SETTINGS frame at a time that it owes an answer.
//! What it does not bound is how often that may be repeated. So every frame but DATA costs something, and a response earns it
//! back: requests that are answered and windows that are opened to be filled go on for ever, floods of PING, SETTINGS,
//! PRIORITY, WINDOW_UPDATE, unknown frames and requests that are reset at once end soon.

/// Frames without effect that may come in a burst.
const BURST: u32 = 2_000;
/// Frames without effect that may come in a second for as long as they like.
const PER_SECOND: u64 = 100;
/// Frames that are paid for by a response, or by a piece of one. A client opens two windows for each piece, and some say for
/// each request what its priority is.
const EARNED: u32 = 4;
/// A piece of a response has at least so many bytes: a client must not earn by taking an answer byte by byte.
const PIECE_BYTES: usize = 64;

/// Bytes that a client sends before its first frame (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame before its payload (RFC 9113, 4.1).
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What one connection may still ask for without getting anything done.
pub struct Meter {
    received: Scanner,
    sent: Scanner,
    left: u32,
    /// Up to when refills have been counted, in milliseconds.
    counted_ms: u64,
}

/// Follows the frames in a sequence of bytes, however it is cut.
struct Scanner {
    /// Bytes before the header of the next frame.
    skip: usize,
    header: [u8; HEADER_BYTES],
    /// How much of `header` has come.
    filled: usize,
    /// A list of header fields is to be continued.
    continues: bool,
}

/// The header of a frame.
struct Frame {
    kind: u8,
    flags: u8,
    payload_bytes: usize,
}

impl Meter {
    /// The meter of a connection that begins now.
    pub fn new(now_ms: u64) -> Self {
        let received = Scanner::new(PREFACE_BYTES);
        Self { received, sent: Scanner::new(0), left: BURST, counted_ms: now_ms }
    }

    /// Counts what comes from the client, up to `frames_max` frames; tells how many bytes and frames that is.
    pub fn receive(&mut self, bytes: &[u8], frames_max: usize, now_ms: u64) -> (usize, usize) {
        self.refill(now_ms);
        let mut rest = bytes;
        let mut frames = 0;
        while frames < frames_max
            && let Some(frame) = self.received.next(&mut rest)
        {
            frames += 1;
            let effective = frame.kind == DATA && frame.payload_bytes > 0;
            self.left = self.left.saturating_sub(u32::from(!effective));
        }
        (bytes.len() - rest.len(), frames)
    }

    /// Counts what goes to the client.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            if frame.kind == HEADERS || frame.kind == DATA && frame.payload_bytes >= PIECE_BYTES {
                self.earn(EARNED);
            }
        }
    }

    /// Whether the client has sent more frames without effect than it may.
    pub fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// Whether the rest of a frame, or of a request's header fields, is still to come.
    pub fn is_within_frame(&self) -> bool {
        self.received.continues || self.received.filled > 0 || self.received.skip > 0
    }

    fn refill(&mut self, now_ms: u64) {
        let refills = now_ms.saturating_sub(self.counted_ms) * PER_SECOND / 1000;
        self.counted_ms += refills * 1000 / PER_SECOND;
        self.earn(u32::try_from(refills).unwrap_or(u32::MAX));
    }

    /// What is used up stays so: the connection is about to end.
    fn earn(&mut self, frames: u32) {
        if self.left > 0 {
            self.left = self.left.saturating_add(frames).min(BURST);
        }
    }
}

impl Scanner {
    fn new(skip: usize) -> Self {
        Self { skip, header: [0; HEADER_BYTES], filled: 0, continues: false }
    }

    /// Takes bytes up to the end of the next frame's header; `None` when they are used up before.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        *bytes = &bytes[skipped..];
        let count = bytes.len().min(HEADER_BYTES - self.filled);
        let (part, rest) = bytes.split_at(count);
        self.header[self.filled..][..count].copy_from_slice(part);
        self.filled += count;
        *bytes = rest;
        if self.filled < HEADER_BYTES {
            return None;
        }
        let [high, middle, low, kind, flags, ..] = self.header;
        let frame = Frame { kind, flags, payload_bytes: u32::from_be_bytes([0, high, middle, low]) as usize };
        self.filled = 0;
        self.skip = frame.payload_bytes;
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.continues = frame.flags & END_HEADERS == 0;
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const PING: u8 = 6;
    const PREFACE: [u8; PREFACE_BYTES] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload_bytes: usize) -> Vec<u8> {
        let mut frame = (payload_bytes as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.resize(HEADER_BYTES + payload_bytes, 0);
        frame
    }

    fn opened() -> Meter {
        let mut meter = Meter::new(0);
        assert_eq!(meter.receive(&PREFACE, 1, 0), (PREFACE_BYTES, 0));
        meter
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [frame(HEADERS, END_HEADERS, 20), frame(DATA, 0, 300), frame(PING, 0, 8)].concat();
        for piece in [1, 2, 8, 9, 10, 100, bytes.len()] {
            let mut meter = opened();
            let counted = bytes.chunks(piece).map(|part| meter.receive(part, usize::MAX, 0));
            let (taken, frames) = counted.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
            assert_eq!((taken, frames), (bytes.len(), 3), "pieces of {piece}");
            assert!(!meter.is_within_frame());
            assert_eq!(meter.left, BURST - 2, "only DATA is free");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_stop_the_count(bytes in vec(any::<u8>(), 0..400), piece in 1..50_usize) {
            let mut meter = Meter::new(0);
            for part in bytes.chunks(piece) {
                prop_assert_eq!(meter.receive(part, usize::MAX, 0).0, part.len());
                meter.send(part);
            }
        }
    }

    #[test]
    fn no_more_frames_are_taken_than_asked_for() {
        let mut meter = opened();
        let pings = frame(PING, 0, 8).repeat(10);
        let (taken, frames) = meter.receive(&pings, 4, 0);
        assert_eq!(frames, 4);
        assert_eq!(meter.receive(&pings[taken..], usize::MAX, 0), (pings.len() - taken, 6));
    }

    #[test]
    fn header_fields_without_end_are_within_a_frame() {
        let mut meter = opened();
        meter.receive(&frame(HEADERS, 0, 5), 9, 0);
        assert!(meter.is_within_frame());
        meter.receive(&frame(CONTINUATION, END_HEADERS, 5), 9, 0);
        assert!(!meter.is_within_frame());
        meter.receive(&frame(DATA, 0, 5)[..12], 9, 0);
        assert!(meter.is_within_frame());
    }

    #[test]
    fn a_flood_is_used_up_and_stays_so() {
        let mut meter = opened();
        meter.receive(&frame(PING, 0, 8).repeat(BURST as usize - 1), usize::MAX, 0);
        assert!(!meter.is_used_up());
        meter.receive(&frame(PING, 0, 8), 1, 0);
        assert!(meter.is_used_up());
        meter.receive(&[], 1, 60_000);
        meter.send(&frame(HEADERS, END_HEADERS, 5));
        assert!(meter.is_used_up());
    }

    #[test]
    fn time_and_responses_pay_for_frames() {
        let mut meter = opened();
        meter.receive(&frame(PING, 0, 8).repeat(1000), usize::MAX, 0);
        for now_ms in 0..1000 {
            meter.receive(&[], 1, now_ms);
        }
        assert_eq!(meter.left, 1000 + 99);
        for sent in [frame(HEADERS, END_HEADERS, 5), frame(DATA, 0, PIECE_BYTES), frame(DATA, 0, 1)] {
            meter.send(&sent);
        }
        assert_eq!(meter.left, 1000 + 99 + 2 * EARNED);
    }

    #[test]
    fn a_client_that_reads_what_it_asked_for_is_never_a_flood() {
        let mut meter = opened();
        for _ in 0..10_000 {
            meter.receive(&frame(2, 0, 5), 9, 0);
            meter.receive(&frame(HEADERS, END_HEADERS, 30), 9, 0);
            meter.send(&frame(HEADERS, END_HEADERS, 10));
            meter.send(&frame(DATA, 0, 200));
            meter.receive(&frame(8, 0, 4).repeat(2), 9, 0);
        }
        assert!(!meter.is_used_up());
    }
}

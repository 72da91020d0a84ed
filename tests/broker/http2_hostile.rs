//! Clients of HTTP/2 that mean no good, or know no better: floods, heads without end, answers that nobody reads.

use crate::harness::{Broker, PATIENCE, expect, post_batch, post_event, record, wait_for};
use crate::http2_client::{Http2, open};
use nistru::client::Stream;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

/// Frames as they are on the wire (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Header fields of `METHOD /ce/produce/event` without compression, ends left open for more.
fn fields(method: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "https"),
        (":path", "/ce/produce/event"),
        (":authority", "localhost"),
        ("content-type", "application/cloudevents+json"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.bytes());
        }
    }
    block
}

/// A client that writes bytes as it likes and takes what comes.
struct Rude {
    stream: Stream,
    received: Vec<u8>,
    ended: bool,
}

impl Rude {
    /// Opens a connection with these settings: pairs of number and value.
    fn open(broker: &Broker, settings: &[(u16, u32)]) -> Self {
        let mut rude = Self { stream: open(broker, "demo"), received: Vec::new(), ended: false };
        rude.stream.set_nonblocking(true).unwrap();
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        rude.send(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &payload)].concat());
        rude
    }

    /// Sends bytes, and takes what comes as long as they do not fit.
    fn send(&mut self, bytes: &[u8]) {
        if self.ended || self.stream.write_all(bytes).is_err() {
            self.ended = true;
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.ended {
            match self.stream.flush() {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => self.ended = true,
            }
            self.take();
            assert!(Instant::now() < deadline, "the broker neither reads nor ends the connection");
        }
        self.take();
    }

    fn take(&mut self) {
        let mut piece = [0; 16 << 10];
        while !self.ended {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    /// Frames received so far: kind, flags, stream, payload.
    fn frames(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        self.take();
        let mut frames = Vec::new();
        let mut rest = &self.received[..];
        while let Some((header, after)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
            frames.push((header[3], header[4], stream, payload.to_vec()));
            rest = after;
        }
        frames
    }

    /// Waits for the broker's last frame and gives its error code.
    fn gone_away(&mut self) -> u32 {
        wait_for("a GOAWAY", || {
            let frames = self.frames();
            let (.., payload) = frames.into_iter().rfind(|(kind, ..)| *kind == GO_AWAY)?;
            Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
        })
    }

    /// Waits for the end of the connection.
    fn wait_for_end(&mut self) {
        wait_for("the end of the connection", || {
            self.take();
            self.ended.then_some(())
        });
    }
}

const ENHANCE_YOUR_CALM: u32 = 11;
const NO_ERROR: u32 = 0;

/// Sends what `flood` gives for ever-growing numbers until the broker ends the connection, while another client goes on; then
/// tells the error code.
fn flood(broker: &Broker, what: &str, mut flood: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut rude = Rude::open(broker, &[]);
    let mut other = broker.connect("demo");
    let mut number = 0;
    let deadline = Instant::now() + PATIENCE;
    while !rude.ended && !rude.frames().iter().any(|(kind, ..)| *kind == GO_AWAY) {
        assert!(Instant::now() < deadline, "{what} never ends the connection");
        let burst: Vec<u8> = (0..500).flat_map(|n| flood(number + n)).collect();
        rude.send(&burst);
        number += 500;
        expect(&post_event(&mut other, &record(&format!("{what}-{number}"), 1)), 202);
    }
    rude.gone_away()
}

#[test]
fn floods_of_frames_end_their_own_connection_and_nobody_elses() {
    let broker = Broker::start();
    let empty = frame(SETTINGS, 0, 0, &[]);
    assert_eq!(flood(&broker, "SETTINGS", |_| empty.clone()), ENHANCE_YOUR_CALM);
    assert_eq!(flood(&broker, "PING", |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())), ENHANCE_YOUR_CALM);
    assert_eq!(flood(&broker, "PING answers", |_| frame(PING, 1, 0, &[7; 8])), ENHANCE_YOUR_CALM);
    assert_eq!(
        flood(&broker, "PRIORITY", |n| frame(PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 1])),
        ENHANCE_YOUR_CALM
    );
    assert_eq!(
        flood(&broker, "WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ENHANCE_YOUR_CALM
    );
    assert_eq!(flood(&broker, "unknown frames", |_| frame(0x42, 0, 0, b"?")), ENHANCE_YOUR_CALM);
    let reset = |n: u32| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS, stream, &fields("POST")), frame(RESET, 0, stream, &[0, 0, 0, 8])]
            .concat()
    };
    assert_eq!(flood(&broker, "rapid reset", reset), ENHANCE_YOUR_CALM);
    let empty_data = |n: u32| match n {
        0 => frame(HEADERS, END_HEADERS, 1, &fields("POST")),
        _ => frame(DATA, 0, 1, &[]),
    };
    assert_eq!(flood(&broker, "empty DATA", empty_data), ENHANCE_YOUR_CALM);
    let endless_head = |n: u32| match n {
        0 => frame(HEADERS, 0, 1, &fields("POST")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    assert_eq!(flood(&broker, "CONTINUATION", endless_head), ENHANCE_YOUR_CALM);
    let too_many = |n: u32| frame(HEADERS, END_HEADERS, 2 * n + 1, &fields("POST"));
    assert_eq!(flood(&broker, "streams", too_many), ENHANCE_YOUR_CALM);
    assert!(!broker.log().contains("\"h2::"), "floods do not fill the log");
    wait_for("all connections to be gone", || (broker.metric("connections_open") == 0.0).then_some(()));
}

#[test]
fn a_head_without_end_takes_no_memory() {
    let broker = Broker::start();
    let mut rude = Rude::open(&broker, &[]);
    rude.send(&frame(HEADERS, 0, 1, &fields("POST")));
    let mut long = vec![0, 1, b'a', 0x7f, 0x80, 0x7f];
    long.resize(16 << 10, b'a');
    for _ in 0..100 {
        rude.send(&frame(CONTINUATION, 0, 1, &long));
    }
    assert_ne!(rude.gone_away(), NO_ERROR);
    rude.wait_for_end();
}

#[test]
fn an_idle_connection_a_half_head_and_a_silent_client_are_ended_in_time() {
    let broker = Broker::with(&[
        ("server", "request_timeout", "\"1s\""),
        ("server", "idle_timeout", "\"1s\""),
        ("server", "handshake_timeout", "\"1s\""),
    ]);
    let mut idle = Rude::open(&broker, &[]);
    assert_eq!(idle.gone_away(), NO_ERROR);
    let mut half = Rude::open(&broker, &[]);
    half.send(&frame(HEADERS, 0, 1, &fields("POST")));
    assert_eq!(half.gone_away(), NO_ERROR);
    let mut silent = Rude { stream: open(&broker, "demo"), received: Vec::new(), ended: false };
    silent.stream.set_nonblocking(true).unwrap();
    silent.wait_for_end();
    idle.wait_for_end();
    half.wait_for_end();
}

#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let broker = Broker::with(&[("server", "request_timeout", "\"1s\"")]);
    let initial_window = 4;
    let mut rude = Rude::open(&broker, &[(initial_window, 0)]);
    rude.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields("GET")));
    let reset = wait_for("the reset of the stream", || {
        rude.frames().into_iter().find(|(kind, _, stream, _)| (*kind, *stream) == (RESET, 1))
    });
    assert_eq!(reset.3, 8_u32.to_be_bytes(), "CANCEL");
    assert!(!rude.ended, "other streams go on");
}

#[test]
fn a_client_that_asks_and_never_reads_is_cut_off() {
    let broker = Broker::with(&[("server", "request_timeout", "\"1s\"")]);
    let mut deaf = open(&broker, "demo");
    deaf.set_nonblocking(true).unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    deaf.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    let mut stream = 1;
    // Requests are answered until the socket takes no more answers; then the broker stops reading, and then it hangs up.
    wait_for("the end of the connection", || {
        for _ in 0..200 {
            deaf.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields("GET"))).unwrap();
            stream += 2;
        }
        match deaf.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Some(()),
            _ => None,
        }
    });
    wait_for("the connection to be forgotten", || (broker.metric("connections_open") == 0.0).then_some(()));
}

#[test]
fn a_consumer_that_reads_nothing_loses_its_session_and_then_its_connection() {
    let broker = Broker::with(&[
        ("server", "request_timeout", "\"1s\""),
        ("server", "idle_timeout", "\"1s\""),
        ("delivery", "ping_interval", "\"1s\""),
        ("delivery", "pong_timeout", "\"1s\""),
        ("delivery", "window_bytes", "\"64 MiB\""),
    ]);
    let mut producer = broker.connect("demo");
    let note = "x".repeat(60_000);
    let event = |n: i64| {
        record(&n.to_string(), n).replacen("\"data\":{", &format!("\"data\":{{\"note\":\"{note}\","), 1)
    };
    // More than sockets hold, so that what is sent last stays where it is.
    for round in 0..30 {
        let batch: Vec<_> = (round * 16..(round + 1) * 16).map(event).collect();
        expect(&post_batch(&mut producer, &batch), 202);
    }
    let mut roomy = h2::client::Builder::new();
    roomy.initial_window_size(64 << 20).initial_connection_window_size(64 << 20);
    let mut deaf = Http2::with(&broker, "demo", &roomy);
    let session = deaf.consume("deaf");
    wait_for("the end of the session", || (broker.metric("websockets_open") == 0.0).then_some(()));
    wait_for("the end of the connection", || (broker.metric("connections_open") == 0.0).then_some(()));
    expect(&post_event(&mut broker.connect("demo"), &record("last", 1)), 202);
    drop((session, deaf));
}

//! Clients that mean harm, or behave as if they did: each is ended with the answer it deserves, while a well-behaved client goes on
//! producing and consuming beside it.

use crate::harness::{
    Broker, PATIENCE, Setting, expect, keyed, next_event, post_batch, post_event, record, wait_for,
};
use nistru::client::{Consumer, Stream};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::collections::HashSet;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Long enough for a good client on a busy machine, short enough to wait for.
const HASTY: &[Setting<'static>] = &[
    ("server", "handshake_timeout", "\"5s\""),
    ("server", "request_timeout", "\"5s\""),
    ("delivery", "ping_interval", "\"2s\""),
    ("delivery", "pong_timeout", "\"5s\""),
];

const POST: &str =
    "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n";

/// How long a hostile client waits for an answer before it sends more.
const BEAT: Duration = Duration::from_millis(5);

/// What a client that floods sends at a time.
const PIECE_BYTES: usize = 32 << 10;

/// A client that produces, consumes and confirms on a thread of its own, now and then over new connections.
struct Bystander<'scope> {
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Bystander<'scope> {
    fn start<'env>(scope: &'scope Scope<'scope, 'env>, broker: &'env Broker) -> Self {
        let (rounds, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (rounds.clone(), stop.clone());
        let thread = scope.spawn(move || {
            while !stopped.load(Relaxed) {
                work(broker, &counted);
            }
        });
        let bystander = Self { rounds, stop, thread };
        bystander.goes_on();
        bystander
    }

    /// Waits until some more events have come through.
    fn goes_on(&self) {
        let goal = self.rounds.load(Relaxed) + 3;
        wait_for("a well-behaved client", || {
            (self.rounds.load(Relaxed) >= goal || self.thread.is_finished()).then_some(())
        });
        assert!(!self.thread.is_finished(), "the well-behaved client has failed");
    }
}

impl Drop for Bystander<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Some rounds over one pair of connections. Everything that was produced comes back once and in order.
fn work(broker: &Broker, rounds: &AtomicUsize) {
    let mut producer = broker.connect("demo");
    let mut consumer = broker.consume("demo", "bystander");
    for _ in 0..5 {
        let round = rounds.load(Relaxed);
        let ids: Vec<_> = (0..3).map(|n| format!("round-{round}-{n}")).collect();
        let events: Vec<_> = ids.iter().map(|id| keyed(id, "bystander", 1)).collect();
        expect(&post_batch(&mut producer, &events), 202);
        assert_eq!(consume(&mut consumer, 3), ids);
        rounds.store(round + 1, Relaxed);
    }
    consumer.close();
}

/// Consumes and confirms up to so many events of the well-behaved client, and gives their ids.
fn consume(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let event = next_event(consumer);
        let id = event["id"].as_str().unwrap();
        // Hostile clients may produce what they are allowed to.
        if id.starts_with("round-") {
            ids.push(id.to_owned());
        }
        consumer.confirm(event["offset"].as_str().unwrap().parse().unwrap()).unwrap();
    }
    ids
}

/// Runs `harm` while a well-behaved client works, which must go on during and after it.
fn beside_a_good_client(settings: &[Setting<'_>], harm: impl FnOnce(&Broker, &dyn Fn())) {
    let broker = Broker::with(settings);
    std::thread::scope(|scope| {
        let bystander = Bystander::start(scope, &broker);
        harm(&broker, &|| bystander.goes_on());
        bystander.goes_on();
    });
}

/// A connection of a hostile client, and what it was told.
struct Hostile {
    stream: Stream,
    heard: Vec<u8>,
    ended: bool,
    /// What it sends again and again.
    piece: Vec<u8>,
}

impl Hostile {
    fn open(broker: &Broker) -> Self {
        let mut stream = Stream::open(&broker.endpoint("demo")).expect("the broker accepts a connection");
        stream.wait_at_most(BEAT).unwrap();
        Self { stream, heard: Vec::new(), ended: false, piece: Vec::new() }
    }

    /// A connection on which `begin` was sent.
    fn sending(broker: &Broker, begin: &str) -> Self {
        let mut hostile = Self::open(broker);
        hostile.send(begin.as_bytes());
        hostile
    }

    /// A WebSocket of the group `hostile`.
    fn websocket(broker: &Broker) -> Self {
        let mut hostile = Self::sending(
            broker,
            "GET /ce/consume/ws?group=hostile HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: cloudevents.json\r\n\r\n",
        );
        wait_for("the WebSocket", || {
            hostile.listen();
            hostile.heard.windows(4).any(|end| end == b"\r\n\r\n").then_some(())
        });
        assert!(hostile.heard.starts_with(b"HTTP/1.1 101 "), "{}", hostile.text());
        let end = hostile.heard.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        hostile.heard.drain(..end);
        hostile
    }

    /// The same client, which will send this without end.
    fn repeating(self, piece: impl Into<Vec<u8>>) -> Self {
        Self { piece: piece.into(), ..self }
    }

    /// Sends and listens for a moment. A broker that takes no more has ended the connection, which listening finds out.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).and_then(|()| self.stream.flush());
        self.listen();
    }

    fn listen(&mut self) {
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part) {
            Ok(0) => self.ended = true,
            Ok(count) => self.heard.extend_from_slice(&part[..count]),
            Err(error) if is_silence(&error) => {}
            Err(_) => self.ended = true,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// The code of the close frame among what was heard, and its reason.
    fn close(&self) -> Option<(u16, String)> {
        let heard = Heard(Cursor::new(self.heard.clone()));
        let mut socket = WebSocket::from_raw_socket(heard, Role::Client, None);
        loop {
            match socket.read() {
                Ok(Message::Close(frame)) => {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

/// What was heard, read by a client whose answers, such as those to pings, go nowhere.
struct Heard(Cursor<Vec<u8>>);

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// All of them go on as they do, or in silence, until the broker has ended every one.
fn go_on_without_end(clients: &mut [Hostile]) {
    wait_for("the end of all hostile clients", || {
        for client in clients.iter_mut().filter(|client| !client.ended) {
            client.send(&client.piece.clone());
        }
        clients.iter().all(|client| client.ended).then_some(())
    });
}

fn assert_told(clients: &[Hostile], status: &str) {
    for client in clients {
        let text = client.text();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}: {text}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "more than one answer: {text}");
    }
}

/// A frame as a client sends it, masked with zeros so that the payload reads as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn headers_and_bodies_that_drip_are_answered_408() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let head = format!("{POST}X-Slow: ");
        let length = format!("{POST}Content-Length: 100000\r\n\r\n ");
        let chunks = format!("{POST}Transfer-Encoding: chunked\r\n\r\n8000\r\n ");
        let mut slow: Vec<_> = [head, length, chunks]
            .iter()
            .cycle()
            .take(30)
            .map(|begin| Hostile::sending(broker, begin).repeating(" "))
            .collect();
        good_client_goes_on();
        go_on_without_end(&mut slow);
        assert_told(&slow, "408");
    });
}

#[test]
fn requests_that_stop_in_the_middle_are_answered_408() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let head = "POST /ce/produce/event HTTP/1.1\r\nHo".to_owned();
        let length = format!("{POST}Content-Length: 1000000\r\n\r\n[");
        let chunks = format!("{POST}Transfer-Encoding: chunked\r\n\r\n5;");
        let mut silent: Vec<_> = [head, length, chunks]
            .iter()
            .cycle()
            .take(60)
            .map(|begin| Hostile::sending(broker, begin))
            .collect();
        good_client_goes_on();
        go_on_without_end(&mut silent);
        assert_told(&silent, "408");
    });
}

#[test]
fn bodies_extensions_trailers_and_headers_without_end_are_cut_off() {
    beside_a_good_client(&[], |broker, good_client_goes_on| {
        let chunks = "Transfer-Encoding: chunked\r\n\r\n";
        let endless = [
            ("a chunk", format!("{chunks}fffffffffffffff\r\n"), " ".repeat(16), "413"),
            ("many chunks", chunks.to_owned(), "1\r\n \r\n".to_owned(), "413"),
            ("an extension", format!("{chunks}1;a="), "b".to_owned(), "400"),
            ("many extensions", chunks.to_owned(), "1;a\r\n \r\n".to_owned(), "400"),
            ("white space behind a size", format!("{chunks}1"), " ".to_owned(), "400"),
            ("zeros before a size", chunks.to_owned(), "0".to_owned(), "400"),
            ("trailers", format!("{chunks}0\r\n"), "a: b\r\n".to_owned(), "400"),
            ("headers", String::new(), "a: b\r\n".to_owned(), "431"),
            ("a header", "a: ".to_owned(), "b".to_owned(), "431"),
        ];
        let mut clients: Vec<_> = endless
            .iter()
            .map(|(_, begin, piece, _)| {
                Hostile::sending(broker, &format!("{POST}{begin}"))
                    .repeating(piece.repeat(PIECE_BYTES / piece.len()))
            })
            .collect();
        good_client_goes_on();
        go_on_without_end(&mut clients);
        for ((what, .., status), client) in endless.iter().zip(&clients) {
            println!("{what}");
            assert_told(std::slice::from_ref(client), status);
        }
    });
}

#[test]
fn connections_that_never_finish_their_handshake_are_dropped() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let hello = client_hello();
        let starts: [&[u8]; 4] = [b"", b"\x16\x03\x01\x02", &hello[..hello.len() / 2], &hello];
        let mut stalled: Vec<_> = starts
            .iter()
            .cycle()
            .take(100)
            .map(|start| {
                let mut socket = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
                socket.write_all(start).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                socket
            })
            .collect();
        good_client_goes_on();
        for socket in &mut stalled {
            // The broker's half of a handshake may come before the end.
            let ended = io::copy(socket, &mut io::sink());
            assert!(!ended.is_err_and(|error| is_silence(&error)), "a stalled handshake is never ended");
        }
    });
}

/// The first flight of a TLS client.
fn client_hello() -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn noise_instead_of_tls_or_http_is_refused() {
    beside_a_good_client(&[], |broker, good_client_goes_on| {
        for noise in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0; 4096], &[0xff; 4096]] {
            let mut socket = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(noise).unwrap();
            let ended = io::copy(&mut socket, &mut io::sink());
            assert!(!ended.is_err_and(|error| is_silence(&error)), "noise is never refused");
        }
        let noise = b"\x00\xff\x00\xff\r\n\r\n";
        let mut noisy: Vec<_> = (0..10).map(|_| Hostile::open(broker).repeating(noise)).collect();
        good_client_goes_on();
        go_on_without_end(&mut noisy);
        assert_told(&noisy, "400");
    });
}

#[test]
fn a_client_that_asks_and_never_reads_the_answers_is_dropped() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let mut deaf = Stream::open(&broker.endpoint("demo")).unwrap();
        let asking = "GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        let mut sent = Ok(());
        let deadline = Instant::now() + PATIENCE;
        // At some point the broker reads no more, because its answers are not read, and then it gives up.
        while sent.is_ok() && Instant::now() < deadline {
            sent = deaf.write_all(asking.as_bytes()).and_then(|()| deaf.flush());
        }
        assert!(sent.is_err_and(|error| !is_silence(&error)), "a client that never reads is not dropped");
        good_client_goes_on();
    });
}

#[test]
fn a_consumer_that_never_reads_is_dropped_and_its_partitions_go_to_others() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let mut deaf = [Hostile::websocket(broker)];
        let filling = "x".repeat(30_000);
        let mut producer = broker.connect("demo");
        for n in 0..100 {
            let event = record(&format!("large-{n}"), n)
                .replace("\"data\":{", &format!("\"data\":{{\"note\":\"{filling}\","));
            expect(&post_event(&mut producer, &event), 202);
        }
        good_client_goes_on();
        broker.wait_for_log("a consumer does not answer pings");
        let mut heir = broker.consume("demo", "hostile");
        let mut missing: HashSet<_> = (0..100).map(|n| format!("large-{n}")).collect();
        while !missing.is_empty() {
            let event = next_event(&mut heir);
            missing.remove(event["id"].as_str().unwrap());
            heir.confirm(event["offset"].as_str().unwrap().parse().unwrap()).unwrap();
        }
        go_on_without_end(&mut deaf);
    });
}

#[test]
fn floods_of_fragments_pings_pongs_and_nonsense_are_closed_with_a_reason() {
    beside_a_good_client(&[], |broker, good_client_goes_on| {
        let begun = masked(0x01, b"confirm:");
        let nothing = Vec::new();
        let floods = [
            ("empty fragments", &begun, masked(0x00, b""), 1009),
            ("fragments of a byte", &begun, masked(0x00, b"x"), 1009),
            ("large fragments", &begun, masked(0x00, &[b'x'; 1000]), 1009),
            ("pings", &nothing, masked(0x89, &[b'x'; 125]), 1008),
            ("pings inside a message", &begun, masked(0x89, &[b'x'; 125]), 1008),
            ("pongs", &nothing, masked(0x8a, b""), 1008),
            ("confirms of nothing", &nothing, masked(0x81, b"confirm:1000000"), 1008),
            ("unknown messages", &nothing, masked(0x81, &[b'x'; 1000]), 1008),
            ("binary messages", &nothing, masked(0x82, &[0; 1000]), 1003),
            ("text that is not UTF-8", &nothing, masked(0x81, &[0xff; 1000]), 1007),
            ("frames without a mask", &nothing, b"\x81\x01x".to_vec(), 1002),
            (
                "an absurd length",
                &nothing,
                b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(),
                1009,
            ),
        ];
        let mut clients: Vec<_> = floods
            .iter()
            .map(|(_, begin, flood, _)| {
                let mut client =
                    Hostile::websocket(broker).repeating(flood.repeat(1 + PIECE_BYTES / flood.len()));
                client.send(begin);
                client
            })
            .collect();
        good_client_goes_on();
        go_on_without_end(&mut clients);
        for ((what, .., code), client) in floods.iter().zip(&clients) {
            let (found, reason) = client.close().unwrap_or_else(|| panic!("{what}: no close frame"));
            assert_eq!(found, *code, "{what}: {reason}");
            assert!(!reason.is_empty(), "{what}: no reason");
        }
    });
}

#[test]
fn a_close_that_is_never_answered_still_ends_the_connection() {
    beside_a_good_client(&[], |broker, good_client_goes_on| {
        let mut rude: Vec<_> = (0..5).map(|_| Hostile::websocket(broker)).collect();
        rude.iter_mut().for_each(|client| client.send(&masked(0x81, b"confirm:1000000")));
        good_client_goes_on();
        go_on_without_end(&mut rude);
        assert!(rude.iter().all(|client| client.close().is_some_and(|(code, _)| code == 1008)));

        // These say goodbye and stay.
        let mut rude: Vec<_> = (0..5).map(|_| Hostile::websocket(broker)).collect();
        rude.iter_mut().for_each(|client| client.send(&masked(0x88, b"\x03\xe8")));
        go_on_without_end(&mut rude);
        assert!(rude.iter().all(|client| client.close() == Some((1000, String::new()))));
    });
}

#[test]
fn consumers_that_vanish_or_answer_no_ping_lose_their_place() {
    beside_a_good_client(HASTY, |broker, good_client_goes_on| {
        let mut silent: Vec<_> = (0..20).map(|_| Hostile::websocket(broker)).collect();
        // Cut off without a word: the first half is closed below TLS, the other half stays and answers nothing.
        silent.drain(..10).for_each(drop);
        good_client_goes_on();
        go_on_without_end(&mut silent);
        let reasons: Vec<_> = silent.iter().map(Hostile::close).collect();
        let expected = Some((1008, "no answer to a ping".to_owned()));
        assert!(reasons.iter().all(|reason| *reason == expected), "{reasons:?}");
    });
}

#[test]
fn two_thousand_idle_connections_keep_nobody_out() {
    let settings = [("server", "max_connections_per_address", "3000"), ("server", "idle_timeout", "\"10m\"")];
    beside_a_good_client(&settings, |broker, good_client_goes_on| {
        let open = || (0..500).map(|_| Stream::open(&broker.endpoint("demo")).unwrap()).collect();
        let idle: Vec<Vec<Stream>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        good_client_goes_on();
        assert!(broker.metric("connections_open") >= 2000.0);
        drop(idle);
        wait_for("the idle connections to be gone", || {
            (broker.metric("connections_open") < 10.0).then_some(())
        });
    });
}

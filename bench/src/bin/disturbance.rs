//! How much hostile and slow clients cost a well-behaved one: its p99 without and with each of them.
//!
//! `cargo build --release && cargo run --release -p nistru-bench --bin disturbance [ROUNDS] [ATTACK]`. The broker is the release
//! build beside this program. Broker and all clients share the machine, so floods also cost what sending them costs: they run at the
//! lowest priority and pause between two pieces, and each measurement stands beside one without an attack that was taken just before. With `TMPDIR` in memory
//! what others do to the disk does not count.

use nistru::client::{Connection, Consumer, Stream, Subscription};
use nistru_bench::broker::Broker;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One measurement.
const MEASURE: Duration = Duration::from_secs(2);
/// From the start of an attack to the start of the measurement.
const WARM_UP: Duration = Duration::from_millis(500);
/// Between two events of the well-behaved client.
const PACE: Duration = Duration::from_millis(2);
/// Between two pieces of an attack's work.
const TICK: Duration = Duration::from_millis(5);
/// Before a connection that the broker has ended is replaced.
const REST: Duration = Duration::from_millis(20);

const POST: &str =
    "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n";
const UPGRADE: &str = "GET /ce/consume/ws?group=hostile HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: cloudevents.json\r\n\r\n";

/// What every connection of an attack does.
struct Attack {
    name: &'static str,
    connections: usize,
    carrier: Carrier,
    /// Sent first.
    begin: Vec<u8>,
    /// Sent then, again and again.
    piece: Vec<u8>,
    every: Duration,
    /// Whether what the broker sends is read.
    reads: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Carrier {
    Tcp,
    Tls,
    Http2,
}

impl Attack {
    fn new(name: &'static str, connections: usize, begin: impl Into<Vec<u8>>) -> Self {
        let every = Duration::from_secs(1);
        Self {
            name,
            connections,
            carrier: Carrier::Tls,
            begin: begin.into(),
            piece: Vec::new(),
            every,
            reads: true,
        }
    }

    fn over(self, carrier: Carrier) -> Self {
        Self { carrier, ..self }
    }

    /// Sends `piece` every so many milliseconds. Without it, it is only looked at whether the connection goes on.
    fn sending(self, piece: impl Into<Vec<u8>>, every_ms: u64) -> Self {
        Self { piece: piece.into(), every: Duration::from_millis(every_ms), ..self }
    }

    fn deaf(self) -> Self {
        Self { reads: false, ..self }
    }
}

fn attacks() -> Vec<Attack> {
    let chunks = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
    let http2 = |name, begin: Vec<u8>, piece: Vec<u8>| {
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, b""), begin].concat();
        Attack::new(name, 4, preface).over(Carrier::Http2).sending(piece.repeat(100), 5)
    };
    let request = |stream: u32| frame(1, 4, stream, &fields());
    vec![
        Attack::new("headers that drip", 200, format!("{POST}X-Slow: ")).sending("a", 500),
        Attack::new("bodies that drip", 200, format!("{POST}Content-Length: 100000\r\n\r\n"))
            .sending(" ", 500),
        Attack::new("half-open connections", 500, "").over(Carrier::Tcp),
        Attack::new("handshakes that stall", 500, "\x16\x03\x01\x02\x00\x01\x00\x01").over(Carrier::Tcp),
        Attack::new("idle connections", 2000, ""),
        Attack::new("consumers that never read", 20, UPGRADE).deaf(),
        Attack::new("answers that are never read", 4, "")
            .sending("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100), 5)
            .deaf(),
        Attack::new("requests without end", 4, "")
            .sending("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20), 5),
        Attack::new("a chunk without end", 4, format!("{chunks}fffffffffffff\r\n"))
            .sending([b' '; 32 << 10], 5),
        Attack::new("chunk extensions without end", 4, format!("{chunks}1;a=")).sending([b'b'; 1024], 5),
        Attack::new("fragments without end", 4, UPGRADE)
            .sending([masked(0x01, b"x"), masked(0x00, b"").repeat(2000)].concat(), 5),
        Attack::new("pings without end", 4, UPGRADE).sending(masked(0x89, &[b'x'; 125]).repeat(50), 5),
        Attack::new(
            "closes that are not answered",
            4,
            [UPGRADE.as_bytes(), &masked(0x81, b"confirm:9")].concat(),
        ),
        http2("HTTP/2: PING", Vec::new(), frame(6, 0, 0, &[7; 8])),
        http2("HTTP/2: SETTINGS", Vec::new(), frame(4, 0, 0, b"")),
        http2("HTTP/2: empty DATA", request(1), frame(0, 0, 1, b"")),
        http2("HTTP/2: CONTINUATION", frame(1, 0, 1, &fields()), frame(9, 0, 1, b"")),
        http2("HTTP/2: rapid reset", resets(), frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        http2("HTTP/2: unfinished streams", (0..100).flat_map(|n| request(2 * n + 1)).collect(), Vec::new()),
    ]
}

/// A hundred requests that are taken back at once.
fn resets() -> Vec<u8> {
    let one = |n: u32| [frame(1, 4, 2 * n + 1, &fields()), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    (0..100).flat_map(one).collect()
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header fields of a request without compression.
fn fields() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/ce/produce/event"),
        (":authority", "localhost"),
        ("content-type", "application/cloudevents+json"),
    ];
    let text = |text: &'static str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.into_iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A frame of a WebSocket as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds = arguments.next().map_or(5, |text| text.parse().expect("ROUNDS is a number"));
    let only = arguments.next().unwrap_or_default();
    let broker = Broker::start();
    println!(
        "{:<32} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "p99 in µs", "produced", "with", "delivered", "with", "ratio"
    );
    for attack in attacks().iter().filter(|attack| attack.name.contains(&only)) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            without.push(measure(&broker));
            with.push(attacked(&broker, attack));
        }
        let (without, with) = (Figures::best(&without), Figures::best(&with));
        let ratio = (with.produced / without.produced).max(with.delivered / without.delivered);
        println!(
            "{:<32} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {ratio:>7.2}",
            attack.name, without.produced, with.produced, without.delivered, with.delivered
        );
    }
}

/// Quantiles of one measurement, in microseconds: until the answer, and until the consumer has the event.
struct Figures {
    produced: f64,
    delivered: f64,
}

impl Figures {
    /// The best of each: everything else on the machine only makes them worse.
    fn best(all: &[Self]) -> Self {
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
        Self {
            produced: least(&mut all.iter().map(|figures| figures.produced)),
            delivered: least(&mut all.iter().map(|figures| figures.delivered)),
        }
    }
}

/// A well-behaved client for one measurement.
fn measure(broker: &Broker) -> Figures {
    let endpoint = broker.endpoint();
    let mut producer = Connection::open(&endpoint).expect("a connection");
    let mut consumer = Consumer::open(&endpoint, &Subscription::group("good")).expect("a consumer");
    let (mut produced, mut delivered) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for number in 0.. {
        if began.elapsed() > MEASURE {
            break;
        }
        std::thread::sleep((PACE * number).saturating_sub(began.elapsed()));
        let event = format!(
            r#"{{"specversion":"1.0","id":"{number}","source":"urn:demo","type":"Demo.Load.Record.Created","partitionkey":"k","data":{{"number":1,"name":"x"}}}}"#
        );
        let sent = Instant::now();
        let answer =
            producer.post("/ce/produce/event", "application/cloudevents+json", &[], event.as_bytes());
        assert_eq!(answer.expect("an answer").status, 202);
        produced.push(sent.elapsed());
        let delivery =
            consumer.next(Duration::from_secs(10)).expect("the session goes on").expect("an event");
        delivered.push(sent.elapsed());
        consumer.confirm(delivery.offset().expect("an offset")).expect("a confirm");
    }
    consumer.close();
    Figures { produced: p99_us(produced), delivered: p99_us(delivered) }
}

fn p99_us(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}

/// The same while an attack goes on.
fn attacked(broker: &Broker, attack: &Attack) -> Figures {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let opened = std::sync::mpsc::channel();
        scope.spawn(|| harm(broker, attack, &stop, opened.0));
        opened.1.recv().expect("the attack begins");
        std::thread::sleep(WARM_UP);
        let figures = measure(broker);
        stop.store(true, Relaxed);
        figures
    })
}

/// Attacks until told to stop, on a thread that gets what processor time the broker and the well-behaved client leave: what an
/// attack costs the machine that it comes from is not the broker's.
fn harm(broker: &Broker, attack: &Attack, stop: &AtomicBool, opened: std::sync::mpsc::Sender<()>) {
    rustix::process::nice(19).expect("a thread may lower its own priority");
    let mut connections: Vec<_> = (0..attack.connections).map(|_| Hostile::open(broker, attack)).collect();
    opened.send(()).expect("somebody waits");
    // Many connections take turns, so that what they cost this machine is spread evenly.
    let turns = (attack.every.as_millis() / TICK.as_millis()).max(1) as usize;
    for turn in (0..turns).cycle() {
        if stop.load(Relaxed) {
            break;
        }
        let began = Instant::now();
        for connection in connections.iter_mut().skip(turn).step_by(turns) {
            connection.act(broker, attack);
        }
        std::thread::sleep(TICK.saturating_sub(began.elapsed()));
    }
}

/// One connection of an attack.
struct Hostile {
    line: Option<Line>,
    ended: Instant,
}

enum Line {
    Tcp(TcpStream),
    Tls(Box<Stream>),
}

impl Hostile {
    fn open(broker: &Broker, attack: &Attack) -> Self {
        Self { line: Line::open(broker, attack), ended: Instant::now() }
    }

    /// Sends a piece and reads what there is. A connection that has ended is replaced after a rest.
    fn act(&mut self, broker: &Broker, attack: &Attack) {
        let Some(line) = &mut self.line else {
            if self.ended.elapsed() > REST {
                *self = Self::open(broker, attack);
            }
            return;
        };
        if !line.act(attack) {
            *self = Self { line: None, ended: Instant::now() };
        }
    }
}

impl Line {
    fn open(broker: &Broker, attack: &Attack) -> Option<Self> {
        if attack.carrier == Carrier::Tcp {
            let mut tcp = TcpStream::connect(("127.0.0.1", broker.port())).ok()?;
            tcp.write_all(&attack.begin).ok()?;
            tcp.set_nonblocking(true).ok()?;
            return Some(Self::Tcp(tcp));
        }
        let endpoint = match attack.carrier {
            Carrier::Http2 => broker.endpoint().offering(&[b"h2"]),
            _ => broker.endpoint(),
        };
        let mut tls = Stream::open(&endpoint).ok()?;
        tls.write_all(&attack.begin).and_then(|()| tls.flush()).ok()?;
        tls.set_nonblocking(true).ok()?;
        Some(Self::Tls(Box::new(tls)))
    }

    /// Whether the connection goes on.
    fn act(&mut self, attack: &Attack) -> bool {
        let goes_on = |result: std::io::Result<usize>| match result {
            Ok(count) => count > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        let mut part = [0; 64 << 10];
        match self {
            Self::Tcp(tcp) => goes_on(tcp.read(&mut part)),
            Self::Tls(tls) => {
                if !tls.wants_write() && tls.write_all(&attack.piece).is_err() {
                    return false;
                }
                goes_on(tls.flush().map(|()| 1)) && (!attack.reads || goes_on(tls.read(&mut part)))
            }
        }
    }
}

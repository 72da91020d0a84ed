//! A broker in memory that breaks one promise on purpose. Every session is a group of its own and gets all events.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::value::RawValue;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// What the broker does wrong, mostly with every hundredth event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// It is acknowledged and forgotten.
    Lose,
    /// It is delivered after fifty later ones.
    Delay,
    /// It is delivered again, which is allowed.
    Repeat,
    /// Its request is answered 503.
    Refuse,
    /// Its request is answered 503, but stored.
    RefuseAndStore,
    /// Its request is forgotten, and the connection ends.
    HangUp,
    /// A session that is to get it ends.
    EndSession,
    /// Nothing at all is answered in the first second.
    Stall,
}

/// How long a broker with [`Fault::Stall`] does not answer.
const STALL: Duration = Duration::from_secs(1);

type Peer = StreamOwned<ServerConnection, TcpStream>;

/// The broker; its threads end with the test's process.
pub struct Fake {
    pub dir: TempDir,
    pub url: String,
    log: Arc<Log>,
}

struct Log {
    fault: Fault,
    events: Mutex<Events>,
    more: Condvar,
    /// When the first request came.
    first: OnceLock<Instant>,
}

/// What becomes of a request.
enum Answer {
    Accepted,
    Refused,
    None,
}

#[derive(Default)]
struct Events {
    /// Without the closing brace.
    stored: Vec<String>,
    taken: usize,
    delayed: Option<(usize, String)>,
}

impl Fake {
    pub fn start(fault: Fault) -> Self {
        let dir = tempfile::tempdir().unwrap();
        nistru::dev::scaffold(dir.path(), 0).unwrap();
        let config = Arc::new(server_config(&dir.path().join("pki")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let log =
            Arc::new(Log { fault, events: Mutex::default(), more: Condvar::new(), first: OnceLock::new() });
        let served = log.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let peer = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket.unwrap());
                let log = served.clone();
                thread::spawn(move || log.serve(peer));
            }
        });
        Self { dir, url, log }
    }

    /// Waits until so many events have come.
    pub fn await_events(&self, count: usize) {
        let patience = Duration::from_secs(60);
        let events = self.log.events.lock().unwrap();
        let (events, _) =
            self.log.more.wait_timeout_while(events, patience, |events| events.taken < count).unwrap();
        assert!(events.taken >= count, "only {} events came", events.taken);
    }
}

impl Log {
    fn serve(&self, mut peer: Peer) {
        while let Some(head) = read_head(&mut peer) {
            if let Some(key) = header(&head, "sec-websocket-key") {
                let accept = derive_accept_key(key.as_bytes());
                let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                              Sec-WebSocket-Protocol: cloudevents.json\r\nSec-WebSocket-Accept: ";
                peer.write_all(format!("{answer}{accept}\r\n\r\n").as_bytes()).unwrap();
                return self.deliver(WebSocket::from_raw_socket(peer, Role::Server, None));
            }
            let Some(length) = header(&head, "content-length") else {
                peer.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
                continue;
            };
            let mut body = vec![0; length.parse().unwrap()];
            peer.read_exact(&mut body).unwrap();
            let first = self.first.get_or_init(Instant::now);
            let status = match self.take(std::str::from_utf8(&body).unwrap()) {
                Answer::Accepted => "202 Accepted",
                Answer::Refused => "503 Busy",
                Answer::None => return,
            };
            if self.fault == Fault::Stall {
                thread::sleep(STALL.saturating_sub(first.elapsed()));
            }
            peer.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        }
    }

    /// Stores the events of a request.
    fn take(&self, body: &str) -> Answer {
        let batch = if body.starts_with('[') { body.to_owned() } else { format!("[{body}]") };
        let batch: Vec<Box<RawValue>> = serde_json::from_str(&batch).unwrap();
        let mut events = self.events.lock().unwrap();
        let is_struck = (events.taken + 1..=events.taken + batch.len()).any(|number| number % 100 == 0);
        let answer = match self.fault {
            Fault::Refuse | Fault::RefuseAndStore if is_struck => Answer::Refused,
            Fault::HangUp if is_struck => Answer::None,
            _ => Answer::Accepted,
        };
        if is_struck && matches!(self.fault, Fault::Refuse | Fault::HangUp) {
            events.taken += batch.len();
            return answer;
        }
        for event in batch {
            events.taken += 1;
            self.store(&mut events, event.get().strip_suffix('}').unwrap().to_owned());
        }
        self.more.notify_all();
        answer
    }

    fn store(&self, events: &mut Events, event: String) {
        match (events.taken % 100, self.fault) {
            (0, Fault::Lose) => {}
            (0, Fault::Delay) => events.delayed = Some((events.taken + 50, event)),
            (0, Fault::Repeat) => events.stored.extend([event.clone(), event]),
            _ => events.stored.push(event),
        }
        if events.delayed.as_ref().is_some_and(|(until, _)| events.taken >= *until) {
            events.stored.extend(events.delayed.take().map(|(_, event)| event));
        }
    }

    fn deliver(&self, mut session: WebSocket<Peer>) {
        // Confirms are read between the events; nothing is done with them.
        session.get_ref().sock.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut next = 0;
        loop {
            let waiting = self.events.lock().unwrap();
            let (waiting, _) = self
                .more
                .wait_timeout_while(waiting, Duration::from_millis(5), |events| events.stored.len() == next)
                .unwrap();
            let new = waiting.stored[next..].to_vec();
            drop(waiting);
            for event in new {
                next += 1;
                if self.fault == Fault::EndSession && next % 100 == 0 {
                    return;
                }
                if session.send(Message::text(format!("{event},\"offset\":\"{next}\"}}"))).is_err() {
                    return;
                }
            }
            loop {
                match session.read() {
                    Ok(_) => {}
                    Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
        }
    }
}

fn read_head(peer: &mut Peer) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(String::from_utf8(head).unwrap())
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    head.lines().find_map(value).map(|(_, value)| value)
}

fn server_config(pki: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain =
        CertificateDer::pem_file_iter(pki.join("server.pem")).unwrap().collect::<Result<_, _>>().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(pki.join("server.key")).unwrap())
        .unwrap()
}

//! A consumer session over WebSocket.

use super::connection::write_head;
use super::{Answer, Connection, Endpoint, Error, Stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Message, Utf8Bytes, WebSocket};

/// The only sub-protocol the broker speaks: one CloudEvent in the JSON format per text message.
const SUBPROTOCOL: &str = "cloudevents.json";
/// One TLS record.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Largest message taken, in bytes; the broker's default limit of an event is a sixteenth of it.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest wait for the broker's half of the closing handshake.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What to consume. What is `None` is left to the broker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscription {
    pub events: Option<bool>,
    pub test: Option<bool>,
    pub dead: Option<bool>,
    pub group: Option<String>,
}

impl Subscription {
    /// Ordinary settings in a consumer group.
    pub fn group(name: &str) -> Self {
        Self { group: Some(name.to_owned()), ..Self::default() }
    }

    /// Path and query of the request.
    pub fn path(&self) -> String {
        let flag = |name, value: Option<bool>| value.map(|value| format!("{name}={value}"));
        let group = |name| format!("group={}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let query: Vec<_> = [flag("events", self.events), flag("test", self.test), flag("dead", self.dead)]
            .into_iter()
            .chain([self.group.as_deref().map(group)])
            .flatten()
            .collect();
        if query.is_empty() {
            "/ce/consume/ws".to_owned()
        } else {
            format!("/ce/consume/ws?{}", query.join("&"))
        }
    }
}

/// One event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery(Utf8Bytes);

/// An open session. Dropping it ends the connection without a word; [`Consumer::close`] is the polite way.
pub struct Consumer {
    socket: WebSocket<Stream>,
}

/// What one message from the broker was.
enum Step {
    Event(Delivery),
    /// A ping or pong, already dealt with.
    Control,
    /// Nothing came before the read's wait was over.
    Nothing,
}

impl Consumer {
    /// Connects and upgrades to WebSocket. An answer other than 101 is [`Error::Refused`].
    pub fn open(endpoint: &Endpoint, subscription: &Subscription) -> Result<Self, Error> {
        Self::open_path(endpoint, &subscription.path())
    }

    /// As [`Consumer::open`] with any path and query.
    pub fn open_path(endpoint: &Endpoint, path: &str) -> Result<Self, Error> {
        let mut connection = Connection::open(endpoint)?;
        let key = generate_key();
        connection.send(&handshake(path, &endpoint.authority(), &key))?;
        let answer = connection.receive()?;
        check_handshake(answer, &key)?;
        let lost = || Error::Protocol("the answer to the WebSocket handshake ends the connection".to_owned());
        let (stream, received) = connection.into_stream().ok_or_else(lost)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Ok(Self { socket: WebSocket::from_partially_read(stream, received, Role::Client, Some(config)) })
    }

    /// The next event, or `None` when none came within `wait`. Pings are answered meanwhile.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Delivery>, Error> {
        let deadline = Instant::now() + wait;
        let mut left = wait;
        loop {
            self.socket.get_mut().wait_at_most(left)?;
            if let Step::Event(delivery) = self.step()? {
                return Ok(Some(delivery));
            }
            left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
        }
    }

    /// The next event of a session that does not block, or `None` when the socket has no more.
    pub fn poll(&mut self) -> Result<Option<Delivery>, Error> {
        loop {
            match self.step()? {
                Step::Event(delivery) => return Ok(Some(delivery)),
                Step::Control => {}
                Step::Nothing => return Ok(None),
            }
        }
    }

    fn step(&mut self) -> Result<Step, Error> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(Step::Event(Delivery(text))),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Step::Control),
            Ok(Message::Binary(_)) => Err(Error::Protocol("a binary message".to_owned())),
            Ok(Message::Close(frame)) => Err(self.closed(frame)),
            Err(tungstenite::Error::Io(error)) if would_block(&error) => Ok(Step::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// The broker closed: answers its close frame and says what it said.
    fn closed(&mut self, frame: Option<CloseFrame>) -> Error {
        // The connection is over either way; the broker may not even wait for the answer.
        let _ = self.socket.flush();
        match frame {
            Some(frame) => {
                Error::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
            }
            None => Error::Closed { code: 1005, reason: String::new() },
        }
    }

    /// Tells the broker that every event up to and including `offset` is consumed.
    pub fn confirm(&mut self, offset: u64) -> Result<(), Error> {
        self.send(&format!("confirm:{offset}"))
    }

    /// Sends a text message of any content.
    pub fn send(&mut self, text: &str) -> Result<(), Error> {
        match self.socket.send(Message::text(text)) {
            // The message is in memory; `flush` goes on when the socket takes more.
            Err(tungstenite::Error::Io(error)) if would_block(&error) && !self.is_blocking() => Ok(()),
            done => Ok(done?),
        }
    }

    /// Goes on sending what the socket did not take; `true` when nothing is left.
    pub fn flush(&mut self) -> Result<bool, Error> {
        match self.socket.flush() {
            Err(tungstenite::Error::Io(error)) if would_block(&error) => Ok(false),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(true),
        }
    }

    fn is_blocking(&self) -> bool {
        self.socket.get_ref().is_blocking()
    }

    /// From now on nothing waits: [`Consumer::poll`] instead of [`Consumer::next`].
    pub fn set_nonblocking(&mut self) -> Result<(), Error> {
        Ok(self.socket.get_mut().set_nonblocking(true)?)
    }

    /// Whether bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.socket.get_ref().wants_write()
    }

    /// The TLS connection, for whoever wants to send frames of his own making.
    pub fn stream(&mut self) -> &mut Stream {
        self.socket.get_mut()
    }

    /// Closes with 1000 and waits, not for long, until the broker closed too. Events that come meanwhile are dropped
    /// unconfirmed.
    pub fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let stream = self.socket.get_mut();
        let waits = stream.set_nonblocking(false).and_then(|()| stream.wait_at_most(CLOSE_PATIENCE));
        if waits.is_err() || self.socket.close(Some(frame)).is_err() {
            return;
        }
        while Instant::now() < deadline && matches!(self.step(), Ok(Step::Event(_) | Step::Control)) {}
    }
}

impl AsFd for Consumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

impl Delivery {
    /// The event as JSON, exactly as it came, the `offset` member included.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The session's number of the event, by which it is confirmed. `None` when it has none.
    pub fn offset(&self) -> Option<u64> {
        last_member_offset(&self.0).or_else(|| any_member_offset(&self.0))
    }
}

/// The offset where the broker writes it, as the last member. In valid JSON nothing else can end like this: in a
/// string the quotes would be escaped, in a nested object another brace would follow.
fn last_member_offset(event: &str) -> Option<u64> {
    let (before, number) = event.strip_suffix("\"}")?.rsplit_once('"')?;
    before.ends_with(",\"offset\":").then(|| number.parse().ok())?
}

fn any_member_offset(event: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered<'a> {
        #[serde(borrow)]
        offset: Cow<'a, str>,
    }
    serde_json::from_str::<Numbered<'_>>(event).ok()?.offset.parse().ok()
}

fn handshake(path: &str, authority: &str, key: &str) -> Vec<u8> {
    let mut request = Vec::new();
    write_head(&mut request, "GET", path, authority);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    let rest = format!("{upgrade}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n");
    request.extend_from_slice(rest.as_bytes());
    request
}

/// The client's checks of RFC 6455 section 4.1.
fn check_handshake(answer: Answer, key: &str) -> Result<(), Error> {
    if answer.status != 101 {
        return Err(Error::Refused(Box::new(answer)));
    }
    let expect = |name: &str, value: &str| match answer.header(name) {
        Some(found) if found.eq_ignore_ascii_case(value) => Ok(()),
        found => Err(Error::Protocol(format!("{name} is {found:?} in the handshake; expected \"{value}\""))),
    };
    expect("Upgrade", "websocket")?;
    expect("Connection", "Upgrade")?;
    expect("Sec-WebSocket-Protocol", SUBPROTOCOL)?;
    // Base64 tells upper from lower case.
    if answer.header("Sec-WebSocket-Accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Error::Protocol("Sec-WebSocket-Accept does not answer the key".to_owned()));
    }
    Ok(())
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::super::double::{Double, Peer};
    use super::*;
    use std::sync::mpsc;
    use tungstenite::handshake::server::{Request, Response};

    /// Upgrades, checking the request line, and gives the session to `serve`.
    fn broker(serve: impl Fn(WebSocket<Peer>) + Send + Sync + 'static) -> Double {
        Double::start(move |_, peer| {
            // The callback's error type is the crate's own.
            #[allow(clippy::result_large_err)]
            let upgrade = |request: &Request, mut response: Response| {
                assert_eq!(request.uri(), "/ce/consume/ws?test=false&group=a%20b");
                response.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
                Ok(response)
            };
            serve(tungstenite::accept_hdr(peer, upgrade).unwrap());
        })
    }

    fn subscription() -> Subscription {
        Subscription { test: Some(false), ..Subscription::group("a b") }
    }

    #[test]
    fn events_come_in_confirms_go_out_and_pings_are_answered() {
        let (seen, messages) = mpsc::channel();
        let double = broker(move |mut socket| {
            socket.send(Message::Ping("p".into())).unwrap();
            socket.send(Message::text(r#"{"id":"1","offset":"1"}"#)).unwrap();
            while let Ok(message) = socket.read() {
                seen.send(message).unwrap();
            }
        });
        let mut consumer = Consumer::open(&double.endpoint(), &subscription()).unwrap();
        let delivery = consumer.next(Duration::from_secs(10)).unwrap().unwrap();
        assert_eq!((delivery.text(), delivery.offset()), (r#"{"id":"1","offset":"1"}"#, Some(1)));
        consumer.confirm(1).unwrap();
        assert_eq!(messages.recv().unwrap(), Message::Pong("p".into()));
        assert_eq!(messages.recv().unwrap(), Message::text("confirm:1"));
        consumer.close();
        assert!(
            matches!(messages.recv().unwrap(), Message::Close(Some(frame)) if frame.code == CloseCode::Normal)
        );
    }

    #[test]
    fn a_quiet_session_is_not_an_error() {
        let double = broker(|mut socket| while socket.read().is_ok() {});
        let mut consumer = Consumer::open(&double.endpoint(), &subscription()).unwrap();
        assert_eq!(consumer.next(Duration::from_millis(5)).unwrap(), None);
        consumer.set_nonblocking().unwrap();
        assert_eq!(consumer.poll().unwrap(), None);
    }

    #[test]
    fn the_brokers_close_tells_code_and_reason() {
        let double = broker(|mut socket| {
            let frame = CloseFrame { code: CloseCode::Restart, reason: Utf8Bytes::from_static("restarting") };
            socket.close(Some(frame)).unwrap();
            while socket.read().is_ok() {}
        });
        let mut consumer = Consumer::open(&double.endpoint(), &subscription()).unwrap();
        let error = consumer.next(Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.to_string(), "the broker closed the session (1012): restarting");
        assert!(error.is_transient() && !error.is_rejection());
    }

    #[test]
    fn a_refused_handshake_tells_the_brokers_answer() {
        let double = Double::start(|_, mut peer| {
            super::super::double::read_request(&mut peer);
            std::io::Write::write_all(
                &mut peer,
                b"HTTP/1.1 401 U\r\nContent-Length: 14\r\n\r\nnot a consumer",
            )
            .unwrap();
        });
        let error = Consumer::open(&double.endpoint(), &subscription()).err().unwrap();
        assert_eq!(error.to_string(), "the broker answered 401: not a consumer");
        assert!(error.is_rejection());
    }

    #[test]
    fn a_wrong_accept_key_or_protocol_is_not_a_session() {
        let answer = |accept: &str, protocol: &str| {
            let head = "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            let text =
                format!("{head}Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n");
            Answer::parse(text.as_bytes(), false).unwrap().unwrap().0
        };
        // Key and its answer are the example of RFC 6455 section 1.3.
        let (key, accept) = ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(check_handshake(answer(accept, SUBPROTOCOL), key).is_ok());
        assert!(check_handshake(answer(accept, "mqtt"), key).is_err());
        assert!(check_handshake(answer(&accept.to_lowercase(), SUBPROTOCOL), key).is_err());
    }

    #[test]
    fn the_offset_is_found_wherever_it_stands_and_only_at_the_top() {
        let offset = |text: &str| Delivery(text.into()).offset();
        assert_eq!(offset(r#"{"id":"1","data":{},"offset":"17"}"#), Some(17));
        assert_eq!(offset(r#"{"offset" : "18", "id":"1"}"#), Some(18));
        assert_eq!(offset(r#"{"id":"1","data":{"a":1,"offset":"17"}}"#), None);
        assert_eq!(offset(r#"{"id":"1","data":"x,\"offset\":\"17\"}"}"#), None);
        assert_eq!(offset("not JSON"), None);
    }

    #[test]
    fn what_is_not_set_is_not_asked_for() {
        assert_eq!(Subscription::default().path(), "/ce/consume/ws");
        let all = Subscription { events: Some(false), dead: Some(true), ..Subscription::group("~ü") };
        assert_eq!(all.path(), "/ce/consume/ws?events=false&dead=true&group=%7E%C3%BC");
    }
}

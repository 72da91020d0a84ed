//! HTTP/1.1 with keep-alive over one TLS connection, one request at a time.

use super::{Answer, Endpoint, Error, Stream};
use std::io::{self, Read, Write};

/// Bytes asked of the stream at a time.
const READ_BYTES: usize = 16 * 1024;
/// Largest answer, in bytes: above any document the broker serves.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection that carries one request after the other.
///
/// When the broker ended the connection with its last answer, the next request opens a new one.
pub struct Connection {
    endpoint: Endpoint,
    /// `None` after an answer that ended the connection.
    stream: Option<Stream>,
    /// Bytes that came after the last answer.
    received: Vec<u8>,
    request: Vec<u8>,
}

impl Connection {
    /// Connects and completes the TLS handshake.
    pub fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let stream = Some(Stream::open(endpoint)?);
        Ok(Self { endpoint: endpoint.clone(), stream, received: Vec::new(), request: Vec::new() })
    }

    /// Posts `body` to `path` (which may carry a query) and waits for the answer.
    pub fn post(
        &mut self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        write_head(&mut request, "POST", path, &self.endpoint.authority());
        write_header(&mut request, "Content-Type", content_type);
        write_header(&mut request, "Content-Length", &body.len().to_string());
        let answer = self.exchange(&mut request, headers, body);
        self.request = request;
        answer
    }

    /// Asks for `path` (which may carry a query) and waits for the answer.
    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        self.request("GET", path, headers)
    }

    /// Sends a request without a body, `HEAD` excepted: its answers have a length and no body.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        let mut request = Vec::new();
        write_head(&mut request, method, path, &self.endpoint.authority());
        self.exchange(&mut request, headers, &[])
    }

    fn exchange(
        &mut self,
        head: &mut Vec<u8>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Error> {
        for (name, value) in headers {
            write_header(head, name, value);
        }
        head.extend_from_slice(b"\r\n");
        self.drop_if_stale();
        let answer = match self.send_both(head, body) {
            Ok(()) => self.receive(),
            // A broker that refuses early answers, then closes: its answer says more than the broken pipe.
            Err(Error::Lost(cause)) => self.receive().map_err(|_| Error::Lost(cause)),
            Err(error) => Err(error),
        };
        // After a failure nobody knows which answer would come next on this connection.
        self.end_unless(answer.is_ok() && self.is_open());
        answer
    }

    /// The broker may have ended an idle connection meanwhile; that is told before a request is risked on it.
    fn drop_if_stale(&mut self) {
        let stale = !self.received.is_empty() || self.stream.as_mut().is_some_and(Stream::has_ended);
        self.end_unless(!stale);
    }

    fn send_both(&mut self, head: &[u8], body: &[u8]) -> Result<(), Error> {
        let stream = self.stream()?;
        stream.write_all(head)?;
        stream.write_all(body)?;
        Ok(stream.flush()?)
    }

    /// Sends bytes as they are: for requests that no well-behaved client writes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let stream = self.stream()?;
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// Waits for the next answer, skipping interim ones such as `100 Continue` (RFC 9110 section 15.2).
    pub fn receive(&mut self) -> Result<Answer, Error> {
        loop {
            let answer = self.receive_any()?;
            if answer.status == 101 || answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// Waits for the next answer, interim or final.
    pub fn receive_any(&mut self) -> Result<Answer, Error> {
        let mut ended = false;
        loop {
            if let Some((answer, taken, keep_alive)) = Answer::parse(&self.received, ended)? {
                self.received.drain(..taken);
                self.end_unless(keep_alive);
                return Ok(answer);
            }
            if ended {
                self.end_unless(false);
                return Err(Error::Lost(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ended without an answer",
                )));
            }
            ended = self.read_more()? == 0;
        }
    }

    fn read_more(&mut self) -> Result<usize, Error> {
        if self.received.len() > ANSWER_BYTES_MAX {
            return Err(Error::Protocol("the answer does not end".to_owned()));
        }
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let start = self.received.len();
        self.received.resize(start + READ_BYTES, 0);
        let read = stream.read(&mut self.received[start..]);
        self.received.truncate(start + *read.as_ref().unwrap_or(&0));
        Ok(read?)
    }

    fn end_unless(&mut self, keep_alive: bool) {
        if !keep_alive {
            self.received.clear();
            self.stream = None;
        }
    }

    /// Whether the broker left the connection open after its last answer.
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The TLS connection, opened anew if the last answer ended it.
    pub fn stream(&mut self) -> Result<&mut Stream, Error> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream::open(&self.endpoint)?,
        };
        Ok(self.stream.insert(stream))
    }

    /// The TLS connection and what was received beyond the last answer, for a protocol that follows HTTP on it.
    pub fn into_stream(self) -> Option<(Stream, Vec<u8>)> {
        Some((self.stream?, self.received))
    }
}

/// Writes the request line and the `Host` header. No other header is implied.
pub(super) fn write_head(out: &mut Vec<u8>, method: &str, path: &str, authority: &str) {
    for piece in [method, " ", path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for piece in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::double::{Double, Peer, read_request};
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

    fn answer(peer: &mut Peer, bytes: &[u8]) {
        peer.write_all(bytes).unwrap();
        peer.flush().unwrap();
    }

    #[test]
    fn requests_share_a_connection_and_carry_what_was_given() {
        let (seen, requests) = mpsc::channel();
        let double = Double::start(move |number, mut peer| {
            for _ in 0..2 {
                let (head, body) = read_request(&mut peer);
                seen.send((number, head, body)).unwrap();
                answer(&mut peer, ACCEPTED);
            }
        });
        let mut connection = Connection::open(&double.endpoint()).unwrap();
        for body in [&b"{}"[..], &[b'x'; 300_000]] {
            let answer =
                connection.post("/ce/produce/event", "application/json", &[("ce-id", "1")], body).unwrap();
            assert_eq!(answer.status, 202);
            let (number, head, got) = requests.recv().unwrap();
            assert!(head.starts_with("POST /ce/produce/event HTTP/1.1\r\nHost: localhost:"), "{head}");
            assert!(head.contains("\r\nce-id: 1\r\n"), "{head}");
            assert_eq!((number, got.as_slice()), (0, body));
        }
    }

    #[test]
    fn a_connection_that_the_broker_ended_is_opened_again() {
        let double = Double::start(|number, mut peer| {
            read_request(&mut peer);
            let close = if number == 0 { "Connection: close\r\n" } else { "" };
            answer(
                &mut peer,
                format!("HTTP/1.1 20{number} OK\r\n{close}Content-Length: 0\r\n\r\n").as_bytes(),
            );
        });
        let mut connection = Connection::open(&double.endpoint()).unwrap();
        assert_eq!(connection.get("/", &[]).unwrap().status, 200);
        assert!(!connection.is_open());
        assert_eq!(connection.get("/", &[]).unwrap().status, 201);
    }

    #[test]
    fn an_idle_connection_that_went_away_is_noticed_before_a_request_is_risked() {
        let double = Double::start(|number, mut peer| {
            read_request(&mut peer);
            answer(&mut peer, ACCEPTED);
            if number == 0 {
                peer.conn.send_close_notify();
                peer.flush().unwrap();
            }
            read_request(&mut peer);
        });
        let mut connection = Connection::open(&double.endpoint()).unwrap();
        assert_eq!(connection.get("/", &[]).unwrap().status, 202);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !connection.stream().unwrap().has_ended() {
            assert!(Instant::now() < deadline, "the end never arrives");
            std::thread::yield_now();
        }
        assert_eq!(connection.get("/", &[]).unwrap().status, 202);
    }

    #[test]
    fn interim_answers_are_skipped() {
        let double = Double::start(|_, mut peer| {
            read_request(&mut peer);
            answer(&mut peer, b"HTTP/1.1 100 Continue\r\n\r\n");
            answer(&mut peer, ACCEPTED);
        });
        assert_eq!(Connection::open(&double.endpoint()).unwrap().get("/", &[]).unwrap().status, 202);
    }

    #[test]
    fn a_silent_broker_is_a_timeout_and_a_broken_one_a_loss() {
        let double = Double::start(|number, mut peer| {
            read_request(&mut peer);
            if number == 0 {
                read_request(&mut peer);
            }
        });
        let endpoint = double.endpoint().patient(Duration::from_millis(50));
        let mut connection = Connection::open(&endpoint).unwrap();
        assert!(matches!(connection.get("/", &[]), Err(Error::Timeout)));
        assert!(!connection.is_open());
        let patient = double.endpoint();
        let lost = Connection::open(&patient).unwrap().get("/", &[]);
        assert!(matches!(lost, Err(Error::Lost(_))), "{lost:?}");
    }

    #[test]
    fn a_broker_that_asks_for_a_certificate_and_gets_none_is_a_tls_error() {
        let double = Double::start(|_, mut peer| {
            read_request(&mut peer);
        });
        let nobody = Endpoint::new(&double.url, &double.dir.path().join("pki/ca.pem"), None).unwrap();
        let result = Connection::open(&nobody).and_then(|mut connection| connection.get("/", &[]));
        assert!(matches!(result, Err(Error::Tls(_))), "{result:?}");
    }

    #[test]
    fn a_port_without_a_listener_is_unreachable() {
        let double = Double::start(|_, _| ());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let nowhere =
            Endpoint::of_dev(&format!("https://localhost:{free}"), double.dir.path(), "demo").unwrap();
        assert!(matches!(Connection::open(&nowhere), Err(Error::Unreachable { .. })));
    }
}

//! An HTTP/2 client for tests: the `h2` crate's, driven by the test's own thread.

use crate::harness::{Broker, PATIENCE};
use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use nistru::client::Stream;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// A connection, which moves only while [`Http2::run`] does.
pub struct Http2 {
    pub sender: SendRequest<Bytes>,
    connection: Pin<Box<client::Connection<Io, Bytes>>>,
    /// How the connection ended.
    pub end: Option<Result<(), h2::Error>>,
    socket: i32,
    authority: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A TLS stream that never blocks, under tokio's traits.
struct Io(Stream);

impl Io {
    fn poll<T>(&mut self, act: impl FnOnce(&mut Stream) -> io::Result<T>) -> Poll<io::Result<T>> {
        match act(&mut self.0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = into.initialize_unfilled();
        let read = ready!(self.poll(|stream| stream.read(room)))?;
        into.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.write(bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(Write::flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Remembers whether it was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Waits a moment for the socket to have something to read.
fn wait_for_socket(socket: i32) {
    let mut waiting = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&mut waiting, 1, 20) };
}

/// A TLS connection of the client `name` on which HTTP/2 was agreed.
pub fn open(broker: &Broker, name: &str) -> Stream {
    let stream = Stream::open(&broker.endpoint(name).offering(&[b"h2", b"http/1.1"])).unwrap();
    assert_eq!(stream.alpn(), Some(&b"h2"[..]));
    stream
}

/// Polls `future` until it is ready, which must happen in time.
fn wait<T>(socket: i32, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long for an HTTP/2 connection");
        if !flag.0.swap(false, Relaxed) {
            wait_for_socket(socket);
        }
    }
}

impl Http2 {
    /// A connection of the client `name`.
    pub fn open(broker: &Broker, name: &str) -> Self {
        Self::with(broker, name, &client::Builder::new())
    }

    /// A connection with other settings of the `h2` crate.
    pub fn with(broker: &Broker, name: &str, settings: &client::Builder) -> Self {
        Self::over(open(broker, name), &format!("localhost:{}", broker.port()), settings)
    }

    /// The same over a stream that is open.
    pub fn over(mut stream: Stream, authority: &str, settings: &client::Builder) -> Self {
        stream.set_nonblocking(true).unwrap();
        let socket = stream.as_fd().as_raw_fd();
        let mut handshake = pin!(settings.handshake::<_, Bytes>(Io(stream)));
        let (sender, connection) = wait(socket, |cx| handshake.as_mut().poll(cx)).unwrap();
        let authority = authority.to_owned();
        let mut http2 = Self { sender, connection: Box::pin(connection), end: None, socket, authority };
        // The broker's settings must have come before a WebSocket can be asked for.
        http2.drive(|http2, _| {
            let known = http2.sender.is_extended_connect_protocol_enabled();
            if known || http2.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
        });
        http2
    }

    /// Moves the connection until `look` is ready.
    pub fn drive<T>(&mut self, mut look: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>) -> T {
        let socket = self.socket;
        wait(socket, |cx| {
            if self.end.is_none()
                && let Poll::Ready(end) = self.connection.as_mut().poll(cx)
            {
                self.end = Some(end);
            }
            look(self, cx)
        })
    }

    /// Moves the connection until the broker has ended it.
    pub fn wait_for_end(&mut self) {
        self.drive(|http2, _| if http2.end.is_some() { Poll::Ready(()) } else { Poll::Pending });
    }

    /// The same; the broker says goodbye before.
    pub fn wait_for_goodbye(&mut self) {
        self.wait_for_end();
        assert!(matches!(self.end, Some(Ok(()))), "{:?}", self.end);
    }

    /// Moves the connection until `future` is ready.
    pub fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        self.drive(|_, cx| future.as_mut().poll(cx))
    }

    /// A request for `path`, to be completed.
    pub fn ask(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.authority))
    }

    /// Sends a request; its body, if any, ends it.
    pub fn send(&mut self, request: http::request::Builder, body: Option<Vec<u8>>) -> ResponseFuture {
        let (answer, mut stream) = self.begin(request, body.is_none());
        if let Some(body) = body {
            stream.send_data(body.into(), true).unwrap();
        }
        answer
    }

    /// Sends the head of a request.
    pub fn begin(
        &mut self,
        request: http::request::Builder,
        ends: bool,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = self.sender.clone();
        self.run(poll_fn(|cx| sender.poll_ready(cx))).unwrap();
        sender.send_request(request.body(()).unwrap(), ends).unwrap()
    }

    /// Waits for the whole answer.
    pub fn receive(&mut self, answer: ResponseFuture) -> Answer {
        self.try_receive(answer).unwrap()
    }

    pub fn try_receive(&mut self, answer: ResponseFuture) -> Result<Answer, h2::Error> {
        self.run(async {
            let (head, mut incoming) = answer.await?.into_parts();
            let mut body = Vec::new();
            while let Some(piece) = incoming.data().await {
                // A broker that does not want the rest of a request says so after its answer.
                match piece {
                    Ok(piece) => {
                        body.extend_from_slice(&piece);
                        incoming.flow_control().release_capacity(piece.len()).unwrap();
                    }
                    Err(error) if error.reason() == Some(Reason::NO_ERROR) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        })
    }

    pub fn get(&mut self, path: &str) -> Answer {
        let answer = self.send(self.ask("GET", path), None);
        self.receive(answer)
    }

    pub fn post(&mut self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        let request = self.ask("POST", path).header("content-type", content_type);
        let answer = self.send(request, Some(body.into()));
        self.receive(answer)
    }

    pub fn post_event(&mut self, event: &str) -> Answer {
        self.post("/ce/produce/event", "application/cloudevents+json", event)
    }

    /// Asks for a WebSocket at `path` with these fields.
    pub fn connect(&mut self, path: &str, fields: &[(&str, &str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let request = fields
            .iter()
            .fold(self.ask("CONNECT", path), |request, (name, value)| request.header(*name, *value));
        self.begin(request.extension(Protocol::from_static("websocket")), false)
    }

    /// A consumer session in `group`.
    pub fn consume(&mut self, group: &str) -> Consumer {
        let fields = [("sec-websocket-version", "13"), ("sec-websocket-protocol", "cloudevents.json")];
        let (answer, outgoing) = self.connect(&format!("/ce/consume/ws?group={group}"), &fields);
        let (head, incoming) = self.run(answer).unwrap().into_parts();
        assert_eq!(head.status, 200);
        assert_eq!(head.headers["sec-websocket-protocol"], "cloudevents.json");
        Consumer::new(incoming, outgoing)
    }
}

/// A WebSocket on a stream.
pub struct Consumer {
    incoming: RecvStream,
    pub outgoing: SendStream<Bytes>,
    context: WebSocketContext,
    received: Vec<u8>,
}

struct Pipe<'a> {
    input: &'a mut Vec<u8>,
    output: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.input.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into[..count].copy_from_slice(&self.input[..count]);
        self.input.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Consumer {
    fn new(incoming: RecvStream, outgoing: SendStream<Bytes>) -> Self {
        let context = WebSocketContext::new(Role::Client, Some(WebSocketConfig::default()));
        Self { incoming, outgoing, context, received: Vec::new() }
    }

    /// The next event of the session on `http2`, which must come.
    pub fn next_event(&mut self, http2: &mut Http2) -> serde_json::Value {
        match self.next(http2) {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("an event was expected: {other:?}"),
        }
    }

    /// The ids of the next events.
    pub fn next_ids(&mut self, http2: &mut Http2, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next_event(http2)["id"].as_str().unwrap().to_owned()).collect()
    }

    /// How the broker closes the session: code and reason.
    pub fn closed(&mut self, http2: &mut Http2) -> (u16, String) {
        loop {
            match self.next(http2) {
                Some(Message::Close(Some(close))) => return (close.code.into(), close.reason.to_string()),
                Some(_) => {}
                None => panic!("the stream ends without a close"),
            }
        }
    }

    /// The next message; `None` at the end of the stream.
    pub fn next(&mut self, http2: &mut Http2) -> Option<Message> {
        http2.drive(|_, cx| self.poll_next(cx))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            let mut pipe = Pipe { input: &mut self.received, output: Vec::new() };
            let read = self.context.read(&mut pipe);
            let output = pipe.output;
            if !output.is_empty() {
                // A stream that is over says so when it is read.
                let _ = self.outgoing.send_data(output.into(), false);
            }
            match read {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(Error::ConnectionClosed) => return Poll::Ready(None),
                Err(error) => panic!("the WebSocket breaks: {error}"),
            }
            match ready!(self.incoming.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.received.extend_from_slice(&data);
                    self.incoming.flow_control().release_capacity(data.len()).unwrap();
                }
                Some(Err(error)) => panic!("the stream breaks: {error}"),
                None => return Poll::Ready(None),
            }
        }
    }

    /// Sends a text message.
    pub fn say(&mut self, text: &str) {
        let mut pipe = Pipe { input: &mut Vec::new(), output: Vec::new() };
        self.context.write(&mut pipe, Message::text(text)).unwrap();
        self.context.flush(&mut pipe).unwrap();
        self.outgoing.send_data(pipe.output.into(), false).unwrap();
    }
}

//! One stream: a request and its answer, or the opening of a WebSocket.

use super::web_socket::WebSocket;
use super::{FAREWELL, Shared};
use crate::api::{self, Outcome, Upgrade, Verdict, WaitingRead};
use crate::http::h1::Error;
use crate::http::h2::{Head, encode, encode_opening};
use crate::http::{Method, Problem, Request, Response, Status};
use crate::rt;
use crate::rt::deadline::Alarm;
use bytes::Bytes;
use futures_lite::FutureExt;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use std::borrow::Cow;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Most bytes kept free for a body of which nothing has come: a length is only a promise.
const BODY_RESERVE_BYTES: usize = 16 << 10;

/// Time between two looks at whether an answer was sent.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// When a client may come again that had too many others before it.
const RETRY_AFTER_S: u32 = 1;

/// The state of one stream.
struct Exchange {
    shared: Rc<Shared>,
    incoming: RecvStream,
    respond: SendResponse<Bytes>,
    alarm: Alarm,
    /// The request is `HEAD`: the answer tells the length of its body and leaves it out.
    head_only: bool,
}

/// Why a request is not handled.
enum Unread {
    /// It has this answer.
    Refused(Response),
    /// The client took it back, or is gone.
    Gone,
}

/// What came of a request's body.
enum Arrived {
    Piece(Bytes),
    /// The end of the body.
    All,
    TooLate,
    /// The client took the request back, or is gone.
    Reset,
}

/// Answers the request of one stream.
pub async fn serve(shared: Rc<Shared>, request: ::http::Request<RecvStream>, respond: SendResponse<Bytes>) {
    let (parts, incoming) = request.into_parts();
    let alarm = shared.core.deadlines.alarm();
    let head_only = parts.method == ::http::Method::HEAD;
    let exchange = Exchange { shared, incoming, respond, alarm, head_only };
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    match Head::read(&parts, protocol) {
        Ok(head) => {
            drop(parts);
            exchange.answer(head).await;
        }
        Err(error) => drop(exchange.respond(Response::text(error.status(), error.to_string())).await),
    }
}

impl Exchange {
    async fn answer(mut self, head: Head) {
        let outcome = match self.read(head).await {
            Ok((request, _permits)) => api::handle(&self.shared.core, &self.shared.peer, &request).await,
            Err(Unread::Refused(response)) => Outcome::Response(response),
            Err(Unread::Gone) => return,
        };
        match outcome {
            Outcome::Response(response) => drop(self.respond(response).await),
            Outcome::Upgrade(response, upgrade) => self.open_web_socket(response, *upgrade).await,
            Outcome::Read(read) => self.answer_read(*read).await,
        }
    }

    /// Reads the whole request, if it is to be read. What is returned beside it holds the bytes of the budgets.
    async fn read(&mut self, head: Head) -> Result<(Request, impl Sized + use<>), Unread> {
        let Head { mut request, length, expects_continue } = head;
        let core = self.shared.core.clone();
        let (bytes_max, client) = match api::verdict(&core, &self.shared.peer, &request).await {
            Verdict::Read { bytes_max, client } => (bytes_max, client),
            Verdict::Refuse(problem) => return Err(Unread::Refused(problem.respond_to(&request.headers))),
        };
        // What follows the head of a WebSocket is not a body.
        if request.method == Method::Connect || self.incoming.is_end_stream() {
            return Ok((request, None));
        }
        if length.is_some_and(|length| length > bytes_max as u64) {
            return Err(self.too_large(&request, bytes_max));
        }
        let expected = length.map_or(bytes_max, |length| length as usize);
        let place = core.budget.place().ok_or_else(|| self.crowded(&request))?;
        let permits = (self.shared.budget.take(expected).await, core.budget.take(client, expected).await);
        drop(place);
        if expects_continue {
            self.send_continue()?;
        }
        self.alarm.set(core.config.server.request_timeout);
        request.body.reserve_exact(expected.min(BODY_RESERVE_BYTES));
        loop {
            match poll_fn(|cx| self.poll_body(cx)).await {
                Arrived::Piece(piece) if request.body.len() + piece.len() > bytes_max => {
                    return Err(self.too_large(&request, bytes_max));
                }
                Arrived::Piece(piece) => request.body.extend_from_slice(&piece),
                Arrived::All => break,
                Arrived::TooLate => return Err(self.too_slow(&request)),
                Arrived::Reset => return Err(Unread::Gone),
            }
        }
        self.alarm.lift();
        Ok((request, Some(permits)))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        match self.incoming.poll_data(cx) {
            Poll::Ready(None) => Poll::Ready(Arrived::All),
            Poll::Ready(Some(Ok(piece))) => {
                // An error means that the stream is over, which the next poll finds out.
                drop(self.incoming.flow_control().release_capacity(piece.len()));
                Poll::Ready(Arrived::Piece(piece))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Arrived::Reset),
            Poll::Pending => self.alarm.poll(cx).map(|()| Arrived::TooLate),
        }
    }

    fn send_continue(&mut self) -> Result<(), Unread> {
        let mut interim = ::http::Response::new(());
        *interim.status_mut() = ::http::StatusCode::CONTINUE;
        self.respond.send_informational(interim).map_err(|_| Unread::Gone)
    }

    fn too_large(&self, request: &Request, bytes_max: usize) -> Unread {
        let error = Error::BodyTooLarge(bytes_max);
        self.refuse(request, &Problem::new(error.status(), error.to_string()))
    }

    fn crowded(&self, request: &Request) -> Unread {
        let detail = "too many requests wait to be read";
        self.refuse(request, &Problem::new(Status::SERVICE_UNAVAILABLE, detail).retry_after(RETRY_AFTER_S))
    }

    fn refuse(&self, request: &Request, problem: &Problem) -> Unread {
        api::log_refusal(&self.shared.core, &self.shared.peer, request, problem);
        Unread::Refused(problem.respond_to(&request.headers))
    }

    fn too_slow(&self, request: &Request) -> Unread {
        let limit = self.shared.core.config.server.request_timeout;
        let detail = format!("the request did not arrive within {limit:?}");
        self.refuse(request, &Problem::new(Status::REQUEST_TIMEOUT, detail))
    }

    /// Answers a request that waits for events, unless its client takes it back or goes away before: then no event is taken.
    async fn answer_read(mut self, read: WaitingRead) {
        let shared = self.shared.clone();
        let answer = async { Some(api::answer_read(&shared.core, &shared.peer, read).await) };
        let gone = poll_fn(|cx| self.respond.poll_reset(cx).map(|_| None));
        let Some((response, receipt)) = answer.or(gone).await else { return };
        if self.respond(response).await
            && let Some(receipt) = receipt
        {
            // The task of the connection sends what this one has handed over.
            rt::breathe().await;
            while shared.unsent.get() {
                rt::sleep(LOOK_AGAIN).await;
            }
            shared.receipts.borrow_mut().keep(receipt, shared.connection.clone());
        }
    }

    /// Sends an answer, and tells whether all of it is on its way.
    async fn respond(mut self, response: Response) -> bool {
        self.count(&response);
        if response.close {
            self.shared.leaving.set(true);
        }
        let head = encode(&response, self.shared.core.date.borrow_mut().at(self.shared.core.now_ms() / 1000));
        let body = match response.body {
            _ if self.head_only || response.status.is_bodiless() => Bytes::new(),
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        // The client may have taken its request back, and then there is nobody to answer.
        let Ok(stream) = self.respond.send_response(head, body.is_empty()) else { return false };
        let sent = self.send_body(stream, body).await;
        self.let_finish().await;
        sent
    }

    /// Lets a client whose body was not wanted notice the answer before its stream is reset (RFC 9113, 8.1): some throw away an
    /// answer that a reset follows at once.
    async fn let_finish(&mut self) {
        self.alarm.set(FAREWELL);
        while !self.incoming.is_end_stream()
            && let Arrived::Piece(_) = poll_fn(|cx| self.poll_body(cx)).await
        {}
    }

    /// Sends the body as fast as the client takes it, within the time that a request may take.
    async fn send_body(&self, mut stream: SendStream<Bytes>, mut body: Bytes) -> bool {
        self.alarm.set(self.shared.core.config.server.request_timeout);
        while !body.is_empty() {
            stream.reserve_capacity(body.len());
            match poll_fn(|cx| self.poll_capacity(&mut stream, cx)).await {
                Some(bytes) => {
                    let piece = body.split_to(bytes.min(body.len()));
                    if stream.send_data(piece, body.is_empty()).is_err() {
                        return false;
                    }
                }
                None => {
                    stream.send_reset(Reason::CANCEL);
                    return false;
                }
            }
        }
        true
    }

    /// How many bytes the client takes now; `None` when it takes no more, or not in time.
    fn poll_capacity(&self, stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        match (stream.capacity(), stream.poll_capacity(cx)) {
            (0, Poll::Pending) => self.alarm.poll(cx).map(|()| None),
            (0, Poll::Ready(Some(Ok(bytes)))) => Poll::Ready(Some(bytes)),
            (0, Poll::Ready(_)) => Poll::Ready(None),
            (bytes, _) => Poll::Ready(Some(bytes)),
        }
    }

    async fn open_web_socket(mut self, response: Response, upgrade: Upgrade) {
        self.count(&response);
        let core = self.shared.core.clone();
        let head = encode_opening(&response, core.date.borrow_mut().at(core.now_ms() / 1000));
        let Ok(stream) = self.respond.send_response(head, false) else { return };
        let open = self.shared.count(|shared| &shared.web_sockets);
        let peer = self.shared.peer.clone();
        api::consume::run(core, WebSocket::new(self.incoming, stream, self.alarm), peer, upgrade, Vec::new())
            .await;
        drop(open);
    }

    fn count(&self, response: &Response) {
        let numbers = &self.shared.core.metrics.numbers;
        numbers.requests.add(1);
        numbers.requests_failed.add(u64::from(response.status.0 >= 400));
    }
}

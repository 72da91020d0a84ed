//! One HTTP/1.1 connection, from the handshake to its end or its upgrade to a WebSocket.

use super::connection::{Connection, RECORD_BYTES_MAX};
use crate::api::{self, Outcome, Verdict, WaitingRead};
use crate::auth::Peer;
use crate::broker::Core;
use crate::broker::budget::SharedPermit;
use crate::broker::instances::Receipts;
use crate::http::h1::{CONTINUE, Error, Exchange, Framing, Parser, Step};
use crate::http::{Headers, Problem, Request, Response, Status};
use crate::rt;
use crate::rt::buffers::BUFFER_BYTES;
use crate::rt::deadline::DETENTION;
use crate::ws::Transport;
use futures_lite::FutureExt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a connection that the broker ends may take to read the last answer.
const FAREWELL: Duration = Duration::from_secs(2);
/// Requests that came in one piece and are answered before other tasks of the core get their turn.
const PIPELINED_MAX: u32 = 16;
/// Bytes of further requests that are received while one waits for events.
const PIPELINED_BYTES_MAX: usize = 64 << 10;

/// Bytes of an answer that are encrypted before the client has taken the ones before: a client that does not read costs no
/// more memory than this.
const PIECE_BYTES: usize = 64 << 10;

/// The state of one connection.
struct Http1 {
    core: Rc<Core>,
    connection: Connection,
    peer: Rc<Peer>,
    parser: Parser,
    /// Received and not parsed yet.
    input: Vec<u8>,
    /// Bytes of the request at hand, taken from the core's budget.
    permit: Option<SharedPermit>,
    /// The time that the request at hand may take to come is running.
    limited: bool,
    /// The client broke the protocol.
    detained: bool,
    /// Of answers of which it is not certain that they have arrived.
    receipts: Receipts,
}

/// What to do after a request was answered.
enum Next {
    /// Read the next one.
    Go,
    /// End the connection.
    Close,
    /// The connection is a WebSocket now.
    Upgrade(Box<api::Upgrade>),
}

/// Serves requests until the connection ends.
pub async fn serve(core: Rc<Core>, connection: Connection, peer: Rc<Peer>) {
    let parser = Parser::new(core.config.server.head_bytes_max);
    let mut http = Http1 {
        core,
        connection,
        peer,
        parser,
        input: Vec::new(),
        permit: None,
        limited: false,
        detained: false,
        receipts: Receipts::default(),
    };
    let mut at_once = 0;
    loop {
        match http.next_request().await {
            Ok(Next::Go) if http.input.is_empty() => at_once = 0,
            Ok(Next::Go) => {
                at_once += 1;
                if at_once % PIPELINED_MAX == 0 {
                    rt::breathe().await;
                }
            }
            Ok(Next::Upgrade(upgrade)) => {
                let Http1 { core, connection, peer, input, .. } = http;
                return api::consume::run(core, connection, peer, *upgrade, input).await;
            }
            Ok(Next::Close) => {
                let Http1 { connection, mut receipts, detained, .. } = http;
                if detained {
                    rt::sleep(DETENTION).await;
                }
                if connection.end(FAREWELL).await {
                    receipts.arrived();
                }
                return;
            }
            // The client went away, or was too slow to be told so.
            Err(_) => return,
        }
    }
}

impl Http1 {
    /// Reads and answers one request.
    async fn next_request(&mut self) -> io::Result<Next> {
        loop {
            let mut rest = &self.input[..];
            let step = self.parser.advance(&mut rest);
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            match step {
                Ok(Step::NeedMore) => {
                    if let Some(end) = self.receive().await? {
                        return Ok(end);
                    }
                }
                Ok(Step::Head) => {
                    if let Some(next) = self.decide().await? {
                        return Ok(next);
                    }
                }
                Ok(Step::Complete(request, exchange)) => return self.answer(request, exchange).await,
                Err(error) => {
                    let problem = Problem::new(error.status(), error.to_string());
                    self.detained = true;
                    return self.give_up(&problem).await;
                }
            }
        }
    }

    /// Waits for more input; tells how the connection ends when there is none.
    async fn receive(&mut self) -> io::Result<Option<Next>> {
        let idle = self.parser.is_idle() && self.input.is_empty();
        if idle {
            if self.core.is_stopping() {
                return Ok(Some(Next::Close));
            }
            self.input = Vec::new();
            self.connection.deadline().limit_idle(self.core.config.server.idle_timeout);
        } else if !std::mem::replace(&mut self.limited, true) {
            self.connection.deadline().limit_receiving(self.core.config.server.request_timeout);
        }
        match poll_fn(|cx| self.poll_receive(cx)).await? {
            1.. => {
                self.receipts.arrived();
                // Most requests come whole. One that does not has its time from when more of it is waited for.
                if idle {
                    self.lift();
                }
                Ok(None)
            }
            0 if idle => {
                if self.connection.has_received_all() {
                    self.receipts.arrived();
                }
                self.receipts = Receipts::default();
                Ok(Some(Next::Close))
            }
            0 if self.connection.deadline().passed() => {
                let limit = self.core.config.server.request_timeout;
                let text = format!("the request did not arrive within {limit:?}");
                self.give_up(&Problem::new(Status::REQUEST_TIMEOUT, text)).await.map(Some)
            }
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// What belongs to a body goes straight to it: a batch that passed through the input was copied and moved for 4 % of its time.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (parser, input) = (&mut self.parser, &mut self.input);
        let encrypted_max = if parser.is_reading() { BUFFER_BYTES } else { RECORD_BYTES_MAX };
        self.connection.poll_receive_to(cx, encrypted_max, |mut plain| {
            if input.is_empty() {
                parser.take_body(&mut plain);
            }
            input.extend_from_slice(plain);
        })
    }

    /// Answers a request that does not come to its end, in the form it asked for if it came that far.
    async fn give_up(&mut self, problem: &Problem) -> io::Result<Next> {
        let response = match self.parser.request() {
            Some(request) => {
                api::log_refusal(&self.core, &self.peer, request, problem);
                problem.respond_to(&request.headers)
            }
            None => problem.respond_to(&Headers::new()),
        };
        self.respond(Exchange::refused(), response.closing()).await
    }

    /// Decides on the body of the request whose head has come.
    async fn decide(&mut self) -> io::Result<Option<Next>> {
        let head = self.parser.head().expect("the parser has a head to decide on");
        let (exchange, framing, expects_continue) = (head.exchange, head.framing, head.expects_continue);
        let (bytes_max, client) = match api::verdict(&self.core, &self.peer, &head.request).await {
            Verdict::Read { bytes_max, client } => (bytes_max, client),
            Verdict::Refuse(problem) => {
                let mut response = problem.respond_to(&head.request.headers);
                // A body that nobody wants is not read: where the next request would begin then is unknown.
                response.close |= framing != Framing::None;
                if framing == Framing::None {
                    // Without a body both only bring the parser to the next request.
                    let _ = self.parser.drop_body(0);
                    let _ = self.parser.advance(&mut &[][..]);
                }
                return self.respond(exchange, response).await.map(Some);
            }
        };
        let expected = match framing {
            Framing::None => 0,
            Framing::Length(length) if length > bytes_max as u64 => {
                let error = Error::BodyTooLarge(bytes_max);
                let problem = Problem::new(error.status(), error.to_string());
                api::log_refusal(&self.core, &self.peer, &head.request, &problem);
                let response = problem.respond_to(&head.request.headers).closing();
                return self.respond(exchange, response).await.map(Some);
            }
            Framing::Length(length) => length as usize,
            Framing::Chunked => bytes_max,
        };
        self.permit = Some(self.core.budget.take(client, expected).await);
        self.parser.keep_body(bytes_max).map_err(io::Error::other)?;
        if expects_continue && self.input.is_empty() {
            self.connection.queue(CONTINUE)?;
            self.flush().await?;
        }
        Ok(None)
    }

    async fn answer(&mut self, request: Request, exchange: Exchange) -> io::Result<Next> {
        self.lift();
        let outcome = api::handle(&self.core, &self.peer, &request).await;
        self.permit = None;
        match outcome {
            Outcome::Response(response) => {
                drop(request);
                self.respond(exchange, response).await
            }
            Outcome::Upgrade(response, upgrade) => match self.respond(exchange, response).await? {
                Next::Go => Ok(Next::Upgrade(upgrade)),
                other => Ok(other),
            },
            Outcome::Read(read) => {
                drop(request);
                self.answer_read(*read, exchange).await
            }
        }
    }

    /// Answers a request that waits for events, unless its client goes away before: then no event is taken.
    async fn answer_read(&mut self, read: WaitingRead, exchange: Exchange) -> io::Result<Next> {
        let (core, peer) = (self.core.clone(), self.peer.clone());
        let (connection, input) = (&mut self.connection, &mut self.input);
        let gone = poll_fn(|cx| {
            while input.len() < PIPELINED_BYTES_MAX {
                match ready!(connection.poll_receive(cx, input)) {
                    Ok(1..) => {}
                    Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Pending
        });
        let (response, receipt) = async { Ok(api::answer_read(&core, &peer, read).await) }.or(gone).await?;
        let next = self.respond(exchange, response).await?;
        if let Some(receipt) = receipt {
            self.receipts.keep(receipt, self.connection.deadline().handle());
        }
        Ok(next)
    }

    async fn respond(&mut self, exchange: Exchange, mut response: Response) -> io::Result<Next> {
        let switches = response.status == Status::SWITCHING_PROTOCOLS;
        // The client must not send another request that nobody will read.
        response.close |= (self.core.is_stopping() || self.peer.is_dismissed()) && !switches;
        let numbers = &self.core.metrics.numbers;
        numbers.requests.add(1);
        numbers.requests_failed.add(u64::from(response.status.0 >= 400));
        let body = exchange.body_of(&response);
        let (first, rest) = body.split_at(body.len().min(PIECE_BYTES));
        {
            let mut out = self.core.scratch.borrow_mut();
            out.clear();
            let (mut date, now_s) = (self.core.date.borrow_mut(), self.core.now_ms() / 1000);
            exchange.encode_head(&response, &mut date, now_s, &mut out);
            out.extend_from_slice(first);
            self.connection.queue(&out)?;
        }
        self.flush().await?;
        for piece in rest.chunks(PIECE_BYTES) {
            self.connection.queue(piece)?;
            self.flush().await?;
        }
        self.lift();
        Ok(if exchange.keeps_alive(&response) || switches { Next::Go } else { Next::Close })
    }

    /// Whatever is under way may take as long as it wants.
    fn lift(&mut self) {
        self.connection.deadline().lift();
        self.limited = false;
    }

    /// Sends what is queued. When the kernel has no room for it, the client has a while to make some.
    async fn flush(&mut self) -> io::Result<()> {
        let (connection, limit) = (&mut self.connection, self.core.config.server.request_timeout);
        let mut waits = false;
        poll_fn(|cx| {
            let flushed = connection.poll_flush(cx);
            if flushed.is_pending() && !std::mem::replace(&mut waits, true) {
                connection.deadline().limit(limit);
            }
            flushed
        })
        .await
    }
}

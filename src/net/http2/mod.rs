//! One HTTP/2 connection (RFC 9113): the `h2` crate over the connection of this core, one task for each stream.
//!
//! The connection's own task drives `h2`, in turns between which everybody else on the core gets theirs. Streams are served by
//! tasks of their own, no more at a time than the client may open streams, and request bodies are read within a budget of the
//! connection and then within that of the core, so that a client gets no more of the core by opening more streams.

mod exchange;
mod meter;
mod web_socket;
mod wire;

use super::connection::Connection;
use crate::auth::Peer;
use crate::broker::Core;
use crate::broker::budget::Budget;
use crate::broker::instances::Receipts;
use crate::http::h1::HEADERS_MAX;
use crate::rt;
use crate::rt::deadline::{DETENTION, Handle};
use crate::rt::notify::Notify;
use crate::ws::Transport;
use ::http::Request;
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, server};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use wire::{Io, Wire};

/// Streams that a client may have open at a time, and tasks that serve them.
const STREAMS_MAX: usize = 100;
/// Bytes that a client may send on a stream before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection. With less, requests that wait for their turn could take what the one needs whose
/// turn it is.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX as u32 * STREAM_WINDOW_BYTES;
/// Bytes of one stream that wait to be sent, beside what its task holds.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that may be refused for errors of the client before the connection ends. A client that does not know yet how many
/// streams it may open sees many refused.
const ERRORS_MAX: usize = 256;
/// Bytes that one field of a header list counts beside its own (RFC 9113, 6.5.2).
const FIELD_BYTES: usize = 32;
/// Bytes of request bodies that one connection holds at a time, or one largest request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// How long a connection that the broker ends may take to read the last answer.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the streams of a connection share.
struct Shared {
    core: Rc<Core>,
    peer: Rc<Peer>,
    /// Bytes of requests that this connection holds.
    budget: Rc<Budget>,
    /// Tasks that serve a stream.
    tasks: Cell<usize>,
    /// Those of them that serve a WebSocket.
    web_sockets: Cell<usize>,
    /// A task has ended.
    ended: Notify,
    connection: Handle,
    /// Something that streams have handed over has not been sent.
    unsent: Cell<bool>,
    /// Of answers of which it is not certain that they have arrived.
    receipts: RefCell<Receipts>,
    /// An answer says that the client should not send more requests.
    leaving: Cell<bool>,
    /// The client broke the protocol.
    broken: Cell<bool>,
}

/// A task that counts among those of its connection.
struct Counted {
    shared: Rc<Shared>,
    count: fn(&Shared) -> &Cell<usize>,
}

/// The task of the connection.
struct Driver {
    shared: Rc<Shared>,
    wire: Rc<RefCell<Wire>>,
    h2: server::Connection<Io, Bytes>,
    /// `None` before the first turn.
    waiting: Option<Waiting>,
    /// The client has been told to send no more requests.
    going_away: bool,
    /// The last frame has been written, or waits for the client to read.
    ending: bool,
}

/// What the connection waits for, which decides how long it may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// The next request.
    Idle,
    /// The rest of a frame.
    Frame,
    /// Streams, which have limits of their own.
    Streams,
    /// The client to read.
    Reader,
    /// The client to hear that the connection ends.
    Farewell,
}

/// Why a turn ended.
enum Pause {
    /// Others should have their turn.
    Breathe,
    /// The connection is over.
    End,
}

/// Serves the streams of the connection until it ends.
pub async fn serve(core: Rc<Core>, connection: Connection, peer: Rc<Peer>) {
    connection.limit(core.config.server.handshake_timeout);
    let handle = connection.deadline().handle();
    let wire = Rc::new(RefCell::new(Wire::new(core.clone(), connection)));
    let shared = Rc::new(Shared::new(core, peer, handle));
    if let Some(h2) = shake_hands(&shared.core, &wire).await {
        Driver::new(shared.clone(), wire.clone(), h2).run().await;
    }
    if let Some(wire) = Rc::into_inner(wire) {
        let wire = wire.into_inner();
        if wire.meter.is_used_up() || shared.broken.get() {
            rt::sleep(DETENTION).await;
        }
        let (ended, received) = (wire.has_ended(), wire.connection.has_received_all());
        let closed = wire.connection.end(FAREWELL).await;
        let arrived = if ended { received } else { closed };
        if arrived {
            shared.receipts.borrow_mut().arrived();
        }
    }
    // Requests that are being stored are stored, whether somebody waits for the answer or not.
    while shared.tasks.get() > 0 {
        shared.ended.notified().await;
    }
}

/// Exchanges the prefaces.
async fn shake_hands(core: &Core, wire: &Rc<RefCell<Wire>>) -> Option<server::Connection<Io, Bytes>> {
    let header_list_bytes = core.config.server.head_bytes_max + HEADERS_MAX * FIELD_BYTES;
    let mut handshake = pin!(
        Builder::new()
            .max_concurrent_streams(STREAMS_MAX as u32)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_header_list_size(header_list_bytes as u32)
            .max_local_error_reset_streams(Some(ERRORS_MAX))
            .enable_connect_protocol()
            .handshake(Io(wire.clone()))
    );
    poll_fn(|cx| {
        let shaken = handshake.as_mut().poll(cx);
        let mut wire = wire.borrow_mut();
        // A socket that takes nothing is noticed by the deadline.
        if matches!(wire.poll_flush(cx), Poll::Ready(Err(_))) || wire.has_ended() {
            return Poll::Ready(None);
        }
        shaken.map(Result::ok)
    })
    .await
}

impl Shared {
    fn new(core: Rc<Core>, peer: Rc<Peer>, connection: Handle) -> Self {
        let budget = Budget::new(REQUEST_BYTES_MAX.max(core.config.server.request_bytes_max));
        let (tasks, web_sockets) = (Cell::new(0), Cell::new(0));
        let (ended, leaving, unsent) = (Notify::default(), Cell::new(false), Cell::new(false));
        let broken = Cell::new(false);
        let receipts = RefCell::default();
        Self { core, peer, budget, tasks, web_sockets, ended, connection, unsent, receipts, leaving, broken }
    }

    /// Whether the client should make its next requests elsewhere.
    fn is_leaving(&self) -> bool {
        self.core.is_stopping() || self.leaving.get() || self.peer.is_dismissed()
    }

    /// Counts a task, or one that serves a WebSocket, until the result is dropped.
    fn count(self: &Rc<Self>, count: fn(&Shared) -> &Cell<usize>) -> Counted {
        count(self).set(count(self).get() + 1);
        Counted { shared: self.clone(), count }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.count)(&self.shared);
        count.set(count.get() - 1);
        self.shared.ended.notify();
    }
}

impl Driver {
    fn new(shared: Rc<Shared>, wire: Rc<RefCell<Wire>>, h2: server::Connection<Io, Bytes>) -> Self {
        Self { shared, wire, h2, waiting: None, going_away: false, ending: false }
    }

    async fn run(mut self) {
        while let Pause::Breathe = poll_fn(|cx| self.poll(cx)).await {
            rt::breathe().await;
            self.wire.borrow_mut().begin_turn();
        }
        // What has not been sent never will be.
        self.shared.unsent.set(false);
    }

    /// One turn, or what is left of it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        while self.shared.ended.poll(cx).is_ready() {}
        if self.advance(cx).is_ready() || self.part() && self.advance(cx).is_ready() {
            return Poll::Ready(Pause::End);
        }
        let mut wire = self.wire.borrow_mut();
        let flushed = wire.poll_flush(cx);
        let turn_is_over = wire.turn_is_over();
        drop(wire);
        self.shared.unsent.set(turn_is_over || flushed.is_pending());
        match flushed {
            Poll::Ready(Err(_)) => return Poll::Ready(Pause::End),
            _ if turn_is_over => return Poll::Ready(Pause::Breathe),
            _ => {}
        }
        self.set_deadline();
        Poll::Pending
    }

    /// Lets `h2` read and write, and starts a task for each request, until there is nothing more to do or the turn is over.
    /// Ready when the connection is over.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.wire.borrow_mut().step();
            if self.shared.tasks.get() >= STREAMS_MAX {
                return self.h2.poll_closed(cx).map(drop);
            }
            match ready!(self.h2.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.start(request, respond),
                Some(Err(error)) => {
                    self.shared.broken.set(true);
                    tracing::debug!(address = %self.shared.peer.address, %error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    fn start(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if self.shared.is_leaving() {
            self.go_away();
        }
        let shared = self.shared.clone();
        let counted = shared.count(|shared| &shared.tasks);
        rt::spawn(async move {
            exchange::serve(shared, request, respond).await;
            drop(counted);
        });
    }

    /// Tells the client that the connection ends, at once or after what is under way, if that is to be told now.
    fn part(&mut self) -> bool {
        if let Some(reason) = self.last_word() {
            self.ending = true;
            self.h2.abrupt_shutdown(reason);
            return true;
        }
        let leaves = self.shared.is_leaving() && !self.going_away && !self.is_busy();
        if leaves {
            self.go_away();
        }
        leaves
    }

    /// Tells the client to send no more requests. Not before its last one has its answer, or it sends another: some clients give
    /// up every request when they hear of the end.
    fn go_away(&mut self) {
        self.going_away = true;
        self.h2.graceful_shutdown();
    }

    /// Whether any stream is open.
    fn is_busy(&self) -> bool {
        self.shared.tasks.get() > 0 || self.h2.has_streams()
    }

    /// Why the connection is to end now, if it is.
    fn last_word(&self) -> Option<Reason> {
        let wire = self.wire.borrow();
        match self.ending {
            false if wire.meter.is_used_up() => {
                tracing::info!(address = %self.shared.peer.address, "a client floods its HTTP/2 connection");
                Some(Reason::ENHANCE_YOUR_CALM)
            }
            false if wire.has_ended() => Some(Reason::NO_ERROR),
            _ => None,
        }
    }

    fn set_deadline(&mut self) {
        let waiting = self.waiting();
        if self.waiting.replace(waiting) == Some(waiting) {
            return;
        }
        let wire = self.wire.borrow();
        let (deadline, settings) = (wire.connection.deadline(), &self.shared.core.config.server);
        match waiting {
            Waiting::Idle => deadline.limit_idle(settings.idle_timeout),
            Waiting::Frame => deadline.limit_receiving(settings.request_timeout),
            Waiting::Streams => deadline.lift(),
            Waiting::Reader => deadline.limit(settings.request_timeout),
            Waiting::Farewell => deadline.limit(FAREWELL),
        }
    }

    /// A WebSocket has more patience with a client that does not read than a request has, and ends by itself.
    fn waiting(&self) -> Waiting {
        let wire = self.wire.borrow();
        match self.is_busy() {
            _ if self.ending => Waiting::Farewell,
            _ if wire.is_stalled() && self.shared.web_sockets.get() == 0 => Waiting::Reader,
            true => Waiting::Streams,
            false if self.going_away => Waiting::Farewell,
            false if wire.meter.is_within_frame() => Waiting::Frame,
            false => Waiting::Idle,
        }
    }
}

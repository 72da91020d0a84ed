//! The connection under the `h2` crate: its I/O through tokio's traits, in turns that end.

use super::meter::Meter;
use crate::broker::Core;
use crate::net::connection::Connection;
use crate::ws::Transport;
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames and polls of one turn.
const TURN_STEPS: usize = 64;
/// Bytes of one turn, both ways together.
const TURN_BYTES: usize = 256 << 10;
/// Bytes that are encrypted before the socket is asked to take them.
const QUEUE_BYTES: usize = 64 << 10;

/// One connection as the `h2` crate and the driver of the connection see it.
pub struct Wire {
    core: Rc<Core>,
    pub connection: Connection,
    pub meter: Meter,
    /// Received and not yet given to `h2`, from `at` on.
    input: Vec<u8>,
    at: usize,
    /// Bytes encrypted since the last flush.
    queued: usize,
    /// What is left of the turn.
    steps: usize,
    bytes: usize,
    /// The client sends no more, or was told that its time is up.
    ended: bool,
    /// The socket took less than there was to send.
    stalled: bool,
}

/// The wire in the hands of `h2`, which never waits for a turn to end: it is polled again when the next one begins.
pub struct Io(pub Rc<RefCell<Wire>>);

impl Wire {
    pub fn new(core: Rc<Core>, connection: Connection) -> Self {
        let meter = Meter::new(core.uptime_ms());
        Self {
            core,
            connection,
            meter,
            input: Vec::new(),
            at: 0,
            queued: 0,
            steps: TURN_STEPS,
            bytes: TURN_BYTES,
            ended: false,
            stalled: false,
        }
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self) {
        (self.steps, self.bytes) = (TURN_STEPS, TURN_BYTES);
    }

    /// Takes one step of the turn.
    pub fn step(&mut self) {
        self.steps = self.steps.saturating_sub(1);
    }

    /// Whether others have their turn now.
    pub fn turn_is_over(&self) -> bool {
        self.steps == 0 || self.bytes == 0
    }

    /// Whether nothing more comes from the client.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether bytes wait for the client to read.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Sends what is queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stalled = true;
        ready!(self.connection.poll_flush(cx))?;
        self.stalled = false;
        self.queued = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn_is_over() || self.meter.is_used_up() || self.ended {
            return Poll::Pending;
        }
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
            match self.connection.poll_receive(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    return Poll::Pending;
                }
                Poll::Ready(received) => drop(received?),
                Poll::Pending => {
                    // A connection that waits holds no memory for input.
                    self.input = Vec::new();
                    return Poll::Pending;
                }
            }
        }
        let room = into.remaining().min(self.bytes);
        let given = &self.input[self.at..];
        let given = &given[..given.len().min(room)];
        let (bytes, frames) = self.meter.receive(given, self.steps, self.core.uptime_ms());
        into.put_slice(&given[..bytes]);
        self.at += bytes;
        self.steps -= frames;
        self.bytes -= bytes;
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.bytes == 0 {
            return Poll::Pending;
        }
        if self.queued >= QUEUE_BYTES {
            ready!(self.poll_flush(cx))?;
        }
        let pieces = fitting(pieces, QUEUE_BYTES);
        let written = match pieces {
            [only] => {
                let bytes = &only[..only.len().min(QUEUE_BYTES)];
                self.connection.queue(bytes)?;
                self.meter.send(bytes);
                bytes.len()
            }
            several => {
                let written = self.connection.queue_all(several)?;
                several.iter().for_each(|piece| self.meter.send(piece));
                written
            }
        };
        self.queued += written;
        self.bytes = self.bytes.saturating_sub(written);
        Poll::Ready(Ok(written))
    }
}

/// As many of the first pieces as have no more than `bytes_max` bytes, and at least one.
fn fitting<'a, 'b>(pieces: &'a [IoSlice<'b>], bytes_max: usize) -> &'a [IoSlice<'b>] {
    let ends = pieces.iter().scan(0, |end, piece| {
        *end += piece.len();
        Some(*end)
    });
    let count = ends.take_while(|&end| end <= bytes_max).count();
    &pieces[..count.max(1).min(pieces.len())]
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, into)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The driver flushes once when `h2` has written all it can: several frames then share a system call.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The driver says goodbye.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

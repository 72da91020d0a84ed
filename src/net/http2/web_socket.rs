//! A stream that has become a WebSocket (RFC 8441): its DATA frames carry the bytes that otherwise have a connection of their
//! own.

use crate::rt::deadline::Alarm;
use crate::ws::Transport;
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The two directions of the stream.
pub struct WebSocket {
    incoming: RecvStream,
    outgoing: SendStream<Bytes>,
    /// Bytes that the client's windows have no room for yet.
    queued: BytesMut,
    alarm: Alarm,
}

impl WebSocket {
    pub fn new(incoming: RecvStream, outgoing: SendStream<Bytes>, alarm: Alarm) -> Self {
        Self { incoming, outgoing, queued: BytesMut::new(), alarm }
    }

    /// The next bytes of the client; `None` at their end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.alarm.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let data = ready!(self.incoming.poll_data(cx));
        if let Some(Ok(data)) = &data {
            // An error means that the stream is over, which the next poll finds out.
            drop(self.incoming.flow_control().release_capacity(data.len()));
        }
        Poll::Ready(data.map(|data| data.map_err(io::Error::other)))
    }

    /// Sends what is queued and says that nothing more comes.
    async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| match self.alarm.poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => self.poll_flush(cx),
        })
        .await?;
        self.outgoing.send_data(Bytes::new(), true).map_err(io::Error::other)
    }
}

impl Transport for WebSocket {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        loop {
            match ready!(self.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    into.extend_from_slice(&data);
                    return Poll::Ready(Ok(data.len()));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(0)),
            }
        }
    }

    fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.queued.extend_from_slice(bytes);
        Ok(())
    }

    fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Hands over to the connection what the client's windows and the connection's buffer have room for.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.queued.is_empty() {
            self.outgoing.reserve_capacity(self.queued.len());
            let room = match (self.outgoing.capacity(), self.outgoing.poll_capacity(cx)) {
                (0, Poll::Pending) => return Poll::Pending,
                (0, Poll::Ready(Some(room))) => room.map_err(io::Error::other)?,
                (0, Poll::Ready(None)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                (room, _) => room,
            };
            let piece = self.queued.split_to(room.min(self.queued.len())).freeze();
            self.outgoing.send_data(piece, false).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }

    fn limit(&self, after: Duration) {
        self.alarm.set(after);
    }

    fn lift(&self) {
        self.alarm.lift();
    }

    /// Waits for the client to end its direction too, so that it has read everything before it could be told to stop.
    async fn close(mut self, limit: Duration) {
        self.alarm.set(limit);
        if self.finish().await.is_err() {
            return self.outgoing.send_reset(Reason::CANCEL);
        }
        while let Some(Ok(_)) = poll_fn(|cx| self.poll_data(cx)).await {}
    }
}

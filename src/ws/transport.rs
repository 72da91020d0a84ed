//! What carries the frames of a WebSocket.

use std::future::Future;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes in both directions: a connection of its own, or a stream of a connection that carries several.
pub trait Transport {
    /// Appends received bytes to `into`; 0 means that the client sends no more.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>>;

    /// Queues bytes for the client. Callers flush before they queue more than they would want to hold in memory.
    fn queue(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Whether queued bytes wait to be sent.
    fn has_queued(&self) -> bool;

    /// Ready when everything queued is on its way to the client.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// After this time the transport is over, whatever is under way.
    fn limit(&self, after: Duration);

    /// Takes the limit away.
    fn lift(&self);

    /// Ends the transport after what is queued, within `limit`.
    fn close(self, limit: Duration) -> impl Future<Output = ()>;
}

//! WebSocket (RFC 6455), server side and sans-IO: the handshake, what the client sends, and frames to the client.
//!
//! [`handshake`] turns an [`http::Request`](crate::http::Request) into the switching response or a refusal. From then on a
//! [`Codec`] reads the client's bytes: it answers pings and closes by itself, into the same output buffer into which
//! [`frame`] writes events. Both write whole frames only, so they can be mixed freely. A [`Transport`] is what
//! carries them.
//!
//! This module never knows what the messages mean.

pub mod close;
mod codec;
pub mod frame;
pub mod handshake;
mod transport;

pub use close::Close;
pub use codec::{Binary, Codec, Incoming, Text};
pub use transport::Transport;

//! A small blocking client of the broker's own HTTP and WebSocket interface: what the command line tools, the load
//! generator and the whole-broker tests speak with.
//!
//! - [`Endpoint`]: where the broker is, whom to trust, which certificate to show. Cheap to clone.
//! - [`Connection`]: HTTP/1.1 with keep-alive, one request at a time.
//! - [`Consumer`]: a WebSocket session that receives events and confirms them.
//! - [`Stream`]: the TLS connection under both, for whoever wants to send bytes of his own making.
//!
//! Nothing here starts a thread, and nothing waits without a bound.

mod answer;
mod connection;
mod consumer;
#[cfg(test)]
pub(crate) mod double;
mod endpoint;
mod error;
mod stream;

pub use answer::{Answer, Body, Head};
pub use connection::Connection;
pub use consumer::{Consumer, Delivery, Subscription};
pub use endpoint::{Endpoint, TlsVersions, dev_files};
pub use error::Error;
pub use stream::Stream;

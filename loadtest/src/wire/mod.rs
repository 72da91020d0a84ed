//! What goes over a connection, as cheaply as it can be made: the generator shares the machine with the broker it
//! measures.

mod http;
mod tls;
mod websocket;

pub use http::{Answers, Refusal};
pub use tls::{Buffers, Connection};
pub use websocket::{Message, Session, open_session, write_close, write_confirm, write_pong};

//! Connections: TLS by hand over the runtime's sockets, and the HTTP/1.1 loop.

pub mod connection;
pub mod http1;

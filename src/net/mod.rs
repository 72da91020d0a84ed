//! Connections: TLS by hand over the runtime's sockets, the HTTP/1.1 loop, and HTTP/2 with its streams.

pub mod connection;
pub mod http1;
pub mod http2;

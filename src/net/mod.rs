//! Connections: who may connect and to which core they go, and TLS by hand over the runtime's sockets.

pub mod connection;
pub mod http1;
pub mod reception;

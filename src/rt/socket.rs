//! TCP sockets of one core.

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A listening socket. Every core binds the same address (`SO_REUSEPORT`) and the kernel spreads connections.
pub struct Listener {
    listener: TcpListener,
}

/// A connection that was accepted but belongs to no core yet, so that it can be handed to another one.
pub struct Accepted {
    stream: AcceptedTcpStream,
    /// The address the client came from; IPv4 clients of an IPv6 socket appear as IPv4.
    pub peer: SocketAddr,
}

/// A connection of this core.
pub struct Stream {
    stream: TcpStream,
}

impl Listener {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).map_err(io::Error::from)? })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map_err(io::Error::from)
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let stream = self.listener.shared_accept().await.map_err(io::Error::from)?;
        match stream.peer_addr() {
            Ok(peer) => Ok(Accepted { stream, peer: canonical(peer) }),
            Err(error) => {
                drop(stream.bind_to_executor());
                Err(error.into())
            }
        }
    }
}

impl Accepted {
    /// Takes the connection over on this core.
    pub fn open(self) -> Stream {
        let stream = self.stream.bind_to_executor();
        // Only fails when the peer has gone, and then the first read says so.
        drop(stream.set_nodelay(true));
        Stream { stream }
    }
}

impl Stream {
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// Tells the peer that nothing more will be sent (TCP FIN).
    pub fn poll_shut_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&peer.ip()), peer.port())
}

/// An address that was free when asked for, and the port it stands for.
pub struct Reservation {
    /// Held so that nobody else can take a port that the system chose.
    _socket: std::net::TcpListener,
    pub address: SocketAddr,
}

/// Checks that nobody listens on `address` and fixes the port when it is 0. Without this check `SO_REUSEPORT` would let two
/// brokers of one user share a port and split its connections.
pub fn reserve(address: SocketAddr) -> io::Result<Reservation> {
    let exclusive = std::net::TcpListener::bind(address)?;
    let address = exclusive.local_addr()?;
    drop(exclusive);
    let socket = shared_bind(address)?;
    Ok(Reservation { _socket: socket, address })
}

/// Binds with `SO_REUSEPORT` and does not listen, so that no connection ends up here.
fn shared_bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

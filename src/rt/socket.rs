//! TCP sockets of one core.

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Connections that may wait to be accepted; the kernel's `net.core.somaxconn` bounds it too.
const BACKLOG: i32 = 4096;

/// The state of a connection that is over (`include/net/tcp_states.h` of Linux).
const TCP_CLOSE: u8 = 7;

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
        let socket = unbound(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        // SAFETY: the descriptor is a listening socket that nobody else owns.
        Ok(Self { listener: unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) } })
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

/// Bytes handed to the kernel on `socket` that the peer's kernel has not acknowledged.
pub(super) fn unacknowledged(socket: RawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, and fails on anything that has no send queue.
    match unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut bytes) } {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the connection of `socket` is over in both directions, as it is from the moment in which a reset comes.
pub(super) fn is_over(socket: RawFd) -> io::Result<bool> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the call writes at most `bytes` bytes into `info`, of which zeros are a value, and fails on anything but TCP.
    unsafe {
        match libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut bytes,
        ) {
            0 => Ok(info.assume_init().tcpi_state == TCP_CLOSE),
            _ => Err(io::Error::last_os_error()),
        }
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
    _socket: Socket,
    pub address: SocketAddr,
}

/// Checks that nobody listens on `address` and fixes the port when it is 0. Without this check `SO_REUSEPORT` would let two
/// brokers of one user share a port and split its connections.
pub fn reserve(address: SocketAddr) -> io::Result<Reservation> {
    let exclusive = unbound(address)?;
    exclusive.bind(&address.into())?;
    exclusive.listen(1)?;
    let address = exclusive.local_addr()?.as_socket().unwrap_or(address);
    drop(exclusive);
    let socket = unbound(address)?;
    socket.set_reuse_port(true)?;
    // Bound and not listening, so that no connection ends up here.
    socket.bind(&address.into())?;
    Ok(Reservation { _socket: socket, address })
}

/// IPv6 sockets take IPv6 only, so that `0.0.0.0` and `[::]` can stand beside each other.
fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

//! One TLS connection to the broker, blocking or not.

use super::{Endpoint, Error};
use rustls::ClientConnection;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// `rustls` takes at most 4 KiB from the socket at a time; one system call fetches this many bytes for it.
const READ_AHEAD_BYTES: usize = 32 * 1024;

/// A TLS connection with the broker on the other side.
///
/// What is written waits in memory until [`Stream::flush`]: a request written in pieces leaves in full records.
pub struct Stream {
    tls: ClientConnection,
    socket: BufReader<TcpStream>,
    /// Longest wait for one read of a blocking stream.
    patience: Duration,
    blocking: bool,
}

impl Stream {
    /// Connects to the first address of the endpoint's host that answers, and completes the TLS handshake.
    pub fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let socket = endpoint.dial()?;
        let patience = endpoint.patience();
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let mut tls = ClientConnection::new(endpoint.tls(), endpoint.server_name()).map_err(Error::Tls)?;
        tls.set_buffer_limit(None);
        let socket = BufReader::with_capacity(READ_AHEAD_BYTES, socket);
        let mut stream = Self { tls, socket, patience, blocking: true };
        stream.handshake()?;
        Ok(stream)
    }

    fn handshake(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.patience;
        self.flush()?;
        while self.tls.is_handshaking() {
            if !self.receive()? {
                return Err(Error::Lost(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it ended in the TLS handshake",
                )));
            }
            self.flush()?;
            if Instant::now() > deadline {
                return Err(Error::Timeout);
            }
        }
        Ok(())
    }

    /// Takes what the socket has and decrypts it; `false` at the end of the connection.
    fn receive(&mut self) -> io::Result<bool> {
        let taken = loop {
            match self.tls.read_tls(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done?,
            }
        };
        match self.tls.process_new_packets() {
            Ok(_) => Ok(taken > 0),
            Err(error) => {
                // The alert that says why is owed to the other side; the error itself is what counts here.
                let _ = self.flush();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }

    /// Bounds every later read of a blocking stream. Zero means the shortest wait there is.
    pub fn wait_at_most(&mut self, patience: Duration) -> io::Result<()> {
        let patience = patience.max(Duration::from_millis(1));
        if patience != self.patience {
            self.patience = patience;
            self.socket.get_ref().set_read_timeout(Some(patience))?;
        }
        Ok(())
    }

    /// Whether an idle connection is over: the other side closed it, or said something unasked, which servers do
    /// only before they close (RFC 9112 section 9.5).
    pub fn has_ended(&mut self) -> bool {
        let silent = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let ended = self.set_nonblocking(true).is_err() || !self.read(&mut [0]).is_err_and(silent);
        self.set_nonblocking(false).is_err() || ended
    }

    /// Whether reads and flushes return `WouldBlock` at once instead of waiting.
    pub fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.blocking = !nonblocking;
        self.socket.get_ref().set_nonblocking(nonblocking)
    }

    /// Whether reads and flushes wait.
    pub fn is_blocking(&self) -> bool {
        self.blocking
    }

    /// Whether encrypted bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// The protocol agreed on by ALPN, if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// The address this side speaks from.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Ends TLS properly and then the connection, for both directions.
    pub fn close(mut self) {
        self.tls.send_close_notify();
        // Whoever closes has no use for an error of a connection that is gone already.
        let _ = self.flush();
        let _ = self.socket.get_ref().shutdown(Shutdown::Both);
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without close_notify matters to no reader here: bodies and messages carry their length.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            match self.flush() {
                // Reading may be what the other side waits for before it takes more.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => done?,
            }
            self.receive()?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tls.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(self.socket.get_mut()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

//! One TLS connection, driven over buffers that all connections of a thread share: a record is encrypted straight into
//! the bytes of one write, and decrypted where it was read. Between reads and writes an idle connection holds none.

use nistru::client::{Endpoint, Error};
use rustix::fd::{AsFd, BorrowedFd};
use rustls::client::UnbufferedClientConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Read with one system call.
const READ_BYTES: usize = 256 * 1024;
/// Largest payload of a record, and the most that its encryption adds (RFC 8446, 5.2; TLS 1.2 adds less).
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_OVERHEAD_BYTES: usize = 256;

/// What the connections of a thread work in.
pub struct Buffers {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Self {
        Self { incoming: vec![0; READ_BYTES + RECORD_BYTES + RECORD_OVERHEAD_BYTES], outgoing: Vec::new() }
    }
}

/// A TLS connection with the broker on the other side.
pub struct Connection {
    tls: UnbufferedClientConnection,
    socket: TcpStream,
    /// The start of a record whose end has not come.
    begun: Vec<u8>,
    /// Encrypted bytes that the socket did not take, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
}

impl Connection {
    /// Connects and completes the handshake. The connection blocks until [`unblock`](Self::unblock).
    pub fn open(endpoint: &Endpoint) -> Result<Self, Error> {
        let socket = endpoint.dial()?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(endpoint.patience()))?;
        socket.set_write_timeout(Some(endpoint.patience()))?;
        let tls =
            UnbufferedClientConnection::new(endpoint.tls(), endpoint.server_name()).map_err(Error::Tls)?;
        let mut connection = Self { tls, socket, begun: Vec::new(), unsent: Vec::new(), unsent_at: 0 };
        connection.handshake(endpoint)?;
        Ok(connection)
    }

    fn handshake(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let deadline = Instant::now() + endpoint.patience();
        let mut out = Vec::new();
        loop {
            let UnbufferedStatus { discard, state, .. } = self.tls.process_tls_records(&mut self.begun);
            let (mut awaits_more, mut is_done) = (false, false);
            match state.map_err(Error::Tls)? {
                ConnectionState::EncodeTlsData(mut data) => encode(&mut out, |to| data.encode(to))?,
                ConnectionState::TransmitTlsData(data) => {
                    self.socket.write_all(&out)?;
                    out.clear();
                    data.done();
                }
                ConnectionState::WriteTraffic(_) => is_done = true,
                ConnectionState::BlockedHandshake => awaits_more = true,
                _ => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
            }
            self.begun.drain(..discard);
            if is_done {
                return Ok(());
            }
            if awaits_more {
                self.read_more()?;
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout);
            }
        }
    }

    fn read_more(&mut self) -> Result<(), Error> {
        let mut chunk = [0; 4096];
        match self.socket.read(&mut chunk)? {
            0 => {
                let why = "it ended in the TLS handshake";
                Err(Error::Lost(io::Error::new(io::ErrorKind::UnexpectedEof, why)))
            }
            length => {
                self.begun.extend_from_slice(&chunk[..length]);
                Ok(())
            }
        }
    }

    /// From now on nothing waits.
    pub fn unblock(&self) -> Result<(), Error> {
        Ok(self.socket.set_nonblocking(true)?)
    }

    /// Encrypts `plaintext` and sends it with one system call. What the socket does not take goes with [`flush`](Self::flush).
    pub fn send(&mut self, plaintext: &[u8], buffers: &mut Buffers) -> Result<(), Error> {
        let out = &mut buffers.outgoing;
        let records = plaintext.len() / RECORD_BYTES + 1;
        let bytes_max = plaintext.len() + records * RECORD_OVERHEAD_BYTES;
        if out.len() < bytes_max {
            out.resize(bytes_max, 0);
        }
        let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
        let length = match state.map_err(Error::Tls)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                traffic.encrypt(plaintext, out).map_err(|error| encryption(&error))?
            }
            _ => return Err(Error::Lost(io::ErrorKind::BrokenPipe.into())),
        };
        if self.wants_write() {
            self.unsent.extend_from_slice(&out[..length]);
            return self.flush();
        }
        let taken = write(&self.socket, &out[..length])?;
        self.unsent.extend_from_slice(&out[taken..length]);
        Ok(())
    }

    /// Whether encrypted bytes wait for the socket to take them.
    pub fn wants_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Goes on sending what the socket did not take.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.wants_write() {
            self.unsent_at += write(&self.socket, &self.unsent[self.unsent_at..])?;
        }
        if self.unsent_at == self.unsent.len() {
            self.unsent = Vec::new();
            self.unsent_at = 0;
        }
        Ok(())
    }

    /// Reads once and hands what was decrypted to `sink`, a record at a time; `true` when there may be more at once.
    /// The end of the connection is an error.
    pub fn receive(
        &mut self,
        buffers: &mut Buffers,
        mut sink: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let incoming = &mut buffers.incoming;
        let begun = self.begun.len();
        incoming[..begun].copy_from_slice(&self.begun);
        let room = incoming.len() - begun;
        let length = match self.socket.read(&mut incoming[begun..]) {
            Ok(0) => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => length,
            Err(error) if is_wait(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let rest = self.decrypt(buffers, begun + length, &mut sink)?;
        self.begun.clear();
        self.begun.extend_from_slice(&buffers.incoming[rest..begun + length]);
        Ok(length == room)
    }

    /// Decrypts the whole records in the first `end` incoming bytes; where the rest begins.
    fn decrypt(
        &mut self,
        buffers: &mut Buffers,
        end: usize,
        sink: &mut impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let mut at = 0;
        let mut out = Vec::new();
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.tls.process_tls_records(&mut buffers.incoming[at..end]);
            let mut is_done = false;
            match state.map_err(Error::Tls)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        sink(record.map_err(Error::Tls)?.payload)?;
                    }
                }
                // Answers to key updates, which go along with what is sent next.
                ConnectionState::EncodeTlsData(mut data) => encode(&mut out, |to| data.encode(to))?,
                ConnectionState::TransmitTlsData(data) => {
                    self.unsent.append(&mut out);
                    data.done();
                }
                ConnectionState::WriteTraffic(_) => is_done = true,
                _ => return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into())),
            }
            at += discard;
            if is_done {
                return Ok(at);
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Appends to `out` what `encode` writes.
fn encode(
    out: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let start = out.len();
    let mut size = 1024;
    loop {
        out.resize(start + size, 0);
        match encode(&mut out[start..]) {
            Ok(length) => {
                out.truncate(start + length);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) => size = error.required_size,
            Err(error) => return Err(Error::Protocol(format!("TLS: {error}"))),
        }
    }
}

fn encryption(error: &EncryptError) -> Error {
    Error::Protocol(format!("TLS: {error}"))
}

/// Bytes that the socket took, which may be none.
fn write(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize, Error> {
    match socket.write(bytes) {
        Ok(taken) => Ok(taken),
        Err(error) if is_wait(&error) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

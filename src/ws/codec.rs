//! What the client sends: tungstenite reads it from memory, this adds limits and turns each error into a close code.

use super::close::{self, Close};
use std::io::{self, Read, Write};
use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};

/// The payload of a binary message: cheap to clone.
pub use tungstenite::Bytes as Binary;
/// The text of a message: UTF-8 checked, cheap to clone.
pub use tungstenite::Utf8Bytes as Text;

/// Bytes tungstenite keeps per connection for input. Confirms have about 20; longer messages make it grow for a while.
const READ_BUFFER_BYTES: usize = 512;
/// Pings and pongs a client may send in a burst.
const CONTROL_BURST: u32 = 64;
/// Milliseconds after which one more is allowed. Clients ping every few seconds at most.
const CONTROL_REFILL_MS: u64 = 250;
/// What the headers of a message's fragments may take beside as much again as its payload.
const FRAGMENT_HEADERS_BYTES: usize = 1024;

/// The receiving side of one connection.
pub struct Codec {
    context: WebSocketContext,
    control: ControlBudget,
    state: State,
    takes_binary: bool,
    message_bytes_max: usize,
    /// Bytes read since the last whole message, headers included.
    unfinished_bytes: usize,
}

/// How far the connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// A close frame was sent, the client's is awaited.
    Closing,
    /// Both sides have said so, or the client broke the protocol: nothing more is read.
    Closed,
}

/// Something the client said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    Text(Text),
    /// Only a codec that [takes](Codec::taking_binary) binary messages hands them out.
    Binary(Binary),
    /// An answer to a ping, or a sign of life.
    Pong,
    /// The client ends the connection, or answers our close. 1005 stands for a frame without code (RFC 6455, 7.1.5).
    Close(Close),
}

impl Codec {
    /// A codec for a connection whose handshake is done. A message over `message_bytes_max` closes it.
    pub fn new(message_bytes_max: usize, now_ms: u64) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self {
            context,
            control: ControlBudget::new(now_ms),
            state: State::Open,
            takes_binary: false,
            message_bytes_max,
            unfinished_bytes: 0,
        }
    }

    /// The same codec, to which binary messages are no fault.
    pub fn taking_binary(self) -> Self {
        Self { takes_binary: true, ..self }
    }

    /// Takes bytes from the front of `input` up to the next message; `None` when they are used up. Pongs and close frames
    /// that are due go to `out`. An error is the close that was sent: flush `out` and end the connection.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<Incoming>, Close> {
        while self.state != State::Closed {
            let before = input.len();
            let read = self.context.read(&mut Pipe { input, out });
            self.unfinished_bytes += before - input.len();
            match read {
                Ok(message) => {
                    self.unfinished_bytes = 0;
                    match self.sort(message, now_ms, out) {
                        Ok(None) => {}
                        other => return other.map_err(|close| self.fail(close, out)),
                    }
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.check_fragments().map(|()| None).map_err(|close| self.fail(close, out));
                }
                Err(error) => return Err(self.fail(close_for(&error), out)),
            }
        }
        *input = &[];
        Ok(None)
    }

    /// Says goodbye, once. Messages of the client still come until it answers.
    pub fn close(&mut self, close: &Close, out: &mut Vec<u8>) {
        if self.state == State::Open {
            self.send_close(close, out);
            self.state = State::Closing;
        }
    }

    /// Whether frames may still be written to the client.
    pub fn can_send(&self) -> bool {
        self.state == State::Open
    }

    /// Whether both sides are done: flush what is written and end the connection.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn sort(&mut self, message: Message, now_ms: u64, out: &mut Vec<u8>) -> Result<Option<Incoming>, Close> {
        match message {
            Message::Text(text) => Ok(Some(Incoming::Text(text))),
            Message::Ping(_) => self.control.spend(now_ms).map(|()| None),
            Message::Pong(_) => self.control.spend(now_ms).map(|()| Some(Incoming::Pong)),
            Message::Close(close) => Ok(Some(Incoming::Close(self.closed_by_client(close, out)))),
            Message::Binary(bytes) if self.takes_binary => Ok(Some(Incoming::Binary(bytes))),
            Message::Binary(_) | Message::Frame(_) => {
                Err(Close::new(close::UNSUPPORTED_DATA, "only text messages are understood"))
            }
        }
    }

    /// Ends a message that goes on and on in fragments with little or nothing in them.
    fn check_fragments(&self) -> Result<(), Close> {
        match self.unfinished_bytes > 2 * self.message_bytes_max + FRAGMENT_HEADERS_BYTES {
            true => Err(Close::new(close::MESSAGE_TOO_BIG, "a message has too many fragments")),
            false => Ok(()),
        }
    }

    /// Answers a close, or takes the answer to ours.
    fn closed_by_client(&mut self, frame: Option<CloseFrame>, out: &mut Vec<u8>) -> Close {
        // Writing out the queued answer is what this is for; that the connection is closed now is then reported as an error.
        let _ = self.context.flush(&mut Pipe { input: &mut &[][..], out });
        self.state = State::Closed;
        match frame {
            Some(CloseFrame { code, reason }) => Close::new(code.into(), reason.as_str().to_owned()),
            None => Close::new(close::NO_CODE, ""),
        }
    }

    /// Ends the connection for a fault of the client.
    fn fail(&mut self, close: Close, out: &mut Vec<u8>) -> Close {
        if self.state == State::Open {
            self.send_close(&close, out);
        }
        self.state = State::Closed;
        close
    }

    /// Lets tungstenite write the frame, so that it answers no ping afterwards. A pong that is due goes first. Writing to memory
    /// does not fail; what is reported here is that the connection is closed, which is the aim.
    fn send_close(&mut self, close: &Close, out: &mut Vec<u8>) {
        let frame = CloseFrame { code: close.code().into(), reason: close.reason().into() };
        let pipe = &mut Pipe { input: &mut &[][..], out };
        let _ = self.context.flush(pipe);
        let _ = self.context.close(pipe, Some(frame));
    }
}

/// The close that tells a client what it did wrong.
fn close_for(error: &Error) -> Close {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            Close::new(close::MESSAGE_TOO_BIG, format!("a message exceeds {max_size} bytes"))
        }
        Error::Utf8(_) => Close::new(close::INVALID_PAYLOAD, "a text message is not UTF-8"),
        Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => {
            Close::new(close::PROTOCOL_ERROR, "frames of a client must be masked")
        }
        Error::Protocol(error) => Close::new(close::PROTOCOL_ERROR, error.to_string()),
        _ => Close::new(close::PROTOCOL_ERROR, "the WebSocket protocol was broken"),
    }
}

/// A stream over the bytes at hand: reads what there is, writes to memory.
struct Pipe<'a, 'b> {
    input: &'a mut &'b [u8],
    out: &'a mut Vec<u8>,
}

impl Read for Pipe<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.input.is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.input.read(into),
        }
    }
}

impl Write for Pipe<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bounds how often a client makes the broker work for nothing: a bucket that refills with time.
struct ControlBudget {
    left: u32,
    /// Up to when refills have been counted.
    counted_ms: u64,
}

impl ControlBudget {
    fn new(now_ms: u64) -> Self {
        Self { left: CONTROL_BURST, counted_ms: now_ms }
    }

    /// Pays for one control frame.
    fn spend(&mut self, now_ms: u64) -> Result<(), Close> {
        let refills = now_ms.saturating_sub(self.counted_ms) / CONTROL_REFILL_MS;
        self.counted_ms += refills * CONTROL_REFILL_MS;
        self.left = u64::from(self.left).saturating_add(refills).min(u64::from(CONTROL_BURST)) as u32;
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Close::new(close::POLICY_VIOLATION, "too many pings or pongs in a short time"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! A consumer's session: the handshake, frames read where they were decrypted (RFC 6455, 5.2), confirms.

use super::{Buffers, Connection};
use nistru::client::{Answer, Endpoint, Error, Subscription};

const FINAL: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Largest frame taken, in bytes; the broker's default limit of an event is a sixteenth of it.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What the broker sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Text(&'a [u8]),
    Ping(&'a [u8]),
    Close { code: u16, reason: &'a [u8] },
}

/// Frames of an open session.
#[derive(Default)]
pub struct Session {
    /// A frame whose end has not come.
    begun: Vec<u8>,
}

/// Connects and upgrades to WebSocket. An answer other than 101 is [`Error::Refused`]. Frames that came with the answer are
/// in the session.
pub fn open_session(endpoint: &Endpoint, group: &str) -> Result<(Connection, Session), Error> {
    let mut connection = Connection::open(endpoint)?;
    let (path, host) = (Subscription::group(group).path(), endpoint.authority());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: cloudevents.json\r\n\r\n"
    );
    let mut buffers = Buffers::new();
    connection.send(request.as_bytes(), &mut buffers)?;
    let mut received = Vec::new();
    loop {
        connection.receive(&mut buffers, |bytes| {
            received.extend_from_slice(bytes);
            Ok(())
        })?;
        match Answer::parse(&received, false)? {
            Some((answer, taken, _)) if answer.status == 101 => {
                received.drain(..taken);
                return Ok((connection, Session { begun: received }));
            }
            Some((answer, ..)) => return Err(Error::Refused(Box::new(answer))),
            None => {}
        }
    }
}

impl Session {
    /// Hands each message in `bytes`, and what was begun before, to `sink`.
    pub fn take(
        &mut self,
        bytes: &[u8],
        mut sink: impl FnMut(Message<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.begun.is_empty() {
            let taken = messages(bytes, &mut sink)?;
            self.begun.extend_from_slice(&bytes[taken..]);
        } else {
            self.begun.extend_from_slice(bytes);
            let taken = messages(&self.begun, &mut sink)?;
            self.begun.drain(..taken);
        }
        Ok(())
    }
}

/// Takes the whole frames at the start of `bytes`; how many bytes they are.
fn messages(bytes: &[u8], sink: &mut impl FnMut(Message<'_>) -> Result<(), Error>) -> Result<usize, Error> {
    let mut at = 0;
    while let Some((kind, payload, length)) = frame(&bytes[at..])? {
        at += length;
        match kind {
            TEXT => sink(Message::Text(payload))?,
            PING => sink(Message::Ping(payload))?,
            PONG => {}
            CLOSE => sink(close(payload))?,
            kind => return Err(Error::Protocol(format!("a frame with opcode {kind}"))),
        }
    }
    Ok(at)
}

/// Opcode and payload of a frame, and its bytes in all.
type Frame<'a> = (u8, &'a [u8], usize);

/// The frame at the start of `bytes`, if all of it is there.
fn frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, Error> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & FINAL == 0 || first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(Error::Protocol("a frame that is a fragment, reserved or masked".to_owned()));
    }
    let (length, start) = match (second, rest) {
        (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
        (127, rest) if rest.len() >= 8 => {
            (u64::from_be_bytes(rest[..8].try_into().expect("eight bytes")) as usize, 10)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (usize::from(*length), 2),
    };
    if length > FRAME_BYTES_MAX {
        return Err(Error::Protocol(format!("a frame of {length} bytes")));
    }
    let payload = bytes.get(start..start + length);
    Ok(payload.map(|payload| (first & 0x0f, payload, start + length)))
}

fn close(payload: &[u8]) -> Message<'_> {
    match payload {
        [a, b, reason @ ..] => Message::Close { code: u16::from_be_bytes([*a, *b]), reason },
        _ => Message::Close { code: 1005, reason: b"" },
    }
}

/// Appends a frame as clients send it, with a mask of zeros: it changes nothing and costs the broker the same.
fn write_frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= 125, "only short frames are sent");
    out.extend_from_slice(&[FINAL | kind, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// Appends a confirm of everything up to `offset`.
pub fn write_confirm(out: &mut Vec<u8>, offset: &[u8]) {
    let mut text = [0; 32];
    let length = b"confirm:".len() + offset.len();
    text[..8].copy_from_slice(b"confirm:");
    text[8..length].copy_from_slice(offset);
    write_frame(out, TEXT, &text[..length]);
}

pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_frame(out, PONG, payload);
}

/// Appends the end of the session, with code 1000.
pub fn write_close(out: &mut Vec<u8>) {
    write_frame(out, CLOSE, &1000u16.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nistru::ws::frame;

    /// What a session makes of `bytes` that come in pieces of `piece` bytes.
    fn take(bytes: &[u8], piece: usize) -> Result<Vec<String>, Error> {
        let (mut session, mut seen) = (Session::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            session.take(piece, |message| {
                seen.push(match message {
                    Message::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                    other => format!("{other:?}"),
                });
                Ok(())
            })?;
        }
        assert!(session.begun.is_empty());
        Ok(seen)
    }

    #[test]
    fn frames_of_every_length_are_read_whole_and_in_pieces() {
        let texts = [0, 1, 125, 126, 70_000, 3].map(|length| "x".repeat(length));
        let mut bytes = Vec::new();
        texts.iter().for_each(|text| frame::write_text(&mut bytes, &[text.as_bytes()]));
        for piece in [1, 5, 16_384, bytes.len()] {
            assert_eq!(take(&bytes, piece).unwrap(), texts);
        }
    }

    #[test]
    fn pings_and_the_end_are_told() {
        let mut bytes = Vec::new();
        frame::write_ping(&mut bytes, b"p");
        bytes.extend_from_slice(&[0x88, 4, 3, 232, b'o', b'k']);
        assert_eq!(take(&bytes, 3).unwrap(), ["Ping([112])", "Close { code: 1000, reason: [111, 107] }"]);
    }

    #[test]
    fn frames_that_a_broker_never_sends_are_errors() {
        for bytes in [&[0x01, 1, b'x'][..], &[0x81, 0x81, 0, 0, 0, 0, b'x'], &[0x82, 1, 0], &[0xc1, 0]] {
            assert!(matches!(take(bytes, 100), Err(Error::Protocol(_))), "{bytes:?}");
        }
        let endless = [0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0];
        assert!(Session::default().take(&endless, |_| Ok(())).is_err());
    }

    #[test]
    fn a_confirm_is_one_masked_text_frame() {
        let mut out = Vec::new();
        write_confirm(&mut out, b"1234");
        assert_eq!(out, b"\x81\x8c\0\0\0\0confirm:1234");
    }
}

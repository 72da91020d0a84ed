//! Writing frames to the client (RFC 6455, 5.2): final, unmasked, straight into the output buffer.

/// Final fragment of a text message.
const TEXT: u8 = 0x81;
/// Final fragment of a binary message.
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;

/// Most bytes of a control frame's payload (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Appends one text message whose payload is the concatenation of `pieces`, which together must be UTF-8.
pub fn write_text(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    let payload_bytes = pieces.iter().map(|piece| piece.len()).sum();
    write_header(out, TEXT, payload_bytes);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// Appends one binary message.
pub fn write_binary(out: &mut Vec<u8>, payload: &[u8]) {
    write_header(out, BINARY, payload.len());
    out.extend_from_slice(payload);
}

/// Appends one event: its stored bytes, which lack the closing brace, and the session's offset.
pub fn write_event(out: &mut Vec<u8>, event: &[u8], offset: u64) {
    let mut digits = itoa::Buffer::new();
    write_text(out, &[event, b",\"offset\":\"", digits.format(offset).as_bytes(), b"\"}"]);
}

/// Appends a ping. Of a payload only the first 125 bytes are sent.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
    write_header(out, PING, payload.len());
    out.extend_from_slice(payload);
}

fn write_header(out: &mut Vec<u8>, first: u8, payload_bytes: usize) {
    out.reserve(10 + payload_bytes);
    out.push(first);
    match payload_bytes {
        0..=125 => out.push(payload_bytes as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::Role;
    use tungstenite::{Message, WebSocket};

    /// What a client reads from these bytes.
    fn read_by_a_client(bytes: Vec<u8>) -> Message {
        let stream = std::io::Cursor::new(bytes);
        WebSocket::from_raw_socket(stream, Role::Client, None).read().unwrap()
    }

    #[test]
    fn an_event_is_one_frame_that_ends_with_its_offset() {
        let mut out = Vec::new();
        write_event(&mut out, br#"{"specversion":"1.0","data":{}"#, u64::MAX);
        assert_eq!(out[0], TEXT);
        let expected = r#"{"specversion":"1.0","data":{},"offset":"18446744073709551615"}"#;
        assert_eq!(read_by_a_client(out), Message::text(expected));
    }

    #[test]
    fn payloads_around_each_length_form_are_read_back() {
        for bytes in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 0x1_0001] {
            let mut out = Vec::new();
            let text = "x".repeat(bytes);
            let (left, right) = text.as_bytes().split_at(bytes / 3);
            write_text(&mut out, &[left, right]);
            assert_eq!(read_by_a_client(out), Message::text(text), "{bytes}");
        }
    }

    #[test]
    fn a_binary_message_is_read_back() {
        let mut out = Vec::new();
        write_binary(&mut out, &[0xff; 300]);
        assert_eq!(read_by_a_client(out), Message::binary(vec![0xff; 300]));
    }

    #[test]
    fn a_ping_is_read_back_and_never_too_long() {
        let mut out = Vec::new();
        write_ping(&mut out, &[7; 200]);
        assert_eq!(read_by_a_client(out), Message::Ping(vec![7; 125].into()));
    }
}

//! The codec against a real client, and against bytes no client should send.

use super::*;
use crate::ws::frame;
use proptest::prelude::*;
use std::collections::VecDeque;
use tungstenite::WebSocket;

const MESSAGE_BYTES_MAX: usize = 1000;

/// The other end of the wire.
#[derive(Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.to_client.is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.to_client.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to_server.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client() -> WebSocket<Wire> {
    WebSocket::from_raw_socket(Wire::default(), Role::Client, None)
}

fn codec() -> Codec {
    Codec::new(MESSAGE_BYTES_MAX, 0)
}

/// Everything the codec makes of `input`, and what it writes.
fn read_all(codec: &mut Codec, mut input: &[u8]) -> (Vec<Incoming>, Result<(), Close>, Vec<u8>) {
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    loop {
        match codec.next(&mut input, 0, &mut out) {
            Ok(Some(incoming)) => seen.push(incoming),
            Ok(None) => return (seen, Ok(()), out),
            Err(close) => return (seen, Err(close), out),
        }
    }
}

/// A frame as a client sends it, masked with zeros so that the payload reads as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// The code of the close frame at the end of `out`, as a client reads it.
fn close_seen_by_client(out: Vec<u8>) -> Option<(u16, String)> {
    let mut client = client();
    client.get_mut().to_client.extend(out);
    loop {
        match client.read() {
            Ok(Message::Close(frame)) => return frame.map(|f| (f.code.into(), f.reason.to_string())),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn messages_of_a_real_client_are_read() {
    let mut client = client();
    client.send(Message::text("confirm:1")).unwrap();
    client.send(Message::text("x".repeat(MESSAGE_BYTES_MAX))).unwrap();
    client.send(Message::Pong(Default::default())).unwrap();
    let (seen, end, out) = read_all(&mut codec(), &client.get_ref().to_server);
    let long = Text::from("x".repeat(MESSAGE_BYTES_MAX));
    assert_eq!(seen, [Incoming::Text("confirm:1".into()), Incoming::Text(long), Incoming::Pong]);
    assert_eq!((end, out.len()), (Ok(()), 0));
}

#[test]
fn a_fragmented_message_with_a_ping_inside_is_joined() {
    let mut input = masked(0x01, b"conf");
    input.extend(masked(0x89, b"hi"));
    input.extend(masked(0x00, b""));
    input.extend(masked(0x80, b"irm:7"));
    let (seen, end, out) = read_all(&mut codec(), &input);
    assert_eq!((seen, end), (vec![Incoming::Text("confirm:7".into())], Ok(())));
    assert_eq!(out, [0x8a, 2, b'h', b'i']);
}

#[test]
fn a_close_of_the_client_is_answered_and_ends_the_reading() {
    let mut codec = codec();
    let mut input = masked(0x88, b"\x03\xe8bye");
    input.extend(masked(0x81, b"late"));
    let (seen, end, out) = read_all(&mut codec, &input);
    assert_eq!((seen, end), (vec![Incoming::Close(Close::new(1000, "bye"))], Ok(())));
    assert_eq!(out, b"\x88\x05\x03\xe8bye");
    assert!(codec.is_closed() && !codec.can_send());
}

#[test]
fn a_close_without_a_code_reads_as_1005() {
    let (seen, _, out) = read_all(&mut codec(), &masked(0x88, b""));
    assert_eq!(seen, [Incoming::Close(Close::new(close::NO_CODE, ""))]);
    assert_eq!(out, [0x88, 0]);
}

#[test]
fn our_close_is_sent_once_and_confirms_still_come_until_it_is_answered() {
    let (mut codec, mut out) = (codec(), Vec::new());
    codec.close(&Close::new(close::SERVICE_RESTART, "restart"), &mut out);
    codec.close(&Close::new(close::NORMAL, "again"), &mut out);
    assert_eq!(out, b"\x88\x09\x03\xf4restart");
    assert!(!codec.can_send() && !codec.is_closed());
    let mut input = masked(0x81, b"confirm:1");
    input.extend(masked(0x89, b"ping"));
    input.extend(masked(0x88, b"\x03\xf4"));
    let (seen, end, out) = read_all(&mut codec, &input);
    assert_eq!(seen, [Incoming::Text("confirm:1".into()), Incoming::Close(Close::new(1012, ""))]);
    assert_eq!((end, out.as_slice(), codec.is_closed()), (Ok(()), &[][..], true));
}

#[test]
fn each_fault_of_the_client_closes_with_its_code() {
    let unmasked = b"\x81\x02hi".to_vec();
    let too_long = masked(0x81, &[b'x'; MESSAGE_BYTES_MAX + 1]);
    let mut too_long_in_parts = masked(0x01, &[b'x'; MESSAGE_BYTES_MAX]);
    too_long_in_parts.extend(masked(0x80, b"x"));
    let huge = b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec();
    for (what, input, code) in [
        ("unmasked", unmasked, close::PROTOCOL_ERROR),
        ("binary", masked(0x82, b"hi"), close::UNSUPPORTED_DATA),
        ("not UTF-8", masked(0x81, b"\xff"), close::INVALID_PAYLOAD),
        ("too long", too_long, close::MESSAGE_TOO_BIG),
        ("too long in parts", too_long_in_parts, close::MESSAGE_TOO_BIG),
        ("absurdly long", huge, close::MESSAGE_TOO_BIG),
        ("reserved bit", masked(0xc1, b"hi"), close::PROTOCOL_ERROR),
        ("reserved opcode", masked(0x83, b"hi"), close::PROTOCOL_ERROR),
        ("long ping", masked(0x89, &[0; 126]), close::PROTOCOL_ERROR),
        ("ping in parts", masked(0x09, b"hi"), close::PROTOCOL_ERROR),
        ("end of nothing", masked(0x80, b"hi"), close::PROTOCOL_ERROR),
        ("half a close code", masked(0x88, b"\x03"), close::PROTOCOL_ERROR),
        ("close reason not UTF-8", masked(0x88, b"\x03\xe8\xff"), close::INVALID_PAYLOAD),
    ] {
        let mut codec = codec();
        let (seen, end, out) = read_all(&mut codec, &input);
        let close = end.expect_err(what);
        assert_eq!((seen.len(), close.code()), (0, code), "{what}: {close}");
        assert_eq!(close_seen_by_client(out), Some((code, close.reason().to_owned())), "{what}");
        assert!(codec.is_closed(), "{what}");
    }
}

#[test]
fn a_text_begun_inside_another_is_a_fault() {
    let mut input = masked(0x01, b"a");
    input.extend(masked(0x81, b"b"));
    assert_eq!(read_all(&mut codec(), &input).1.unwrap_err().code(), close::PROTOCOL_ERROR);
}

#[test]
fn a_message_in_empty_fragments_without_end_is_cut_off() {
    let begun = masked(0x01, b"confirm:");
    let more = masked(0x00, b"");
    let (mut codec, mut fed) = (codec(), 0);
    let mut end = read_all(&mut codec, &begun).1;
    while end.is_ok() {
        end = read_all(&mut codec, &more).1;
        fed += more.len();
        assert!(fed < 4 * MESSAGE_BYTES_MAX, "{fed} bytes were taken");
    }
    assert_eq!(end.unwrap_err().code(), close::MESSAGE_TOO_BIG);
}

#[test]
fn a_message_in_small_fragments_is_read_however_many_follow_each_other() {
    let parts: Vec<u8> = (0..MESSAGE_BYTES_MAX / 10)
        .flat_map(|part| masked(if part == 0 { 0x01 } else { 0x00 }, &[b'x'; 10]))
        .chain(masked(0x80, b""))
        .collect();
    let (seen, end, _) = read_all(&mut codec(), &parts.repeat(10));
    assert_eq!((seen.len(), end), (10, Ok(())));
}

#[test]
fn binary_messages_are_handed_out_by_a_codec_that_takes_them() {
    let input = [masked(0x02, b"\xff"), masked(0x80, b"\0")].concat();
    let (seen, end, _) = read_all(&mut codec().taking_binary(), &input);
    assert_eq!((seen, end), (vec![Incoming::Binary(b"\xff\0"[..].into())], Ok(())));
}

#[test]
fn a_flood_of_pings_is_cut_off_and_writes_little() {
    let input = masked(0x89, &[b'x'; 125]).repeat(10_000);
    let (_, end, out) = read_all(&mut codec(), &input);
    assert_eq!(end.unwrap_err().code(), close::POLICY_VIOLATION);
    assert!(out.len() < (CONTROL_BURST as usize + 2) * 127 + 125, "{}", out.len());
}

#[test]
fn pings_at_a_sane_pace_never_run_out() {
    let (mut codec, mut out) = (codec(), Vec::new());
    for turn in 0..1000 {
        let ping = masked(0x89, b"");
        assert_eq!(codec.next(&mut &ping[..], turn * CONTROL_REFILL_MS, &mut out), Ok(None));
    }
    assert_eq!(out.len(), 2000);
}

#[test]
fn the_budget_does_not_grow_beyond_one_burst_nor_break_when_time_jumps() {
    let mut budget = ControlBudget::new(u64::MAX / 2);
    assert_eq!(budget.spend(0), Ok(()));
    assert_eq!(budget.spend(u64::MAX), Ok(()));
    let paid = (0..200).filter(|_| budget.spend(u64::MAX).is_ok()).count();
    assert_eq!(paid, CONTROL_BURST as usize - 1);
}

#[test]
fn events_pongs_and_the_close_share_one_stream_of_whole_frames() {
    let (mut codec, mut out) = (codec(), Vec::new());
    frame::write_event(&mut out, br#"{"id":"1""#, 1);
    codec.next(&mut &masked(0x89, b"p")[..], 0, &mut out).unwrap();
    frame::write_event(&mut out, br#"{"id":"2""#, 2);
    codec.close(&Close::new(close::NORMAL, "done"), &mut out);
    let mut client = client();
    client.get_mut().to_client.extend(out);
    assert_eq!(client.read().unwrap(), Message::text(r#"{"id":"1","offset":"1"}"#));
    assert_eq!(client.read().unwrap(), Message::Pong("p".into()));
    assert_eq!(client.read().unwrap(), Message::text(r#"{"id":"2","offset":"2"}"#));
    assert!(client.read().unwrap().is_close());
}

proptest! {
    /// Frames that are mostly sound, cut anywhere, give the same messages, the same end and the same answers.
    #[test]
    fn the_outcome_does_not_depend_on_how_the_input_is_cut(
        frames in prop::collection::vec((prop::sample::select(vec![0x81u8, 0x01, 0x80, 0x00, 0x89, 0x8a, 0x88, 0x82]),
            prop::collection::vec(any::<u8>(), 0..200)), 0..12),
        cuts in prop::collection::vec(1usize..40, 1..30),
    ) {
        let input: Vec<u8> = frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect();
        let whole = read_all(&mut codec(), &input);
        let mut codec = codec();
        let mut pieces = (Vec::new(), Ok(()), Vec::new());
        let (mut rest, mut cut) = (&input[..], cuts.iter().cycle());
        while !rest.is_empty() && pieces.1.is_ok() {
            let (piece, after) = rest.split_at(rest.len().min(*cut.next().unwrap()));
            rest = after;
            let (seen, end, out) = read_all(&mut codec, piece);
            pieces.0.extend(seen);
            pieces.1 = end;
            pieces.2.extend(out);
        }
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn no_bytes_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_all(&mut codec(), &input);
    }
}

//! A client's bytes after the handshake give the same messages, the same end and the same answers however they are cut, and
//! what is written is small. The first byte of the input is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nistru::ws::{Close, Codec, Incoming};

const MESSAGE_BYTES_MAX: usize = 4096;
/// A burst of pongs with full payloads and a close frame.
const OUT_BYTES_MAX: usize = 66 * 127 + 127;

fuzz_target!(|data: &[u8]| {
    let Some((&size, input)) = data.split_first() else { return };
    let whole = read([input]);
    let pieces = read(input.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces);
    assert!(whole.2.len() <= OUT_BYTES_MAX);
});

type Read = (Vec<Incoming>, Option<Close>, Vec<u8>);

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut codec = Codec::new(MESSAGE_BYTES_MAX, 0);
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        loop {
            match codec.next(&mut piece, 0, &mut out) {
                Ok(Some(incoming)) => seen.push(incoming),
                Ok(None) => break,
                Err(close) => return (seen, Some(close), out),
            }
        }
        assert!(piece.is_empty());
    }
    (seen, None, out)
}

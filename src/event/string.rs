//! The inside of JSON strings: finding its end, resolving escapes, writing it.

use std::borrow::Cow;

/// Bytes that are looked at together. Most strings of an event end within the first block.
const BLOCK_BYTES: usize = 16;

/// Number of bytes before the first quote, backslash or control character (RFC 8259, 7), or all of them.
#[inline]
pub fn plain_prefix(bytes: &[u8]) -> usize {
    match bytes.first_chunk() {
        Some(block) => match first_special(block) {
            BLOCK_BYTES => BLOCK_BYTES + plain_rest(&bytes[BLOCK_BYTES..]),
            first => first,
        },
        None => plain_rest(bytes),
    }
}

/// The same for what is rarely met, and so is kept out of the way.
#[inline(never)]
fn plain_rest(bytes: &[u8]) -> usize {
    let (blocks, tail) = bytes.as_chunks::<BLOCK_BYTES>();
    for (number, block) in blocks.iter().enumerate() {
        let first = first_special(block);
        if first < BLOCK_BYTES {
            return number * BLOCK_BYTES + first;
        }
    }
    let plain = tail.iter().position(|&byte| is_special(byte)).unwrap_or(tail.len());
    blocks.len() * BLOCK_BYTES + plain
}

/// Position of the first byte of `block` that ends plain text; its length when there is none.
#[cfg(target_arch = "x86_64")]
#[inline]
fn first_special(block: &[u8; BLOCK_BYTES]) -> usize {
    use std::arch::x86_64::*;
    // SAFETY: every processor of this architecture has SSE2, and the load is of the 16 bytes of the block, aligned or not.
    let found = unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
    };
    (found | 1 << BLOCK_BYTES).trailing_zeros() as usize
}

/// As above, eight bytes at a time.
#[cfg(not(target_arch = "x86_64"))]
fn first_special(block: &[u8; BLOCK_BYTES]) -> usize {
    let first_of = |half: &[u8]| {
        let found = special(u64::from_le_bytes(half.try_into().expect("8 bytes")));
        found.trailing_zeros() as usize / 8
    };
    match first_of(&block[..8]) {
        8 => 8 + first_of(&block[8..]),
        first => first,
    }
}

/// The high bit of the first byte of `word` (in memory order) that ends plain text is set, and none before it.
/// Bits after the first may be wrong: subtraction borrows upwards.
#[cfg(not(target_arch = "x86_64"))]
fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGHS
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The character that the escape at the start of `bytes` means, and the escape's length. A surrogate pair is one
/// escape of 12 bytes. `None` for anything that is not an escape.
pub fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let short = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes),
        _ => return None,
    };
    Some((short, 2))
}

fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let first = hex4(bytes.get(2..6)?)?;
    if !(0xd800..0xdc00).contains(&first) {
        return Some((char::from_u32(first)?, 6));
    }
    let second = hex4(bytes.get(6..12)?.strip_prefix(b"\\u")?)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12))
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, &digit| Some(number << 4 | (digit as char).to_digit(16)?))
}

/// The value of a string whose inside is `inside` and whose escapes are known to be valid.
pub fn unescape(inside: &str) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let (character, length) = escape(&rest.as_bytes()[at..]).unwrap_or(('\u{fffd}', 1));
        text.push(character);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    text
}

/// As [`unescape`], for an inside not yet known to be UTF-8.
pub fn unescaped_bytes(inside: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = inside.iter().position(|&byte| byte == b'\\') else {
        return Cow::Borrowed(inside);
    };
    let mut text = inside[..first].to_vec();
    let mut at = first;
    while at < inside.len() {
        match escape(&inside[at..]).filter(|_| inside[at] == b'\\') {
            Some((character, length)) => {
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                at += length;
            }
            None => {
                text.push(inside[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(text)
}

/// Appends `text` as the inside of a JSON string, escaping only what must be: one text, one form.
pub fn write(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let plain = plain_prefix(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else {
            return;
        };
        write_escape(out, byte);
        rest = &rest[plain + 1..];
    }
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_special_byte_is_found_wherever_it_stands() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0, 0x1f] {
                for at in 0..length {
                    let mut bytes = vec![0xff_u8; length];
                    bytes[at] = special;
                    bytes[length - 1] = special;
                    assert_eq!(plain_prefix(&bytes), at, "{special} of {length}");
                }
            }
            assert_eq!(plain_prefix(&vec![b' '; length]), length);
        }
    }

    #[test]
    fn every_byte_is_told_right_among_every_neighbour() {
        for byte in 0..=255_u8 {
            for neighbour in 0..=255_u8 {
                let block = std::array::from_fn(|at| if at % 2 == 0 { neighbour } else { byte });
                let expected = block.iter().position(|&byte| is_special(byte)).unwrap_or(BLOCK_BYTES);
                assert_eq!(first_special(&block), expected, "{byte} {neighbour}");
            }
        }
    }

    #[test]
    fn only_what_must_be_escaped_is() {
        let mut out = Vec::new();
        write(&mut out, "a/\"\\\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}ă\u{1f600}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a/\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}ă\u{1f600}"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text: String) {
            let mut out = Vec::new();
            write(&mut out, &text);
            prop_assert_eq!(unescaped_bytes(&out), text.as_bytes());
            let inside = String::from_utf8(out).unwrap();
            prop_assert_eq!(&unescape(&inside), &text);
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{inside}\"")).unwrap(), text);
        }

        #[test]
        fn escapes_mean_what_another_reader_says(first in 0_u32..=0xffff, second in 0_u32..=0xffff) {
            let text = format!("\\u{first:04x}\\u{second:04X}");
            let theirs = serde_json::from_str::<String>(&format!("\"{text}\"")).ok();
            let ours = match escape(text.as_bytes()) {
                Some((_, 6)) => escape(&text.as_bytes()[6..]).map(|_| unescape(&text)),
                Some(_) => Some(unescape(&text)),
                None => None,
            };
            prop_assert_eq!(ours, theirs);
        }
    }
}

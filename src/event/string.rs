//! The inside of JSON strings: finding its end, resolving escapes, writing it.

use std::borrow::Cow;

/// Bytes that are looked at together.
pub const BLOCK_BYTES: usize = 16;

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
#[inline]
fn first_special(block: &[u8; BLOCK_BYTES]) -> usize {
    (u32::from(specials(block)) | 1 << BLOCK_BYTES).trailing_zeros() as usize
}

/// A bit for each byte of `block`, the lowest for the first: whether it ends plain text. With the bit of weight 2
/// flipped, a quote is 0x20 and a control character still is less, so one comparison finds both.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn specials(block: &[u8; BLOCK_BYTES]) -> u16 {
    use std::arch::x86_64::*;
    // SAFETY: every processor of this architecture has SSE2, and the load is of the 16 bytes of the block, aligned or not.
    unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast());
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let flipped = _mm_xor_si128(bytes, _mm_set1_epi8(2));
        let quote_or_control = _mm_cmpeq_epi8(_mm_min_epu8(flipped, _mm_set1_epi8(0x20)), flipped);
        _mm_movemask_epi8(_mm_or_si128(backslash, quote_or_control)) as u16
    }
}

/// As above, eight bytes at a time.
#[cfg(not(target_arch = "x86_64"))]
pub fn specials(block: &[u8; BLOCK_BYTES]) -> u16 {
    specials_by_words(block)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn specials_by_words(block: &[u8; BLOCK_BYTES]) -> u16 {
    let specials_of = |half: &[u8]| specials_of_word(u64::from_le_bytes(half.try_into().expect("8 bytes")));
    u16::from_le_bytes([specials_of(&block[..8]), specials_of(&block[8..])])
}

/// A bit for each byte of `word` in memory order.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn specials_of_word(word: u64) -> u8 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x80 * ONES;
    // The high bit of each byte that is at most `max`. Sums stay within their bytes, as the high bits are left out.
    let at_most = |bytes: u64, max: u64| !(((bytes & !HIGHS) + (0x7f - max) * ONES) | bytes) & HIGHS;
    let found = at_most(word ^ (u64::from(b'\\') * ONES), 0) | at_most(word ^ (2 * ONES), 0x20);
    // The product has the bits that lie eight apart next to each other in its highest byte.
    ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
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
    fn every_special_byte_of_a_block_is_marked_on_every_architecture() {
        for byte in 0..=255_u8 {
            for neighbour in 0..=255_u8 {
                let block = std::array::from_fn(|at| if at % 3 == 0 { byte } else { neighbour });
                let bits = block.iter().enumerate().map(|(at, &byte)| u16::from(is_special(byte)) << at);
                let expected = bits.fold(0, |all, bit| all | bit);
                assert_eq!((specials(&block), specials_by_words(&block)), (expected, expected), "{block:?}");
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

//! Where plain text ends: found for many bytes at once, then looked up.
//!
//! A walk that searches for the end of each string waits for the end of one search before it can start the next, and
//! mispredicts how long each takes. Marked ahead, a string of usual length ends where one word of bits says.

use crate::event::string::{BLOCK_BYTES, specials};

/// Bytes that are marked together. A document is rarely shorter, and what is marked behind its end is in vain.
const STRETCH_BYTES: usize = 256;

/// Bytes of marks that are looked up together.
const WORD_BYTES: usize = 8;

const BITS_BYTES: usize = STRETCH_BYTES / 8 + WORD_BYTES - 1;

/// Marks of a stretch of `bytes`, which moves on as positions behind it are asked for.
pub(super) struct Marks<'a> {
    bytes: &'a [u8],
    /// Where the stretch starts.
    start: usize,
    /// A bit for each byte of the stretch: whether it ends plain text. Behind them as many zeros as make a word of the last.
    bits: [u8; BITS_BYTES],
}

impl<'a> Marks<'a> {
    /// Marks of `bytes`, looked up from their start on.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut marks = Self { bytes, start: 0, bits: [0; BITS_BYTES] };
        marks.mark(0);
        marks
    }

    /// Position of the first quote, backslash or control character (RFC 8259, 7) from `at` on, or where the bytes end.
    /// `at` is not behind their end, nor before what was asked for earlier.
    #[inline]
    pub fn next(&mut self, at: usize) -> usize {
        match self.word(at) {
            Some(word) if word != 0 => at + word.trailing_zeros() as usize,
            _ => self.next_far(at),
        }
    }

    /// The same where it takes more than a word. Most strings are shorter.
    #[inline(never)]
    fn next_far(&mut self, mut at: usize) -> usize {
        loop {
            match self.word(at) {
                Some(0) => at = self.behind_word(at),
                Some(word) => return at + word.trailing_zeros() as usize,
                None => self.mark(at),
            }
        }
    }

    /// The marks of at least 57 bytes from `at` on, or of the rest of the stretch, the lowest bit for the first. `None`
    /// behind the stretch.
    #[inline]
    fn word(&self, at: usize) -> Option<u64> {
        let offset = at - self.start;
        let bits = self.bits.get(offset / 8..offset / 8 + WORD_BYTES)?.first_chunk()?;
        Some(u64::from_le_bytes(*bits) >> (offset % 8))
    }

    /// The first position that the word at `at` says nothing about.
    fn behind_word(&self, at: usize) -> usize {
        let offset = at - self.start;
        self.start + ((offset / 8 + WORD_BYTES) * 8).min(STRETCH_BYTES)
    }

    /// Marks the stretch that starts at `start`. The end of the bytes is marked as well, as if a control character
    /// followed.
    #[inline(never)]
    fn mark(&mut self, start: usize) {
        self.start = start;
        let (blocks, tail) = self.bytes[start..].as_chunks();
        let (marks, _) = self.bits[..STRETCH_BYTES / 8].as_chunks_mut();
        for (marks, block) in marks.iter_mut().zip(blocks) {
            *marks = specials(block).to_le_bytes();
        }
        if let Some(marks) = marks.get_mut(blocks.len()) {
            let mut block = [0; BLOCK_BYTES];
            block[..tail.len()].copy_from_slice(tail);
            *marks = specials(&block).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_mark_is_found_from_everywhere() {
        for length in (0..40).chain([255, 256, 257, 330]) {
            for mark in 0..=length {
                let mut bytes = vec![b'x'; length];
                if let Some(byte) = bytes.get_mut(mark) {
                    *byte = b'"';
                }
                for at in 0..=length {
                    let expected = if at <= mark { mark } else { length };
                    assert_eq!(Marks::new(&bytes).next(at), expected, "{at} of {length}, {mark} marked");
                }
            }
        }
    }

    #[test]
    fn a_walk_finds_mark_after_mark() {
        for distance in 1..600 {
            let bytes: Vec<u8> = (1..=2000).map(|at| if at % distance == 0 { b'\\' } else { 0xff }).collect();
            let mut marks = Marks::new(&bytes);
            for at in (0..bytes.len()).step_by(distance) {
                assert_eq!(marks.next(at), bytes.len().min(at + distance - 1), "{distance}");
            }
        }
    }
}

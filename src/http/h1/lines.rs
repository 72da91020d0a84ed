//! Gathering lines up to an empty one: a head, or the trailers of a chunked body.

use super::Error;

/// The bytes of a section as they come in. Lines end in CRLF and nothing else; what stands in them is for others to check.
#[derive(Default)]
pub(super) struct Section {
    bytes: Vec<u8>,
    /// Bytes of the line that has not ended yet.
    line_bytes: usize,
}

/// Why bytes are not a section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionError {
    TooLong,
    BareLineFeed,
}

impl From<SectionError> for Error {
    fn from(error: SectionError) -> Self {
        match error {
            SectionError::TooLong => Self::Malformed("the trailer section is too long"),
            SectionError::BareLineFeed => Self::Malformed("a line ends in LF instead of CRLF"),
        }
    }
}

impl Section {
    /// Takes bytes from the front of `input` up to the end of the section; returns it when it is complete, the empty
    /// line included. `bytes_max` bounds the whole section.
    pub(super) fn take(
        &mut self,
        input: &mut &[u8],
        bytes_max: usize,
    ) -> Result<Option<Vec<u8>>, SectionError> {
        let window = &input[..input.len().min(bytes_max.saturating_sub(self.bytes.len()))];
        let mut line_start = 0;
        for line_feed in memchr::memchr_iter(b'\n', window) {
            if self.byte_before(window, line_feed) != Some(b'\r') {
                return Err(SectionError::BareLineFeed);
            }
            let line_bytes = self.line_bytes + (line_feed - line_start);
            self.line_bytes = 0;
            line_start = line_feed + 1;
            if line_bytes == 1 {
                self.keep(input, line_start);
                return Ok(Some(std::mem::take(&mut self.bytes)));
            }
        }
        self.line_bytes += window.len() - line_start;
        self.keep(input, window.len());
        if input.is_empty() { Ok(None) } else { Err(SectionError::TooLong) }
    }

    /// Whether nothing has come yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte_before(&self, window: &[u8], at: usize) -> Option<u8> {
        at.checked_sub(1).map(|before| window[before]).or_else(|| self.bytes.last().copied())
    }

    fn keep(&mut self, input: &mut &[u8], count: usize) {
        let (kept, rest) = input.split_at(count);
        self.bytes.extend_from_slice(kept);
        *input = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes.
    fn gather(input: &[u8], step: usize, bytes_max: usize) -> Result<Option<(Vec<u8>, usize)>, SectionError> {
        let mut section = Section::default();
        let mut used = 0;
        for piece in input.chunks(step) {
            let mut rest = piece;
            let complete = section.take(&mut rest, bytes_max)?;
            used += piece.len() - rest.len();
            if let Some(bytes) = complete {
                return Ok(Some((bytes, used)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_section_ends_with_its_empty_line_however_it_is_cut() {
        for step in 1..20 {
            let found = gather(b"a: b\r\nc: d\r\n\r\nbody\r\n\r\n", step, 100).unwrap();
            assert_eq!(found, Some((b"a: b\r\nc: d\r\n\r\n".to_vec(), 14)), "pieces of {step}");
        }
        assert_eq!(gather(b"\r\nx", 1, 100), Ok(Some((b"\r\n".to_vec(), 2))));
        assert_eq!(gather(b"a: b\r\n\r", 3, 100), Ok(None));
    }

    #[test]
    fn a_bare_line_feed_is_refused_however_it_is_cut() {
        for input in [&b"a\n\r\n"[..], b"\n", b"a\r\n\n", b"a\r\nb\nc\r\n\r\n"] {
            for step in 1..6 {
                assert_eq!(gather(input, step, 100), Err(SectionError::BareLineFeed), "{input:?} by {step}");
            }
        }
    }

    #[test]
    fn the_limit_counts_the_empty_line() {
        for step in 1..12 {
            assert!(gather(b"a: b\r\n\r\n", step, 8).unwrap().is_some());
            assert_eq!(gather(b"a: b\r\n\r\n", step, 7), Err(SectionError::TooLong));
        }
    }
}

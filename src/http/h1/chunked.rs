//! The chunked transfer coding (RFC 9112, 7.1).

use super::lines::Section;
use super::parser::Body;
use super::{Error, HEADERS_MAX};

/// Most bytes of all chunk extensions of a body together. They are read and dropped.
const EXTENSION_BYTES_MAX: usize = 4 << 10;
/// Most bytes of the trailer section. Trailers are checked and dropped.
const TRAILER_BYTES_MAX: usize = 4 << 10;
/// Most digits of a chunk size, leading zeros included: 2^60 bytes are more than any limit of a body.
const SIZE_DIGITS_MAX: u8 = 15;

const BAD_SIZE: Error = Error::Malformed("a chunk size is not a hexadecimal number");
const BAD_END: Error = Error::Malformed("a chunk does not end in CRLF where its size says");

/// Decodes one chunked body.
pub(super) struct Chunked {
    state: State,
    extension_bytes: usize,
}

enum State {
    /// In the digits of a chunk size.
    Size { digits: u8, size: u64 },
    /// In white space after the digits, which only an extension may follow.
    Space { size: u64 },
    /// After the `;` of an extension.
    Extension { size: u64 },
    /// After the CR of a size line.
    SizeEnd { size: u64 },
    /// In the bytes of a chunk, of which so many are missing.
    Data { left: u64 },
    /// After the bytes of a chunk.
    DataEnd,
    /// After the CR that follows the bytes of a chunk.
    DataLineFeed,
    /// After the size line of the empty chunk.
    Trailers(Section),
}

impl Chunked {
    pub(super) fn new() -> Self {
        Self { state: State::Size { digits: 0, size: 0 }, extension_bytes: 0 }
    }

    /// Takes bytes from the front of `input` and gives the content to `body`; returns whether the body is complete.
    pub(super) fn decode(&mut self, input: &mut &[u8], body: &mut Body) -> Result<bool, Error> {
        loop {
            match &mut self.state {
                State::Data { left } => {
                    *left -= body.take(input, *left)?;
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.state = State::DataEnd;
                }
                State::Trailers(section) => {
                    let trailers = section.take(input, TRAILER_BYTES_MAX)?;
                    return trailers.map_or(Ok(false), |bytes| check_trailers(&bytes).map(|()| true));
                }
                _ => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
                    *input = rest;
                    self.step(byte, body)?;
                }
            }
        }
    }

    /// Moves on by one byte of a size line or of the end of a chunk.
    fn step(&mut self, byte: u8, body: &Body) -> Result<(), Error> {
        self.state = match (&self.state, byte) {
            (&State::Size { digits, size }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(BAD_SIZE);
                }
                State::Size { digits: digits + 1, size: size << 4 | hex_value(byte) }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BAD_SIZE),
            (&(State::Size { size, .. } | State::Extension { size }), b'\r') => State::SizeEnd { size },
            (&(State::Size { size, .. } | State::Space { size }), b' ' | b'\t') => {
                self.count_extension()?;
                State::Space { size }
            }
            (&(State::Size { size, .. } | State::Space { size }), b';') => {
                self.count_extension()?;
                State::Extension { size }
            }
            (&State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension()?;
                State::Extension { size }
            }
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailers(Section::default()),
            (&State::SizeEnd { size }, b'\n') => {
                body.expect(size)?;
                State::Data { left: size }
            }
            (State::DataEnd, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => State::Size { digits: 0, size: 0 },
            (State::DataEnd | State::DataLineFeed, _) => return Err(BAD_END),
            _ => return Err(BAD_SIZE),
        };
        Ok(())
    }

    fn count_extension(&mut self) -> Result<(), Error> {
        self.extension_bytes += 1;
        match self.extension_bytes > EXTENSION_BYTES_MAX {
            true => Err(Error::Malformed("the chunk extensions are too long")),
            false => Ok(()),
        }
    }
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// Trailers must be fields, and none that says where the message ends (RFC 9110, 6.5.1).
fn check_trailers(section: &[u8]) -> Result<(), Error> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(section, &mut slots) {
        Ok(httparse::Status::Complete((_, fields))) => {
            let framing = ["content-length", "transfer-encoding", "host"];
            let frames = |name: &str| framing.iter().any(|other| name.eq_ignore_ascii_case(other));
            match fields.iter().any(|field| frames(field.name)) {
                true => Err(Error::Malformed("a trailer field that belongs into the head")),
                false => Ok(()),
            }
        }
        Err(httparse::Error::TooManyHeaders) => Err(Error::TooManyHeaders),
        _ => Err(Error::Malformed("the trailer section does not consist of header fields")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &str, limit: usize) -> Result<Option<(String, String)>, Error> {
        let mut body = Body::new(true, limit);
        let mut rest = input.as_bytes();
        let complete = Chunked::new().decode(&mut rest, &mut body)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(complete.then(|| (text(&body.into_bytes()), text(rest))))
    }

    fn body(input: &str) -> Option<String> {
        decode(input, 1000).ok().flatten().map(|(body, _)| body)
    }

    #[test]
    fn chunks_are_joined_and_what_follows_stays() {
        assert_eq!(
            body("4\r\nWiki\r\n00B\r\npedia in \r\n\r\n0\r\n\r\n").as_deref(),
            Some("Wikipedia in \r\n")
        );
        assert_eq!(decode("1\r\na\r\n0\r\n\r\nGET /", 100), Ok(Some(("a".into(), "GET /".into()))));
    }

    #[test]
    fn extensions_and_trailers_are_read_and_dropped() {
        assert_eq!(
            body("1;name=\"v;w\"\r\na\r\n2 ; x\r\nbc\r\n0;last\r\nDigest: x\r\n\r\n").as_deref(),
            Some("abc")
        );
    }

    #[test]
    fn an_unfinished_body_is_not_complete() {
        for input in ["", "1", "1\r\na", "1\r\na\r\n0\r\n", "1\r\na\r\n0\r\nx: y\r\n\r"] {
            assert_eq!(decode(input, 100), Ok(None), "{input:?}");
        }
    }

    #[test]
    fn sizes_that_are_not_plain_hexadecimal_are_refused() {
        for size in
            ["", "-1", "+1", "0x1", "1 ", " 1", "1\n", "g", "1\r", "1 2", "1\t1", "1000000000000000", ";a"]
        {
            let input = format!("{size}\r\na\r\n0\r\n\r\n");
            assert!(matches!(decode(&input, 100), Err(Error::Malformed(_))), "{size:?}");
        }
    }

    #[test]
    fn a_chunk_must_end_where_its_size_says() {
        for input in ["1\r\nab\r\n0\r\n\r\n", "1\r\na\n0\r\n\r\n", "2\r\na\r\n0\r\n\r\n", "1\r\na0\r\n\r\n"] {
            assert!(decode(input, 100).is_err(), "{input:?}");
        }
    }

    #[test]
    fn line_ends_hidden_in_extensions_and_trailers_are_refused() {
        for input in
            ["1;a\nb\r\na\r\n0\r\n\r\n", "1;a\rb\r\na\r\n0\r\n\r\n", "0\r\na: b\n\r\n", "0\r\na : b\r\n\r\n"]
        {
            assert!(decode(input, 100).is_err(), "{input:?}");
        }
        assert!(decode("0\r\nContent-Length: 5\r\n\r\n", 100).is_err());
    }

    #[test]
    fn everything_around_the_content_is_limited() {
        let long = "x".repeat(EXTENSION_BYTES_MAX);
        assert!(decode(&format!("1;{}\r\na\r\n0\r\n\r\n", &long[1..]), 100).is_ok());
        assert!(decode(&format!("1;{long}\r\na\r\n0\r\n\r\n"), 100).is_err());
        assert!(decode(&format!("0\r\na: {long}\r\n\r\n"), 100).is_err());
        assert!(decode(&format!("0\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1)), 100).is_err());
    }

    #[test]
    fn a_chunk_over_the_limit_is_refused_by_its_size_alone() {
        assert_eq!(decode("3\r\nabc\r\n3\r\n", 5), Err(Error::BodyTooLarge(5)));
        assert_eq!(decode("fffffffffffffff\r\n", 5), Err(Error::BodyTooLarge(5)));
        assert!(decode("5\r\nabcde\r\n0\r\n\r\n", 5).unwrap().is_some());
    }
}

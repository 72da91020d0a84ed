//! HTTP/1.1 answers as the broker writes them (RFC 9112), read from bytes without IO.

use super::Error;
use std::fmt;

/// Most header fields an answer may have.
const HEADERS_MAX: usize = 64;
/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// One complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names and values in the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What the first lines of an answer say about the rest of it. Made without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Bytes of the status line and the headers, the empty line included.
    pub bytes: usize,
    pub body: Body,
    /// Whether the connection may carry another request after this answer.
    pub keep_alive: bool,
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Exactly so many bytes.
    Length(usize),
    Chunked,
    /// Up to the end of the connection.
    ToEnd,
}

impl Head {
    /// Reads the head at the start of `bytes`; `None` when it is not all there.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut fields);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => Self::of(&parsed, length).map(Some),
            Ok(httparse::Status::Partial) if bytes.len() > HEAD_BYTES_MAX => {
                Err(malformed("the head does not end"))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(error) => Err(malformed(error)),
        }
    }

    fn of(parsed: &httparse::Response<'_, '_>, bytes: usize) -> Result<Self, Error> {
        let status = parsed.code.unwrap_or_default();
        let keep_alive = parsed.version == Some(1) && !mentions(parsed.headers, "connection", "close");
        let body = match status {
            100..=199 | 204 | 304 => Body::Length(0),
            _ if mentions(parsed.headers, "transfer-encoding", "chunked") => Body::Chunked,
            _ => declared_length(parsed.headers)?.map_or(Body::ToEnd, Body::Length),
        };
        Ok(Self { status, bytes, body, keep_alive: keep_alive && body != Body::ToEnd })
    }
}

impl Answer {
    /// Reads the answer at the start of `bytes` and says how many of them it takes and whether the connection stays
    /// usable; `None` when more bytes are needed. `ended`: the connection brings no more.
    pub fn parse(bytes: &[u8], ended: bool) -> Result<Option<(Self, usize, bool)>, Error> {
        let Some(head) = Head::parse(bytes)? else { return Ok(None) };
        let rest = &bytes[head.bytes..];
        let (body, taken) = match head.body {
            Body::Length(length) if rest.len() >= length => (rest[..length].to_vec(), length),
            Body::ToEnd if ended => (rest.to_vec(), rest.len()),
            Body::Chunked => match dechunk(rest)? {
                Some(body) => body,
                None => return Ok(None),
            },
            Body::Length(_) | Body::ToEnd => return Ok(None),
        };
        let answer = Self { status: head.status, headers: headers_of(bytes), body };
        Ok(Some((answer, head.bytes + taken, head.keep_alive)))
    }

    /// The first value of a header, its name compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text, wrong UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the request was granted.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the same request may be granted later: the broker is overloaded, full or restarting.
    pub fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// Seconds after which the broker asks to be tried again (RFC 9110 section 10.2.3, the form in seconds).
    pub fn retry_after_s(&self) -> Option<u64> {
        self.header("retry-after")?.trim().parse().ok()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.text().trim() {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}

fn malformed(what: impl fmt::Display) -> Error {
    Error::Protocol(format!("not an HTTP answer: {what}"))
}

/// The headers of an answer whose head was parsed before.
fn headers_of(bytes: &[u8]) -> Vec<(String, String)> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    let _ = parsed.parse(bytes);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    parsed.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect()
}

fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

fn mentions(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    let is_token = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
    values(headers, name).any(|value| value.split(|byte| *byte == b',').any(is_token))
}

fn declared_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>, Error> {
    let Some(value) = values(headers, "content-length").next() else { return Ok(None) };
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| malformed("Content-Length is not a number"))
}

/// The body in `bytes` without its chunk framing, and the bytes it takes there (RFC 9112 section 7.1).
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let size = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((line, size))) => {
                at += line;
                usize::try_from(size).map_err(|_| malformed("a chunk is too large"))?
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(malformed("a chunk size is not a number")),
        };
        if size == 0 {
            return Ok(end_of_trailers(&bytes[at..]).map(|trailers| (body, at + trailers)));
        }
        let Some(chunk) = at.checked_add(size).and_then(|end| bytes.get(at..end)) else { return Ok(None) };
        match bytes.get(at + size..at + size + 2) {
            Some(b"\r\n") => body.extend_from_slice(chunk),
            Some(_) => return Err(malformed("a chunk is longer than its size says")),
            None => return Ok(None),
        }
        at += size + 2;
    }
}

/// Bytes up to and including the empty line that ends the trailers.
fn end_of_trailers(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") {
        return Some(2);
    }
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> (Answer, usize, bool) {
        Answer::parse(bytes, false).unwrap().expect("a complete answer")
    }

    #[test]
    fn every_prefix_of_an_answer_asks_for_more() {
        for answer in [
            &b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"[..],
            b"HTTP/1.1 422 Unprocessable Content\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\n/a: b",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\n",
        ] {
            for end in 0..answer.len() {
                assert_eq!(Answer::parse(&answer[..end], false).unwrap(), None, "{end} bytes");
            }
            let mut followed = answer.to_vec();
            followed.extend_from_slice(b"HTTP/1.1 ");
            let (_, taken, keep_alive) = whole(&followed);
            assert_eq!((taken, keep_alive), (answer.len(), true));
        }
    }

    #[test]
    fn chunks_are_joined_and_their_framing_is_dropped() {
        let answer =
            whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").0;
        assert_eq!(answer.text(), "abcde");
    }

    #[test]
    fn a_body_without_a_length_goes_to_the_end_of_the_connection() {
        let bytes = b"HTTP/1.1 400 Bad Request\r\n\r\nno certificate";
        assert_eq!(Answer::parse(bytes, false).unwrap(), None);
        let (answer, _, keep_alive) = Answer::parse(bytes, true).unwrap().unwrap();
        assert_eq!((answer.to_string().as_str(), keep_alive), ("400: no certificate", false));
    }

    #[test]
    fn connection_close_and_http_1_0_end_the_connection() {
        assert!(!whole(b"HTTP/1.1 202 A\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n").2);
        assert!(!whole(b"HTTP/1.0 202 A\r\nContent-Length: 0\r\n\r\n").2);
    }

    #[test]
    fn nonsense_is_an_error_and_not_a_wait() {
        for bytes in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(matches!(Answer::parse(bytes, false), Err(Error::Protocol(_))));
        }
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'a'; HEAD_BYTES_MAX]].concat();
        assert!(Answer::parse(&endless, false).is_err());
    }

    #[test]
    fn header_names_are_found_in_any_case() {
        let answer = whole(b"HTTP/1.1 503 Busy\r\nretry-AFTER: 7\r\nContent-Length: 0\r\n\r\n").0;
        assert_eq!((answer.retry_after_s(), answer.is_transient()), (Some(7), true));
    }
}

//! From the bytes of a head to a request without its body, and what the head says of the body's length.

use super::{Error, Exchange};
use crate::http::headers::Field;
use crate::http::{Headers, Method, Request, Version};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most header fields of a request.
pub const HEADERS_MAX: usize = 100;
/// Most bytes of a request target. A longer one is malformed rather than 414: no endpoint has anything like it.
pub const TARGET_BYTES_MAX: usize = 8 << 10;

/// How the end of a body is found (RFC 9112, 6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks up to an empty one.
    Chunked,
}

/// A checked head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The request, its body still empty.
    pub request: Request,
    pub framing: Framing,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// How the response is to be encoded.
    pub exchange: Exchange,
}

impl Head {
    /// Reads a head that ends with its empty line.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let line = parse_fields(bytes)?;
        check_host(line.version, &line.headers)?;
        let (path, query) = read_target(line.method, &line.target, &line.headers)?;
        let framing = read_framing(line.version, &line.headers)?;
        let expects_continue = read_expectation(line.version, &line.headers)? && framing != Framing::None;
        let Fields { method, version, headers, .. } = line;
        let exchange = Exchange::new(method, version, &headers);
        let request = Request { method, path, query, headers, body: Vec::new(), version };
        Ok(Self { request, framing, expects_continue, exchange })
    }
}

/// A head split into its parts, nothing but the syntax checked.
struct Fields {
    method: Method,
    target: String,
    version: Version,
    headers: Headers,
}

/// Lets httparse find the parts. It refuses folded lines, white space before a colon, control characters and names that are
/// not tokens; that lines end in CRLF was checked before, since it would take a bare LF.
fn parse_fields(bytes: Vec<u8>) -> Result<Fields, Error> {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&bytes, &mut slots) {
        Ok(httparse::Status::Complete(used)) if used == bytes.len() => {}
        Ok(_) => return Err(Error::Malformed("an empty line where the request line was expected")),
        Err(error) => return Err(reason(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Error::Malformed("the request line is incomplete"));
    };
    let place = |part: &[u8]| range_in(&bytes, part);
    let fields =
        parsed.headers.iter().map(|h| Field::new(place(h.name.as_bytes()), place(h.value))).collect();
    let (method, target) = (Method::of(method), target.to_owned());
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    Ok(Fields { method, target, version, headers: Headers::from_block(bytes, fields) })
}

/// Where `part`, which was cut out of `whole`, lies in it.
fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    match start + part.len() <= whole.len() {
        true => start..start + part.len(),
        // An empty value need not point anywhere.
        false => 0..0,
    }
}

fn reason(error: httparse::Error) -> Error {
    match error {
        httparse::Error::TooManyHeaders => Error::TooManyHeaders,
        httparse::Error::HeaderName => {
            Error::Malformed("a header name is not a token followed by a colon, or a header line is folded")
        }
        httparse::Error::HeaderValue => Error::Malformed("a header value holds a control character"),
        httparse::Error::Version => Error::Malformed("the protocol version is not HTTP/1.0 or HTTP/1.1"),
        httparse::Error::NewLine => Error::Malformed("a line does not end in CRLF"),
        httparse::Error::Token | httparse::Error::Status => {
            Error::Malformed("the request line is not METHOD SP TARGET SP VERSION")
        }
    }
}

/// Exactly one `Host`, at most one in HTTP/1.0 (RFC 9112, 3.2).
pub(in crate::http) fn check_host(version: Version, headers: &Headers) -> Result<(), Error> {
    match headers.get_once("host") {
        Err(_) => Err(Error::Malformed("more than one Host header")),
        Ok(None) if version == Version::Http10 => Ok(()),
        Ok(None) => Err(Error::Malformed("the Host header is missing")),
        Ok(Some(host)) if is_authority(host) => Ok(()),
        Ok(Some(_)) => Err(Error::Malformed("the Host header is not host[:port]")),
    }
}

/// A host name, an IPv4 or a bracketed IPv6 address, with an optional port. Sub-delimiters, which RFC 3986 would allow, stand
/// in no real host name and are how lists and user names are smuggled in.
fn is_authority(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~:[]%".contains(b))
}

/// Path and query of a target in origin-form, absolute-form or asterisk-form (RFC 9112, 3.2).
fn read_target(method: Method, target: &str, headers: &Headers) -> Result<(String, Option<String>), Error> {
    check_target(target)?;
    match target {
        _ if method == Method::Connect => Err(Error::Malformed("CONNECT is not for this server")),
        "*" if method == Method::Options => Ok(("*".to_owned(), None)),
        origin if origin.starts_with('/') => Ok(split_query(origin)),
        absolute => read_absolute(absolute, headers),
    }
}

/// Checks the length and the characters of a target.
pub(in crate::http) fn check_target(target: &str) -> Result<(), Error> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(Error::Malformed("the request target exceeds 8192 bytes"));
    }
    match target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        true => Ok(()),
        false => Err(Error::Malformed("the request target holds a character that must be percent-encoded")),
    }
}

/// An absolute target must name the same host as `Host`: which of two wins is what smuggling is made of.
fn read_absolute(target: &str, headers: &Headers) -> Result<(String, Option<String>), Error> {
    let malformed = Error::Malformed("the request target is neither a path nor an http(s) URL");
    let (scheme, rest) = target.split_once("://").ok_or(malformed)?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return Err(malformed);
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !is_authority(authority.as_bytes()) {
        return Err(malformed);
    }
    match headers.get("host") {
        Some(host) if !host.eq_ignore_ascii_case(authority.as_bytes()) => {
            Err(Error::Malformed("the request target and the Host header name different hosts"))
        }
        _ if rest.starts_with('/') => Ok(split_query(rest)),
        _ => Ok(split_query(&format!("/{rest}"))),
    }
}

pub(in crate::http) fn split_query(target: &str) -> (String, Option<String>) {
    match target.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (target.to_owned(), None),
    }
}

/// What `Transfer-Encoding` and `Content-Length` say, which must not be both (RFC 9112, 6.1 and 6.3).
fn read_framing(version: Version, headers: &Headers) -> Result<Framing, Error> {
    let encoding = headers.get_once("transfer-encoding");
    let length = headers.get_once("content-length");
    match (encoding, length) {
        (Ok(None), Ok(None)) => Ok(Framing::None),
        (Ok(None), Ok(Some(digits))) => read_length(digits),
        (Ok(None), Err(_)) => Err(Error::Malformed("more than one Content-Length header")),
        (Ok(Some(_)) | Err(_), Ok(Some(_)) | Err(_)) => {
            Err(Error::Malformed("both Transfer-Encoding and Content-Length"))
        }
        (Err(_), Ok(None)) => Err(Error::Malformed("more than one Transfer-Encoding header")),
        (Ok(Some(coding)), Ok(None)) => read_coding(version, coding),
    }
}

fn read_coding(version: Version, coding: &[u8]) -> Result<Framing, Error> {
    if version == Version::Http10 {
        return Err(Error::Malformed("Transfer-Encoding in an HTTP/1.0 request"));
    }
    match coding.eq_ignore_ascii_case(b"chunked") {
        true => Ok(Framing::Chunked),
        false => Err(Error::Malformed("the only known Transfer-Encoding is chunked")),
    }
}

/// Plain digits, of which 18 are enough for anything: no sign, no list, no white space.
fn read_length(digits: &[u8]) -> Result<Framing, Error> {
    let plain = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !plain {
        return Err(Error::Malformed("Content-Length is not a plain number"));
    }
    let length = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Ok(if length == 0 { Framing::None } else { Framing::Length(length) })
}

/// Whether the client waits for `100 Continue`. An HTTP/1.0 client cannot (RFC 9110, 10.1.1).
pub(in crate::http) fn read_expectation(version: Version, headers: &Headers) -> Result<bool, Error> {
    if version == Version::Http10 {
        return Ok(false);
    }
    let mut expectations = headers.tokens("expect").peekable();
    let any = expectations.peek().is_some();
    match expectations.all(|expectation| expectation.eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(any),
        false => Err(Error::Expectation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Head, Error> {
        Head::parse(head.replace('\n', "\r\n").into_bytes())
    }

    fn target(line: &str) -> Option<(String, Option<String>)> {
        let request = parse(&format!("{line} HTTP/1.1\nHost: broker:8443\n\n")).ok()?.request;
        Some((request.path, request.query))
    }

    #[test]
    fn a_head_is_read_into_a_request() {
        let head = parse("POST /ce/produce/raw?a=1?b HTTP/1.1\nhost: [::1]:8443\nCE-Id:  x y \t\nEmpty:\n\n")
            .unwrap();
        let request = &head.request;
        assert_eq!((request.method, request.version), (Method::Post, Version::Http11));
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/ce/produce/raw", Some("a=1?b")));
        assert_eq!(request.headers.get("ce-id"), Some(&b"x y"[..]));
        assert_eq!(request.headers.get("empty"), Some(&b""[..]));
        assert_eq!((head.framing, head.expects_continue), (Framing::None, false));
    }

    #[test]
    fn every_form_of_target_is_read_the_same_way() {
        let expected = Some(("/a".to_owned(), Some("b".to_owned())));
        assert_eq!(target("GET /a?b"), expected);
        assert_eq!(target("GET https://broker:8443/a?b"), expected);
        assert_eq!(target("GET HTTP://BROKER:8443/a?b"), expected);
        assert_eq!(target("GET https://broker:8443?b"), Some(("/".to_owned(), Some("b".to_owned()))));
        assert_eq!(target("GET https://broker:8443"), Some(("/".to_owned(), None)));
        assert_eq!(target("OPTIONS *"), Some(("*".to_owned(), None)));
    }

    #[test]
    fn targets_of_doubtful_meaning_are_refused() {
        for line in [
            "GET *",
            "GET broker:8443",
            "CONNECT broker:8443",
            "GET https://evil/a",
            "GET https://user@broker:8443/a",
            "GET ftp://broker:8443/a",
            "GET /a#b",
            "GET /\u{e9}",
            "GET https:///a",
        ] {
            assert_eq!(target(line), None, "{line}");
        }
        assert_eq!(target(&format!("GET /{}", "a".repeat(TARGET_BYTES_MAX))), None);
        assert!(target(&format!("GET /{}", "a".repeat(TARGET_BYTES_MAX - 1))).is_some());
    }

    #[test]
    fn the_number_of_headers_is_limited() {
        let with = |count: usize| format!("GET / HTTP/1.1\nHost: a\n{}\n", "a: b\n".repeat(count - 1));
        assert!(parse(&with(HEADERS_MAX)).is_ok());
        assert_eq!(parse(&with(HEADERS_MAX + 1)), Err(Error::TooManyHeaders));
    }

    #[test]
    fn only_a_known_expectation_is_taken() {
        let with = |expect: &str| {
            parse(&format!("PUT / HTTP/1.1\nHost: a\nContent-Length: 1\nExpect: {expect}\n\n"))
        };
        assert!(with("100-Continue").unwrap().expects_continue);
        assert_eq!(with("100-continue, x").unwrap_err(), Error::Expectation);
        let bodiless = parse("PUT / HTTP/1.1\nHost: a\nExpect: 100-continue\n\n").unwrap();
        assert!(!bodiless.expects_continue);
        let old = parse("PUT / HTTP/1.0\nContent-Length: 1\nExpect: 100-continue\n\n").unwrap();
        assert!(!old.expects_continue);
    }
}

//! Heads of HTTP/2 (RFC 9113): from the fields of a request stream to a [`Request`], and from a [`Response`] to its fields.
//!
//! Frames, header compression and flow control are the business of the crate `h2`, which also refuses what RFC 9113 calls
//! malformed: connection-specific fields, upper-case names, lengths that do not fit. What is left to check is what HTTP/1.1
//! checks too.

use super::h1::{Error, HEADERS_MAX, check_host, check_target, read_expectation, split_query};
use super::{Headers, Method, Request, Response, Version};
use ::http::header::{CONTENT_LENGTH, COOKIE, DATE, HOST, HeaderMap, HeaderName, HeaderValue};
use ::http::request::Parts;
use ::http::{StatusCode, Uri};

/// The `:protocol` of RFC 8441 for a WebSocket, the only one that is known.
pub const WEB_SOCKET: &str = "websocket";

/// Fields that are about one HTTP/1.1 connection and must not stand in HTTP/2 (RFC 9113, 8.2.2).
const OF_CONNECTION: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// A checked head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The request, its body still empty. `CONNECT` means that the stream is to become a WebSocket.
    pub request: Request,
    /// What `Content-Length` promises.
    pub length: Option<u64>,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects_continue: bool,
}

impl Head {
    /// Reads the head of a stream; `protocol` is its `:protocol` (RFC 8441, 4).
    pub fn read(parts: &Parts, protocol: Option<&str>) -> Result<Self, Error> {
        if parts.headers.len() > HEADERS_MAX {
            return Err(Error::TooManyHeaders);
        }
        let method = Method::of(parts.method.as_str());
        check_protocol(method, protocol)?;
        let (path, query) = read_path(method, &parts.uri)?;
        let headers = read_fields(&parts.uri, &parts.headers)?;
        check_host(Version::Http2, &headers)?;
        let expects_continue = read_expectation(Version::Http2, &headers)?;
        let length = headers.get_str("content-length").and_then(|digits| digits.parse().ok());
        let request = Request { method, path, query, headers, body: Vec::new(), version: Version::Http2 };
        Ok(Self { request, length, expects_continue })
    }
}

/// A tunnel to somewhere else is not for this server, and a stream becomes nothing but a WebSocket.
fn check_protocol(method: Method, protocol: Option<&str>) -> Result<(), Error> {
    match protocol {
        None if method == Method::Connect => {
            Err(Error::Malformed("CONNECT without :protocol is not for this server"))
        }
        None | Some(WEB_SOCKET) => Ok(()),
        Some(_) => Err(Error::Malformed("the only known :protocol is websocket")),
    }
}

fn read_path(method: Method, uri: &Uri) -> Result<(String, Option<String>), Error> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    check_target(target)?;
    match target {
        "*" if method == Method::Options => Ok(("*".to_owned(), None)),
        origin if origin.starts_with('/') => Ok(split_query(origin)),
        _ => Err(Error::Malformed(":path does not begin with a slash")),
    }
}

/// The fields in order: `:authority` stands for `Host` and must agree with it (RFC 9113, 8.3.1), and the pieces of a cookie
/// are put together again (RFC 9113, 8.2.3).
fn read_fields(uri: &Uri, fields: &HeaderMap) -> Result<Headers, Error> {
    let mut headers = Headers::new();
    let authority = uri.authority().map(|authority| authority.as_str());
    if let Some(authority) = authority {
        headers.push("host", authority);
    }
    for (name, value) in fields {
        let value = value.as_bytes().trim_ascii();
        match authority {
            _ if *name == COOKIE => {}
            Some(authority) if *name == HOST => {
                if !value.eq_ignore_ascii_case(authority.as_bytes()) {
                    return Err(Error::Malformed(":authority and the Host header name different hosts"));
                }
            }
            _ => headers.push(name.as_str(), value),
        }
    }
    let crumbs: Vec<_> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        headers.push("cookie", crumbs.join(&b"; "[..]));
    }
    Ok(headers)
}

/// The head of a response with its whole body.
pub fn encode(response: &Response, date: &[u8]) -> ::http::Response<()> {
    let mut head = encode_opening(response, date);
    if !response.status.is_bodiless() {
        head.headers_mut().insert(CONTENT_LENGTH, response.body.len().into());
    }
    head
}

/// The head of a response that opens a WebSocket, which has no length (RFC 9110, 9.3.6). Whatever HTTP/1.1 says about its
/// connection is left out.
pub fn encode_opening(response: &Response, date: &[u8]) -> ::http::Response<()> {
    let mut head = ::http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = head.headers_mut();
    for (name, value) in response.headers.iter() {
        if OF_CONNECTION.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            continue;
        }
        // Names in responses are tokens, and `Headers` keeps control characters out of values.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    if let Ok(date) = HeaderValue::from_bytes(date) {
        fields.insert(DATE, date);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Status;

    fn read(request: ::http::request::Builder, protocol: Option<&str>) -> Result<Head, Error> {
        Head::read(&request.body(()).unwrap().into_parts().0, protocol)
    }

    fn post() -> ::http::request::Builder {
        ::http::Request::post("https://broker:8443/ce/produce/raw?a=1?b")
    }

    #[test]
    fn a_head_is_read_into_a_request() {
        let head = read(
            post().header("ce-id", " x y ").header("content-length", "7").header("te", "trailers"),
            None,
        )
        .unwrap();
        let request = &head.request;
        assert_eq!((request.method, request.version), (Method::Post, Version::Http2));
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/ce/produce/raw", Some("a=1?b")));
        assert_eq!(request.headers.get("Host"), Some(&b"broker:8443"[..]));
        assert_eq!(request.headers.get("ce-id"), Some(&b"x y"[..]));
        assert_eq!((head.length, head.expects_continue), (Some(7), false));
    }

    #[test]
    fn host_stands_in_for_authority_and_must_agree_with_it() {
        let host_of = |request: ::http::request::Builder| {
            read(request, None).map(|head| head.request.headers.get_str("host").map(str::to_owned))
        };
        assert_eq!(host_of(post().header("host", "BROKER:8443")), Ok(Some("broker:8443".into())));
        assert_eq!(host_of(::http::Request::get("/a").header("host", "b")), Ok(Some("b".into())));
        for wrong in [
            post().header("host", "other"),
            ::http::Request::get("/a"),
            ::http::Request::get("https://user@broker/a"),
            ::http::Request::get("/a").header("host", "a").header("host", "b"),
        ] {
            assert!(matches!(host_of(wrong), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn connect_is_for_web_sockets_only() {
        let connect = || ::http::Request::connect("https://broker/ce/consume/ws?group=g");
        let request = read(connect(), Some("websocket")).unwrap().request;
        assert_eq!((request.method, request.path.as_str()), (Method::Connect, "/ce/consume/ws"));
        for protocol in [None, Some("connect-udp"), Some("WebSocket")] {
            assert!(matches!(read(connect(), protocol), Err(Error::Malformed(_))), "{protocol:?}");
        }
        assert!(matches!(read(::http::Request::connect("broker:1"), None), Err(Error::Malformed(_))));
    }

    #[test]
    fn what_http1_refuses_is_refused_too() {
        let long = format!("https://broker/{}", "a".repeat(9000));
        for target in ["https://broker/\u{e9}", long.as_str()] {
            if let Ok(uri) = target.parse::<Uri>() {
                assert!(matches!(read(::http::Request::get(uri), None), Err(Error::Malformed(_))));
            }
        }
        assert!(matches!(read(::http::Request::get("*"), None), Err(Error::Malformed(_))));
        assert!(read(::http::Request::options("*").header("host", "b"), None).is_ok());
        assert_eq!(read(post().header("expect", "miracles"), None), Err(Error::Expectation));
        assert!(read(post().header("expect", "100-Continue"), None).unwrap().expects_continue);
        let many = (0..=HEADERS_MAX).fold(post(), |post, n| post.header(format!("x-{n}"), "1"));
        assert_eq!(read(many, None), Err(Error::TooManyHeaders));
    }

    #[test]
    fn the_pieces_of_a_cookie_are_put_together() {
        let head =
            read(post().header("cookie", "a=b").header("x", "y").header("cookie", "c=d"), None).unwrap();
        assert_eq!(head.request.headers.get_once("cookie"), Ok(Some(&b"a=b; c=d"[..])));
    }

    #[test]
    fn a_response_says_nothing_about_a_connection() {
        let response = Response::text(Status::UPGRADE_REQUIRED, "no")
            .with_header("Upgrade", "websocket")
            .with_header("Connection", "Upgrade")
            .with_header("Retry-After", "5")
            .closing();
        let head = encode(&response, b"Sun, 06 Nov 1994 08:49:37 GMT");
        let names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(head.status(), 426);
        assert_eq!(names, ["content-type", "retry-after", "date", "content-length"]);
        assert_eq!(head.headers()["content-length"], "2");
    }

    #[test]
    fn no_content_and_a_web_socket_have_no_length() {
        assert!(!encode(&Response::new(Status::NO_CONTENT), b"").headers().contains_key(CONTENT_LENGTH));
        assert_eq!(encode(&Response::new(Status::ACCEPTED), b"").headers()[CONTENT_LENGTH], "0");
        assert!(!encode_opening(&Response::new(Status::OK), b"").headers().contains_key(CONTENT_LENGTH));
    }
}

//! A whole response, whichever version of HTTP will carry it.

use super::Headers;
use std::borrow::Cow;
use std::fmt;

/// A status code from 100 to 599.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Status(pub u16);

/// A response. `Content-Length`, `Date` and `Connection` are the encoder's business and must not be in `headers`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    pub status: Status,
    pub headers: Headers,
    pub body: Cow<'static, [u8]>,
    /// End the connection after this response, for instance because the request's body was not read.
    pub close: bool,
}

impl Status {
    pub const SWITCHING_PROTOCOLS: Self = Self(101);
    pub const OK: Self = Self(200);
    pub const CREATED: Self = Self(201);
    pub const ACCEPTED: Self = Self(202);
    pub const NO_CONTENT: Self = Self(204);
    pub const NOT_MODIFIED: Self = Self(304);
    pub const BAD_REQUEST: Self = Self(400);
    pub const UNAUTHORIZED: Self = Self(401);
    pub const NOT_FOUND: Self = Self(404);
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    pub const REQUEST_TIMEOUT: Self = Self(408);
    pub const CONTENT_TOO_LARGE: Self = Self(413);
    pub const EXPECTATION_FAILED: Self = Self(417);
    pub const UNPROCESSABLE_CONTENT: Self = Self(422);
    pub const UPGRADE_REQUIRED: Self = Self(426);
    pub const TOO_MANY_REQUESTS: Self = Self(429);
    pub const HEADER_FIELDS_TOO_LARGE: Self = Self(431);
    pub const INTERNAL_SERVER_ERROR: Self = Self(500);
    pub const SERVICE_UNAVAILABLE: Self = Self(503);

    /// The reason phrase of RFC 9110, 15 and RFC 6585; empty for a code the broker never sends.
    pub fn reason(self) -> &'static str {
        match self.0 {
            101 => "Switching Protocols",
            200 => "OK",
            201 => "Created",
            202 => "Accepted",
            204 => "No Content",
            304 => "Not Modified",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            413 => "Content Too Large",
            417 => "Expectation Failed",
            422 => "Unprocessable Content",
            426 => "Upgrade Required",
            429 => "Too Many Requests",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "",
        }
    }

    /// Whether a response of this status never has a body nor a `Content-Length` (RFC 9110, 8.6).
    pub fn is_bodiless(self) -> bool {
        self.0 < 200 || matches!(self.0, 204 | 304)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

impl Response {
    /// A response without headers and body. Allocates nothing.
    pub const fn new(status: Status) -> Self {
        Self { status, headers: Headers::new(), body: Cow::Borrowed(&[]), close: false }
    }

    /// A `text/plain; charset=utf-8` response.
    pub fn text(status: Status, body: impl Into<Cow<'static, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(status).with_body("text/plain; charset=utf-8", body)
    }

    /// Sets the body and its `Content-Type`.
    pub fn with_body(mut self, content_type: &str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.headers.push("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// Adds a header field. Control characters in the value become `?`.
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Ends the connection after this response.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_status_has_a_reason() {
        for code in
            [101, 200, 201, 202, 204, 304, 400, 401, 404, 405, 408, 413, 417, 422, 426, 429, 431, 500, 503]
        {
            assert_ne!(Status(code).reason(), "", "{code}");
        }
        assert_eq!(Status::UNPROCESSABLE_CONTENT.to_string(), "422 Unprocessable Content");
    }

    #[test]
    fn a_text_response_says_its_charset() {
        let response = Response::text(Status::NOT_FOUND, "no such path");
        assert_eq!(response.headers.get_str("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(&*response.body, b"no such path");
    }
}

//! A whole request, whichever version of HTTP carried it.

use super::Headers;
use std::fmt;

/// Request methods that mean something to the broker. Routing answers 405 to what a path does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    Connect,
    /// Any other token: method names are an open set (RFC 9110, 9.1).
    Other,
}

/// The protocol version of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

/// A request. The body is empty until it has been read whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Path as sent, percent-encoding kept; begins with `/`, or is `*` for `OPTIONS *`.
    pub path: String,
    /// What follows the first `?` of the target, without it. Decode it with [`super::query::Query`].
    pub query: Option<String>,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub version: Version,
}

impl Method {
    /// The method of a token; methods are case-sensitive.
    pub fn of(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// The token of the method; `OTHER` for one that is not known.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Other => "OTHER",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Shows the size of the body and not its content: a request may end in a log, payloads must not.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.len())
            .field("version", &self.version)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive_and_round_trip() {
        for name in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"] {
            assert_eq!(Method::of(name).name(), name);
        }
        assert_eq!((Method::of("get"), Method::of("PURGE")), (Method::Other, Method::Other));
    }

    #[test]
    fn a_printed_request_does_not_show_its_payload() {
        let request = Request {
            method: Method::Post,
            path: "/ce/produce/raw".into(),
            query: None,
            headers: Headers::new(),
            body: b"secret".to_vec(),
            version: Version::Http11,
        };
        let printed = format!("{request:?}");
        assert!(printed.contains("body_bytes: 6") && !printed.contains("secret") && !printed.contains("115"));
    }
}

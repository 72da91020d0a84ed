//! Writing responses.

use crate::http::date::HttpDate;
use crate::http::{Headers, Method, Response, Status, Version};

/// The interim response that asks a client for the body it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a request decides about the encoding of its response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// The request was `HEAD`: the response tells the length of its body and leaves it out.
    head_only: bool,
    /// The request came by HTTP/1.0, where staying open must be said.
    old: bool,
    /// The client lets the connection stay open.
    keep_alive: bool,
}

impl Exchange {
    /// Persistence by RFC 9112, 9.3: HTTP/1.1 stays open unless told otherwise, HTTP/1.0 only if told so.
    pub(super) fn new(method: Method, version: Version, headers: &Headers) -> Self {
        let old = version == Version::Http10;
        let keep_alive = !headers.has_token("connection", "close")
            && (!old || headers.has_token("connection", "keep-alive"));
        Self { head_only: method == Method::Head, old, keep_alive }
    }

    /// For the answer to what could not be read as a request.
    pub const fn refused() -> Self {
        Self { head_only: false, old: false, keep_alive: false }
    }

    /// Whether the connection stays open after `response`.
    pub fn keeps_alive(self, response: &Response) -> bool {
        self.keep_alive && !response.close
    }

    /// Appends the response to `out`.
    pub fn encode(self, response: &Response, date: &mut HttpDate, unix_s: u64, out: &mut Vec<u8>) {
        let body = self.body_of(response);
        out.reserve(256 + body.len());
        self.encode_head(response, date, unix_s, out);
        out.extend_from_slice(body);
    }

    /// What follows the head of the response.
    pub fn body_of(self, response: &Response) -> &[u8] {
        if self.head_only || response.status.is_bodiless() { &[] } else { &response.body }
    }

    /// Appends the head alone: for those who send the body piece by piece.
    pub fn encode_head(self, response: &Response, date: &mut HttpDate, unix_s: u64, out: &mut Vec<u8>) {
        let (status, date) = (response.status, date.at(unix_s));
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(out, u64::from(status.0));
        out.push(b' ');
        out.extend_from_slice(status.reason().as_bytes());
        out.extend_from_slice(b"\r\n");
        response.headers.iter().for_each(|(name, value)| push_field(out, name, value));
        push_field(out, "Date", date);
        if !status.is_bodiless() {
            out.extend_from_slice(b"Content-Length: ");
            push_number(out, response.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        self.push_persistence(response, out);
        out.extend_from_slice(b"\r\n");
    }

    /// `Connection`, where it says anything. An upgrade has said `Connection: Upgrade` itself.
    fn push_persistence(self, response: &Response, out: &mut Vec<u8>) {
        if response.status == Status::SWITCHING_PROTOCOLS {
            return;
        }
        match self.keeps_alive(response) {
            false => push_field(out, "Connection", b"close"),
            true if self.old => push_field(out, "Connection", b"keep-alive"),
            true => {}
        }
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn encoded(exchange: Exchange, response: &Response) -> String {
        let mut out = Vec::new();
        exchange.encode(response, &mut HttpDate::default(), 784_111_777, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn exchange(method: Method, version: Version, connection: &str) -> Exchange {
        let mut headers = Headers::new();
        headers.push("Connection", connection);
        Exchange::new(method, version, &headers)
    }

    #[test]
    fn an_accepted_event_is_answered_in_few_bytes() {
        let exchange = exchange(Method::Post, Version::Http11, "");
        let text = encoded(exchange, &Response::new(Status::ACCEPTED));
        assert_eq!(text, format!("HTTP/1.1 202 Accepted\r\n{DATE}Content-Length: 0\r\n\r\n"));
    }

    #[test]
    fn a_head_request_gets_the_length_without_the_body() {
        let exchange = exchange(Method::Head, Version::Http11, "");
        let text = encoded(exchange, &Response::text(Status::OK, "hello"));
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn no_content_has_neither_length_nor_body() {
        let exchange = exchange(Method::Get, Version::Http11, "");
        let text = encoded(exchange, &Response::new(Status::NO_CONTENT));
        assert_eq!(text, format!("HTTP/1.1 204 No Content\r\n{DATE}\r\n"));
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        let response = Response::new(Status::OK);
        for (version, connection, stays, said) in [
            (Version::Http11, "", true, None),
            (Version::Http11, "Close", false, Some("close")),
            (Version::Http11, "keep-alive, close", false, Some("close")),
            (Version::Http10, "", false, Some("close")),
            (Version::Http10, "Keep-Alive", true, Some("keep-alive")),
        ] {
            let exchange = exchange(Method::Get, version, connection);
            assert_eq!(exchange.keeps_alive(&response), stays, "{version:?} {connection:?}");
            let text = encoded(exchange, &response);
            assert_eq!(text.split("Connection: ").nth(1).map(|rest| rest.trim_end()), said);
        }
    }

    #[test]
    fn a_closing_response_says_so() {
        let exchange = exchange(Method::Get, Version::Http11, "");
        assert!(encoded(exchange, &Response::new(Status::OK).closing()).contains("Connection: close\r\n"));
        assert!(
            encoded(Exchange::refused(), &Response::new(Status::BAD_REQUEST))
                .contains("Connection: close\r\n")
        );
    }

    #[test]
    fn an_upgrade_keeps_its_own_connection_header() {
        let response = Response::new(Status::SWITCHING_PROTOCOLS).with_header("Connection", "Upgrade");
        let text = encoded(exchange(Method::Get, Version::Http11, "upgrade"), &response);
        assert_eq!(text, format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{DATE}\r\n"));
    }

    #[test]
    fn a_parser_of_responses_reads_back_what_was_written() {
        let response = Response::text(Status::NOT_FOUND, "nothing here").with_header("X-A", "b");
        let text = encoded(exchange(Method::Get, Version::Http11, ""), &response);
        let mut slots = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut slots);
        let used = parsed.parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((parsed.code, parsed.reason), (Some(404), Some("Not Found")));
        assert_eq!(&text[used..], "nothing here");
        assert_eq!(parsed.headers.len(), 4);
    }
}

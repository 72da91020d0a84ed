//! What is logged of a request, and the trace that it belongs to.
//!
//! Of a request only method, endpoint, status and caller are logged: payloads, attributes and paths that nobody knows may hold
//! personal data.

use super::{Endpoint, Peer};
use crate::broker::Core;
use crate::http::{Headers, Request, Status};
use crate::registry::model::Client;
use tracing::Level;

/// Length of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

/// The trace of a request as its `traceparent` header says (W3C Trace Context, 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trace<'a> {
    trace_id: &'a str,
    /// The caller's part of the trace.
    parent_id: &'a str,
}

/// A request that has its answer.
pub(super) struct Answered<'a> {
    pub peer: &'a Peer,
    pub request: &'a Request,
    /// Who called, when that is known.
    pub client: Option<&'a Client>,
    /// What was called, when there is such an endpoint.
    pub endpoint: Option<Endpoint>,
}

/// The line of an answered request; `tracing` wants its level as a constant.
macro_rules! line {
    ($level:expr, $answered:expr, $status:expr, $reason:expr, $message:literal) => {{
        let trace = Trace::of(&$answered.request.headers);
        tracing::event!(
            $level,
            method = $answered.request.method.name(),
            endpoint = $answered.endpoint.map(tracing::field::debug),
            status = $status.0,
            client = $answered.client.map(|client| tracing::field::display(client.id)),
            address = %$answered.peer.address,
            trace_id = trace.map(|trace| trace.trace_id),
            parent_id = trace.map(|trace| trace.parent_id),
            reason = $reason,
            $message
        );
    }};
}

/// Whether a request with this answer has its line. One client that sends nothing but mistakes must not push out the lines of
/// all others.
pub(super) fn has_line(core: &Core, status: Status) -> bool {
    match status.0 {
        ..400 => tracing::enabled!(Level::DEBUG),
        400.. => core.refusal_lines.take(core.uptime_ms() / 1000),
    }
}

impl Answered<'_> {
    /// Writes the line of the request. `stranger` says why a caller was not let in, which is about certificates and addresses.
    pub fn log(&self, status: Status, stranger: Option<&str>) {
        match status.0 {
            ..400 => line!(Level::DEBUG, self, status, stranger, "a request was answered"),
            400..500 => line!(Level::INFO, self, status, stranger, "a request was refused"),
            500.. => line!(Level::WARN, self, status, stranger, "a request failed"),
        }
    }
}

impl<'a> Trace<'a> {
    /// The trace that the headers name. What is malformed, or stands twice, is ignored as the specification asks.
    fn of(headers: &'a Headers) -> Option<Self> {
        let value = headers.get_once("traceparent").ok()??;
        Self::parse(std::str::from_utf8(value).ok()?)
    }

    /// `00-TRACE ID-PARENT ID-FLAGS`, all lower-case hexadecimal. Later versions may have more behind another hyphen.
    fn parse(text: &'a str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let mut fields = known.split('-');
        let mut field = |digits: usize| fields.next().filter(|field| is_hexadecimal(field, digits));
        let (version, trace_id, parent_id, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let ends_well = rest.is_empty() || version != "00" && rest.starts_with('-');
        (version != "ff" && ends_well && !is_zero(trace_id) && !is_zero(parent_id))
            .then_some(Self { trace_id, parent_id })
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_zero(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_names_trace_and_parent() {
        let expected = Some(Trace { trace_id: TRACE, parent_id: PARENT });
        assert_eq!(Trace::parse(&format!("00-{TRACE}-{PARENT}-01")), expected);
        assert_eq!(Trace::parse(&format!("cc-{TRACE}-{PARENT}-00")), expected);
        assert_eq!(Trace::parse(&format!("cc-{TRACE}-{PARENT}-00-what the future will be like")), expected);
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        let zeros = |digits: usize| "0".repeat(digits);
        for text in [
            "".into(),
            "00".into(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("01-{TRACE}-{PARENT}-01more"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", zeros(32)),
            format!("00-{TRACE}-{}-01", zeros(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-0g"),
            format!("00{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}é{}-01", &PARENT[1..]),
        ] {
            assert_eq!(Trace::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn two_traceparents_are_none() {
        let mut headers = Headers::new();
        headers.push("Traceparent", format!("00-{TRACE}-{PARENT}-01"));
        assert!(Trace::of(&headers).is_some());
        headers.push("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        assert_eq!(Trace::of(&headers), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-f-]{50,60}.*") {
            let _ = Trace::parse(&text);
        }
    }
}

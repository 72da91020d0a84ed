//! The opening handshake (RFC 6455, 4.2), over HTTP/2 by extended CONNECT (RFC 8441, 5).

use crate::http::{Headers, Method, Request, Response, Status, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use tungstenite::handshake::derive_accept_key;

/// The version of the protocol (RFC 6455, 4.1); there is no other.
const PROTOCOL_VERSION: &str = "13";

/// Why a request does not open a WebSocket. The client is to blame for each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A plain request to a path that speaks WebSocket only.
    NotUpgrade,
    /// Another version of the protocol.
    Version,
    /// The sub-protocol that the path speaks was not offered.
    SubProtocol(&'static str),
    /// Not a handshake as it must be; the text says what is wrong.
    Malformed(&'static str),
}

impl Refusal {
    /// The status to answer with.
    pub fn status(self) -> Status {
        match self {
            Self::NotUpgrade | Self::Version => Status::UPGRADE_REQUIRED,
            Self::SubProtocol(_) | Self::Malformed(_) => Status::BAD_REQUEST,
        }
    }

    /// The header fields that a client needs in order to do better (RFC 9110, 15.5.22; RFC 6455, 4.2.2).
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NotUpgrade => &[("Upgrade", "websocket"), ("Connection", "Upgrade")],
            Self::Version => &[("Sec-WebSocket-Version", PROTOCOL_VERSION)],
            Self::SubProtocol(_) | Self::Malformed(_) => &[],
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUpgrade => f.write_str("this path speaks WebSocket: the request must upgrade to it"),
            Self::Version => write!(f, "Sec-WebSocket-Version must be {PROTOCOL_VERSION}"),
            Self::SubProtocol(name) => write!(f, "Sec-WebSocket-Protocol must offer {name}"),
            Self::Malformed(what) => write!(f, "malformed WebSocket handshake: {what}"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Whether the request asks for a WebSocket, well or badly.
pub fn is_upgrade(request: &Request) -> bool {
    request.headers.has_token("upgrade", "websocket")
}

/// Checks the handshake and gives the response that switches the protocol. No extension is ever agreed on.
pub fn accept(request: &Request, sub_protocol: &'static str) -> Result<Response, Refusal> {
    if request.version == Version::Http2 {
        return accept_stream(request, sub_protocol);
    }
    if !is_upgrade(request) {
        return Err(Refusal::NotUpgrade);
    }
    check_request(request)?;
    check_version(&request.headers)?;
    let key = read_key(&request.headers)?;
    check_sub_protocol(&request.headers, sub_protocol)?;
    Ok(Response::new(Status::SWITCHING_PROTOCOLS)
        .with_header("Connection", "Upgrade")
        .with_header("Upgrade", "websocket")
        .with_header("Sec-WebSocket-Accept", derive_accept_key(key))
        .with_header("Sec-WebSocket-Protocol", sub_protocol))
}

/// A stream has no connection to upgrade, and `:protocol` takes the place of the key (RFC 8441, 5).
fn accept_stream(request: &Request, sub_protocol: &'static str) -> Result<Response, Refusal> {
    if request.method != Method::Connect {
        return Err(Refusal::Malformed("over HTTP/2 the method must be CONNECT, and :protocol websocket"));
    }
    check_version(&request.headers)?;
    check_sub_protocol(&request.headers, sub_protocol)?;
    Ok(Response::new(Status::OK).with_header("Sec-WebSocket-Protocol", sub_protocol))
}

fn check_sub_protocol(headers: &Headers, wanted: &'static str) -> Result<(), Refusal> {
    match headers.tokens("sec-websocket-protocol").any(|offer| offer == wanted.as_bytes()) {
        true => Ok(()),
        false => Err(Refusal::SubProtocol(wanted)),
    }
}

fn check_request(request: &Request) -> Result<(), Refusal> {
    if request.method != Method::Get {
        return Err(Refusal::Malformed("the method must be GET"));
    }
    if request.version < Version::Http11 {
        return Err(Refusal::Malformed("HTTP/1.1 is needed"));
    }
    if !request.headers.has_token("connection", "upgrade") {
        return Err(Refusal::Malformed("the Connection header must name Upgrade"));
    }
    if !request.body.is_empty() {
        return Err(Refusal::Malformed("the request must not have a body"));
    }
    Ok(())
}

fn check_version(headers: &Headers) -> Result<(), Refusal> {
    match headers.get_once("sec-websocket-version") {
        Ok(Some(version)) if version == PROTOCOL_VERSION.as_bytes() => Ok(()),
        _ => Err(Refusal::Version),
    }
}

/// The nonce of the client: 16 bytes in base64 (RFC 6455, 4.2.1).
fn read_key(headers: &Headers) -> Result<&[u8], Refusal> {
    let key = headers.get_once("sec-websocket-key").ok().flatten();
    let decoded = key.and_then(|key| STANDARD.decode(key).ok());
    match (key, decoded) {
        (Some(key), Some(decoded)) if decoded.len() == 16 => Ok(key),
        _ => Err(Refusal::Malformed("Sec-WebSocket-Key must stand once and be 16 bytes in base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("Host", "localhost"),
        ("Upgrade", "h3, WebSocket"),
        ("Connection", "keep-alive, upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Protocol", "other, cloudevents.json"),
    ];

    fn request(fields: &[(&str, &str)]) -> Request {
        let mut headers = Headers::new();
        fields.iter().for_each(|(name, value)| headers.push(name, value));
        Request {
            method: Method::Get,
            path: "/ce/consume/ws".into(),
            query: None,
            headers,
            body: Vec::new(),
            version: Version::Http11,
        }
    }

    /// The good handshake with one field changed, or taken away when there is no value.
    fn altered(name: &str, value: Option<&str>) -> Result<Response, Refusal> {
        let mut fields: Vec<_> = GOOD.iter().copied().filter(|(other, _)| *other != name).collect();
        fields.extend(value.map(|value| (name, value)));
        accept(&request(&fields), "cloudevents.json")
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_it_stands_there() {
        let response = accept(&request(GOOD), "cloudevents.json").unwrap();
        assert_eq!(response.status, Status::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers.get_str("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(response.headers.get_str("sec-websocket-protocol"), Some("cloudevents.json"));
        assert_eq!(response.headers.get_str("sec-websocket-extensions"), None);
    }

    #[test]
    fn what_is_missing_or_odd_is_refused_for_what_it_is() {
        let sub_protocol = Refusal::SubProtocol("cloudevents.json");
        for (name, value, refusal) in [
            ("Upgrade", None, Refusal::NotUpgrade),
            ("Upgrade", Some("h2c"), Refusal::NotUpgrade),
            ("Sec-WebSocket-Version", None, Refusal::Version),
            ("Sec-WebSocket-Version", Some("8"), Refusal::Version),
            ("Sec-WebSocket-Protocol", None, sub_protocol),
            ("Sec-WebSocket-Protocol", Some("CloudEvents.JSON"), sub_protocol),
        ] {
            assert_eq!(altered(name, value), Err(refusal), "{name}: {value:?}");
        }
        for (name, value) in [
            ("Connection", None),
            ("Connection", Some("close")),
            ("Sec-WebSocket-Key", None),
            ("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25j")),
            ("Sec-WebSocket-Key", Some("not base64 at all!!!!!!!")),
        ] {
            assert!(matches!(altered(name, value), Err(Refusal::Malformed(_))), "{name}: {value:?}");
        }
    }

    #[test]
    fn method_version_body_and_repeats_are_checked() {
        let refused = |change: fn(&mut Request)| {
            let mut request = request(GOOD);
            change(&mut request);
            accept(&request, "cloudevents.json").unwrap_err()
        };
        let malformed = |change| matches!(refused(change), Refusal::Malformed(_));
        assert!(malformed(|r| r.method = Method::Post));
        assert!(malformed(|r| r.version = Version::Http10));
        assert!(malformed(|r| r.body = vec![0]));
        assert!(malformed(|r| r.headers.push("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")));
        assert_eq!(refused(|r| r.headers.push("Sec-WebSocket-Version", "13")), Refusal::Version);
    }

    #[test]
    fn a_stream_needs_connect_and_no_key() {
        let accepted = |change: fn(&mut Request)| {
            let kept = ["Host", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol"];
            let fields: Vec<_> = GOOD.iter().copied().filter(|(name, _)| kept.contains(name)).collect();
            let mut request = request(&fields);
            (request.method, request.version) = (Method::Connect, Version::Http2);
            change(&mut request);
            accept(&request, "cloudevents.json")
        };
        let response = accepted(|_| {}).unwrap();
        assert_eq!(response.status, Status::OK);
        assert_eq!(response.headers.get_str("sec-websocket-protocol"), Some("cloudevents.json"));
        assert_eq!(response.headers.len(), 1);
        assert!(matches!(accepted(|r| r.method = Method::Get), Err(Refusal::Malformed(_))));
        assert_eq!(accepted(|r| r.headers.push("Sec-WebSocket-Version", "13")), Err(Refusal::Version));
        assert!(matches!(
            accepted(|r| r.headers = request(&GOOD[4..5]).headers),
            Err(Refusal::SubProtocol(_))
        ));
    }

    #[test]
    fn a_refusal_tells_how_to_do_better() {
        assert_eq!(Refusal::Version.status(), Status::UPGRADE_REQUIRED);
        assert_eq!(Refusal::Version.headers(), [("Sec-WebSocket-Version", "13")]);
        assert!(Refusal::NotUpgrade.headers().contains(&("Upgrade", "websocket")));
        assert!(Refusal::SubProtocol("cloudevents.json").to_string().contains("cloudevents.json"));
    }
}

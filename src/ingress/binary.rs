//! Events in binary mode: the payload as body, the attributes as headers (CloudEvents HTTP binding 1.0.2, 3.1).

use super::rejection::{Fault, Status};
use super::request::{Form, Produced};
use super::rules::Event;
use crate::event::attributes::{AttributeError, Attributes, Scalar};
use crate::event::json::Document;
use crate::event::media_type::MediaType;
use crate::event::payload::Payload;
use std::borrow::Cow;

/// What the content type says the body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Text,
    Bytes,
}

/// What the body of a raw request is; `None` for an event without payload.
pub(super) fn content(produced: &Produced<'_>) -> Result<Option<Content>, Fault> {
    let expected = Form::Raw.expected_content_type();
    let Some(header) = produced.content_type else {
        return match produced.body {
            [] => Ok(None),
            _ => Err(Fault::content_type(format!("is missing, expected {expected}"))),
        };
    };
    let media_type = std::str::from_utf8(header).ok().and_then(MediaType::read);
    let kinds = [
        ("application/json", Content::Json),
        ("text/plain", Content::Text),
        ("application/octet-stream", Content::Bytes),
    ];
    let known = media_type.and_then(|given| Some((given, kinds.iter().find(|(name, _)| given.is(name))?.1)));
    match known {
        None => Err(Fault::content_type(format!("must be {expected}"))),
        Some((given, Content::Json | Content::Text)) if !given.is_utf8() => {
            Err(Fault::content_type("must not name a charset other than utf-8"))
        }
        Some((_, content)) => Ok(Some(content)),
    }
}

/// Reads the event. `json` is the body read as JSON where `content` says that it is JSON.
pub(super) fn read<'a>(
    produced: &Produced<'a>,
    content: Option<Content>,
    json: Option<&'a Document<'a>>,
) -> Result<Event<'a>, Fault> {
    let mut attributes = attributes(produced)?;
    if let Some(Ok(header)) = produced.content_type.map(std::str::from_utf8) {
        attributes.set("datacontenttype".into(), Scalar::Text(header.into()))?;
    }
    attributes.check()?;
    let payload = match (content, json) {
        (None, _) => Payload::None,
        (Some(Content::Json), Some(document)) => Payload::Json(produced.body, document.root()),
        (Some(Content::Bytes), _) => Payload::Bytes(produced.body),
        (Some(_), _) => Payload::Text(text(produced.body)?),
    };
    Ok(Event { attributes, payload })
}

/// The `id` header, if it can be read.
pub(super) fn id<'a>(produced: &Produced<'a>) -> Option<Cow<'a, str>> {
    let (_, value) = produced.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("id"))?;
    decode(value)
}

fn attributes<'a>(produced: &Produced<'a>) -> Result<Attributes<'a>, Fault> {
    let mut attributes = Attributes::default();
    for (name, value) in produced.attributes {
        let name = lower_case(name);
        match &*name {
            "datacontenttype" => {
                return Err(AttributeError::new(&name, "is given by the Content-Type header").into());
            }
            "data" | "database64" => {
                return Err(AttributeError::new(&name, "is given by the body of the request").into());
            }
            repeated if attributes.has(repeated) => {
                return Err(AttributeError::new(repeated, "is given twice").into());
            }
            _ => {}
        }
        let Some(value) = decode(value) else {
            let reason = "must be UTF-8, percent-encoded as the CloudEvents HTTP binding says in 3.1.3.2";
            return Err(AttributeError::new(&name, reason).into());
        };
        attributes.set(name, Scalar::Text(value))?;
    }
    Ok(attributes)
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn text(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(body).map_err(|error| {
        Fault::data(Status::Malformed, format!("is not UTF-8 at byte {}", error.valid_up_to()))
    })
}

/// The value of a header: quotes resolved, then percent-decoded once. `None` when the result is not UTF-8, or when
/// a quote is not closed, or a percent sign is not followed by two hexadecimal digits.
fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let unquoted = match value {
        [b'"', quoted @ ..] => Cow::Owned(unquote(quoted)?),
        _ => Cow::Borrowed(value),
    };
    if !unquoted.contains(&b'%') {
        return match unquoted {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
    }
    let decoded = percent_decode(&unquoted)?;
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// What stands in a quoted string whose opening quote is gone; nothing may follow the closing one.
fn unquote(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(text),
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => {
                decoded.push(digit(*high)? << 4 | digit(*low)?);
                rest = after;
            }
            (b'%', _) => return None,
            _ => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_decoded_as_the_binding_says() {
        for (value, expected) in [
            ("plain", Some("plain")),
            ("", Some("")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro \u{20ac} \u{1f600}")),
            ("%41%2541", Some("A%41")),
            ("%c4%83", Some("ă")),
            ("raw ă", Some("raw ă")),
            ("\"quoted \\\" and \\\\\"", Some("quoted \" and \\")),
            ("\"%22\"", Some("\"")),
            ("\"\"", Some("")),
            ("a\"b\"", Some("a\"b\"")),
            ("%C0%A0", None),
            ("%ED%A0%80", None),
            ("%", None),
            ("100%", None),
            ("%4", None),
            ("%4g", None),
            ("%+1", None),
            ("\"open", None),
            ("\"end\\", None),
            ("\"a\"b", None),
            ("\"", None),
        ] {
            assert_eq!(decode(value.as_bytes()).as_deref(), expected, "{value}");
        }
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b"\xff%41"), None);
    }
}

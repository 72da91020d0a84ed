//! The delivered form of an event: canonical attributes, then the payload as produced.
//!
//! `specversion`, `source`, `id` and `type` come first, then `time`, `datacontenttype` and the other attributes, `data`
//! or `data_base64` last, and no closing brace: delivery adds `,"offset":"N"}`. Attributes have one form each, whatever
//! escapes and whitespace the producer used, so that equal attributes are equal bytes. `data` is copied.

use super::attributes::{Attributes, Scalar};
use super::payload::Payload;
use super::string;
use super::timestamp::{self, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::Range;

/// Bytes that delivery adds at most: `,"offset":"18446744073709551615"}`.
pub const OFFSET_BYTES_MAX: usize = 33;

/// Where the insides of two strings lie in the event's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    pub source: Range<usize>,
    pub id: Range<usize>,
}

/// About how many bytes [`write`] will append: never less than the payload, and right for usual attributes.
pub fn estimated_bytes(attributes: &Attributes<'_>, payload: &Payload<'_>) -> usize {
    let attributes =
        attributes.source.len() + attributes.id.len() + attributes.kind.len() + attributes.subject.len();
    payload.delivered_bytes() + attributes + 192
}

/// Appends the event to `out`. `now_ms`, in Unix milliseconds, is the `time` of an event that has none.
pub fn write(
    out: &mut Vec<u8>,
    attributes: &Attributes<'_>,
    payload: &Payload<'_>,
    now_ms: u64,
) -> Positions {
    let event = out.len();
    out.extend_from_slice(br#"{"specversion":"1.0","source":""#);
    let source = inside(out, event, &attributes.source);
    out.extend_from_slice(br#"","id":""#);
    let id = inside(out, event, &attributes.id);
    out.push(b'"');
    member(out, "type", &attributes.kind);
    write_time(out, attributes.time.as_ref(), now_ms);
    let content_type = match &*attributes.data_content_type {
        "" => payload.default_content_type().unwrap_or(""),
        given => given,
    };
    optional(out, "datacontenttype", content_type);
    optional(out, "dataschema", &attributes.data_schema);
    optional(out, "subject", &attributes.subject);
    optional(out, "partitionkey", &attributes.partition_key);
    for (name, value) in &attributes.extensions {
        extension(out, name, value);
    }
    write_payload(out, payload);
    Positions { source, id }
}

fn write_time(out: &mut Vec<u8>, time: Option<&Timestamp<'_>>, now_ms: u64) {
    match time {
        Some(time) => member(out, "time", &time.text),
        None => {
            out.extend_from_slice(b",\"time\":\"");
            out.extend_from_slice(&timestamp::utc(now_ms));
            out.push(b'"');
        }
    }
}

fn inside(out: &mut Vec<u8>, event: usize, text: &str) -> Range<usize> {
    let start = out.len() - event;
    string::write(out, text);
    start..out.len() - event
}

fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn member(out: &mut Vec<u8>, key: &str, text: &str) {
    name(out, key);
    quoted(out, text);
}

fn optional(out: &mut Vec<u8>, key: &str, text: &str) {
    if !text.is_empty() {
        member(out, key, text);
    }
}

fn extension(out: &mut Vec<u8>, key: &str, value: &Scalar<'_>) {
    match value {
        Scalar::Text(text) => member(out, key, text),
        Scalar::Boolean(value) => {
            name(out, key);
            out.extend_from_slice(if *value { b"true" } else { b"false" });
        }
        Scalar::Integer(number) => {
            name(out, key);
            out.extend_from_slice(number.to_string().as_bytes());
        }
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    string::write(out, text);
    out.push(b'"');
}

fn write_payload(out: &mut Vec<u8>, payload: &Payload<'_>) {
    match payload {
        Payload::None => {}
        Payload::Json(text, _) => {
            name(out, "data");
            out.extend_from_slice(text);
        }
        Payload::QuotedText(text) => {
            name(out, "data");
            out.extend_from_slice(text.as_bytes());
        }
        Payload::Text(text) => member(out, "data", text),
        Payload::Base64(text) => member(out, "data_base64", text),
        Payload::Bytes(bytes) => {
            name(out, "data_base64");
            out.push(b'"');
            write_base64(out, bytes);
            out.push(b'"');
        }
    }
}

fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).expect("room for padded base64 was made");
    debug_assert_eq!(start + written, out.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::Tape;

    const NOW: &str = "2024-02-29T12:34:56.789Z";
    const NOW_MS: u64 = 1_709_210_096_789;

    fn attributes() -> Attributes<'static> {
        let mut attributes = Attributes::default();
        for (name, value) in
            [("specversion", "1.0"), ("id", "i\"1"), ("source", "urn:ă"), ("type", "A.B.C.D")]
        {
            attributes.set(name.into(), Scalar::Text(value.into())).unwrap();
        }
        attributes
    }

    fn written(attributes: &Attributes<'_>, payload: &Payload<'_>) -> String {
        let mut out = b"before".to_vec();
        let positions = write(&mut out, attributes, payload, NOW_MS);
        let event = &out[6..];
        assert_eq!(&event[positions.source], "urn:ă".as_bytes());
        assert_eq!(&event[positions.id], br#"i\"1"#);
        let whole = [event, br#","offset":"18446744073709551615"}"#].concat();
        assert_eq!(whole.len() - event.len(), OFFSET_BYTES_MAX);
        serde_json::from_slice::<serde_json::Value>(&whole).unwrap();
        String::from_utf8(event.to_vec()).unwrap()
    }

    const START: &str = r#"{"specversion":"1.0","source":"urn:ă","id":"i\"1","type":"A.B.C.D","time":""#;

    #[test]
    fn attributes_stand_in_one_order_and_data_last() {
        let mut attributes = attributes();
        for (name, value) in [
            ("zeta", Scalar::Text("z\\".into())),
            ("alpha", Scalar::Boolean(true)),
            ("n", Scalar::Integer(-5)),
            ("no", Scalar::Boolean(false)),
            ("partitionkey", Scalar::Text("k".into())),
            ("subject", Scalar::Text("s".into())),
            ("dataschema", Scalar::Text("a:b".into())),
            ("datacontenttype", Scalar::Text("text/json".into())),
        ] {
            attributes.set(name.into(), value).unwrap();
        }
        attributes.time = Timestamp::read("2020-01-01t00:00:00z".into());
        let mut tape = Tape::default();
        let document = tape.read_all(b" {\"a\" : 1.00}\n").unwrap();
        let payload = Payload::Json(b" {\"a\" : 1.00}\n", document.root());
        let rest = r#"2020-01-01T00:00:00Z","datacontenttype":"text/json","dataschema":"a:b","subject":"s","partitionkey":"k","zeta":"z\\","alpha":true,"n":-5,"no":false,"data": {"a" : 1.00}"#;
        assert_eq!(written(&attributes, &payload), format!("{START}{rest}\n"));
    }

    #[test]
    fn every_kind_of_payload_names_its_content_type() {
        let mut tape = Tape::default();
        let document = tape.read_all(b"null").unwrap();
        for (payload, rest) in [
            (Payload::None, ""),
            (Payload::Json(b"null", document.root()), r#","datacontenttype":"application/json","data":null"#),
            (Payload::QuotedText(r#""a\/b""#), r#","datacontenttype":"text/plain","data":"a\/b""#),
            (Payload::Text("a\n\"b\""), r#","datacontenttype":"text/plain","data":"a\n\"b\"""#),
            (
                Payload::Base64("AAE=".into()),
                r#","datacontenttype":"application/octet-stream","data_base64":"AAE=""#,
            ),
            (
                Payload::Bytes(&[0, 1]),
                r#","datacontenttype":"application/octet-stream","data_base64":"AAE=""#,
            ),
            (Payload::Bytes(&[]), r#","datacontenttype":"application/octet-stream","data_base64":"""#),
        ] {
            assert_eq!(written(&attributes(), &payload), format!("{START}{NOW}\"{rest}"));
        }
    }
}

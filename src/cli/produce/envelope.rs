//! A payload dressed as a CloudEvent in the JSON format.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The attributes that all payloads of a run share.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    pub source: String,
    pub event_type: String,
    pub subject: Option<String>,
    pub partition_key: Option<String>,
    pub content_type: String,
    pub extensions: BTreeMap<String, String>,
}

/// The members in the order in which they are written.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    source: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitionkey: Option<&'a str>,
    #[serde(flatten)]
    extensions: &'a BTreeMap<String, String>,
    datacontenttype: &'a str,
    #[serde(flatten)]
    data: Data<'a>,
}

/// How the payload is carried (CloudEvents JSON format section 3.1).
#[derive(Serialize)]
enum Data<'a> {
    #[serde(rename = "data")]
    Text(&'a str),
    #[serde(rename = "data_base64")]
    Base64(String),
}

impl Envelope {
    /// The event with `payload` in it, or why the payload is not what the content type says.
    pub fn wrap(&self, id: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        if self.is_json() {
            let json =
                serde_json::from_slice::<&RawValue>(payload).map_err(|error| format!("not JSON: {error}"))?;
            return Ok(self.with_json(id, json));
        }
        let data = if self.is_text() {
            Data::Text(std::str::from_utf8(payload).map_err(|error| format!("not UTF-8: {error}"))?)
        } else {
            Data::Base64(STANDARD.encode(payload))
        };
        Ok(self.serialize(id, data))
    }

    /// JSON payloads are put in byte for byte: a number must not be written anew.
    fn with_json(&self, id: &str, json: &RawValue) -> Vec<u8> {
        let mut event = self.serialize(id, Data::Text(""));
        event.truncate(event.len() - "\"\"}".len());
        event.extend_from_slice(json.get().as_bytes());
        event.push(b'}');
        event
    }

    fn serialize(&self, id: &str, data: Data<'_>) -> Vec<u8> {
        let event = Event {
            specversion: "1.0",
            source: &self.source,
            id,
            event_type: &self.event_type,
            subject: self.subject.as_deref(),
            partitionkey: self.partition_key.as_deref(),
            extensions: &self.extensions,
            datacontenttype: &self.content_type,
            data,
        };
        serde_json::to_vec(&event).expect("strings serialise")
    }

    fn is_json(&self) -> bool {
        let media = self.media();
        media == "application/json" || media.ends_with("+json")
    }

    fn is_text(&self) -> bool {
        self.media().starts_with("text/")
    }

    /// The media type without parameters, lower case.
    fn media(&self) -> String {
        self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(content_type: &str) -> Envelope {
        Envelope {
            source: "urn:demo".to_owned(),
            event_type: "A.B.C.D".to_owned(),
            partition_key: Some("k\"1".to_owned()),
            content_type: content_type.to_owned(),
            extensions: [("trace".to_owned(), "7".to_owned())].into(),
            ..Envelope::default()
        }
    }

    fn wrapped(content_type: &str, payload: &[u8]) -> Result<String, String> {
        envelope(content_type).wrap("1", payload).map(|event| String::from_utf8(event).unwrap())
    }

    const HEAD: &str = r#"{"specversion":"1.0","source":"urn:demo","id":"1","type":"A.B.C.D","partitionkey":"k\"1","trace":"7","datacontenttype":"#;

    #[test]
    fn json_is_put_in_byte_for_byte() {
        let payload = br#"{ "n": 1.50000000000000000000001e400, "u": "\u00e9" }"#;
        let expected =
            format!("{HEAD}\"application/json\",\"data\":{}}}", std::str::from_utf8(payload).unwrap());
        assert_eq!(wrapped("application/json", payload).unwrap(), expected);
        assert!(
            wrapped("Application/VND.x+JSON; charset=utf-8", b"[1]").unwrap().ends_with(",\"data\":[1]}")
        );
    }

    #[test]
    fn text_becomes_a_string_and_the_rest_base64() {
        assert_eq!(
            wrapped("text/plain", b"a\"b").unwrap(),
            format!("{HEAD}\"text/plain\",\"data\":\"a\\\"b\"}}")
        );
        let binary = wrapped("application/octet-stream", &[0, 255]).unwrap();
        assert_eq!(binary, format!("{HEAD}\"application/octet-stream\",\"data_base64\":\"AP8=\"}}"));
    }

    #[test]
    fn a_payload_that_is_not_what_it_is_called_is_told() {
        assert!(wrapped("application/json", b"{").unwrap_err().starts_with("not JSON"));
        assert!(wrapped("application/json", b"1 2").is_err());
        assert!(wrapped("text/plain", &[0xff]).unwrap_err().starts_with("not UTF-8"));
    }
}

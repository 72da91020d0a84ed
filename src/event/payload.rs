//! What an event carries.

use super::json::Value;
use std::borrow::Cow;

/// The content of an event, in the form in which it was produced.
#[derive(Clone)]
pub enum Payload<'a> {
    /// Nothing.
    None,
    /// A JSON value: the text to deliver, which may have whitespace around the value, and the value itself.
    Json(&'a [u8], Value<'a>),
    /// Text that came as a JSON string, quotes and escapes included.
    QuotedText(&'a str),
    /// Text as such.
    Text(&'a str),
    /// Bytes that came in standard base64 with padding.
    Base64(Cow<'a, str>),
    /// Bytes as such.
    Bytes(&'a [u8]),
}

impl Payload<'_> {
    /// The value of `datacontenttype` for an event that carries this and does not say what it is.
    ///
    /// CloudEvents leaves the attribute out for JSON; consumers that discard an event without it exist, so it is
    /// always delivered. Bytes of unknown meaning are not claimed to be JSON.
    pub fn default_content_type(&self) -> Option<&'static str> {
        match self {
            Payload::None => None,
            Payload::Json(..) => Some("application/json"),
            Payload::QuotedText(_) | Payload::Text(_) => Some("text/plain"),
            Payload::Base64(_) | Payload::Bytes(_) => Some("application/octet-stream"),
        }
    }

    /// About how many bytes the payload takes when delivered; exact but for escapes in [`Payload::Text`].
    pub fn delivered_bytes(&self) -> usize {
        match self {
            Payload::None => 0,
            Payload::Json(text, _) => text.len(),
            Payload::QuotedText(text) => text.len(),
            Payload::Text(text) => text.len() + 2,
            Payload::Base64(text) => text.len() + 2,
            Payload::Bytes(bytes) => bytes.len().div_ceil(3) * 4 + 2,
        }
    }
}

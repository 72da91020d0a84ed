//! Events in the CloudEvents JSON format 1.0.2, alone or in a batch.

use super::rejection::{Fault, Place, Status};
use super::rules::Event;
use crate::event::attributes::{AttributeError, Attributes, Scalar};
use crate::event::json::{Kind, Value};
use crate::event::media_type::MediaType;
use crate::event::payload::Payload;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;

/// Reads the event that `value` is.
pub(super) fn read(value: Value<'_>) -> Result<Event<'_>, Fault> {
    read_without(None, value)
}

/// Reads an event in the form in which consumers get it; the `offset` that delivery added is left out.
pub(super) fn read_delivered(value: Value<'_>) -> Result<Event<'_>, Fault> {
    read_without(Some("offset"), value)
}

fn read_without<'a>(left_out: Option<&str>, value: Value<'a>) -> Result<Event<'a>, Fault> {
    if value.kind() != Kind::Object {
        return Err(Fault::malformed("an event must be a JSON object"));
    }
    let (mut attributes, mut data, mut data_base64) = (Attributes::default(), None, None);
    for (name, value) in value.members() {
        let name = name.string().unwrap_or_default();
        match &*name {
            name if left_out == Some(name) => {}
            "data" => data = Some(value),
            "data_base64" => data_base64 = Some(value).filter(|value| value.kind() != Kind::Null),
            // The JSON format, 2.2: null is the same as an attribute left out.
            _ if value.kind() == Kind::Null => {}
            _ => set(&mut attributes, name, value)?,
        }
    }
    attributes.check()?;
    let payload = payload(&attributes.data_content_type, data, data_base64)?;
    Ok(Event { attributes, payload })
}

/// The `id` of what may or may not be an event.
pub(super) fn id(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.member("id")?.string()
}

fn set<'a>(
    attributes: &mut Attributes<'a>,
    name: Cow<'a, str>,
    value: Value<'a>,
) -> Result<(), AttributeError> {
    match scalar(value) {
        Some(scalar) => attributes.set(name, scalar),
        None => Err(AttributeError::new(
            &name,
            "must be a string, a boolean or an integer between -2147483648 and 2147483647",
        )),
    }
}

/// The types that the JSON format, 2.2, has for attributes.
fn scalar(value: Value<'_>) -> Option<Scalar<'_>> {
    match value.kind() {
        Kind::Plain | Kind::Escaped => value.string().map(Scalar::Text),
        Kind::True => Some(Scalar::Boolean(true)),
        Kind::False => Some(Scalar::Boolean(false)),
        Kind::Integer => value.raw().parse().ok().map(Scalar::Integer),
        Kind::Null | Kind::Decimal | Kind::Array | Kind::Object => None,
    }
}

fn payload<'a>(
    content_type: &str,
    data: Option<Value<'a>>,
    data_base64: Option<Value<'a>>,
) -> Result<Payload<'a>, Fault> {
    match (data, data_base64) {
        (None, None) => Ok(Payload::None),
        (Some(data), None) => json_or_text(content_type, data),
        (None, Some(base64)) => binary(base64),
        (Some(_), Some(_)) => Err(Fault::malformed("an event has either data or data_base64, not both")),
    }
}

/// The JSON format, 3.1: `data` of a content type that is not JSON is a string that holds the content.
fn json_or_text<'a>(content_type: &str, data: Value<'a>) -> Result<Payload<'a>, Fault> {
    let json = matches!(content_type, "" | "application/json")
        || MediaType::read(content_type).is_some_and(MediaType::is_json);
    match data.kind() {
        _ if json => Ok(Payload::Json(data.raw().as_bytes(), data)),
        Kind::Plain | Kind::Escaped => Ok(Payload::QuotedText(data.raw())),
        _ => Err(Fault::data(
            Status::Malformed,
            format!("must be a JSON string when datacontenttype is {content_type:?}, which is not JSON"),
        )),
    }
}

fn binary(value: Value<'_>) -> Result<Payload<'_>, Fault> {
    match value.string() {
        Some(text) if STANDARD.decode(&*text).is_ok() => Ok(Payload::Base64(text)),
        _ => Err(Fault {
            status: Status::Malformed,
            place: Place::Attribute("data_base64".to_owned()),
            reason: "must be a string of base64 (RFC 4648, 4) with padding".to_owned(),
        }),
    }
}

//! The context attributes of an event and the rules each must follow (CloudEvents 1.0.2, sections 3 and 4).

use super::media_type::MediaType;
use super::timestamp::Timestamp;
use fluent_uri::{Uri, UriRef};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// Attributes of one event that CloudEvents does not define.
pub const EXTENSIONS_MAX: usize = 256;

/// The value of an attribute as a request carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i32),
}

/// All attributes of one event. Of those that the broker knows, an empty string means that it was not given:
/// none of them may be empty.
#[derive(Default)]
pub struct Attributes<'a> {
    spec_version: Cow<'a, str>,
    pub source: Cow<'a, str>,
    pub id: Cow<'a, str>,
    /// The `type`.
    pub kind: Cow<'a, str>,
    pub time: Option<Timestamp<'a>>,
    pub data_content_type: Cow<'a, str>,
    pub data_schema: Cow<'a, str>,
    pub subject: Cow<'a, str>,
    pub partition_key: Cow<'a, str>,
    /// Every other attribute, in the order of the request.
    pub extensions: SmallVec<[(Cow<'a, str>, Scalar<'a>); 4]>,
}

/// A rule that an attribute breaks. The producer is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeError {
    /// The attribute's name, cut if very long.
    pub name: String,
    /// What was expected.
    pub reason: Cow<'static, str>,
}

impl AttributeError {
    /// `name` must follow the rule that `reason` states.
    pub fn new(name: &str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.chars().take(64).collect(), reason: reason.into() }
    }
}

impl fmt::Display for AttributeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute {:?} {}", self.name, self.reason)
    }
}

impl<'a> Attributes<'a> {
    /// Takes the attribute `name`, whose value and own syntax are checked here. The caller sees to it that no name
    /// comes twice.
    pub fn set(&mut self, name: Cow<'a, str>, value: Scalar<'a>) -> Result<(), AttributeError> {
        if let Scalar::Text(text) = &value {
            check_characters(&name, text)?;
        }
        match &*name {
            "time" => self.time = Some(time(string(&name, value)?)?),
            "offset" => {
                return Err(AttributeError::new(&name, "is reserved for delivery and must not be produced"));
            }
            known => match self.known(known) {
                Some(slot) => *slot = string(&name, value)?,
                None => self.extend(name, value)?,
            },
        }
        Ok(())
    }

    /// Whether `name` was set.
    pub fn has(&mut self, name: &str) -> bool {
        match name {
            "time" => self.time.is_some(),
            known => match self.known(known) {
                Some(slot) => !slot.is_empty(),
                None => self.extensions.iter().any(|(extension, _)| extension == name),
            },
        }
    }

    /// Checks what can be said once all attributes are there.
    pub fn check(&self) -> Result<(), AttributeError> {
        let required = [
            ("specversion", &self.spec_version),
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
        ];
        if let Some((name, _)) = required.iter().find(|(_, value)| value.is_empty()) {
            return Err(AttributeError::new(
                name,
                "is missing; a CloudEvent needs specversion, id, source and type",
            ));
        }
        if self.spec_version != "1.0" {
            return Err(AttributeError::new("specversion", "must be \"1.0\""));
        }
        check_content_type(&self.data_content_type)?;
        if !self.data_schema.is_empty() && Uri::parse(&*self.data_schema).is_err() {
            return Err(AttributeError::new(
                "dataschema",
                "must be an absolute URI (RFC 3986, 4.3, or with a fragment)",
            ));
        }
        Ok(())
    }

    /// Whether `source` is a URI-reference (RFC 3986, 4.1).
    pub fn source_is_uri_reference(&self) -> bool {
        UriRef::parse(&*self.source).is_ok()
    }

    /// Where the value of a known attribute other than `time` is kept.
    fn known(&mut self, name: &str) -> Option<&mut Cow<'a, str>> {
        Some(match name {
            "specversion" => &mut self.spec_version,
            "source" => &mut self.source,
            "id" => &mut self.id,
            "type" => &mut self.kind,
            "datacontenttype" => &mut self.data_content_type,
            "dataschema" => &mut self.data_schema,
            "subject" => &mut self.subject,
            "partitionkey" => &mut self.partition_key,
            _ => return None,
        })
    }

    fn extend(&mut self, name: Cow<'a, str>, value: Scalar<'a>) -> Result<(), AttributeError> {
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(sound) {
            return Err(AttributeError::new(&name, "is not an attribute name: only a-z and 0-9 may be used"));
        }
        if self.extensions.len() == EXTENSIONS_MAX {
            let reason = format!("is one too many: an event may have {EXTENSIONS_MAX} attributes of its own");
            return Err(AttributeError::new(&name, reason));
        }
        self.extensions.push((name, value));
        Ok(())
    }
}

/// The value of an attribute that is a non-empty string.
fn string<'a>(name: &str, value: Scalar<'a>) -> Result<Cow<'a, str>, AttributeError> {
    match value {
        Scalar::Text(text) if text.is_empty() => Err(AttributeError::new(name, "must not be empty")),
        Scalar::Text(text) => Ok(text),
        _ => Err(AttributeError::new(name, "must be a string")),
    }
}

fn time(text: Cow<'_, str>) -> Result<Timestamp<'_>, AttributeError> {
    Timestamp::read(text)
        .ok_or_else(|| AttributeError::new("time", "must be an RFC 3339 time such as 2026-01-31T08:30:00Z"))
}

fn check_content_type(text: &str) -> Result<(), AttributeError> {
    let known = matches!(text, "" | "application/json");
    if known || MediaType::read(text).is_some() {
        return Ok(());
    }
    Err(AttributeError::new("datacontenttype", "must be a media type such as application/json"))
}

/// Refuses what a CloudEvents string must not contain (1.0.2, section 3.1): control characters and noncharacters.
fn check_characters(name: &str, text: &str) -> Result<(), AttributeError> {
    // Looks at all bytes rather than stopping at one, as the compiler then takes many at once.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7e));
    if is_plain || !text.chars().any(is_forbidden) {
        return Ok(());
    }
    Err(AttributeError::new(name, "must not contain control characters or Unicode noncharacters"))
}

fn is_forbidden(character: char) -> bool {
    let code = character as u32;
    character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Scalar<'_> {
        Scalar::Text(value.into())
    }

    fn complete<'a>() -> Attributes<'a> {
        let mut attributes = Attributes::default();
        for (name, value) in [("specversion", "1.0"), ("id", "1"), ("source", "urn:a"), ("type", "A.B.C.D")] {
            attributes.set(name.into(), text(value)).unwrap();
        }
        attributes
    }

    fn refused<'a>(name: &'a str, value: Scalar<'a>) -> Option<String> {
        let mut attributes = complete();
        let error = attributes.set(name.into(), value).and_then(|()| attributes.check()).err()?;
        assert_eq!(error.name, name);
        Some(error.reason.into_owned())
    }

    #[test]
    fn each_required_attribute_is_missed_by_name() {
        for name in ["specversion", "id", "source", "type"] {
            let mut attributes = complete();
            *attributes.known(name).unwrap() = "".into();
            assert_eq!(attributes.check().unwrap_err().name, name);
        }
        assert_eq!(complete().check(), Ok(()));
    }

    #[test]
    fn each_known_attribute_has_its_syntax() {
        let good = [
            ("time", "2024-01-01T00:00:00+02:00"),
            ("datacontenttype", "text/plain; charset=utf-8"),
            ("dataschema", "https://example.md/schema#born"),
            ("subject", "Ștefan cel Mare / 1"),
            ("partitionkey", "k"),
            ("source", "urn:asp"),
            ("x1", ""),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        for (name, value) in good {
            assert_eq!(refused(name, text(value)), None, "{name}");
        }
        let bad = [
            ("specversion", "0.3"),
            ("specversion", "1.0.2"),
            ("time", "yesterday"),
            ("time", ""),
            ("datacontenttype", "json"),
            ("datacontenttype", "application/json\r\nX: y"),
            ("dataschema", "schema.json"),
            ("dataschema", "https://exa mple"),
            ("subject", ""),
            ("partitionkey", ""),
            ("id", ""),
            ("offset", "1"),
            ("id", "a\u{0}b"),
            ("subject", "a\nb"),
            ("x", "\u{7f}"),
            ("x", "\u{9f}"),
            ("x", "\u{fdd0}"),
            ("x", "\u{1ffff}"),
        ];
        for (name, value) in bad {
            assert!(refused(name, text(value)).is_some(), "{name} {value:?}");
        }
    }

    #[test]
    fn names_are_lower_case_letters_and_digits() {
        for name in ["Subject", "my-key", "my_key", "ключ", "", "a b", "a.b"] {
            assert!(refused(name, text("x")).is_some(), "{name}");
        }
        assert_eq!(refused("a1b2", text("x")), None);
    }

    #[test]
    fn only_extensions_may_be_something_else_than_strings() {
        for name in ["specversion", "id", "source", "type", "time", "subject", "partitionkey", "dataschema"] {
            assert_eq!(refused(name, Scalar::Integer(1)).as_deref(), Some("must be a string"), "{name}");
            assert_eq!(refused(name, Scalar::Boolean(true)).as_deref(), Some("must be a string"), "{name}");
        }
        assert_eq!(refused("retries", Scalar::Integer(i32::MIN)), None);
        assert_eq!(refused("sampled", Scalar::Boolean(false)), None);
    }

    #[test]
    fn extensions_are_limited() {
        let names: Vec<_> = (0..=EXTENSIONS_MAX).map(|n| format!("x{n}")).collect();
        let mut attributes = complete();
        for name in &names[..EXTENSIONS_MAX] {
            attributes.set(name.into(), text("")).unwrap();
        }
        let error = attributes.set((&names[EXTENSIONS_MAX]).into(), text("")).unwrap_err();
        assert_eq!(error.name, names[EXTENSIONS_MAX]);
    }

    #[test]
    fn what_was_set_is_known_to_be_there() {
        let mut attributes = complete();
        assert!(
            attributes.has("id")
                && !attributes.has("time")
                && !attributes.has("x")
                && !attributes.has("subject")
        );
        attributes.set("x".into(), Scalar::Integer(1)).unwrap();
        attributes.set("time".into(), text("2024-01-01T00:00:00Z")).unwrap();
        assert!(attributes.has("x") && attributes.has("time"));
    }

    #[test]
    fn a_source_is_a_uri_reference() {
        let sound = |source: &'static str| {
            Attributes { source: source.into(), ..complete() }.source_is_uri_reference()
        };
        assert!(sound("urn:asp") && sound("/sensors/1") && sound("https://a.md/?q#f") && sound("a%20b"));
        assert!(!sound("a b") && !sound("http://[") && !sound("ă") && !sound("%zz"));
    }
}

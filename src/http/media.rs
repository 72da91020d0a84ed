//! Media types (RFC 9110, 8.3.1): `type/subtype; name=value`.

use std::borrow::Cow;
use std::fmt;

/// A media type, borrowed from the header it stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaType<'a> {
    /// `type/subtype` as written.
    essence: &'a str,
    /// What follows the essence, checked: empty, or `; name=value` pieces.
    parameters: &'a str,
}

/// The text is not a media type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMediaType;

impl fmt::Display for NotMediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a media type of the form type/subtype; name=value")
    }
}

impl std::error::Error for NotMediaType {}

impl<'a> MediaType<'a> {
    /// Reads the whole of `text` as a media type.
    pub fn parse(text: &'a str) -> Result<Self, NotMediaType> {
        let text = text.trim_ascii();
        let (essence, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
        let essence = essence.trim_ascii_end();
        let (main, sub) = essence.split_once('/').ok_or(NotMediaType)?;
        if !is_token(main) || !is_token(sub) {
            return Err(NotMediaType);
        }
        match Parameters(parameters).all(|parameter| parameter.is_ok()) {
            true => Ok(Self { essence, parameters }),
            false => Err(NotMediaType),
        }
    }

    /// `type/subtype` as written.
    pub fn essence(&self) -> &'a str {
        self.essence
    }

    /// Whether type and subtype are these, whatever the parameters. Case does not matter.
    pub fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }

    /// Whether the content is JSON: `application/json`, `text/json` or a subtype that ends in `+json` (RFC 6839, 3.1).
    pub fn is_json(&self) -> bool {
        let ends_in = |suffix: &str| {
            let start = self.essence.len().saturating_sub(suffix.len());
            self.essence.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes())
        };
        ends_in("/json") && (self.is("application/json") || self.is("text/json")) || ends_in("+json")
    }

    /// The value of a parameter, quotes taken away. The first one counts.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        Parameters(self.parameters)
            .flatten()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    /// Whether text of this type is UTF-8: it says so, says US-ASCII, which is part of it, or says nothing.
    pub fn is_utf8(&self) -> bool {
        let names = ["utf-8", "utf8", "us-ascii"];
        self.parameter("charset")
            .is_none_or(|charset| names.iter().any(|name| charset.eq_ignore_ascii_case(name)))
    }
}

/// Walks the `; name=value` pieces of a text. Empty pieces (`;;`) are allowed (RFC 9110, 5.6.6).
pub(super) struct Parameters<'a>(pub(super) &'a str);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(&'a str, Cow<'a, str>), NotMediaType>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.0.trim_ascii_start();
            if rest.is_empty() {
                return None;
            }
            let Some(rest) = rest.strip_prefix(';') else { return Some(Err(self.fail())) };
            self.0 = rest.trim_ascii_start();
            if !self.0.is_empty() && !self.0.starts_with(';') {
                return Some(self.pair().ok_or_else(|| self.fail()));
            }
        }
    }
}

impl<'a> Parameters<'a> {
    /// Ends the walk.
    fn fail(&mut self) -> NotMediaType {
        self.0 = "";
        NotMediaType
    }

    fn pair(&mut self) -> Option<(&'a str, Cow<'a, str>)> {
        let (name, rest) = self.0.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(inside) => unquote(inside)?,
            None => {
                let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            }
        };
        let quoted = self.0[name.len() + 1..].starts_with('"');
        self.0 = rest;
        (is_token(name) && (quoted || is_token(&value))).then_some((name, value))
    }
}

/// Reads a quoted string whose opening quote was taken; returns what it says and what follows the closing quote.
fn unquote(inside: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((Cow::Owned(value), &inside[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// Whether `text` is a token (RFC 9110, 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn essence_and_parameters_are_told_apart() {
        let media = MediaType::parse(" Application/CloudEvents+JSON ; Charset=\"UTF-8\" ;; v=1").unwrap();
        assert!(media.is("application/cloudevents+json") && media.is_json() && media.is_utf8());
        assert_eq!(media.parameter("CHARSET").as_deref(), Some("UTF-8"));
        assert_eq!(media.parameter("v").as_deref(), Some("1"));
        assert_eq!(media.parameter("w"), None);
    }

    #[test]
    fn quoted_values_may_hold_separators() {
        let media = MediaType::parse(r#"a/b; x="1;\"2\""; y=3"#).unwrap();
        assert_eq!(media.parameter("x").as_deref(), Some(r#"1;"2""#));
        assert_eq!(media.parameter("y").as_deref(), Some("3"));
    }

    #[test]
    fn what_is_not_a_media_type_is_refused() {
        for text in [
            "",
            "json",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "a/b x=1",
            "a/b; x",
            "a/b; x=",
            "a/b; =1",
            "a/b; x=\"1",
            "é/b",
        ] {
            assert_eq!(MediaType::parse(text), Err(NotMediaType), "{text:?}");
        }
    }

    #[test]
    fn json_is_told_by_subtype_or_suffix() {
        for (text, json) in [
            ("application/json", true),
            ("text/JSON", true),
            ("application/problem+json", true),
            ("application/notjson", false),
            ("image/json", false),
            ("text/plain", false),
        ] {
            assert_eq!(MediaType::parse(text).unwrap().is_json(), json, "{text}");
        }
    }

    #[test]
    fn other_charsets_are_noticed() {
        assert!(!MediaType::parse("text/plain; charset=windows-1251").unwrap().is_utf8());
        assert!(MediaType::parse("text/plain").unwrap().is_utf8());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z/;= \"\\\\é]*") {
            if let Ok(media) = MediaType::parse(&text) {
                let _ = (media.parameter("a"), media.is_json());
            }
        }
    }
}

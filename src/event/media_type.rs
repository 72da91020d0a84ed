//! Media types (RFC 9110, 8.3.1), as `Content-Type` and `datacontenttype` carry them.

/// A media type that follows the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    kind: &'a str,
    subtype: &'a str,
    charset: Option<&'a str>,
}

impl<'a> MediaType<'a> {
    /// Reads `type/subtype; name=value; …`, where parameters may be empty (RFC 9110, 5.6.6). A repeated `charset` is refused,
    /// as readers differ about which one counts.
    pub fn read(text: &'a str) -> Option<Self> {
        let (essence, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        let (kind, subtype) = essence.trim_matches([' ', '\t']).split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut charset = None;
        while let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start_matches([' ', '\t']);
            if rest.is_empty() || rest.starts_with(';') {
                continue;
            }
            let (name, value, left) = parameter(rest)?;
            if name.eq_ignore_ascii_case("charset") && charset.replace(value).is_some() {
                return None;
            }
            rest = left.trim_start_matches([' ', '\t']);
        }
        rest.is_empty().then_some(Self { kind, subtype, charset })
    }

    /// Whether type and subtype are those of `essence`, written in lower case. Parameters do not count.
    pub fn is(self, essence: &str) -> bool {
        essence.split_once('/').is_some_and(|(kind, subtype)| {
            self.kind.eq_ignore_ascii_case(kind) && self.subtype.eq_ignore_ascii_case(subtype)
        })
    }

    /// Whether content of this type is JSON (CloudEvents JSON format 1.0.2, 3.1): subtype `json` or ending in `+json`.
    pub fn is_json(self) -> bool {
        let subtype = self.subtype.as_bytes();
        subtype.eq_ignore_ascii_case(b"json")
            || subtype.len() > 5 && subtype[subtype.len() - 5..].eq_ignore_ascii_case(b"+json")
    }

    /// Whether text of this type is UTF-8 as far as the type says: no charset, UTF-8, or its subset US-ASCII.
    pub fn is_utf8(self) -> bool {
        self.charset.is_none_or(|name| {
            ["utf-8", "utf8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))
        })
    }
}

/// Splits `name=value` off the start of `text`; a quoted value is returned without its quotes, escapes kept.
fn parameter(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = text.split_once('=')?;
    if !is_token(name) {
        return None;
    }
    let (value, left) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let end = closing_quote(quoted)?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => {
            let (value, left) = rest.split_at(rest.find([' ', '\t', ';']).unwrap_or(rest.len()));
            (is_token(value).then_some(value)?, left)
        }
    };
    Some((name, value, left))
}

/// Position of the quote that ends a quoted string; nothing in it may be a control character.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            0..=8 | 10..=31 | 127 => return None,
            b'"' if !escaped => return Some(at),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_spaces_and_parameters_do_not_change_the_type() {
        for text in [
            "application/json",
            "Application/JSON;charset=utf-8",
            " application/json ; x=\"a;\\\"b\" ; charset=UTF-8",
            "application/json;; charset=utf-8 ; ",
        ] {
            let read = MediaType::read(text).unwrap();
            assert!(read.is("application/json") && read.is_json() && read.is_utf8(), "{text}");
        }
    }

    #[test]
    fn json_is_told_by_the_subtype() {
        let json = |text| MediaType::read(text).unwrap().is_json();
        assert!(json("text/json") && json("application/fhir+json") && json("application/problem+JSON"));
        assert!(!json("text/plain") && !json("application/+json") && !json("application/jsonx"));
    }

    #[test]
    fn a_charset_other_than_utf_8_is_noticed() {
        assert!(!MediaType::read("text/plain; charset=\"windows-1251\"").unwrap().is_utf8());
        assert!(MediaType::read("text/plain; charset=us-ascii").unwrap().is_utf8());
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for text in [
            "",
            "json",
            "/json",
            "text/",
            "text/plain; charset",
            "text/plain;x",
            "text/plain; charset=",
            "text/plain; charset =utf-8",
            "text/plain charset=utf-8",
            "text/plain; charset=utf-8 x",
            "text/plain; charset=utf-8; charset=latin1",
            "text/plain; a=\"b",
            "text/pl ain",
            "text/plain/x",
            "text/plăin",
            "a/b, c/d",
        ] {
            assert_eq!(MediaType::read(text), None, "{text}");
        }
    }
}

//! Query strings as forms write them: `name=value` pairs joined by `&`, percent-encoded, `+` for a space.

use percent_encoding::percent_decode;
use std::fmt;

/// Longest list of parameters worth looking at; no endpoint knows a tenth of it.
const PARAMETERS_MAX: usize = 64;

/// The decoded parameters of one query string, each name once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// Why a query string cannot be used. The client is to blame for each of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueryError {
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8.
    Encoding,
    /// The same name twice: which one counts would be a guess.
    Duplicate(String),
    /// More than 64 parameters.
    TooMany,
    /// A name the endpoint does not know.
    Unknown(String),
    /// A value other than `true` and `false`.
    NotBoolean(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("the query string is not percent-encoded UTF-8"),
            Self::Duplicate(name) => write!(f, "query parameter {name:?} stands more than once"),
            Self::TooMany => write!(f, "the query string has more than {PARAMETERS_MAX} parameters"),
            Self::Unknown(name) => write!(f, "query parameter {name:?} is not known here"),
            Self::NotBoolean(name) => write!(f, "query parameter {name:?} must be true or false"),
        }
    }
}

impl std::error::Error for QueryError {}

impl Query {
    /// Decodes a raw query string. Empty pieces (`a=1&&b=2`) are skipped; a name without `=` has the empty value.
    pub fn parse(raw: &str) -> Result<Self, QueryError> {
        let mut query = Self::default();
        for piece in raw.split('&').filter(|piece| !piece.is_empty()) {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            query.insert(decode(name)?, decode(value)?)?;
        }
        Ok(query)
    }

    fn insert(&mut self, name: String, value: String) -> Result<(), QueryError> {
        if self.get(&name).is_some() {
            return Err(QueryError::Duplicate(name));
        }
        if self.pairs.len() == PARAMETERS_MAX {
            return Err(QueryError::TooMany);
        }
        self.pairs.push((name, value));
        Ok(())
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that is `true` or `false`, in any case since .NET writes `True`; `default` when it does
    /// not stand there.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, QueryError> {
        match self.get(name) {
            None => Ok(default),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(QueryError::NotBoolean(name.to_owned())),
        }
    }

    /// Fails when a parameter other than these stands in the query.
    pub fn only(&self, names: &[&str]) -> Result<(), QueryError> {
        match self.pairs.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(QueryError::Unknown(name.clone())),
        }
    }
}

/// Decodes one name or value.
fn decode(text: &str) -> Result<String, QueryError> {
    if !percent_signs_are_sound(text.as_bytes()) {
        return Err(QueryError::Encoding);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8().map_err(|_| QueryError::Encoding)?;
    Ok(decoded.into_owned())
}

/// Whether each `%` is followed by two hexadecimal digits. The decoder itself would let others stand as they are.
fn percent_signs_are_sound(text: &[u8]) -> bool {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    memchr::memchr_iter(b'%', text).all(|at| digit(at + 1) && digit(at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_decoded() {
        let query = Query::parse("group=a%20b+c&events=True&&dead=false&empty&name=%C4%83").unwrap();
        assert_eq!(query.get("group"), Some("a b c"));
        assert_eq!(query.get("empty"), Some(""));
        assert_eq!(query.get("name"), Some("ă"));
        assert_eq!((query.flag("events", false), query.flag("dead", true)), (Ok(true), Ok(false)));
        assert_eq!(query.flag("test", true), Ok(true));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (raw, error) in [
            ("a=1&a=1", QueryError::Duplicate("a".into())),
            ("a=1&%61=2", QueryError::Duplicate("a".into())),
            ("a=%", QueryError::Encoding),
            ("a=%4", QueryError::Encoding),
            ("a=%zz", QueryError::Encoding),
            ("a=%ff", QueryError::Encoding),
        ] {
            assert_eq!(Query::parse(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn unknown_names_and_odd_flags_are_named() {
        let query = Query::parse("evnets=true&test=1").unwrap();
        assert_eq!(query.only(&["events", "test"]), Err(QueryError::Unknown("evnets".into())));
        assert_eq!(query.flag("test", true), Err(QueryError::NotBoolean("test".into())));
        assert_eq!(query.only(&["evnets", "test"]), Ok(()));
    }

    #[test]
    fn too_many_parameters_are_refused() {
        let raw: Vec<_> = (0..=PARAMETERS_MAX).map(|n| format!("p{n}=")).collect();
        assert_eq!(Query::parse(&raw.join("&")), Err(QueryError::TooMany));
        assert!(Query::parse(&raw[1..].join("&")).is_ok());
    }

    proptest! {
        #[test]
        fn any_value_survives_being_encoded(value in ".*") {
            let all = percent_encoding::NON_ALPHANUMERIC;
            let raw = format!("v={}", percent_encoding::utf8_percent_encode(&value, all));
            let query = Query::parse(&raw).unwrap();
            prop_assert_eq!(query.get("v"), Some(value.as_str()));
        }

        #[test]
        fn no_text_panics(raw in ".*") {
            let _ = Query::parse(&raw);
        }
    }
}

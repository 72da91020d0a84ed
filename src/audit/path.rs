//! JSON paths (RFC 9535) into the `data` of an event.
//!
//! A path that names one place (RFC 9535, 2.3.5.1 calls it singular) is walked in the text of the event itself. Any other one is
//! asked of a decoded copy, so paths whose cost could grow faster than the event are refused when they are read.

use crate::event::json::{Kind, Value};
use serde_json_path::JsonPath;
use std::fmt;

/// Longest path.
const PATH_BYTES_MAX: usize = 512;
/// Commas outside of quotes: each can double the number of places that a path names.
const COMMAS_MAX: usize = 4;
/// Longest value that is taken for a person's number, a basis or a reason.
pub const VALUE_BYTES_MAX: usize = 1024;

/// A path that is known to be sound.
#[derive(Clone, PartialEq)]
pub struct Path {
    text: String,
    walk: Walk,
}

#[derive(Clone, PartialEq)]
enum Walk {
    /// Step by step to one place.
    Steps(Vec<Step>),
    /// To any number of places.
    Query(JsonPath),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Member(String),
    /// From the end when negative.
    Element(i64),
}

/// Why a text is no path that can be used.
#[derive(Debug, PartialEq, Eq)]
pub struct PathError {
    /// The character that is wrong, from 0.
    pub at: usize,
    pub message: String,
}

/// The places that a path leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The texts, numbers and truth values, in document order.
    pub values: Vec<String>,
    /// Places with anything else: null, an array, an object, an empty or a very long text.
    pub unusable: usize,
}

impl Path {
    /// Reads a path.
    pub fn read(text: &str) -> Result<Self, PathError> {
        let query = JsonPath::parse(text).map_err(|error| PathError {
            at: error.position(),
            message: format!("\"{text}\" is no JSON path as of RFC 9535; expected one such as $.person.idnp"),
        })?;
        let walk = match steps(text) {
            Some(steps) => Walk::Steps(steps),
            None => Walk::Query(query),
        };
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError { at: 0, message: format!("longer than {PATH_BYTES_MAX} bytes") });
        }
        if let Walk::Query(_) = walk {
            affordable(text)?;
        }
        Ok(Self { text: text.to_owned(), walk })
    }

    /// Whether [`find`](Self::find) decodes a copy of the data.
    pub fn is_query(&self) -> bool {
        matches!(self.walk, Walk::Query(_))
    }

    /// What the path finds in `data`. `decoded` is the copy that paths to any number of places share.
    pub fn find(&self, data: Value<'_>, decoded: &mut Option<serde_json::Value>) -> Found {
        let mut found = Found::default();
        match &self.walk {
            Walk::Steps(steps) => {
                if let Some(value) = steps.iter().try_fold(data, |value, step| step.take(value)) {
                    found.add(text_of(value));
                }
            }
            Walk::Query(query) => {
                let decoded = decoded.get_or_insert_with(|| {
                    serde_json::from_str(data.raw()).unwrap_or(serde_json::Value::Null)
                });
                query.query(decoded).iter().for_each(|value| found.add(decoded_text_of(value)));
            }
        }
        found
    }
}

impl Found {
    fn add(&mut self, text: Option<String>) {
        match text.filter(|text| !text.is_empty() && text.len() <= VALUE_BYTES_MAX) {
            Some(text) => self.values.push(text),
            None => self.unusable += 1,
        }
    }
}

impl Step {
    fn take<'a>(&self, value: Value<'a>) -> Option<Value<'a>> {
        match self {
            Self::Member(name) => value.member(name),
            &Self::Element(index) => {
                let at = if index < 0 { value.count() as i64 + index } else { index };
                value.elements().nth(usize::try_from(at).ok()?)
            }
        }
    }
}

fn text_of(value: Value<'_>) -> Option<String> {
    match value.kind() {
        Kind::Plain | Kind::Escaped => value.string().map(Into::into),
        Kind::Integer | Kind::Decimal | Kind::True | Kind::False => Some(value.raw().to_owned()),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

fn decoded_text_of(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// The steps of a path, known to be valid, that names one place. A name with escapes is left to the query.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$')?.trim_start();
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inside) => bracketed(inside.trim_start())?,
            None => dotted(rest.strip_prefix('.')?)?,
        };
        steps.push(step);
        rest = after.trim_start();
    }
    Some(steps)
}

fn dotted(rest: &str) -> Option<(Step, &str)> {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii();
    let end = rest.find(|char| !is_name(char)).unwrap_or(rest.len());
    (end > 0).then(|| (Step::Member(rest[..end].to_owned()), &rest[end..]))
}

fn bracketed(inside: &str) -> Option<(Step, &str)> {
    let quote = inside.chars().next()?;
    let (step, rest) = if matches!(quote, '"' | '\'') {
        let (name, rest) = inside[1..].split_once(quote)?;
        (!name.contains('\\')).then(|| (Step::Member(name.to_owned()), rest))?
    } else {
        let end = inside.find(|char: char| !(char.is_ascii_digit() || char == '-'))?;
        (Step::Element(inside[..end].parse().ok()?), &inside[end..])
    };
    rest.trim_start().strip_prefix(']').map(|rest| (step, rest))
}

/// Refuses what could take much longer than reading the event does.
fn affordable(path: &str) -> Result<(), PathError> {
    let bare = without_quoted(path);
    let refuse = |at: Option<usize>, message: &str| match at {
        Some(at) => Err(PathError { at, message: message.to_owned() }),
        None => Ok(()),
    };
    let nth = |what: &str, number: usize| bare.match_indices(what).nth(number).map(|(at, _)| at);
    let regular = ["match", "search"].iter().find_map(|name| nth(&format!("{name}("), 0));
    refuse(regular, "match() and search() are not allowed: each value would compile its expression again")?;
    refuse(nth("..", 1), "more than one \"..\" is not allowed")?;
    refuse(nth("?", 1), "more than one filter is not allowed")?;
    refuse(nth("$", 1), "a filter may look below \"@\" only, not at the whole of data")?;
    refuse(nth(",", COMMAS_MAX), &format!("more than {COMMAS_MAX} commas are not allowed"))
}

/// The path with a blank for each byte inside quotes.
fn without_quoted(path: &str) -> String {
    let (mut quote, mut escaped) = (None, false);
    let blank = |char: char| {
        let was_inside = quote.is_some();
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if char == '\\' => escaped = true,
            Some(open) if char == open => quote = None,
            None if matches!(char, '"' | '\'') => quote = Some(char),
            _ => {}
        }
        if was_inside { ' ' } else { char }
    };
    path.chars().map(blank).collect()
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json::Tape;

    const DATA: &str =
        r#"{"a":{"b":["x",7,null,{}]},"it's":"y","ă":true,"p":[{"id":"1"},{"id":"2"},{"id":null},{}]}"#;

    fn find(path: &str) -> (Vec<String>, usize) {
        let mut tape = Tape::default();
        let document = tape.read_all(DATA.as_bytes()).unwrap();
        let found = Path::read(path).unwrap().find(document.root(), &mut None);
        (found.values, found.unusable)
    }

    #[test]
    fn a_path_to_one_place_is_walked_and_finds_what_the_query_finds() {
        for (path, values, unusable) in [
            ("$.a.b[0]", &["x"][..], 0),
            ("$['a'][\"b\"][ 1 ]", &["7"], 0),
            ("$.a.b[-4]", &["x"], 0),
            ("$.a.b[2]", &[], 1),
            ("$.a.b[-1]", &[], 1),
            ("$.a.b[4]", &[], 0),
            ("$.a.b[-5]", &[], 0),
            ("$.a", &[], 1),
            ("$.gone.b", &[], 0),
            ("$.a.b.c", &[], 0),
            ("$[\"it's\"]", &["y"], 0),
            ("$ .ă", &["true"], 0),
            ("$", &[], 1),
        ] {
            let read = Path::read(path).unwrap();
            assert!(!read.is_query(), "{path}");
            assert_eq!(find(path), (values.iter().map(ToString::to_string).collect(), unusable), "{path}");
            let query = Path { walk: Walk::Query(JsonPath::parse(path).unwrap()), ..read };
            let mut tape = Tape::default();
            let document = tape.read_all(DATA.as_bytes()).unwrap();
            let found = query.find(document.root(), &mut None);
            assert_eq!((found.values.len(), found.unusable), (values.len(), unusable), "{path}");
        }
    }

    #[test]
    fn a_path_to_many_places_finds_all_of_them_in_order() {
        assert_eq!(find("$.p[*].id"), (vec!["1".into(), "2".into()], 1));
        assert_eq!(find("$.p[?@.id == '2'].id"), (vec!["2".into()], 0));
        assert_eq!(find("$..id").0, ["1", "2"]);
        assert_eq!(find("$['it\\'s']").0, ["y"]);
    }

    #[test]
    fn what_is_no_path_or_could_cost_too_much_is_refused_with_its_place() {
        for (path, at, part) in [
            ("a.b", 0, "RFC 9535"),
            ("$.a[", 3, "RFC 9535"),
            ("$..a..b", 4, "more than one"),
            ("$[?@.a[?@.b]]", 7, "filter"),
            ("$[?@.a == $.b]", 10, "below"),
            ("$[?match(@.a, 'x')]", 3, "match()"),
            ("$[*,*][*,*][*,*][*,*][*,*]", 23, "commas"),
        ] {
            let error = Path::read(path).unwrap_err();
            assert!(error.message.contains(part), "{path}: {}", error.message);
            assert_eq!(error.at, at, "{path}: {}", error.message);
        }
        assert!(Path::read(&format!("$.{}", "a".repeat(600))).is_err());
        assert!(Path::read("$['..','?$,,,,,,,,']").is_ok());
    }
}

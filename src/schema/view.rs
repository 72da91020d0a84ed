//! Our JSON tape as the validator reads it: no copy of the payload, no second parser with other opinions.

use crate::event::json::{self, Elements, Kind, Members, Value};
use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use serde_json::Number;
use std::borrow::Cow;

/// The representation of JSON that compiled schemas of this module take.
pub(super) struct Taped;

impl Json for Taped {
    type Node<'a> = View<'a>;
    type PreparedKey = String;
    type StringBuffer = ();

    // A lookup scans the members, so one pass over them replaces several lookups in objects of ordinary size.
    const KEYS_PER_LOOKUP: usize = 8;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(View<'_>) -> T) -> T {
        json::with_string(string, |value| f(View(value)))
    }
}

/// A value under validation.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(pub Value<'a>);

/// A number as written.
pub(super) struct Written<'a> {
    text: &'a str,
    kind: Kind,
}

impl<'a> Node<'a, Taped> for View<'a> {
    type Object = View<'a>;
    type Array = View<'a>;
    type Number = Written<'a>;

    fn as_object(&self) -> Option<View<'a>> {
        (self.0.kind() == Kind::Object).then_some(*self)
    }

    fn as_array(&self) -> Option<View<'a>> {
        (self.0.kind() == Kind::Array).then_some(*self)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.0.string()
    }

    fn as_number(&self) -> Option<Written<'a>> {
        let kind = self.0.kind();
        matches!(kind, Kind::Integer | Kind::Decimal).then(|| Written { text: self.0.raw(), kind })
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.0.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.0.kind() == Kind::Null
    }

    fn is_number(&self) -> bool {
        matches!(self.0.kind(), Kind::Integer | Kind::Decimal)
    }

    fn json_type(&self) -> JsonType {
        match self.0.kind() {
            Kind::Null => JsonType::Null,
            Kind::False | Kind::True => JsonType::Boolean,
            Kind::Integer | Kind::Decimal => JsonType::Number,
            Kind::Plain | Kind::Escaped => JsonType::String,
            Kind::Array => JsonType::Array,
            Kind::Object => JsonType::Object,
        }
    }

    fn to_value(&self) -> Cow<'a, serde_json::Value> {
        Cow::Owned(owned(self.0))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        let (document, value) = self.0.identity();
        Some(NodeIdentity::tagged(document, value))
    }
}

impl<'a> Object<'a, Taped> for View<'a> {
    type Node = View<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = ViewMembers<'a>;

    fn len(&self) -> usize {
        self.0.count()
    }

    fn get(&self, key: &String) -> Option<View<'a>> {
        self.0.member(key).map(View)
    }

    fn members(&self) -> ViewMembers<'a> {
        ViewMembers(self.0.members())
    }
}

impl<'a> Array<'a, Taped> for View<'a> {
    type Node = View<'a>;
    type ElementsIter = ViewElements<'a>;

    fn len(&self) -> usize {
        self.0.count()
    }

    fn elements(&self) -> ViewElements<'a> {
        ViewElements(self.0.elements())
    }
}

/// The members of an object under validation.
pub(super) struct ViewMembers<'a>(Members<'a>);

impl<'a> Iterator for ViewMembers<'a> {
    type Item = (Cow<'a, str>, View<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        Some((name.string().unwrap_or_default(), View(value)))
    }
}

/// The elements of an array under validation.
pub(super) struct ViewElements<'a>(Elements<'a>);

impl<'a> Iterator for ViewElements<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        self.0.next().map(View)
    }
}

impl JsonNumber for Written<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.text.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.text.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        Some(finite(self.text))
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.text)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Owned(number(self.text))
    }

    /// Drafts 6 and later count 1.0 and 1e2 as integers.
    fn is_integer(&self) -> bool {
        self.kind == Kind::Integer || finite(self.text).fract() == 0.0
    }

    fn is_written_as_integer(&self) -> bool {
        self.kind == Kind::Integer
    }
}

/// The nearest double; beyond their range the largest there is, so that `maximum` still refuses 1e999.
fn finite(text: &str) -> f64 {
    text.parse::<f64>().unwrap_or(0.0).clamp(f64::MIN, f64::MAX)
}

fn number(text: &str) -> Number {
    let unsigned = text.parse::<u64>().map(Number::from);
    let integer = unsigned.or_else(|_| text.parse::<i64>().map(Number::from));
    integer.unwrap_or_else(|_| Number::from_f64(finite(text)).unwrap_or_else(|| Number::from(0)))
}

/// A copy of `value` for the rare keywords that compare whole values.
fn owned(value: Value<'_>) -> serde_json::Value {
    use serde_json::Value as Owned;
    match value.kind() {
        Kind::Null => Owned::Null,
        Kind::False => Owned::Bool(false),
        Kind::True => Owned::Bool(true),
        Kind::Integer | Kind::Decimal => Owned::Number(number(value.raw())),
        Kind::Plain | Kind::Escaped => Owned::String(value.string().unwrap_or_default().into_owned()),
        Kind::Array => value.elements().map(owned).collect(),
        Kind::Object => value
            .members()
            .map(|(name, value)| (name.string().unwrap_or_default().into_owned(), owned(value)))
            .collect(),
    }
}

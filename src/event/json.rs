//! A strict JSON reader (RFC 8259) that leaves the text where it is.
//!
//! One pass over the bytes checks the grammar and notes where every value lies: a *tape* of nodes in document order.
//! The ends of strings are marked a stretch ahead of it, so that it need not search for them.
//! Nothing is copied, decoded or rounded, so a value can be passed on byte for byte, and the tape is all that a
//! schema needs. Stricter than the RFC where two readers could disagree: member names are unique in their object,
//! escaped surrogates come in pairs, nesting is limited to [`DEPTH_MAX`].

mod looks;
mod marks;
mod reader;
#[cfg(test)]
mod reference;

use super::string;
use reader::Reader;
use std::borrow::Cow;
use std::fmt;

/// Deepest nesting of arrays and objects.
pub const DEPTH_MAX: usize = 64;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Null,
    False,
    True,
    /// A number written without fraction and exponent.
    Integer,
    /// A number written with fraction or exponent.
    Decimal,
    /// A string or member name without escapes: its text is its value.
    Plain,
    /// A string or member name with escapes.
    Escaped,
    Array,
    Object,
}

/// One value or member name. A container's children follow it; an object's names and values alternate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Node {
    kind: Kind,
    /// The value's bytes; of a string, what is between the quotes.
    start: u32,
    end: u32,
    /// Index of the first node after this value and all it contains.
    next: u32,
    /// Number of elements or members.
    count: u32,
}

/// Memory for the nodes of one document, to be used for many.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
}

/// A document that was read: the text and where its values lie in it.
pub struct Document<'a> {
    text: &'a str,
    nodes: &'a [Node],
}

/// A value in a document. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document<'a>,
    at: u32,
}

/// Why bytes are not JSON as accepted here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// Position of the byte that is wrong, from 0.
    pub at: usize,
    pub problem: Problem,
}

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// The text ends inside a value.
    Ended,
    /// Something else than what the grammar allows here.
    Expected(&'static str),
    /// A control character inside a string.
    Control,
    /// A backslash followed by nothing JSON knows, or half of a surrogate pair.
    Escape,
    /// Not UTF-8.
    Utf8,
    /// A member name for the second time in one object.
    Repeated,
    /// Nested deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl Tape {
    /// A tape with room for what a text of so many bytes usually needs, and not much more.
    pub fn for_text(bytes: usize) -> Self {
        Self { nodes: Vec::with_capacity((bytes / 16).min(1024) + 16) }
    }

    /// Reads the value at the start of `bytes`, whitespace before it allowed, and tells where it ends.
    /// Needs less than 4 GiB of input.
    pub fn read<'a>(&'a mut self, bytes: &'a [u8]) -> Result<(Document<'a>, usize), JsonError> {
        self.nodes.clear();
        let end = Reader::new(bytes, &mut self.nodes).read()?;
        // Structure is ASCII and a quote byte is never part of a longer UTF-8 sequence, so strings were cut rightly
        // whatever they contain, and one check of the whole is enough.
        let text = simdutf8::compat::from_utf8(&bytes[..end])
            .map_err(|error| JsonError { at: error.valid_up_to(), problem: Problem::Utf8 })?;
        Ok((Document { text, nodes: &self.nodes }, end))
    }

    /// Reads `bytes` as exactly one value with nothing but whitespace around it.
    pub fn read_all<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Document<'a>, JsonError> {
        let (document, end) = self.read(bytes)?;
        match end + whitespace(&bytes[end..]) {
            at if at == bytes.len() => Ok(document),
            at => Err(JsonError { at, problem: Problem::Expected("the end of the text") }),
        }
    }
}

/// Number of whitespace bytes at the start of `bytes`.
pub fn whitespace(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(bytes.len())
}

impl<'a> Document<'a> {
    /// The outermost value.
    pub fn root(&'a self) -> Value<'a> {
        Value { document: self, at: 0 }
    }
}

impl<'a> Value<'a> {
    /// What the value is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The value as written, a string with its quotes.
    pub fn raw(self) -> &'a str {
        let Node { kind, start, end, .. } = self.node();
        let quote = u32::from(matches!(kind, Kind::Plain | Kind::Escaped));
        &self.document.text[(start - quote) as usize..(end + quote) as usize]
    }

    /// Where the value as written lies in the text.
    pub fn start(self) -> usize {
        let Node { kind, start, .. } = self.node();
        start as usize - usize::from(matches!(kind, Kind::Plain | Kind::Escaped))
    }

    /// The value of a string.
    pub fn string(self) -> Option<Cow<'a, str>> {
        match self.kind() {
            Kind::Plain => Some(Cow::Borrowed(self.inside())),
            Kind::Escaped => Some(Cow::Owned(string::unescape(self.inside()))),
            _ => None,
        }
    }

    /// Number of values and member names in this value, itself included.
    pub fn nodes(self) -> usize {
        (self.node().next - self.at) as usize
    }

    /// Nesting of this value: 0 for one that is no container, 1 for an array of such.
    pub fn depth(self) -> usize {
        let values = self.elements().chain(self.members().map(|(_, value)| value));
        let inner = values.map(Value::depth).max().unwrap_or(0);
        inner + usize::from(matches!(self.kind(), Kind::Array | Kind::Object))
    }

    /// Elements of an array or members of an object; 0 for anything else.
    pub fn count(self) -> usize {
        self.node().count as usize
    }

    /// The elements of an array, in order; nothing for anything else.
    pub fn elements(self) -> Elements<'a> {
        Elements { document: self.document, at: self.at + 1, left: self.count_if(Kind::Array) }
    }

    /// Names and values of an object, in order; nothing for anything else.
    pub fn members(self) -> Members<'a> {
        Members(Elements { document: self.document, at: self.at + 1, left: 2 * self.count_if(Kind::Object) })
    }

    /// The value of the member called `name`.
    pub fn member(self, name: &str) -> Option<Value<'a>> {
        self.members().find(|(at, _)| at.is(name)).map(|(_, value)| value)
    }

    /// Whether the value is the string `text`.
    pub fn is(self, text: &str) -> bool {
        match self.kind() {
            Kind::Plain => self.inside() == text,
            Kind::Escaped => string::unescape(self.inside()) == text,
            _ => false,
        }
    }

    /// What tells this value from every other of its document, and the address that tells the document.
    pub(crate) fn identity(self) -> (usize, u32) {
        (self.document.nodes.as_ptr() as usize, self.at)
    }

    fn inside(self) -> &'a str {
        let Node { start, end, .. } = self.node();
        &self.document.text[start as usize..end as usize]
    }

    fn count_if(self, kind: Kind) -> u32 {
        let node = self.node();
        if node.kind == kind { node.count } else { 0 }
    }

    fn node(self) -> Node {
        self.document.nodes[self.at as usize]
    }
}

/// Calls `f` with `text` as a string value of its own.
pub(crate) fn with_string<T>(text: &str, f: impl FnOnce(Value<'_>) -> T) -> T {
    let nodes = [Node { kind: Kind::Plain, start: 0, end: text.len() as u32, next: 1, count: 0 }];
    let document = Document { text, nodes: &nodes };
    f(document.root())
}

/// See [`Value::elements`].
#[derive(Clone)]
pub struct Elements<'a> {
    document: &'a Document<'a>,
    at: u32,
    left: u32,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let value = Value { document: self.document, at: self.at };
        self.at = value.node().next;
        Some(value)
    }
}

/// See [`Value::members`]. The first of a pair is the name, a string.
#[derive(Clone)]
pub struct Members<'a>(Elements<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Value<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Ended => f.write_str("the text ends inside a value"),
            Problem::Expected(what) => write!(f, "expected {what}"),
            Problem::Control => f.write_str("a control character in a string must be escaped"),
            Problem::Escape => f.write_str("not a JSON escape, or half of a surrogate pair"),
            Problem::Utf8 => f.write_str("not UTF-8"),
            Problem::Repeated => f.write_str("this member name appears twice in its object"),
            Problem::TooDeep => write!(f, "nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not valid JSON at byte {}: {}", self.at, self.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_text_place_and_size() {
        let mut tape = Tape::default();
        let text = br#" {"a": [1, "x", {}] , "b\n": "\u0041\ud83d\ude00", "c": -1.5e3} "#;
        let (document, end) = tape.read(text).unwrap();
        let root = document.root();
        assert_eq!(
            (end, root.start(), root.count(), root.nodes(), root.depth()),
            (text.len() - 1, 1, 3, 10, 3)
        );
        let a = root.member("a").unwrap();
        assert_eq!((a.raw(), a.count(), a.depth()), (r#"[1, "x", {}]"#, 3, 2));
        let kinds: Vec<_> = a.elements().map(Value::kind).collect();
        assert_eq!(kinds, [Kind::Integer, Kind::Plain, Kind::Object]);
        assert_eq!(root.member("b\n").unwrap().string().unwrap(), "A\u{1f600}");
        assert_eq!(root.member("c").unwrap().raw(), "-1.5e3");
        assert!(
            root.member("x").is_none() && root.elements().next().is_none() && a.members().next().is_none()
        );
    }

    #[test]
    fn reading_stops_where_the_value_ends() {
        let mut tape = Tape::default();
        let (document, end) = tape.read(b" [1] , \xff").unwrap();
        assert_eq!((document.root().raw(), end), ("[1]", 4));
        assert_eq!(tape.read(b"7,").unwrap().1, 1);
    }

    #[test]
    fn errors_name_the_byte_and_what_was_expected() {
        let error = Tape::default().read_all(b"[1,]").err().unwrap();
        assert_eq!(error.to_string(), "not valid JSON at byte 3: expected a value");
    }
}

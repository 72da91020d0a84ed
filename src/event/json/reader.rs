//! The pass over the bytes that checks the grammar and notes the nodes.

use super::looks::Looks;
use super::marks::Marks;
use super::{DEPTH_MAX, JsonError, Kind, Node, Problem};
use crate::event::string;
use ahash::RandomState;
use smallvec::SmallVec;
use std::collections::HashSet;

/// Objects of up to so many members are checked for repeated names without a table.
const FEW_NAMES: u32 = 16;

/// A walk over one value. Where it stands is passed from step to step, so that it stays in a register. A step that gives `None` has left
/// in `error` what is wrong.
pub(super) struct Reader<'t, 'a> {
    bytes: &'a [u8],
    nodes: &'t mut Vec<Node>,
    /// Where strings end.
    marks: Marks<'a>,
    error: Option<JsonError>,
}

impl<'t, 'a> Reader<'t, 'a> {
    /// A reader of `bytes` that appends to `nodes`, which are empty.
    pub fn new(bytes: &'a [u8], nodes: &'t mut Vec<Node>) -> Self {
        Self { bytes, nodes, marks: Marks::new(bytes), error: None }
    }

    /// Reads the value at the start and tells where it ends.
    pub fn read(mut self) -> Result<usize, JsonError> {
        let end = self.value(0, 0);
        end.ok_or_else(|| self.error.expect("a step that fails says why"))
    }

    /// The value at `at`, whitespace before it allowed, that lies inside `depth` containers. Strings, the most of all
    /// values, are read in place, others by a call: together with the same for names, 30 ns of 350 for an event.
    #[inline(always)]
    fn value(&mut self, at: usize, depth: usize) -> Option<usize> {
        let (at, first) = self.peek(at)?;
        if first != b'"' {
            return self.other_value(at, first, depth);
        }
        let (start, end) = (at + 1, self.marks.next(at + 1));
        if self.bytes.get(end) != Some(&b'"') {
            return self.escaped(start, end);
        }
        self.push(Kind::Plain, start, end);
        Some(end + 1)
    }

    /// A value that is no string.
    #[inline(never)]
    fn other_value(&mut self, at: usize, first: u8, depth: usize) -> Option<usize> {
        match first {
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.literal(at, "true", Kind::True),
            b'f' => self.literal(at, "false", Kind::False),
            b'n' => self.literal(at, "null", Kind::Null),
            _ => self.fail(at, Problem::Expected("a value")),
        }
    }

    /// The array that starts at `start`.
    #[inline(never)]
    fn array(&mut self, start: usize, depth: usize) -> Option<usize> {
        let array = self.open(Kind::Array, start, depth)?;
        let (mut at, first) = self.peek(start + 1)?;
        if first == b']' {
            return self.close(array, at, 0);
        }
        let mut count = 0;
        loop {
            at = self.value(at, depth + 1)?;
            count += 1;
            match self.peek(at)? {
                (comma, b',') => at = comma + 1,
                (end, b']') => return self.close(array, end, count),
                (other, _) => return self.fail(other, Problem::Expected("\",\" or \"]\"")),
            }
        }
    }

    /// The object that starts at `start`.
    #[inline(never)]
    fn object(&mut self, start: usize, depth: usize) -> Option<usize> {
        let object = self.open(Kind::Object, start, depth)?;
        let (mut at, first) = self.peek(start + 1)?;
        if first == b'}' {
            return self.close(object, at, 0);
        }
        let (mut count, mut looks) = (0, Looks::new());
        loop {
            at = self.name(at, &mut looks)?;
            at = self.value(at, depth + 1)?;
            count += 1;
            match self.peek(at)? {
                (comma, b',') => at = comma + 1,
                (end, b'}') => break at = end,
                (other, _) => return self.fail(other, Problem::Expected("\",\" or \"}\"")),
            }
        }
        if looks.alike {
            self.unique_names(object, count)?;
        }
        self.close(object, at, count)
    }

    /// Notes the container that starts at `start` inside `depth` others; its node is to be closed.
    fn open(&mut self, kind: Kind, start: usize, depth: usize) -> Option<usize> {
        if depth == DEPTH_MAX {
            return self.fail(start, Problem::TooDeep);
        }
        self.push(kind, start, start);
        Some(self.nodes.len() - 1)
    }

    /// Notes that the container at `node` has `count` elements or members and ends with the byte at `last`.
    fn close(&mut self, node: usize, last: usize, count: u32) -> Option<usize> {
        let next = self.nodes.len() as u32;
        let node = &mut self.nodes[node];
        (node.end, node.next, node.count) = (last as u32 + 1, next, count);
        Some(last + 1)
    }

    /// A name and the colon behind it.
    #[inline(always)]
    fn name(&mut self, at: usize, looks: &mut Looks) -> Option<usize> {
        let (quote, first) = self.peek(at)?;
        if first != b'"' {
            return self.fail(quote, Problem::Expected("a member name in quotes"));
        }
        let (start, end) = (quote + 1, self.marks.next(quote + 1));
        if self.bytes.get(end) != Some(&b'"') || self.bytes.get(end + 1) != Some(&b':') {
            return self.unusual_name(start, end, looks);
        }
        self.push(Kind::Plain, start, end);
        looks.add(&self.bytes[start..end]);
        Some(end + 2)
    }

    /// The name that starts at `start`, is plain up to `at`, and has escapes or no colon right behind it.
    #[inline(never)]
    fn unusual_name(&mut self, start: usize, at: usize, looks: &mut Looks) -> Option<usize> {
        let end = if self.bytes.get(at) == Some(&b'"') {
            self.push(Kind::Plain, start, at);
            looks.add(&self.bytes[start..at]);
            at + 1
        } else {
            looks.alike = true;
            self.escaped(start, at)?
        };
        match self.peek(end)? {
            (colon, b':') => Some(colon + 1),
            (other, _) => self.fail(other, Problem::Expected("\":\"")),
        }
    }

    /// The string that starts at `start` and is plain up to `at`, where it does not end.
    #[inline(never)]
    fn escaped(&mut self, start: usize, mut at: usize) -> Option<usize> {
        loop {
            match self.bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => match string::escape(&self.bytes[at..]) {
                    Some((_, length)) => at += length,
                    None => return self.fail(at, Problem::Escape),
                },
                Some(_) => return self.fail(at, Problem::Control),
                None => return self.fail(at, Problem::Ended),
            }
            at = self.marks.next(at);
        }
        self.push(Kind::Escaped, start, at);
        Some(at + 1)
    }

    fn number(&mut self, start: usize) -> Option<usize> {
        let (mut at, mut kind) = (start + usize::from(self.bytes[start] == b'-'), Kind::Integer);
        match self.bytes.get(at) {
            Some(b'0') => at += 1,
            _ => at = self.digits(at)?,
        }
        if self.bytes.get(at) == Some(&b'.') {
            kind = Kind::Decimal;
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(at) {
            kind = Kind::Decimal;
            let sign = usize::from(matches!(self.bytes.get(at + 1), Some(b'+' | b'-')));
            at = self.digits(at + 1 + sign)?;
        }
        self.push(kind, start, at);
        Some(at)
    }

    fn digits(&mut self, at: usize) -> Option<usize> {
        let count = self.bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let end = at + count;
        match (count, end < self.bytes.len()) {
            (0, true) => self.fail(end, Problem::Expected("a digit")),
            (0, false) => self.fail(end, Problem::Ended),
            _ => Some(end),
        }
    }

    fn literal(&mut self, start: usize, text: &'static str, kind: Kind) -> Option<usize> {
        let rest = &self.bytes[start..];
        if rest.starts_with(text.as_bytes()) {
            let end = start + text.len();
            self.push(kind, start, end);
            Some(end)
        } else if text.as_bytes().starts_with(rest) {
            self.fail(self.bytes.len(), Problem::Ended)
        } else {
            self.fail(start, Problem::Expected("a value"))
        }
    }

    /// The first byte from `at` on that is not whitespace, and where it is.
    #[inline(always)]
    fn peek(&mut self, at: usize) -> Option<(usize, u8)> {
        match self.bytes.get(at) {
            Some(&byte) if byte > b' ' => Some((at, byte)),
            _ => self.peek_behind_whitespace(at),
        }
    }

    #[inline(never)]
    fn peek_behind_whitespace(&mut self, at: usize) -> Option<(usize, u8)> {
        let at = at + super::whitespace(&self.bytes[at..]);
        match self.bytes.get(at) {
            Some(&byte) => Some((at, byte)),
            None => self.fail(at, Problem::Ended),
        }
    }

    #[inline(always)]
    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next, count: 0 });
    }

    #[cold]
    fn fail<T>(&mut self, at: usize, problem: Problem) -> Option<T> {
        self.error = Some(JsonError { at, problem });
        None
    }

    /// Refuses an object, complete up to its last member, that has a name twice.
    fn unique_names(&mut self, object: usize, count: u32) -> Option<()> {
        let repeated = match count {
            0..=FEW_NAMES => self.repeated_among_few(object),
            _ => self.repeated_among_many(object),
        };
        match repeated {
            Some(name) => self.fail(name.start as usize - 1, Problem::Repeated),
            None => Some(()),
        }
    }

    /// The first name of a small object that was there before: each is compared with those before it, which rarely
    /// takes more than a look at the lengths.
    fn repeated_among_few(&self, object: usize) -> Option<Node> {
        let mut earlier = SmallVec::<[&[u8]; FEW_NAMES as usize]>::new();
        for name in self.names(object) {
            if name.kind == Kind::Escaped {
                return self.repeated_among_many(object);
            }
            let text = self.bytes_of(name);
            if earlier.contains(&text) {
                return Some(name);
            }
            earlier.push(text);
        }
        None
    }

    fn repeated_among_many(&self, object: usize) -> Option<Node> {
        let mut earlier = HashSet::with_hasher(RandomState::new());
        self.names(object).find(|name| !earlier.insert(string::unescaped_bytes(self.bytes_of(*name))))
    }

    fn bytes_of(&self, node: Node) -> &[u8] {
        &self.bytes[node.start as usize..node.end as usize]
    }

    /// Name nodes of the object at `object`, whose members reach to the end of the tape.
    fn names(&self, object: usize) -> impl Iterator<Item = Node> {
        let mut at = object + 1;
        std::iter::from_fn(move || {
            let name = *self.nodes.get(at)?;
            at = self.nodes[at + 1].next as usize;
            Some(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use proptest::prelude::*;

    fn problem(text: impl AsRef<[u8]>) -> Option<(usize, Problem)> {
        let mut tape = Tape::default();
        tape.read_all(text.as_ref()).err().map(|error| (error.at, error.problem))
    }

    #[test]
    fn what_the_grammar_allows_is_read() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "1e5",
            "1E+5",
            "1.5e-7",
            "123456789012345678901234567890",
            "1e999",
            "true",
            "false",
            "null",
            r#""""#,
            r#""\u00e9\ud83d\ude00\/\b\f\n\r\t\"\\""#,
            "[]",
            "{}",
            " [ ] ",
            "\t{\n}\r",
            r#"{"a":{"a":1},"b":[1,{"a":2}]}"#,
            r#"{"":0}"#,
            "\"\u{7f}\u{2028}\u{10ffff}\"",
            "[[[[]]]]",
        ] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn what_it_does_not_allow_is_refused_where_it_stands() {
        let value = Problem::Expected("a value");
        let digit = Problem::Expected("a digit");
        for (text, at, expected) in [
            ("", 0, Problem::Ended),
            (" ", 1, Problem::Ended),
            ("tru", 3, Problem::Ended),
            ("trux", 0, value),
            ("True", 0, value),
            ("NaN", 0, value),
            ("nul ", 0, value),
            ("'a'", 0, value),
            ("+1", 0, value),
            (".5", 0, value),
            ("-", 1, Problem::Ended),
            ("-x", 1, digit),
            ("1.", 2, Problem::Ended),
            ("1.x", 2, digit),
            ("1e", 2, Problem::Ended),
            ("1e+ ", 3, digit),
            ("01", 1, Problem::Expected("the end of the text")),
            ("1 2", 2, Problem::Expected("the end of the text")),
            ("\"a", 2, Problem::Ended),
            ("\"a\nb\"", 2, Problem::Control),
            ("\"\u{1f}\"", 1, Problem::Control),
            (r#""\x""#, 1, Problem::Escape),
            (r#""\u12g4""#, 1, Problem::Escape),
            (r#""\u+123""#, 1, Problem::Escape),
            (r#""\ud800""#, 1, Problem::Escape),
            (r#""\ud800\u0041""#, 1, Problem::Escape),
            (r#""\udc00""#, 1, Problem::Escape),
            (r#""\"#, 1, Problem::Escape),
            ("[1", 2, Problem::Ended),
            ("[1,]", 3, value),
            ("[,1]", 1, value),
            ("[1 2]", 3, Problem::Expected("\",\" or \"]\"")),
            ("[1}", 2, Problem::Expected("\",\" or \"]\"")),
            ("{1:2}", 1, Problem::Expected("a member name in quotes")),
            (r#"{"a"}"#, 4, Problem::Expected("\":\"")),
            (r#"{"a":}"#, 5, value),
            (r#"{"a":1,}"#, 7, Problem::Expected("a member name in quotes")),
            (r#"{"a":1 "b":2}"#, 7, Problem::Expected("\",\" or \"}\"")),
            ("\u{feff}1", 0, value),
            ("\u{a0}1", 0, value),
            ("/**/1", 0, value),
        ] {
            assert_eq!(problem(text), Some((at, expected)), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        for (text, at) in [
            (&b"\"\xff\""[..], 1),
            (b"\"a\xc0\x80\"", 2),
            (b"\"\xed\xa0\x80\"", 1),
            (b"\"\xe2\x82\"", 1),
            (b"{\"k\":\"\xf5\x80\x80\x80\"}", 6),
        ] {
            assert_eq!(problem(text), Some((at, Problem::Utf8)), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(problem(nested(DEPTH_MAX)), None);
        assert_eq!(problem(nested(DEPTH_MAX + 1)), Some((DEPTH_MAX, Problem::TooDeep)));
        assert_eq!(problem("[".repeat(1_000_000)), Some((DEPTH_MAX, Problem::TooDeep)));
        assert_eq!(problem(r#"{"a":"#.repeat(100_000)), Some((DEPTH_MAX * 5, Problem::TooDeep)));
    }

    #[test]
    fn a_member_name_may_not_come_twice_in_one_object() {
        for (text, at) in [
            (r#"{"a":1,"a":2}"#, 7),
            (r#"{"a":{"x":[1,{"b":1,"b":1}]}}"#, 20),
            (r#"{"ab":1,"c":2,"\u0061b":3}"#, 14),
            (r#"{"\u0061":1,"a":3}"#, 12),
            (r#"{"":1,"":3}"#, 6),
            (r#"{"a":{"a":1},"b":{"a":1},"a":0}"#, 25),
            (r#"{"axb":1,"ayb":2,"axb":3}"#, 17),
            (r#"{"b":1,"\u0061":1,"\u0061":3}"#, 18),
        ] {
            assert_eq!(problem(text), Some((at, Problem::Repeated)), "{text}");
        }
        for text in [r#"{"a":{"a":1},"b":{"a":1}}"#, r#"{"axb":1,"ayb":2}"#, r#"{"\u0061":1,"b":3}"#] {
            assert_eq!(problem(text), None, "{text}");
        }
    }

    #[test]
    fn one_repeated_name_among_thousands_is_found() {
        let names = |last: &str| {
            let members: Vec<_> = (0..20_000).map(|n| format!("\"n{n}\":0")).collect();
            format!("{{{},\"{last}\":0}}", members.join(","))
        };
        assert_eq!(problem(names("n20000")), None);
        assert!(matches!(problem(names("n12345")), Some((_, Problem::Repeated))));
    }

    /// JSON with repeated names removed, as serde_json keeps the last of them.
    fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
                prop::collection::hash_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn back(value: Value<'_>) -> serde_json::Value {
        match value.kind() {
            Kind::Array => value.elements().map(back).collect(),
            Kind::Object => value
                .members()
                .map(|(name, value)| (name.string().unwrap().into_owned(), back(value)))
                .collect(),
            Kind::Plain | Kind::Escaped => value.string().unwrap().into_owned().into(),
            _ => serde_json::from_str(value.raw()).unwrap(),
        }
    }

    proptest! {
        #[test]
        fn what_another_writer_wrote_reads_back_equal(json in arbitrary_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) }.unwrap();
            let mut tape = Tape::default();
            let document = tape.read_all(text.as_bytes()).unwrap();
            prop_assert_eq!(document.root().raw(), &text);
            prop_assert_eq!(back(document.root()), json);
        }

        #[test]
        fn bytes_are_accepted_only_if_another_reader_accepts_them(text in r#"[ \\\[\]{}:,"a1e.+-]{0,24}"#) {
            let mut tape = Tape::default();
            let ours = tape.read_all(text.as_bytes()).map(|document| back(document.root()));
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match (ours, theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(JsonError { problem: Problem::Repeated, .. }), Ok(_)) | (Err(_), Err(_)) => {}
                (ours, theirs) => prop_assert!(false, "{:?} but {:?}", ours.is_ok(), theirs),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut: usize, json in arbitrary_json()) {
            let _ = Tape::default().read_all(&bytes);
            let mut text = serde_json::to_vec(&json).unwrap();
            let at = cut % text.len();
            let _ = Tape::default().read_all(&text[..at]);
            text[at] = text[at].wrapping_add(bytes.len() as u8);
            let _ = Tape::default().read_all(&text);
        }
    }
}

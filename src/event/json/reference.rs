//! The reader against one that goes byte by byte.

use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

/// What a reading gives: the nodes and where the value ends.
type Outcome = Result<(Vec<Node>, usize), JsonError>;

struct Reference<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
}

impl Reference<'_> {
    fn value(&mut self, at: usize, depth: usize) -> Result<usize, JsonError> {
        let at = self.skip(at);
        match self.byte(at)? {
            b'"' => self.string(at),
            b'{' | b'[' if depth == DEPTH_MAX => fail(at, Problem::TooDeep),
            b'{' => self.container(Kind::Object, at, depth),
            b'[' => self.container(Kind::Array, at, depth),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.literal(at, "true", Kind::True),
            b'f' => self.literal(at, "false", Kind::False),
            b'n' => self.literal(at, "null", Kind::Null),
            _ => fail(at, Problem::Expected("a value")),
        }
    }

    fn container(&mut self, kind: Kind, start: usize, depth: usize) -> Result<usize, JsonError> {
        let object = kind == Kind::Object;
        let (close, other) = if object { (b'}', "\",\" or \"}\"") } else { (b']', "\",\" or \"]\"") };
        let (node, mut names, mut count) = (self.nodes.len(), Vec::new(), 0);
        self.note(kind, start, start);
        let mut at = self.skip(start + 1);
        if self.byte(at)? != close {
            loop {
                if object {
                    at = self.skip(at);
                    names.push(self.nodes.len());
                    at = self.name(at)?;
                }
                at = self.value(at, depth + 1)?;
                at = self.skip(at);
                count += 1;
                match self.byte(at)? {
                    b',' => at += 1,
                    byte if byte == close => break,
                    _ => return fail(at, Problem::Expected(other)),
                }
            }
        }
        self.unique(&names)?;
        let next = self.nodes.len() as u32;
        self.nodes[node] = Node { kind, start: start as u32, end: at as u32 + 1, next, count };
        Ok(at + 1)
    }

    fn name(&mut self, at: usize) -> Result<usize, JsonError> {
        if self.byte(at)? != b'"' {
            return fail(at, Problem::Expected("a member name in quotes"));
        }
        let end = self.string(at)?;
        let colon = self.skip(end);
        if self.byte(colon)? != b':' {
            return fail(colon, Problem::Expected("\":\""));
        }
        Ok(colon + 1)
    }

    fn unique(&self, names: &[usize]) -> Result<(), JsonError> {
        let mut earlier = HashSet::new();
        for name in names.iter().map(|name| self.nodes[*name]) {
            let inside = &self.bytes[name.start as usize..name.end as usize];
            if !earlier.insert(string::unescaped_bytes(inside)) {
                return fail(name.start as usize - 1, Problem::Repeated);
            }
        }
        Ok(())
    }

    fn string(&mut self, quote: usize) -> Result<usize, JsonError> {
        let (mut at, mut kind) = (quote + 1, Kind::Plain);
        loop {
            match self.byte(at)? {
                b'"' => break,
                0..0x20 => return fail(at, Problem::Control),
                b'\\' => match string::escape(&self.bytes[at..]) {
                    Some((_, length)) => (at, kind) = (at + length, Kind::Escaped),
                    None => return fail(at, Problem::Escape),
                },
                _ => at += 1,
            }
        }
        self.note(kind, quote + 1, at);
        Ok(at + 1)
    }

    fn number(&mut self, start: usize) -> Result<usize, JsonError> {
        let (mut at, mut kind) = (start, Kind::Integer);
        if self.bytes[at] == b'-' {
            at += 1;
        }
        at = if self.bytes.get(at) == Some(&b'0') { at + 1 } else { self.digits(at)? };
        if self.bytes.get(at) == Some(&b'.') {
            (at, kind) = (self.digits(at + 1)?, Kind::Decimal);
        }
        if matches!(self.bytes.get(at), Some(b'e' | b'E')) {
            let sign = matches!(self.bytes.get(at + 1), Some(b'+' | b'-'));
            (at, kind) = (self.digits(at + 1 + usize::from(sign))?, Kind::Decimal);
        }
        self.note(kind, start, at);
        Ok(at)
    }

    fn digits(&self, mut at: usize) -> Result<usize, JsonError> {
        if !self.byte(at)?.is_ascii_digit() {
            return fail(at, Problem::Expected("a digit"));
        }
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        Ok(at)
    }

    fn literal(&mut self, start: usize, text: &str, kind: Kind) -> Result<usize, JsonError> {
        let rest = &self.bytes[start..];
        if text.as_bytes().starts_with(rest) && rest.len() < text.len() {
            return fail(self.bytes.len(), Problem::Ended);
        }
        if !rest.starts_with(text.as_bytes()) {
            return fail(start, Problem::Expected("a value"));
        }
        self.note(kind, start, start + text.len());
        Ok(start + text.len())
    }

    fn note(&mut self, kind: Kind, start: usize, end: usize) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next, count: 0 });
    }

    fn skip(&self, mut at: usize) -> usize {
        while matches!(self.bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            at += 1;
        }
        at
    }

    fn byte(&self, at: usize) -> Result<u8, JsonError> {
        self.bytes.get(at).copied().ok_or(JsonError { at: self.bytes.len(), problem: Problem::Ended })
    }
}

fn fail<T>(at: usize, problem: Problem) -> Result<T, JsonError> {
    Err(JsonError { at, problem })
}

fn expected(bytes: &[u8]) -> Outcome {
    let mut reference = Reference { bytes, nodes: Vec::new() };
    let end = reference.value(0, 0)?;
    match std::str::from_utf8(&bytes[..end]) {
        Ok(_) => Ok((reference.nodes, end)),
        Err(error) => fail(error.valid_up_to(), Problem::Utf8),
    }
}

fn given(tape: &mut Tape, bytes: &[u8]) -> Outcome {
    let (document, end) = tape.read(bytes)?;
    Ok((document.nodes.to_vec(), end))
}

#[track_caller]
fn check(tape: &mut Tape, bytes: &[u8]) {
    assert_eq!(given(tape, bytes), expected(bytes), "{:?}", String::from_utf8_lossy(bytes));
}

/// An event of more than one stretch of marks.
fn event() -> Vec<u8> {
    let note = "a note of some length, with \\\"quotes\\\" and an \\u0103 in it. ".repeat(6);
    format!(
        r#"{{"specversion":"1.0", "id":"0007-1", "source":"urn:demo", "type":"Demo.Created", "data": {{"name":"Chișinău",
        "valid":true, "amount":1204.50, "tags":["a", "b\n", [], {{}}], "born":null, "number":-4711e+2, "note":"{note}"}}}}"#
    )
    .into_bytes()
}

#[test]
fn strings_of_every_length_end_where_they_should() {
    let mut tape = Tape::default();
    let ends: [&[u8]; 9] = [
        b"\"",
        b"\"]",
        b"",
        b"\\",
        b"\\n\"]",
        b"\\u0041\"]",
        b"\\ud83d\\ude00\\\\\\\"\"]",
        b"\x1f\"]",
        b"\xff\"]",
    ];
    for indent in [0, 1, 7, 14, 15, 16, 31, 62, 63] {
        for length in (0..200).chain(240..270) {
            for end in ends {
                let mut text = b"[".to_vec();
                text.resize(1 + indent, b' ');
                text.push(b'"');
                text.resize(text.len() + length, b'x');
                text.extend_from_slice(end);
                check(&mut tape, &text);
            }
        }
    }
}

#[test]
fn a_document_ends_at_its_last_byte_whatever_follows() {
    let mut tape = Tape::default();
    let event = event();
    for behind in [&b""[..], b",", b"\"", b"\\", b"\xff\xff", b"\0", b"]garbage", &event] {
        let text = [&event, behind].concat();
        assert_eq!(given(&mut tape, &text).map(|(_, end)| end), Ok(event.len()));
        check(&mut tape, &text);
    }
}

#[test]
fn every_start_of_a_document_is_refused_alike() {
    let mut tape = Tape::default();
    let event = event();
    for length in 0..event.len() {
        check(&mut tape, &event[..length]);
    }
}

#[test]
fn a_wrong_byte_at_any_place_is_judged_alike() {
    let mut tape = Tape::default();
    let event = event();
    for at in 0..event.len() {
        for byte in [0, 0x1f, b' ', b'"', b'\\', b',', b':', b'}', b'0', 0x80, 0xc0, 0xff] {
            let mut text = event.clone();
            text[at] = byte;
            check(&mut tape, &text);
        }
    }
}

/// A string as written: plain stretches and escapes.
fn written_string() -> impl Strategy<Value = String> {
    const ESCAPES: [&str; 5] = ["\\n", "\\\\", "\\\"", "\\u0061", "\\ud83d\\ude00"];
    let escape = prop::sample::select(&ESCAPES[..]).prop_map(String::from);
    let piece = prop_oneof![4 => "[a-z ,:{\\[]{0,40}", 1 => escape, 1 => "[ăș😀]{1,3}"];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// A value as written, whitespace around it here and there, and names repeated now and then.
fn written_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => written_string(),
        1 => "-?(0|[1-9][0-9]{0,11})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
        1 => "true|false|null",
    ];
    leaf.prop_recursive(5, 48, 10, |inner| {
        let space = || "( |\n {0,70})?";
        let spaced = (space(), inner, space()).prop_map(|(before, value, behind)| before + &value + &behind);
        let name = prop_oneof![4 => written_string(), 1 => "\"[a-c]\""];
        let member = (space(), name, space(), spaced.clone())
            .prop_map(|(before, name, behind, value)| format!("{before}{name}{behind}:{value}"));
        prop_oneof![
            prop::collection::vec(spaced, 0..10).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec(member, 0..20).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_alike(
        text in written_value(),
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        behind: Vec<u8>,
    ) {
        let mut text = text.into_bytes();
        for (at, byte) in wrong {
            let at = at.index(text.len());
            text[at] = byte;
        }
        text.extend(behind);
        prop_assert_eq!(given(&mut Tape::default(), &text), expected(&text));
    }
}

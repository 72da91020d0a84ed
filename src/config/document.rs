//! Reading TOML so that one run reports every mistake of a file, each with its place and what was expected.
//!
//! `serde` stops at the first mistake, so the tables are walked here by hand: a [`Section`] hands out the values
//! of its keys, notes what is wrong with them, and in the end names the keys that nobody asked for.

use super::problem::Problem;
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One TOML file and what is wrong with it so far.
pub struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

/// A value together with the byte of the file at which it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// For [`Document::report`].
    pub at: usize,
}

/// One table of a document. End its use with [`finish`](Self::finish).
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// For messages: `[server]`; empty for the top of the file.
    name: &'static str,
    /// `None` when the table is missing, which is the same as empty.
    table: Option<&'d DeTable<'t>>,
    /// Where the table starts, for keys it lacks.
    at: usize,
    known: Vec<&'static str>,
}

/// A type that a TOML value can be read as.
pub trait Setting: Sized {
    /// Completes "expected …".
    const EXPECTED: &'static str;

    /// The value, if it is one of this type.
    fn of(value: &DeValue<'_>) -> Option<Self>;

    /// The value, or a problem in `document`.
    fn read(document: &Document<'_>, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let read = Self::of(value.get_ref());
        if read.is_none() {
            document.report(
                value.span().start,
                format!("expected {}, found {}", Self::EXPECTED, shown(value.get_ref())),
            );
        }
        read
    }
}

impl<'t> Document<'t> {
    /// Starts on the `text` of `file`. `read` gets the top of the file and returns what it made of it, which
    /// counts only if nobody reported a problem.
    pub fn read<T>(
        file: &'t Path,
        text: &'t str,
        read: impl FnOnce(&Self, Section<'_, 't>) -> Option<T>,
    ) -> Result<T, Vec<Problem>> {
        let document = Self { file, text, problems: RefCell::default() };
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            document.report(error.span().map_or(0, |span| span.start), error.message());
        }
        if !errors.is_empty() {
            return Err(document.sorted());
        }
        let top =
            Section { document: &document, name: "", table: Some(root.get_ref()), at: 0, known: Vec::new() };
        let value = read(&document, top);
        let problems = document.sorted();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(problems),
        }
    }

    fn sorted(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }

    /// Notes a problem at byte `at` of the file.
    pub fn report(&self, at: usize, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::at(self.file, self.text, at, message));
    }

    /// The value of `result`, or a problem at byte `at`.
    pub fn note<T>(&self, at: usize, result: Result<T, impl Into<String>>) -> Option<T> {
        result.map_err(|message| self.report(at, message)).ok()
    }
}

impl<'d, 't> Section<'d, 't> {
    /// The value of `key`, if it is there and right.
    pub fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let document = self.document;
        self.value(key).and_then(|value| T::read(document, value))
    }

    /// The value of `key`, which must be there.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        match self.value(key) {
            Some(value) => T::read(self.document, value),
            None => {
                self.document.report(self.at, format!("the key `{key}`{} is missing", self.place()));
                None
            }
        }
    }

    /// The list under `key`, which must be there and have items, without the items that are wrong.
    pub fn required_list<T: Setting>(&mut self, key: &'static str) -> Option<Vec<T>> {
        match self.value(key) {
            Some(_) => self.non_empty(key),
            None => self.required(key),
        }
    }

    /// The value of `key`, or `default` when it is missing or wrong.
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The list under `key`, if it is there, without the items that are wrong. An empty one is a problem.
    pub fn non_empty<T: Setting>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let is_empty =
            |value: &Spanned<DeValue<'_>>| value.get_ref().as_array().is_some_and(|list| list.is_empty());
        if self.value(key).is_some_and(is_empty) {
            self.document.report(self.at(key), format!("`{key}` is empty; expected at least one item"));
        }
        self.optional(key)
    }

    /// Like [`or`](Self::or), for a value that must lie in `range`.
    pub fn within<T>(&mut self, key: &'static str, range: RangeInclusive<T>, default: T) -> T
    where
        T: Setting + Measure,
    {
        self.optional_within(key, range).unwrap_or(default)
    }

    /// Like [`optional`](Self::optional), for a value that must lie in `range`.
    pub fn optional_within<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Setting + Measure,
    {
        let found: Located<T> = self.optional(key)?;
        if range.contains(&found.value) {
            return Some(found.value);
        }
        let (least, most) = (range.start().written(), range.end().written());
        self.document.report(
            found.at,
            format!("`{key}` is {}; expected between {least} and {most}", found.value.written()),
        );
        None
    }

    /// The table `[key]`; a missing one is empty.
    pub fn section(&mut self, key: &'static str) -> Section<'d, 't> {
        let (document, at) = (self.document, self.at);
        let (table, at) = match self.value(key).map(|value| (value.get_ref(), value.span().start)) {
            Some((DeValue::Table(table), at)) => (Some(table), at),
            Some((other, at)) => {
                document.report(at, format!("expected a table [{key}], found {}", shown(other)));
                (None, at)
            }
            None => (None, at),
        };
        Section { document, name: key, table, at, known: Vec::new() }
    }

    /// The table `[key]`, if it is there.
    pub fn optional_section(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        self.known.push(key);
        self.table?.get(key)?;
        Some(self.section(key))
    }

    /// The tables `[[key]]`, each with the byte at which it starts; none when the key is missing.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'d, 't>> {
        let document = self.document;
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            document.report(
                value.span().start,
                format!("expected a list of tables [[{key}]], found {}", shown(value.get_ref())),
            );
            return Vec::new();
        };
        let table = |item: &'d Spanned<DeValue<'t>>| match item.get_ref() {
            DeValue::Table(table) => Some(Section {
                document,
                name: key,
                table: Some(table),
                at: item.span().start,
                known: Vec::new(),
            }),
            other => {
                document.report(item.span().start, format!("expected a table, found {}", shown(other)));
                None
            }
        };
        items.iter().filter_map(table).collect()
    }

    /// The byte of the file at which the value of `key` starts, or the section when it has none.
    pub fn at(&self, key: &str) -> usize {
        self.table.and_then(|table| table.get(key)).map_or(self.at, |value| value.span().start)
    }

    /// Reports the keys that are none of those asked for.
    pub fn finish(self) {
        for (key, _) in self.table.into_iter().flatten() {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let expected = self.known.join("`, `");
                let message =
                    format!("the key `{}` is unknown{}; expected `{expected}`", key.get_ref(), self.place());
                self.document.report(key.span().start, message);
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'t>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key)
    }

    fn place(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) }
    }
}

/// How a value looks in a message.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => format!("a TOML {}", other.type_str()),
    }
}

/// A value with an order that can be written as in the file.
pub trait Measure: PartialOrd {
    /// As one would write it in the file.
    fn written(&self) -> String;
}

impl<T: Setting> Setting for Located<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn of(_: &DeValue<'_>) -> Option<Self> {
        None
    }

    fn read(document: &Document<'_>, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        T::read(document, value).map(|read| Self { value: read, at: value.span().start })
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn of(_: &DeValue<'_>) -> Option<Self> {
        None
    }

    fn read(document: &Document<'_>, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter().filter_map(|item| T::read(document, item)).collect()),
            other => {
                let message = format!("expected a list, each item {}; found {}", T::EXPECTED, shown(other));
                document.report(value.span().start, message);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, read: impl FnOnce(&mut Section<'_, '_>)) -> Vec<String> {
        let read = |_: &Document<'_>, mut top: Section<'_, '_>| {
            read(&mut top);
            top.finish();
            Some(())
        };
        match Document::read(Path::new("f"), text, read) {
            Ok(()) => Vec::new(),
            Err(problems) => problems.iter().map(Problem::to_string).collect(),
        }
    }

    #[test]
    fn every_syntax_error_is_reported_and_nothing_else() {
        let found = problems("a = \nb = 1\nc = ]\n", |top| {
            top.required::<bool>("missing");
        });
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("f:1:"), "{found:?}");
        assert!(found[1].starts_with("f:3:"), "{found:?}");
    }

    #[test]
    fn wrong_missing_and_unknown_keys_are_all_reported_with_their_places() {
        let found = problems("a = 1\nlisten = 2\n[s]\nb = [true, \"x\"]\nz = 0\n", |top| {
            assert_eq!(top.optional::<bool>("a"), None);
            let mut section = top.section("s");
            assert_eq!(section.optional::<Vec<bool>>("b"), Some(vec![true]));
            section.required::<bool>("c");
            section.finish();
        });
        assert_eq!(
            found,
            [
                "f:1:5: expected true or false, found 1",
                "f:2:1: the key `listen` is unknown; expected `a`, `s`",
                "f:3:1: the key `c` in [s] is missing",
                "f:4:12: expected true or false, found \"x\"",
                "f:5:1: the key `z` is unknown in [s]; expected `b`, `c`",
            ]
        );
    }

    #[test]
    fn a_value_out_of_its_range_is_reported_with_the_range() {
        let found = problems("n = 65\n", |top| assert_eq!(top.within("n", 1..=64, 12u64), 12));
        assert_eq!(found, ["f:1:5: `n` is 65; expected between 1 and 64"]);
    }

    #[test]
    fn values_where_tables_are_expected_are_reported() {
        let found = problems("a = 1\nb = 2\nc = [3]\n", |top| {
            top.section("a").finish();
            assert!(top.sections("b").is_empty());
            assert!(top.sections("c").is_empty());
            assert!(top.optional_section("d").is_none());
        });
        assert_eq!(found.len(), 3, "{found:?}");
    }
}

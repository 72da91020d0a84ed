//! What is wrong with a file that an operator wrote.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing wrong with one file: printed as `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named by the operator or by the file that refers to it.
    pub file: PathBuf,
    /// Where in the file; `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong and what was expected.
    pub message: String,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Characters, counted from 1.
    pub column: usize,
}

impl Problem {
    /// A problem of the whole of `file`.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: None, message: message.into() }
    }

    /// A problem at byte `at` of `text`, the content of `file`.
    pub fn at(file: &Path, text: &str, at: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), place: Some(Place::of(text, at)), message: message.into() }
    }

    /// What `error` says about `file`, which was to be JSON.
    pub fn of_json(file: &Path, error: &serde_json::Error) -> Self {
        let place = Place { line: error.line(), column: error.column() };
        // The place is at the end of the text of the error as well.
        let text = error.to_string();
        let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
        Self { file: file.to_owned(), place: Some(place), message: format!("expected JSON: {reason}") }
    }
}

impl Place {
    /// The place of byte `at` of `text`; past the end means the end.
    pub fn of(text: &str, at: usize) -> Self {
        let before = &text.as_bytes()[..at.min(text.len())];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        Self { line, column }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "ab\nță = 1\n";
        let at = text.find('=').unwrap();
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, at), Place { line: 2, column: 4 });
        assert_eq!(Place::of(text, 999), Place { line: 3, column: 1 });
    }

    #[test]
    fn a_problem_prints_so_that_editors_can_jump_to_it() {
        let problem = Problem::at(Path::new("a.toml"), "x\ny", 2, "what");
        assert_eq!(problem.to_string(), "a.toml:2:1: what");
        assert_eq!(Problem::of_file(Path::new("a.toml"), "what").to_string(), "a.toml: what");
    }
}

//! Checking all files as an auditor does: nothing removed, changed or moved since it was written.

use super::chain::Link;
use super::directory;
use super::line::{Header, Reason};
use super::position::{self, Position};
use super::recovery::read_header;
use super::scan::{Scan, Unheard, scan};
use crate::journal::disk::{Disk, DiskFile};
use std::fmt;
use std::io;
use std::path::Path;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub records: u64,
    /// What is wrong, in the order of the files. Empty: the records are as they were written.
    pub breaks: Vec<Finding>,
    /// What is unusual and explained: unfinished writes, files that were removed because they were old.
    pub notes: Vec<Finding>,
    /// The number of the last record and the link after it: whoever knows them from an earlier day sees that none is missing since.
    pub end: Option<(u64, Link)>,
}

/// A remark about one file.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    pub line: Option<u64>,
    pub text: String,
}

/// One file under verification.
struct Found {
    number: u64,
    bytes: u64,
    header: Option<Header>,
}

/// Reads every file in `dir`. An error is one of reading.
pub fn verify(disk: &impl Disk, dir: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    let mut files = Vec::new();
    for number in directory::numbers(disk, dir)? {
        let file = disk.open(&directory::path(dir, number))?;
        files.push(Found { number, bytes: file.len()?, header: read_header(&file)? });
    }
    report.files = files.len();
    report.look_at_the_start(&files);
    for (at, found) in files.iter().enumerate() {
        let file = disk.open(&directory::path(dir, found.number))?;
        let next = files.get(at + 1);
        let counted = next.and_then(|next| next.counted_of(found.number));
        let scanned = scan(&file, counted.unwrap_or(u64::MAX), &mut Unheard)?;
        report.look_at_the_file(found, &scanned, counted);
        match next {
            Some(next) => report.look_at_the_joint(found, &scanned, next),
            None => report.end = Some((scanned.next_seq.saturating_sub(1), scanned.link)),
        }
    }
    match Position::load(dir) {
        Ok(sent) => report.look_at_the_end(sent),
        Err(error) => {
            let text = format!("how far records were sent cannot be read: {error}");
            report.notes.push(Finding { file: position::NAME.into(), line: None, text });
        }
    }
    Ok(report)
}

impl Found {
    /// How far the file `number`, the one before this one, counts.
    fn counted_of(&self, number: u64) -> Option<u64> {
        let after = self.header.as_ref()?.after?;
        (after.file == number).then_some(after.bytes)
    }
}

impl Report {
    fn look_at_the_start(&mut self, files: &[Found]) {
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return };
        let kept_from = last.header.as_ref().map_or(1, |header| header.kept_from);
        if first.number > kept_from {
            let text = format!(
                "missing, and so is every file up to {}: the newest file says that none was removed",
                directory::name(first.number - 1)
            );
            self.break_at(kept_from, None, text);
        } else if first.number > 1 {
            self.note(
                first.number,
                "the oldest file; those before it were removed because they were old enough",
            );
        }
    }

    fn look_at_the_file(&mut self, found: &Found, scanned: &Scan, counted: Option<u64>) {
        self.records += scanned.records;
        if counted.is_some_and(|counted| found.bytes < counted) {
            let text = format!(
                "records are missing at its end: it has {} bytes, the file after it says {}",
                found.bytes,
                counted.unwrap_or_default()
            );
            self.break_at(found.number, None, text);
        }
        let Some(fault) = &scanned.fault else { return };
        if fault.was_durable || counted.is_some() {
            self.break_at(found.number, Some(fault.line), format!("{}: changed or removed", fault.what));
        } else {
            let text = format!(
                "{}: the last write is not finished, or still under way. No event of it has left the broker, and its next start \
                 goes on without it",
                fault.what
            );
            self.notes.push(Finding { file: directory::name(found.number), line: Some(fault.line), text });
        }
    }

    fn look_at_the_joint(&mut self, found: &Found, scanned: &Scan, next: &Found) {
        if next.number != found.number + 1 {
            self.break_at(found.number + 1, None, "missing".into());
            return;
        }
        // One without a sound header is a break of its own.
        let Some(header) = &next.header else { return };
        let is_damage = header.reason == Reason::Damage;
        let goes_on = is_damage || header.first_seq == scanned.next_seq;
        if scanned.fault.is_none() && !(goes_on && header.previous == scanned.link) {
            let text = format!("does not follow {}: one of them was changed", directory::name(found.number));
            self.break_at(next.number, Some(1), text);
        }
        let rest = header.after.map_or(0, |after| found.bytes.saturating_sub(after.bytes));
        if is_damage {
            let text = "changed behind this line; the broker found it at a start and went on in a new file";
            self.break_at(found.number, Some(scanned.lines() + 1), text.into());
        } else if rest > 0 {
            self.note(found.number, &format!("its last {rest} bytes do not count: {}", header.reason));
        }
    }

    /// What MLog has must be here too.
    fn look_at_the_end(&mut self, sent: Option<Position>) {
        let last = self.end.map_or(0, |(seq, _)| seq);
        if let Some(sent) = sent.filter(|sent| sent.seq > last) {
            let text = format!(
                "records are missing at the end: the last one is {last}, and up to {} were sent to MLog",
                sent.seq
            );
            self.break_at(sent.file, None, text);
        }
    }

    fn break_at(&mut self, number: u64, line: Option<u64>, text: String) {
        self.breaks.push(Finding { file: directory::name(number), line, text });
    }

    fn note(&mut self, number: u64, text: &str) {
        self.notes.push(Finding { file: directory::name(number), line: None, text: text.to_owned() });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.text),
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

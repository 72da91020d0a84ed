//! The lines of a file: the header, the marks, and the records. Each is one JSON object.

use super::chain::Link;
use crate::event::timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of the format.
const VERSION: u32 = 1;
/// Longest line. Values in records are cut to lengths that stay far below it.
pub const LINE_BYTES_MAX: usize = 128 << 10;

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Number of the file, as in its name.
    pub file: u64,
    pub version: u32,
    /// When the file was begun, RFC 3339.
    pub began: String,
    /// Why.
    pub reason: Reason,
    /// Number of the first record that the file takes.
    pub first_seq: u64,
    /// The file before this one; none before the first of all.
    pub after: Option<After>,
    /// The link that the chain goes on from: that of the last line of the file before, as far as it counts.
    pub previous: Link,
    /// The oldest file that is kept; those before it were removed because they were old enough.
    pub kept_from: u64,
    /// How many lines of marks follow.
    pub marks: usize,
}

/// How far the file before counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub file: u64,
    /// What lies behind these bytes does not count: it was never durable, or it was changed.
    pub bytes: u64,
}

/// Why a file was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// There was none.
    First,
    /// The one before had grown large enough.
    Size,
    /// The one before was of an earlier day.
    Day,
    /// A write or a sync of the one before failed, or its name was gone.
    Failure,
    /// The one before ended in a write that was cut off by the end of the process or the machine.
    Torn,
    /// The one before was not as it had been written.
    Damage,
}

/// How far one group of a client got in each partition when the file was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarksLine {
    /// Pairs of a partition and the offset behind the highest one recorded.
    pub marks: Vec<(u8, u64)>,
    /// The client.
    pub user: String,
    pub group: String,
    /// When the last of them was recorded, Unix milliseconds.
    pub touched_ms: u64,
}

/// What recovery, verification and the outbox read of a record.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RecordLine {
    /// Counts records from 1, without holes.
    pub seq: u64,
    pub event_time: String,
    pub user: String,
    pub group: String,
    pub partition: u8,
    pub offset: u64,
    /// How many bytes of the file were durable when the line was written.
    pub synced: u64,
}

/// A line of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    Header(Header),
    Marks(MarksLine),
    Record(RecordLine),
}

impl Header {
    /// A header of now.
    pub fn new(file: u64, reason: Reason, now_ms: u64) -> Self {
        Self {
            file,
            version: VERSION,
            began: time_text(now_ms),
            reason,
            first_seq: 1,
            after: None,
            previous: Link::FIRST,
            kept_from: file,
            marks: 0,
        }
    }
}

impl Line {
    /// Reads a line without its line feed. `None` when it is none of those.
    pub fn read(line: &[u8]) -> Option<Self> {
        let header = || serde_json::from_slice(line).ok().filter(|header: &Header| header.version == VERSION);
        if line.starts_with(b"{\"seq\":") {
            serde_json::from_slice(line).ok().map(Self::Record)
        } else if line.starts_with(b"{\"marks\":") {
            serde_json::from_slice(line).ok().map(Self::Marks)
        } else {
            header().map(Self::Header)
        }
    }
}

/// Appends the members of `line` without the closing brace, which [`Link::seal`] adds.
pub fn write_members(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("plain data is written as JSON");
    let brace = out.pop();
    debug_assert_eq!(brace, Some(b'}'));
}

/// Unix milliseconds as RFC 3339.
pub fn time_text(ms: u64) -> String {
    String::from_utf8(timestamp::utc(ms).to_vec()).expect("digits and separators")
}

/// RFC 3339 as Unix milliseconds.
pub fn time_ms(text: &str) -> Option<u64> {
    timestamp::Timestamp::read(text.into())?.ms.try_into().ok()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "there was none",
            Self::Size => "the one before was large enough",
            Self::Day => "the one before was of an earlier day",
            Self::Failure => "a write of the one before failed",
            Self::Torn => "the one before ended in an unfinished write",
            Self::Damage => "the one before is damaged",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_as_they_were_written() {
        let header = Header { after: Some(After { file: 6, bytes: 99 }), ..Header::new(7, Reason::Size, 1) };
        let marks =
            MarksLine { marks: vec![(0, 5), (11, 7)], user: "u".into(), group: "g\"".into(), touched_ms: 3 };
        let mut out = Vec::new();
        let link = Link::FIRST;
        write_members(&mut out, &header);
        link.seal(&mut out, 0);
        assert_eq!(Line::read(out.trim_ascii_end()), Some(Line::Header(header.clone())));
        out.clear();
        write_members(&mut out, &marks);
        link.seal(&mut out, 0);
        assert_eq!(Line::read(out.trim_ascii_end()), Some(Line::Marks(marks)));
        out.clear();
        write_members(&mut out, &Header { version: 2, ..header });
        link.seal(&mut out, 0);
        assert_eq!(Line::read(out.trim_ascii_end()), None);
    }

    #[test]
    fn times_read_back_to_the_millisecond() {
        assert_eq!(time_ms(&time_text(1_700_000_000_123)), Some(1_700_000_000_123));
        assert_eq!(time_ms("yesterday"), None);
    }
}

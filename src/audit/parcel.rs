//! What is sent in one request: records that follow each other, as they stand in the files.

use super::directory;
use super::ledger::Tip;
use super::line::{LINE_BYTES_MAX, Line, Reason, RecordLine};
use super::position::Position;
use super::recovery::read_header;
use crate::journal::disk::RealDisk;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Largest request that MLog takes.
pub const PARCEL_BYTES_MAX: usize = 256 << 10;

// Every line fits into a parcel.
const _: () = assert!(LINE_BYTES_MAX <= PARCEL_BYTES_MAX);

/// Records to send.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The records, each with its line feed.
    text: Vec<u8>,
    records: Vec<Record>,
    /// Where to read on: behind the last record and whatever else was read.
    end: Option<Position>,
}

#[derive(Debug)]
struct Record {
    /// Where it lies in the text.
    place: Range<usize>,
    line: RecordLine,
    /// The position behind it.
    after: Position,
}

impl Parcel {
    /// Number of records.
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// The text of some records.
    pub fn text(&self, records: Range<usize>) -> &[u8] {
        match (
            self.records.get(records.start),
            records.end.checked_sub(1).and_then(|at| self.records.get(at)),
        ) {
            (Some(first), Some(last)) => &self.text[first.place.start..last.place.end],
            _ => &[],
        }
    }

    /// The position when everything up to the end of these records is sent.
    pub fn after(&self, records: Range<usize>) -> Option<Position> {
        match records.end == self.records.len() {
            true => self.end,
            false => Some(self.records.get(records.end.checked_sub(1)?)?.after),
        }
    }

    /// When a record was made.
    pub fn time_of(&self, record: usize) -> Option<&str> {
        Some(&self.records.get(record)?.line.event_time)
    }

    /// Reads the durable records behind `from`; an empty parcel with an end says that there are none in what was read, one without
    /// an end that there is nothing more to read.
    pub fn read(dir: &Path, from: Position, tip: &Tip) -> io::Result<Self> {
        let next = next_file(dir, from.file)?;
        let file = match File::open(directory::path(dir, from.file)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let limit = match (&file, next) {
            (None, _) => 0,
            (Some(_), _) if from.file == tip.file => tip.bytes,
            (Some(file), next) => counted(dir, from.file, file.metadata()?.len(), next)?,
        };
        match (file, next) {
            (Some(file), _) if from.bytes < limit => Self::take(&file, from, limit),
            (_, Some(next)) if from.file != tip.file => {
                let end = Position::start_of(dir, next)?;
                Ok(Self { end: Some(Position { seq: end.seq.max(from.seq), ..end }), ..Self::default() })
            }
            _ => Ok(Self::default()),
        }
    }

    /// Takes as many lines as fit.
    fn take(file: &File, from: Position, limit: u64) -> io::Result<Self> {
        let mut bytes = vec![0; (limit - from.bytes).min(PARCEL_BYTES_MAX as u64) as usize];
        file.read_exact_at(&mut bytes, from.bytes)?;
        let mut parcel = Self::default();
        let mut at = from;
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            at.bytes += line.len() as u64;
            if let Some(Line::Record(record)) = Line::read(line.trim_ascii_end()) {
                at.seq = record.seq;
                let start = parcel.text.len();
                parcel.text.extend_from_slice(line);
                parcel.records.push(Record { place: start..parcel.text.len(), line: record, after: at });
            }
        }
        if at.bytes == from.bytes {
            // Not one line feed: what is left of a damaged file.
            at.bytes += bytes.len() as u64;
        }
        parcel.end = Some(at);
        Ok(parcel)
    }
}

fn next_file(dir: &Path, number: u64) -> io::Result<Option<u64>> {
    Ok(directory::numbers(&RealDisk, dir)?.into_iter().find(|&found| found > number))
}

/// How far a finished file counts. Of a damaged one, everything that can be read is sent: it tells of transfers.
fn counted(dir: &Path, number: u64, bytes: u64, next: Option<u64>) -> io::Result<u64> {
    let Some(next) = next else { return Ok(bytes) };
    let header = read_header(&File::open(directory::path(dir, next))?)?;
    let after = header.filter(|header| header.reason != Reason::Damage).and_then(|header| header.after);
    Ok(after.filter(|after| after.file == number).map_or(bytes, |after| after.bytes.min(bytes)))
}

//! Opening the files of records: what the last process left behind, and where to go on.

use super::chain::Link;
use super::directory;
use super::ledger::{DAY_MS, Ledger, Terms, Tip, create};
use super::line::{Header, Line, Reason, time_ms};
use super::marks::Marks;
use super::scan::{Lines, Scan, scan};
use crate::journal::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;

/// What recovery learns from the lines of the newest file.
#[derive(Default)]
struct Restored {
    head_bytes: u64,
    sound: Told,
    /// By lines behind a fault.
    doubtful: Told,
}

/// What lines say.
#[derive(Default)]
struct Told {
    marks: Marks,
    /// The highest number of a record.
    last_seq: u64,
}

impl Lines for Restored {
    fn sound(&mut self, line: Line, end: u64) {
        if !matches!(line, Line::Record(_)) {
            self.head_bytes = end;
        }
        self.sound.take(line);
    }

    fn behind_fault(&mut self, line: Line) {
        self.doubtful.take(line);
    }
}

impl Restored {
    /// Believes the lines behind a fault too.
    fn believe(self) -> Told {
        let Self { mut sound, doubtful, .. } = self;
        sound.marks.merge(doubtful.marks);
        Told { last_seq: sound.last_seq.max(doubtful.last_seq), ..sound }
    }
}

impl Told {
    fn take(&mut self, line: Line) {
        match line {
            Line::Header(header) => self.last_seq = self.last_seq.max(header.first_seq.saturating_sub(1)),
            Line::Marks(line) => self.marks.restore(line),
            Line::Record(record) => {
                self.last_seq = self.last_seq.max(record.seq);
                self.marks.restore_record(&record, time_ms(&record.event_time).unwrap_or(0));
            }
        }
    }
}

impl<D: Disk> Ledger<D> {
    /// Opens the directory, making it if it is missing, and goes on where the last process stopped.
    pub fn open(disk: D, terms: Terms, now_ms: u64) -> io::Result<Self> {
        disk.create_dir_durably(&terms.dir)?;
        let numbers = directory::numbers(&disk, &terms.dir)?;
        let Some(&newest) = numbers.last() else { return Self::begin(disk, terms, now_ms) };
        let file = disk.open(&directory::path(&terms.dir, newest))?;
        // What the page cache holds may be what a failed sync of the process before left behind.
        file.sync()?;
        let mut restored = Restored::default();
        let found = scan(&file, u64::MAX, &mut restored)?;
        let begun = found.header.as_ref().and_then(|header| time_ms(&header.began)).unwrap_or(now_ms);
        let begun_ms = begun_times(&disk, &terms, &numbers)?;
        let head_bytes = restored.head_bytes;
        // Events of records in an unfinished write never left the broker; those of records that were changed did.
        let told = match &found.fault {
            Some(fault) if fault.was_durable => restored.believe(),
            _ => restored.sound,
        };
        let mut ledger = Self {
            disk,
            file,
            tip: Tip { file: newest, bytes: found.bytes, link: found.link, next_seq: told.last_seq + 1 },
            marks: told.marks,
            day: begun / DAY_MS,
            head_bytes,
            after: found.header.as_ref().and_then(|header| header.after),
            previous: found.header.as_ref().map_or(Link::FIRST, |header| header.previous),
            begun_ms,
            broken: false,
            terms,
        };
        ledger.leave_faulty(&found, now_ms)?;
        tracing::info!(
            file = ledger.tip.file,
            records = ledger.tip.next_seq - 1,
            chain = %ledger.tip.link,
            "the record of personal data is open"
        );
        Ok(ledger)
    }

    /// The very first file.
    fn begin(disk: D, terms: Terms, now_ms: u64) -> io::Result<Self> {
        let header = Header::new(1, Reason::First, now_ms);
        let (file, bytes, link) = create(&disk, &terms, &header, &Marks::default())?;
        Ok(Self {
            disk,
            file,
            tip: Tip { file: 1, bytes, link, next_seq: 1 },
            marks: Marks::default(),
            day: now_ms / DAY_MS,
            head_bytes: bytes,
            after: None,
            previous: Link::FIRST,
            begun_ms: [(1, now_ms)].into(),
            broken: false,
            terms,
        })
    }

    /// Begins a new file behind one that is not sound to its end.
    fn leave_faulty(&mut self, found: &Scan, now_ms: u64) -> io::Result<()> {
        let Some(fault) = &found.fault else { return Ok(()) };
        let file = directory::name(self.tip.file);
        let reason = if fault.was_durable { Reason::Damage } else { Reason::Torn };
        if fault.was_durable {
            tracing::error!(file, line = fault.line, "{}: records of personal data were changed", fault.what);
        } else {
            tracing::warn!(file, line = fault.line, "an unfinished write at the end does not count");
        }
        self.follow(reason, self.oldest(), now_ms)
    }
}

/// When each file was begun, as their headers say.
fn begun_times<D: Disk>(disk: &D, terms: &Terms, numbers: &[u64]) -> io::Result<BTreeMap<u64, u64>> {
    let mut begun = BTreeMap::new();
    for &number in numbers {
        let file = disk.open(&directory::path(&terms.dir, number))?;
        let header = read_header(&file)?;
        // One without a sound header counts as young.
        let ms = header.and_then(|header| time_ms(&header.began)).unwrap_or(u64::MAX);
        begun.insert(number, ms);
    }
    Ok(begun)
}

/// The header of a file, whether or not its link is right.
pub fn read_header(file: &impl DiskFile) -> io::Result<Option<Header>> {
    const HEADER_BYTES_MAX: usize = 4096;
    let mut bytes = vec![0; file.len()?.min(HEADER_BYTES_MAX as u64) as usize];
    file.read_at(&mut bytes, 0)?;
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(match Line::read(line) {
        Some(Line::Header(header)) => Some(header),
        _ => None,
    })
}

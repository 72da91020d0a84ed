//! The files of records as their one writer sees them: recovered at start, appended to, followed by new ones.
//!
//! A file gets its name when its header and its marks are durable. Records are appended in rounds: one write and one sync each. What
//! was never durable never counts: after a crash in the middle of a write, a write that failed or a sync that failed, a new file is
//! begun, and its header says how far the one before counts. Nothing is ever cut off or written over.
//!
//! Where the journal ends the process after a failed sync, because frames that follow would claim that those before them are
//! safe, this file can be left behind: its successor claims exactly what is known, and no event leaves the broker before its
//! record is in a file whose syncs have all succeeded.

use super::chain::Link;
use super::directory;
use super::line::{After, Header, Reason, write_members};
use super::marks::Marks;
use super::round::{Round, Written};
use crate::journal::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const DAY_MS: u64 = 86_400_000;

/// What a ledger is to do.
#[derive(Clone, Debug)]
pub struct Terms {
    pub dir: PathBuf,
    /// `event_type` of every record.
    pub event_type: String,
    /// A file whose records take so much is followed by a new one.
    pub file_bytes_max: u64,
    /// For how long files are kept after their last record; `None` means for ever.
    pub retention: Option<Duration>,
    /// For how long events live: what was recorded longer ago cannot be delivered again.
    pub events_live_for: Duration,
}

/// Where the ledger ends: everything up to here is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub file: u64,
    /// Bytes of the file.
    pub bytes: u64,
    pub link: Link,
    /// Number of the record that comes next.
    pub next_seq: u64,
}

/// The open files.
pub struct Ledger<D: Disk> {
    pub(super) disk: D,
    pub(super) terms: Terms,
    pub(super) file: D::File,
    pub(super) tip: Tip,
    pub(super) marks: Marks,
    /// The day of the file, days since the epoch.
    pub(super) day: u64,
    /// Bytes of header and marks: with no more, the file holds no record.
    pub(super) head_bytes: u64,
    pub(super) after: Option<After>,
    /// The link before the file's header.
    pub(super) previous: Link,
    /// When each file was begun, Unix milliseconds; the newest last.
    pub(super) begun_ms: BTreeMap<u64, u64>,
    /// A write or a sync failed: the file is not to be written any more.
    pub(super) broken: bool,
}

impl<D: Disk> Ledger<D> {
    /// Where everything durable ends.
    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Starts a round of records.
    pub fn round(&self, now_ms: u64) -> Round<'_> {
        Round::new(&self.terms.event_type, &self.marks, self.tip, now_ms)
    }

    /// Makes a round durable. After an error nothing of it counts, and [`ready`](Self::ready) has to succeed before the next.
    pub fn commit(&mut self, round: Written) -> io::Result<()> {
        let written = self.file.write_at(&round.buffer, self.tip.bytes).and_then(|()| self.file.sync());
        self.broken = written.is_err();
        written?;
        self.tip.bytes += round.buffer.len() as u64;
        (self.tip.link, self.tip.next_seq) = (round.link, round.next_seq);
        self.marks.merge(round.marks);
        Ok(())
    }

    /// Makes sure that the file can take the next round: begins a new one when this one has failed, is gone, large enough or of
    /// an earlier day. Files before `unsent` may be removed when they are old enough.
    pub fn ready(&mut self, now_ms: u64, unsent: u64) -> io::Result<()> {
        let is_gone = !self.disk.exists(&directory::path(&self.terms.dir, self.tip.file));
        if is_gone {
            tracing::error!(
                file = directory::name(self.tip.file),
                "the file of records of personal data is gone; a new one is begun"
            );
        }
        let record_bytes = self.tip.bytes - self.head_bytes;
        let is_empty = record_bytes == 0;
        if self.broken || is_gone {
            self.follow(Reason::Failure, self.oldest(), now_ms)
        } else if record_bytes >= self.terms.file_bytes_max {
            self.roll(Reason::Size, now_ms, unsent)
        } else if now_ms / DAY_MS != self.day && (!is_empty || self.oldest_kept(now_ms, unsent).is_some()) {
            self.roll(Reason::Day, now_ms, unsent)
        } else {
            Ok(())
        }
    }

    /// Begins the next file and removes those that are old enough. Its header says so before they go: otherwise their absence would
    /// look like a removal by hand.
    fn roll(&mut self, reason: Reason, now_ms: u64, unsent: u64) -> io::Result<()> {
        let kept_from = self.oldest_kept(now_ms, unsent).unwrap_or(self.oldest());
        self.follow(reason, kept_from, now_ms)?;
        let kept = self.begun_ms.split_off(&kept_from);
        std::mem::replace(&mut self.begun_ms, kept).into_keys().for_each(|number| self.remove(number));
        Ok(())
    }

    /// Begins the next file. One without records that has failed is replaced instead.
    pub(super) fn follow(&mut self, reason: Reason, kept_from: u64, now_ms: u64) -> io::Result<()> {
        let is_replaced = reason == Reason::Failure && self.tip.bytes == self.head_bytes;
        let number = self.tip.file + u64::from(!is_replaced);
        let (previous, after) = match is_replaced {
            true => (self.previous, self.after),
            false => (self.tip.link, Some(After { file: self.tip.file, bytes: self.tip.bytes })),
        };
        let live_ms = self.terms.events_live_for.as_millis() as u64 + DAY_MS;
        self.marks.forget_before(now_ms.saturating_sub(live_ms));
        let header = Header {
            first_seq: self.tip.next_seq,
            after,
            previous,
            kept_from,
            ..Header::new(number, reason, now_ms)
        };
        let (file, bytes, link) = create(&self.disk, &self.terms, &header, &self.marks)?;
        tracing::info!(
            file = directory::name(number),
            %reason,
            records = self.tip.next_seq - 1,
            chain = %previous,
            "a new file of records of personal data"
        );
        self.file = file;
        self.tip = Tip { file: number, bytes, link, ..self.tip };
        (self.head_bytes, self.after, self.previous) = (bytes, after, previous);
        (self.day, self.broken) = (now_ms / DAY_MS, false);
        self.begun_ms.insert(number, now_ms);
        Ok(())
    }

    /// The oldest file that stays, if there are older ones that may go.
    fn oldest_kept(&self, now_ms: u64, unsent: u64) -> Option<u64> {
        let limit_ms = now_ms.saturating_sub(self.terms.retention?.as_millis() as u64);
        // A file's last record is not younger than the file that follows.
        let ends = self.begun_ms.values().skip(1);
        let old =
            self.begun_ms.keys().zip(ends).take_while(|(file, end)| **end < limit_ms && **file < unsent);
        old.last().map(|(file, _)| file + 1)
    }

    /// The oldest file.
    pub(super) fn oldest(&self) -> u64 {
        self.begun_ms.keys().next().copied().unwrap_or(self.tip.file)
    }

    fn remove(&self, number: u64) {
        let file = directory::name(number);
        match self.disk.remove(&directory::path(&self.terms.dir, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file, "an old file of records cannot be removed");
            }
            _ => tracing::info!(file, "old records of personal data were removed"),
        }
    }
}

/// Makes a file whole and durable under its name; gives its length and the link after its last line.
pub(super) fn create<D: Disk>(
    disk: &D,
    terms: &Terms,
    header: &Header,
    marks: &Marks,
) -> io::Result<(D::File, u64, Link)> {
    let (mut out, mut link, lines) = (Vec::new(), header.previous, marks.lines());
    write_members(&mut out, &Header { marks: lines.len(), ..header.clone() });
    link = link.seal(&mut out, 0);
    for line in lines {
        let start = out.len();
        write_members(&mut out, &line);
        link = link.seal(&mut out, start);
    }
    let draft = directory::draft_path(&terms.dir, header.file);
    if disk.exists(&draft) {
        disk.remove(&draft)?;
    }
    let file = disk.create(&draft)?;
    file.write_at(&out, 0)?;
    file.sync()?;
    disk.rename(&draft, &directory::path(&terms.dir, header.file))?;
    disk.sync_dir(&terms.dir)?;
    Ok((file, out.len() as u64, link))
}

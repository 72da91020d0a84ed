//! The operator's way out of damage: what cannot be read is moved aside, and the log goes on behind it.
//!
//! Never done by itself, because events that were acknowledged are lost by it. The damaged bytes stay in the journal's
//! directory under other names. In their place a [gap frame](super::frame::Gap) carries index and chain over to the
//! next sound frame. A range that the disk cannot read at all (an I/O error) must be copied to a sound disk first.

use super::Mark;
use super::disk::{Disk, DiskFile};
use super::files::{FIRST_FRAME, FileHeader, FileHeaderError, FileNumber};
use super::frame::{BLOCK, FrameHeader, FrameKind, Gap, HEADER_BYTES};
use super::recovery::{Layout, RecoveryError, Survey, make, read_log, survey};
use super::scan::{Files, Located, Opened, Spot};
use crate::id::FrameIndex;
use std::fmt;
use std::path::Path;

/// Bytes are copied aside in pieces of this many.
const COPY_BYTES: usize = 1 << 20;

/// One step of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quarantined {
    /// The first block of this file was damaged and written anew from the file's first frame.
    FirstBlock(FileNumber),
    /// This file was moved aside as a whole, under the name given.
    File { file: FileNumber, aside: String },
    /// Frames were lost; what was left of them is in the files named.
    Frames { first: FrameIndex, last: FrameIndex, aside: Vec<String> },
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstBlock(file) => {
                write!(f, "{}: the first block was written anew; nothing is lost", file.name())
            }
            Self::File { file, aside } => write!(f, "{}: moved aside as {aside}", file.name()),
            Self::Frames { first, last, aside } => {
                write!(
                    f,
                    "frames {first} to {last} are lost; what is left of them is in {}",
                    aside.join(", ")
                )
            }
        }
    }
}

/// Moves the first damage of the journal in `dir` aside. `None` when there is none: to be called until then.
pub fn quarantine<D: Disk>(
    disk: &D,
    dir: &Path,
    layout: &Layout,
    after: &Mark,
    nonce: u64,
) -> Result<Option<Quarantined>, RecoveryError> {
    match Files::open(disk, dir, layout.cluster) {
        Err(RecoveryError::FileHeader { file }) => restore_file(disk, dir, layout, file).map(Some),
        Err(error) => Err(error),
        Ok(files) if files.opened.is_empty() => Ok(None),
        Ok(files) => match read_log(&files, after) {
            Ok(_) => Ok(None),
            Err(RecoveryError::Damaged(_) | RecoveryError::EndsEarly { .. }) => {
                let survey = survey(&files, after)?;
                Surgery { disk, dir, files, survey, after, nonce, aside: Vec::new() }.run().map(Some)
            }
            Err(error) => Err(error),
        },
    }
}

/// Writes the first block anew if the first frame still tells the nonce, otherwise moves the file aside.
fn restore_file<D: Disk>(
    disk: &D,
    dir: &Path,
    layout: &Layout,
    number: FileNumber,
) -> Result<Quarantined, RecoveryError> {
    let file = disk.open(&number.path(dir))?;
    let length = file.len()?;
    let mut head = vec![0; 2 * BLOCK];
    if length >= head.len() as u64 {
        file.read_at(&mut head, 0)?;
    }
    match (FileHeader::read(&head), FrameHeader::read(&head[BLOCK..])) {
        (Err(FileHeaderError::Damaged), Ok(frame)) if frame.block == 1 => {
            let header = FileHeader { number, nonce: frame.nonce, cluster: layout.cluster, bytes: length };
            file.write_at(&header.block(), 0)?;
            file.sync()?;
            Ok(Quarantined::FirstBlock(number))
        }
        _ => {
            let aside = set_aside(disk, dir, number)?;
            Ok(Quarantined::File { file: number, aside })
        }
    }
}

/// Renames a journal file so that it is none any more.
fn set_aside<D: Disk>(disk: &D, dir: &Path, number: FileNumber) -> Result<String, RecoveryError> {
    let name = format!("{}.damaged", number.name());
    disk.rename(&number.path(dir), &dir.join(&name))?;
    disk.sync_dir(dir)?;
    Ok(name)
}

/// A journal with damage, about to be bridged.
struct Surgery<'a, D: Disk> {
    disk: &'a D,
    dir: &'a Path,
    files: Files<D>,
    survey: Survey,
    after: &'a Mark,
    nonce: u64,
    aside: Vec<String>,
}

impl<D: Disk> Surgery<'_, D> {
    /// Everything is copied aside, durably, before anything is overwritten.
    fn run(mut self) -> Result<Quarantined, RecoveryError> {
        let first = self.survey.tip.index.next();
        let last = match self.next_sound()? {
            Some(next) => self.bridge_to(&next)?,
            None => self.drop_rest()?,
        };
        Ok(Quarantined::Frames { first, last, aside: self.aside })
    }

    /// The first whole frame beyond the damage from which the log can go on.
    fn next_sound(&self) -> Result<Option<Located>, RecoveryError> {
        let mut buffer = Vec::new();
        for later in &self.survey.remains {
            let file = &self.files.opened[later.file];
            let position = later.header.position();
            if later.header.prev_index > self.survey.tip.index
                && file.frame_at(position, &mut buffer)?.is_some()
            {
                return Ok(Some(*later));
            }
        }
        Ok(None)
    }

    /// Puts a gap directly before `next`, and takes away the files between the end and it.
    fn bridge_to(&mut self, next: &Located) -> Result<FrameIndex, RecoveryError> {
        let end = self.survey.walk.end;
        let goal = next.header.position();
        let mark = Mark {
            index: next.header.prev_index,
            term: next.header.prev_term,
            chain: next.header.prev_chain,
            time_ms: self.survey.tip.time_ms,
        };
        let to = if next.file == end.file { goal } else { self.files.opened[end.file].header.bytes };
        self.copy_aside(end, to)?;
        for between in end.file + 1..next.file {
            self.set_aside(between)?;
        }
        if next.file == end.file {
            self.write_gap(&self.files.opened[end.file], end.position, goal, &mark)?;
        } else if goal > FIRST_FRAME {
            self.copy_aside(Spot { file: next.file, position: FIRST_FRAME }, goal)?;
            self.write_gap(&self.files.opened[next.file], FIRST_FRAME, goal, &mark)?;
        } else {
            self.write_gap_after_end(&mark)?;
        }
        Ok(mark.index)
    }

    /// Nothing sound follows: the log ends here, or with what the checkpoint covers.
    fn drop_rest(&mut self) -> Result<FrameIndex, RecoveryError> {
        let end = self.survey.walk.end;
        let last = self.survey.remains.iter().map(|later| later.header.index).max();
        let last = last.unwrap_or_default().max(self.after.index);
        self.copy_aside(end, self.files.opened[end.file].header.bytes)?;
        for later in end.file + 1..self.files.opened.len() {
            if self.survey.remains.iter().any(|remains| remains.file == later) {
                self.set_aside(later)?;
            }
        }
        let file = &self.files.opened[end.file].file;
        for remains in self.survey.remains.iter().filter(|remains| remains.file == end.file) {
            file.write_at(&[0; BLOCK], remains.header.position())?;
        }
        file.sync()?;
        if self.survey.tip.index < self.after.index {
            self.write_gap_after_end(self.after)?;
        }
        Ok(last)
    }

    /// A gap of one block behind the last frame; in a file of its own if the last one is full.
    fn write_gap_after_end(&self, mark: &Mark) -> Result<(), RecoveryError> {
        let Spot { file, position } = self.survey.walk.end;
        let file = &self.files.opened[file];
        if position + BLOCK as u64 <= file.header.bytes {
            return self.write_gap(file, position, position + BLOCK as u64, mark);
        }
        let header = FileHeader { number: file.header.number.next(), nonce: self.nonce, ..file.header };
        if self.holds_frames(header.number) {
            return Err(RecoveryError::NoBridge { file: file.header.number });
        }
        let between = make(self.disk, self.dir, header)?;
        self.write_gap(&between, FIRST_FRAME, FIRST_FRAME + BLOCK as u64, mark)
    }

    /// Whether the file is still there with frames in it, and not merely ready for use.
    fn holds_frames(&self, number: FileNumber) -> bool {
        let opened = &self.files.opened;
        let mut remains = self.survey.remains.iter().map(|later| opened[later.file].header.number);
        self.disk.exists(&number.path(self.dir)) && remains.any(|file| file == number)
    }

    /// Writes a gap frame that takes `from .. to` and after which the log stands at `mark`.
    fn write_gap(&self, file: &Opened<D>, from: u64, to: u64, mark: &Mark) -> Result<(), RecoveryError> {
        if to < from + BLOCK as u64 {
            return Err(RecoveryError::NoBridge { file: file.header.number });
        }
        let tip = &self.survey.tip;
        let written = self.survey.remains.iter().map(|later| later.header.index).max();
        let gap = Gap { distrusted_upto: written.unwrap_or_default().max(mark.index) };
        let mut bytes = vec![0; (to - from) as usize];
        bytes[HEADER_BYTES..HEADER_BYTES + Gap::BYTES].copy_from_slice(&gap.bytes());
        let header = FrameHeader {
            kind: FrameKind::Gap,
            nonce: file.header.nonce,
            index: mark.index,
            prev_index: tip.index,
            term: mark.term,
            prev_term: tip.term,
            synced_upto: tip.index,
            time_ms: mark.time_ms,
            block: (from / BLOCK as u64) as u32,
            body_bytes: (bytes.len() - HEADER_BYTES) as u32,
            body_crc: crc32fast::hash(&bytes[HEADER_BYTES..]),
            prev_chain: tip.chain,
            chain: mark.chain,
        };
        header.write(&mut bytes);
        file.file.write_at(&bytes, from)?;
        Ok(file.file.sync()?)
    }

    fn set_aside(&mut self, file: usize) -> Result<(), RecoveryError> {
        let number = self.files.opened[file].header.number;
        self.aside.push(set_aside(self.disk, self.dir, number)?);
        Ok(())
    }

    /// Copies bytes from `from` to `to` of its file into a file of their own.
    fn copy_aside(&mut self, from: Spot, to: u64) -> Result<(), RecoveryError> {
        if from.position >= to {
            return Ok(());
        }
        let source = &self.files.opened[from.file];
        let name = format!("{}-{}-{to}.damaged", source.header.number.name(), from.position);
        let path = self.dir.join(&name);
        if self.disk.exists(&path) {
            self.disk.remove(&path)?;
        }
        let copy = self.disk.create(&path)?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = from.position;
        while at < to {
            let piece = &mut buffer[..(to - at).min(COPY_BYTES as u64) as usize];
            source.file.read_at(piece, at)?;
            copy.write_at(piece, at - from.position)?;
            at += piece.len() as u64;
        }
        copy.sync()?;
        self.disk.sync_dir(self.dir)?;
        self.aside.push(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::RealDisk;
    use super::super::scribe::{LAYOUT, Scribe, reopen};
    use super::*;
    use tempfile::tempdir;

    /// Quarantines step by step until nothing is left to do.
    fn operate(dir: &Path, after: &Mark) -> Vec<Quarantined> {
        let step = || quarantine(&RealDisk, dir, &LAYOUT, after, super::super::random_nonce()).unwrap();
        let steps: Vec<_> = std::iter::from_fn(step).take(10).collect();
        assert!(steps.len() < 10, "{steps:?}");
        steps
    }

    fn replayed(dir: &Path, after: &Mark) -> Vec<u64> {
        Scribe::resume(dir, after).unwrap().0.iter().map(|(index, _)| index.0).collect()
    }

    fn lost(steps: &[Quarantined]) -> Vec<(u64, u64)> {
        let range = |step: &Quarantined| match step {
            Quarantined::Frames { first, last, .. } => Some((first.0, last.0)),
            _ => None,
        };
        steps.iter().filter_map(range).collect()
    }

    const START: Mark = Mark { index: FrameIndex(0), term: crate::id::Term(0), chain: 0, time_ms: 0 };

    #[test]
    fn a_sound_journal_is_left_alone() {
        let dir = tempdir().unwrap();
        Scribe::new(dir.path()).commit_small(0, 40);
        assert_eq!(operate(dir.path(), &START), []);
    }

    #[test]
    fn a_damaged_frame_is_bridged_its_bytes_are_kept_and_the_log_goes_on() {
        let dir = tempdir().unwrap();
        let mut scribe = Scribe::new(dir.path());
        let rounds: Vec<_> = (0..4).map(|fill| scribe.commit_block(5000, fill)).collect();
        scribe.flip(rounds[1].file, rounds[1].position + 500);
        let steps = operate(dir.path(), &START);
        assert_eq!(lost(&steps), [(2, 2)]);
        let Quarantined::Frames { aside, .. } = &steps[0] else { panic!() };
        assert_eq!(std::fs::metadata(dir.path().join(&aside[0])).unwrap().len(), 8192);
        assert_eq!(replayed(dir.path(), &START), [1, 2, 3, 4]);
        let (_, mut scribe) = Scribe::resume(dir.path(), &START).unwrap();
        scribe.commit_small(0, 3);
        assert_eq!(replayed(dir.path(), &START), (1..=7).collect::<Vec<_>>());
    }

    #[test]
    fn the_gap_tells_which_frames_counted_with_the_lost_events() {
        let dir = tempdir().unwrap();
        let mut scribe = Scribe::new(dir.path());
        scribe.commit_small(0, 5);
        scribe.flip(FileNumber(1), 2 * BLOCK as u64 + 100);
        operate(dir.path(), &START);
        let mut gaps = Vec::new();
        let visit = |header: &FrameHeader, body: &[u8]| {
            if header.kind == FrameKind::Gap {
                gaps.push((header.index.0, Gap::read(body).unwrap().distrusted_upto.0));
            }
            Ok::<_, std::convert::Infallible>(())
        };
        reopen(dir.path(), &START).unwrap().replay(visit).unwrap();
        assert_eq!(gaps, [(2, 5)]);
    }

    /// Whatever run of frames is damaged, all others come back.
    #[test]
    fn any_run_of_damaged_frames_is_bridged_over_file_ends() {
        const FRAMES: u64 = 36;
        let place = |n: u64| (FileNumber(1 + n / 15), (1 + n % 15) * BLOCK as u64);
        for first in 0..FRAMES - 2 {
            for count in [1, 2, 14, 15, 16, 31] {
                let last = first + count - 1;
                if last > FRAMES - 2 {
                    continue;
                }
                let dir = tempdir().unwrap();
                let mut scribe = Scribe::new(dir.path());
                scribe.commit_small(0, FRAMES);
                for frame in first..=last {
                    let (file, position) = place(frame);
                    scribe.flip(file, position + 100);
                }
                let steps = operate(dir.path(), &START);
                assert_eq!(lost(&steps), [(first + 1, last + 1)], "{first} {count}");
                let kept = (1..=first).chain(last + 1..=FRAMES);
                assert_eq!(replayed(dir.path(), &START), kept.collect::<Vec<_>>(), "{first} {count}");
            }
        }
    }

    #[test]
    fn two_separate_damages_take_two_steps() {
        let dir = tempdir().unwrap();
        let scribe = {
            let mut scribe = Scribe::new(dir.path());
            scribe.commit_small(0, 10);
            scribe
        };
        scribe.flip(FileNumber(1), 3 * BLOCK as u64);
        scribe.flip(FileNumber(1), 6 * BLOCK as u64 + 100);
        assert_eq!(lost(&operate(dir.path(), &START)), [(3, 3), (6, 6)]);
        assert_eq!(replayed(dir.path(), &START), (1..=10).collect::<Vec<_>>());
    }

    #[test]
    fn a_missing_file_is_bridged() {
        let dir = tempdir().unwrap();
        Scribe::new(dir.path()).commit_small(0, 40);
        std::fs::remove_file(FileNumber(2).path(dir.path())).unwrap();
        assert_eq!(lost(&operate(dir.path(), &START)), [(16, 30)]);
        let kept = (1..=15).chain(30..=40);
        assert_eq!(replayed(dir.path(), &START), kept.collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_first_block_is_written_anew_without_loss() {
        let dir = tempdir().unwrap();
        let scribe = {
            let mut scribe = Scribe::new(dir.path());
            scribe.commit_small(0, 20);
            scribe
        };
        scribe.flip(FileNumber(1), 30);
        assert_eq!(operate(dir.path(), &START), [Quarantined::FirstBlock(FileNumber(1))]);
        assert_eq!(replayed(dir.path(), &START), (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn a_journal_that_lost_its_end_goes_on_behind_the_checkpoint() {
        let dir = tempdir().unwrap();
        let mut scribe = Scribe::new(dir.path());
        scribe.commit_small(0, 20);
        let covered = scribe.sequencer.tip();
        std::fs::remove_file(FileNumber(2).path(dir.path())).unwrap();
        assert_eq!(lost(&operate(dir.path(), &covered)), [(16, 20)]);
        let (frames, mut scribe) = Scribe::resume(dir.path(), &covered).unwrap();
        assert_eq!(frames.len(), 0);
        scribe.commit_small(0, 2);
        assert_eq!(replayed(dir.path(), &covered), [21, 22]);
    }
}

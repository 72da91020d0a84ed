//! From the files a dead process left to a sequencer that goes on, and to the frames that were not applied yet.
//!
//! What cannot be read is told apart by what comes later: if a later sound header says that it had been synced, the disk
//! lost what it had promised to keep, and the broker refuses to start. Otherwise it is the torn tail of a write that was
//! never acknowledged, and is cut. An error of the disk while reading is never taken for either.

use super::disk::{Disk, DiskFile};
use super::files::{FIRST_FRAME, FileDone, FileHeader, FileJob, FileJobError, FileNumber, FileWork};
use super::frame::{BLOCK, FrameHeader, HEADER_BYTES};
use super::scan::{Files, Located, Opened, Spot, Walk};
use super::sequencer::{ClosedFile, LogEnd, Sequencer};
use super::{ClusterId, Mark};
use crate::fault::{Fault, planted};
use crate::id::FrameIndex;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;

/// Why a journal is not opened.
#[derive(Debug)]
pub enum RecoveryError {
    /// Reading, writing or syncing failed.
    Disk(io::Error),
    /// Frames that had been synced cannot be read.
    Damaged(Damage),
    /// The file's first block is damaged, or the file has another length or name than it was made with.
    FileHeader { file: FileNumber },
    /// The file was written by another version.
    FileVersion { file: FileNumber, version: u32 },
    /// The file belongs to another data directory.
    ForeignFile { file: FileNumber, cluster: ClusterId },
    /// The oldest frame is later than the first one the checkpoint needs.
    StartsLate { oldest: FrameIndex, needed: FrameIndex },
    /// The journal ends before the frame that the checkpoint covers.
    EndsEarly { last: FrameIndex, covered: FrameIndex },
    /// The frames behind the damage leave no room for a gap: the file was put together from several journals.
    NoBridge { file: FileNumber },
    /// The journal holds another frame at the checkpoint's index: they are of different histories.
    OtherHistory { index: FrameIndex },
}

/// A range of the journal that had been synced and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: FileNumber,
    /// First unreadable byte: where frame `first` should start.
    pub from: u64,
    /// End of the range in the file: the next sound header, or the end of the file.
    pub to: u64,
    /// The first lost frame.
    pub first: FrameIndex,
    /// At least every frame up to this one had been synced.
    pub synced_upto: FrameIndex,
}

/// An unfinished write that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    pub file: FileNumber,
    pub position: u64,
    /// The first frame of which something was found.
    pub index: FrameIndex,
}

/// How journal files are made.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub cluster: ClusterId,
    /// Length of a journal file, at least three blocks.
    pub file_bytes: u64,
}

/// A journal that can be gone on with.
pub struct Recovered<D: Disk> {
    files: Files<D>,
    /// Frames above the checkpoint, in the order of their index.
    frames: Vec<Located>,
    sequencer: Sequencer,
    torn: Option<TornTail>,
}

impl<D: Disk> fmt::Debug for Recovered<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovered").field("frames", &self.frames.len()).field("torn", &self.torn).finish()
    }
}

/// Why a frame was not replayed.
#[derive(Debug)]
pub enum ReplayError<E> {
    /// The disk failed, or returned other bytes than a moment before.
    Disk(io::Error),
    /// The visitor refused the frame.
    Refused { index: FrameIndex, error: E },
}

/// Opens the journal in `dir`, which is made if it is missing, for a state that has applied everything up to `after`.
///
/// Blocks; everything that it returns is durable. `nonce` is drawn for files that have to be made.
pub fn recover<D: Disk>(
    disk: &D,
    dir: &Path,
    layout: &Layout,
    after: &Mark,
    nonce: &mut dyn FnMut() -> u64,
) -> Result<Recovered<D>, RecoveryError> {
    disk.create_dir_durably(dir)?;
    let mut files = Files::open(disk, dir, layout.cluster)?;
    if files.opened.is_empty() {
        if after.index.0 > 0 {
            return Err(RecoveryError::EndsEarly { last: FrameIndex(0), covered: after.index });
        }
        files.opened.push(make_first(disk, dir, layout, nonce())?);
    }
    let log = read_log(&files, after)?;
    let torn = cut_tail(&files, &log)?;
    drop_unfit(disk, dir, &mut files, &log, layout)?;
    let sequencer = Sequencer::resume(log_end(&files, &log, after), layout.file_bytes);
    Ok(Recovered { frames: log.walk.frames, files, sequencer, torn })
}

/// How far the log is whole, and what lies beyond.
pub(super) struct Survey {
    pub walk: Walk,
    /// The last frame before the end.
    pub tip: Mark,
    /// Sound headers beyond the end, in the order of their places.
    pub remains: Vec<Located>,
    /// Whether the frame that the checkpoint covers was found. If not, the end is behind the last frame before it.
    pub started: bool,
}

/// Finds the end of the log and checks that it is one.
pub(super) fn read_log<D: Disk>(files: &Files<D>, after: &Mark) -> Result<Survey, RecoveryError> {
    if let Some(oldest) = files.opened[0].first_frame()?.filter(|oldest| oldest.prev_index > after.index) {
        return Err(RecoveryError::StartsLate { oldest: oldest.index, needed: after.index.next() });
    }
    let survey = survey(files, after)?;
    if !survey.started && survey.tip.index == after.index {
        Err(RecoveryError::OtherHistory { index: after.index })
    } else if let Some(damage) = survey.damage(files) {
        Err(RecoveryError::Damaged(damage))
    } else if !survey.started {
        Err(RecoveryError::EndsEarly { last: survey.tip.index, covered: after.index })
    } else {
        Ok(survey)
    }
}

/// Follows the log from the frame that `after` names.
pub(super) fn survey<D: Disk>(files: &Files<D>, after: &Mark) -> io::Result<Survey> {
    match files.start(after)? {
        Some(start) => {
            let walk = files.walk(start, after)?;
            let (tip, remains) = (walk.tip(after), files.beyond(walk.end)?);
            Ok(Survey { walk, tip, remains, started: true })
        }
        None => survey_without_start(files, after),
    }
}

fn survey_without_start<D: Disk>(files: &Files<D>, after: &Mark) -> io::Result<Survey> {
    let mut end = Spot { file: 0, position: FIRST_FRAME };
    let mut tip = Mark::default();
    let mut remains = Vec::new();
    for frame in files.beyond(end)? {
        if frame.header.index <= after.index {
            end = Spot { file: frame.file, position: frame.header.position() + frame.header.span() };
            tip = frame.header.mark();
        } else {
            remains.push(frame);
        }
    }
    Ok(Survey { walk: Walk { frames: Vec::new(), end }, tip, remains, started: false })
}

impl Survey {
    /// Whether something beyond the end says that what should stand there had been synced.
    pub fn damage<D: Disk>(&self, files: &Files<D>) -> Option<Damage> {
        let synced_upto = self.remains.iter().map(|later| later.header.synced_upto).max()?;
        if synced_upto <= self.tip.index || planted(Fault::CorruptionCut) {
            return None;
        }
        let end = self.walk.end;
        let file = &files.opened[end.file].header;
        let next = |later: &&Located| later.file == end.file && later.header.position() > end.position;
        let to = self.remains.iter().find(next).map_or(file.bytes, |later| later.header.position());
        Some(Damage { file: file.number, from: end.position, to, first: self.tip.index.next(), synced_upto })
    }
}

/// Overwrites the headers of unfinished writes, so that no later start finds them again.
fn cut_tail<D: Disk>(files: &Files<D>, log: &Survey) -> Result<Option<TornTail>, RecoveryError> {
    for torn in &log.remains {
        files.opened[torn.file].file.write_at(&[0; BLOCK], torn.header.position())?;
    }
    for file in &files.opened {
        if log.remains.iter().any(|torn| files.opened[torn.file].header.number == file.header.number) {
            file.file.sync()?;
        }
    }
    let first = log.remains.first();
    Ok(first.map(|torn| TornTail {
        file: files.opened[torn.file].header.number,
        position: torn.header.position(),
        index: torn.header.index,
    }))
}

/// Removes files that were ready for use but have another length than is configured now.
fn drop_unfit<D: Disk>(
    disk: &D,
    dir: &Path,
    files: &mut Files<D>,
    log: &Survey,
    layout: &Layout,
) -> Result<(), RecoveryError> {
    let used = log.walk.end.file + 1;
    if files.opened[used..].iter().any(|file| file.header.bytes != layout.file_bytes) {
        for unfit in files.opened.drain(used..).rev() {
            disk.remove(&unfit.header.number.path(dir))?;
        }
        disk.sync_dir(dir)?;
    }
    Ok(())
}

fn log_end<D: Disk>(files: &Files<D>, log: &Survey, after: &Mark) -> LogEnd {
    let Spot { file: current, position } = log.walk.end;
    let header = |file: &Opened<D>| file.header;
    LogEnd {
        tip: log.tip,
        current: files.opened[current].header,
        position,
        closed: closed_files(files, log, after),
        ready: files.opened[current + 1..].iter().map(header).collect(),
    }
}

/// The files before the current one. Those that were not read hold nothing above `after`.
fn closed_files<D: Disk>(files: &Files<D>, log: &Survey, after: &Mark) -> VecDeque<ClosedFile> {
    let last_of = |at: usize| {
        let frames = &log.walk.frames;
        let upto = frames.iter().rev().find(|frame| frame.file <= at);
        upto.map_or(after.index, |frame| frame.header.index)
    };
    let closed = files.opened[..log.walk.end.file].iter().enumerate();
    closed.map(|(at, file)| ClosedFile { header: file.header, last: last_of(at) }).collect()
}

fn make_first<D: Disk>(
    disk: &D,
    dir: &Path,
    layout: &Layout,
    nonce: u64,
) -> Result<Opened<D>, RecoveryError> {
    let header =
        FileHeader { number: FileNumber(1), nonce, cluster: layout.cluster, bytes: layout.file_bytes };
    make(disk, dir, header)
}

/// Makes a journal file now and opens it.
pub(super) fn make<D: Disk>(disk: &D, dir: &Path, header: FileHeader) -> Result<Opened<D>, RecoveryError> {
    match FileJob::new(disk, dir, FileWork::Prepare { header, recycled: None }).run() {
        Ok(FileDone::Prepared(header)) => Ok(Opened { header, file: disk.open(&header.number.path(dir))? }),
        Ok(FileDone::Removed(_)) => unreachable!("a file was to be prepared"),
        Err(FileJobError::Full(error) | FileJobError::Broken(error)) => Err(error.into()),
    }
}

impl<D: Disk> Recovered<D> {
    /// How many frames [`Recovered::replay`] will visit.
    pub fn unapplied(&self) -> usize {
        self.frames.len()
    }

    /// The unfinished write that was cut off, if there was one.
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }

    /// Visits header and body of every frame above the checkpoint, in order.
    pub fn replay<E>(
        &self,
        mut visit: impl FnMut(&FrameHeader, &[u8]) -> Result<(), E>,
    ) -> Result<(), ReplayError<E>> {
        let mut buffer = Vec::new();
        for Located { file, header } in &self.frames {
            let found = self.files.opened[*file].frame_at(header.position(), &mut buffer);
            if found.map_err(ReplayError::Disk)? != Some(*header) {
                return Err(ReplayError::Disk(io::Error::other("a frame read well once and not again")));
            }
            let body = &buffer[HEADER_BYTES..HEADER_BYTES + header.body_bytes as usize];
            visit(header, body).map_err(|error| ReplayError::Refused { index: header.index, error })?;
        }
        Ok(())
    }

    /// The writing end; the files are closed.
    pub fn into_sequencer(self) -> Sequencer {
        self.sequencer
    }
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "journal file {} is damaged in bytes {} to {}: frame {} cannot be read, and frames up to {} had been synced",
            self.file, self.from, self.to, self.first, self.synced_upto
        )
    }
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "the journal cannot be read or written: {error}"),
            Self::Damaged(damage) => damage.fmt(f),
            Self::FileHeader { file } => {
                write!(
                    f,
                    "the first block of journal file {file} is damaged, or the file has the wrong name or length"
                )
            }
            Self::FileVersion { file, version } => {
                write!(f, "journal file {file} has format version {version}, this version reads 1")
            }
            Self::ForeignFile { file, cluster } => {
                write!(f, "journal file {file} belongs to another data directory, of cluster {cluster}")
            }
            Self::StartsLate { oldest, needed } => {
                write!(
                    f,
                    "the journal starts at frame {oldest}, but the checkpoint needs frames from {needed} on"
                )
            }
            Self::EndsEarly { last, covered } => {
                write!(
                    f,
                    "the journal ends at frame {last}, but the checkpoint covers frames up to {covered}"
                )
            }
            Self::NoBridge { file } => {
                write!(
                    f,
                    "the damage in journal file {file} cannot be bridged: restore the data directory from a backup"
                )
            }
            Self::OtherHistory { index } => {
                write!(
                    f,
                    "the journal and the checkpoint hold different frames {index}: they do not belong together"
                )
            }
        }
    }
}

impl std::error::Error for RecoveryError {}

impl<E: fmt::Display> fmt::Display for ReplayError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "the journal cannot be read: {error}"),
            Self::Refused { index, error } => write!(f, "frame {index} cannot be applied: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ReplayError<E> {}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;

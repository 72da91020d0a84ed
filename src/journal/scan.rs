//! Reading the journal's files at start: where the log is whole, where it ends, and what lies beyond its end.

use super::disk::{Disk, DiskFile};
use super::files::{FIRST_FRAME, FileHeader, FileHeaderError, FileNumber, is_unfinished};
use super::frame::{BLOCK, Frame, FrameHeader, HEADER_BYTES};
use super::recovery::RecoveryError;
use super::{ClusterId, Mark};
use crate::fault::{Fault, planted};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Headers beyond the end are looked for in pieces of this many bytes, a multiple of [`BLOCK`].
const LOOK_BYTES: usize = 1 << 20;

/// The journal's files, oldest first, opened and synced.
pub(super) struct Files<D: Disk> {
    pub opened: Vec<Opened<D>>,
}

/// One of them.
pub(super) struct Opened<D: Disk> {
    pub header: FileHeader,
    pub file: D::File,
}

/// A place in the journal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Position in [`Files::opened`].
    pub file: usize,
    pub position: u64,
}

/// A frame of the log and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub file: usize,
    pub header: FrameHeader,
}

/// The log as far as it is whole.
pub(super) struct Walk {
    /// The frames to be applied, in the order of their index. Those that others superseded are left out.
    pub frames: Vec<Located>,
    /// Where the next frame would be.
    pub end: Spot,
}

impl<D: Disk> Files<D> {
    /// Opens the files in `dir`, and makes durable what the page cache may hold before any of it is trusted.
    pub fn open(disk: &D, dir: &Path, cluster: ClusterId) -> Result<Self, RecoveryError> {
        let mut numbers = Vec::new();
        for name in disk.list(dir)? {
            if is_unfinished(&name) {
                disk.remove(&dir.join(name))?;
            } else {
                numbers.extend(FileNumber::of(&name));
            }
        }
        numbers.sort_unstable();
        disk.sync_dir(dir)?;
        let opened = numbers.into_iter().map(|number| Opened::open(disk, dir, number, cluster));
        Ok(Self { opened: opened.collect::<Result<_, _>>()? })
    }

    /// The place right after the frame that `after` names, whose successors are to be read. Frames up to there are not
    /// looked at: a checkpoint stands for them. `None` if neither that frame nor one that continues it is there.
    pub fn start(&self, after: &Mark) -> io::Result<Option<Spot>> {
        if after.index.0 == 0 {
            return Ok(Some(Spot { file: 0, position: FIRST_FRAME }));
        }
        for (at, file) in self.opened.iter().enumerate().skip(self.holder_of(after)?) {
            let found = file.headers(FIRST_FRAME, |header| match position_after(&header, after) {
                Some(position) => ControlFlow::Break(position),
                None => ControlFlow::Continue(()),
            })?;
            if let Some(position) = found {
                return Ok(Some(Spot { file: at, position }));
            }
        }
        Ok(None)
    }

    /// The last file that starts at or before the frame that `after` names.
    fn holder_of(&self, after: &Mark) -> io::Result<usize> {
        for (at, file) in self.opened.iter().enumerate().rev() {
            if file.first_frame()?.is_some_and(|header| header.prev_index < after.index) {
                return Ok(at);
            }
        }
        Ok(0)
    }

    /// Follows the log from `start` for as long as each frame continues what came before.
    ///
    /// A frame whose index is not above the last one supersedes the suffix from there on, but never anything up to
    /// `after`.
    pub fn walk(&self, start: Spot, after: &Mark) -> io::Result<Walk> {
        let mut walk = Walk { frames: Vec::new(), end: start };
        let mut buffer = Vec::new();
        for (at, file) in self.opened.iter().enumerate().skip(start.file) {
            let first = if at == start.file { start.position } else { FIRST_FRAME };
            let mut position = first;
            while let Some(header) = file.frame_at(position, &mut buffer)? {
                if !walk.take(Located { file: at, header }, after) {
                    break;
                }
                position += header.span();
                walk.end = Spot { file: at, position };
            }
            if at > start.file && position == first {
                break;
            }
        }
        Ok(walk)
    }

    /// Sound headers of the files' present lives at or after `end`, in the order of their places. Their bodies may be
    /// torn.
    pub fn beyond(&self, end: Spot) -> io::Result<Vec<Located>> {
        let mut found = Vec::new();
        for (at, file) in self.opened.iter().enumerate().skip(end.file) {
            let from = if at == end.file { end.position } else { FIRST_FRAME };
            file.headers(from, |header| {
                found.push(Located { file: at, header });
                ControlFlow::<()>::Continue(())
            })?;
        }
        Ok(found)
    }
}

impl<D: Disk> Opened<D> {
    fn open(disk: &D, dir: &Path, number: FileNumber, cluster: ClusterId) -> Result<Self, RecoveryError> {
        let file = disk.open(&number.path(dir))?;
        if !planted(Fault::UnsyncedStart) {
            file.sync()?;
        }
        let mut block = vec![0; BLOCK];
        let readable = file.len()? >= BLOCK as u64;
        if readable {
            file.read_at(&mut block, 0)?;
        }
        match FileHeader::read(&block) {
            Ok(header) if header.cluster != cluster => {
                Err(RecoveryError::ForeignFile { file: number, cluster: header.cluster })
            }
            Ok(header) if header.number == number && header.bytes == file.len()? => Ok(Self { header, file }),
            Err(FileHeaderError::Version(version)) => {
                Err(RecoveryError::FileVersion { file: number, version })
            }
            _ => Err(RecoveryError::FileHeader { file: number }),
        }
    }

    /// The header at the first frame's place.
    pub fn first_frame(&self) -> io::Result<Option<FrameHeader>> {
        let mut bytes = [0; HEADER_BYTES];
        if self.header.bytes < FIRST_FRAME + BLOCK as u64 {
            return Ok(None);
        }
        self.file.read_at(&mut bytes, FIRST_FRAME)?;
        Ok(self.own(&bytes, FIRST_FRAME))
    }

    /// The frame at `position`, if its header and body are sound. `buffer` holds its bytes then.
    pub fn frame_at(&self, position: u64, buffer: &mut Vec<u8>) -> io::Result<Option<FrameHeader>> {
        if position + BLOCK as u64 > self.header.bytes {
            return Ok(None);
        }
        buffer.resize(BLOCK, 0);
        self.file.read_at(buffer, position)?;
        let Some(header) = self.own(buffer, position) else { return Ok(None) };
        buffer.resize(header.span() as usize, 0);
        self.file.read_at(&mut buffer[BLOCK..], position + BLOCK as u64)?;
        Ok(Frame::read(buffer).is_ok().then_some(header))
    }

    /// The header in `bytes` if it was written at `position` in this life of the file.
    fn own(&self, bytes: &[u8], position: u64) -> Option<FrameHeader> {
        let header = FrameHeader::read(bytes).ok()?;
        let own = header.nonce == self.header.nonce
            && header.position() == position
            && position + header.span() <= self.header.bytes;
        own.then_some(header)
    }

    /// Calls `each` with the own headers from `from` to the end of the file, until it breaks.
    fn headers<T>(
        &self,
        from: u64,
        mut each: impl FnMut(FrameHeader) -> ControlFlow<T>,
    ) -> io::Result<Option<T>> {
        let end = self.header.bytes / BLOCK as u64 * BLOCK as u64;
        let mut buffer = vec![0; LOOK_BYTES];
        let mut position = from;
        while position < end {
            let piece = &mut buffer[..(end - position).min(LOOK_BYTES as u64) as usize];
            self.file.read_at(piece, position)?;
            for block in piece.chunks_exact(BLOCK) {
                let broken = self.own(block, position).map(&mut each).and_then(ControlFlow::break_value);
                if broken.is_some() {
                    return Ok(broken);
                }
                position += BLOCK as u64;
            }
        }
        Ok(None)
    }
}

/// Where the successors of `after` start, as far as `header` tells: behind it, or where it stands.
fn position_after(header: &FrameHeader, after: &Mark) -> Option<u64> {
    if header.index == after.index && header.chain == after.chain {
        Some(header.position() + header.span())
    } else {
        continues(header, after).then(|| header.position())
    }
}

/// Whether a frame is the first to be applied after `after`: its successor, or a gap that `after` lies in.
fn continues(header: &FrameHeader, after: &Mark) -> bool {
    header.follows(after) || header.prev_index < after.index && after.index < header.index
}

impl Walk {
    /// The last frame of the log that comes after `after`.
    pub fn tip(&self, after: &Mark) -> Mark {
        self.frames.last().map_or(*after, |frame| frame.header.mark())
    }

    /// Adds `next` if it continues the log; first drops the suffix that it supersedes.
    fn take(&mut self, next: Located, after: &Mark) -> bool {
        let known = self.frames.partition_point(|frame| frame.header.index <= next.header.prev_index);
        let taken = match known.checked_sub(1) {
            Some(last) => next.header.follows(&self.frames[last].header.mark()),
            None => continues(&next.header, after),
        };
        if taken {
            self.frames.truncate(known);
            self.frames.push(next);
        }
        taken
    }
}

//! The writing end of the journal, without the writing: says where the next frame goes and fills it in.
//!
//! At most [`ROUNDS_IN_FLIGHT_MAX`] rounds are in flight: a frame is placed, written and synced, then [`Sequencer::synced`]. Rounds
//! end in the order of their frames, whichever is first on the disk, so every frame says with `synced_upto` up to which one all
//! were synced when it was placed. A frame that is on the disk when one before it is not is cut like any torn tail. The frame of a
//! broker that has nothing more to do is not covered by a later one; [`Sequencer::uncovered`] asks for an empty frame
//! then, so that damage to it can be told from a torn write.

use super::command::Body;
use super::files::{FIRST_FRAME, FileDone, FileHeader, FileNumber, FileWork};
use super::frame::{BLOCK, FrameHeader, FrameKind, HEADER_BYTES, frame_bytes};
use super::{ClusterId, Mark};
use crate::fault::{Fault, planted};
use crate::id::{FrameIndex, Term};
use std::collections::VecDeque;

/// Files that are no longer needed and wait to be used again; more than this many are removed.
const SPARE_FILES_MAX: usize = 4;

/// Frames that are placed and not durable yet. While the disk is at one, the broker fills in the next.
pub const ROUNDS_IN_FLIGHT_MAX: u64 = 2;

/// Whether a frame can be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It goes into this file.
    At(FileNumber),
    /// It goes into a file that is not ready yet.
    NeedsFile,
    /// It fits into no file of the configured size.
    TooLarge,
}

/// A frame on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    pub index: FrameIndex,
    pub file: FileNumber,
    /// Where to write, a multiple of [`BLOCK`].
    pub position: u64,
    /// How much to write, a multiple of [`BLOCK`].
    pub bytes: usize,
}

/// A file whose frames are complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClosedFile {
    pub header: FileHeader,
    /// No frame in the file has an index above this one.
    pub last: FrameIndex,
}

/// Owns index, term, chain and files.
#[derive(Debug)]
pub struct Sequencer {
    cluster: ClusterId,
    /// Length of files made from now on.
    file_bytes: u64,
    term: Term,
    /// The last frame placed. `synced ≤ tip.index ≤ synced + ROUNDS_IN_FLIGHT_MAX`.
    tip: Mark,
    synced: FrameIndex,
    /// The last frame that carries commands.
    commands_upto: FrameIndex,
    /// `synced_upto` of the last frame placed: all up to there are covered.
    covered_upto: FrameIndex,
    current: FileHeader,
    /// End of the last frame in `current`.
    position: u64,
    /// Files whose frames may still be needed, oldest first.
    closed: VecDeque<ClosedFile>,
    /// Files that are no longer needed, oldest first.
    spare: VecDeque<FileHeader>,
    /// The file that follows `current`.
    ready: VecDeque<FileHeader>,
    working: bool,
}

/// Where recovery found the end of the log.
pub(super) struct LogEnd {
    pub tip: Mark,
    pub current: FileHeader,
    pub position: u64,
    pub closed: VecDeque<ClosedFile>,
    pub ready: VecDeque<FileHeader>,
}

impl Sequencer {
    /// Goes on where recovery found the end. Everything up to there is synced.
    pub(super) fn resume(end: LogEnd, file_bytes: u64) -> Self {
        Self {
            cluster: end.current.cluster,
            file_bytes,
            term: Term(end.tip.term.0.max(1)),
            synced: end.tip.index,
            tip: end.tip,
            commands_upto: end.tip.index,
            covered_upto: FrameIndex(0),
            current: end.current,
            position: end.position,
            closed: end.closed,
            spare: VecDeque::new(),
            ready: end.ready,
            working: false,
        }
    }

    /// Where a frame with a body of `body_bytes` would go.
    pub fn place(&self, body_bytes: usize) -> Place {
        let needed = frame_bytes(body_bytes) as u64;
        if self.position + needed <= self.current.bytes {
            return Place::At(self.current.number);
        }
        match self.ready.front() {
            Some(ready) if FIRST_FRAME + needed <= ready.bytes => Place::At(ready.number),
            _ if FIRST_FRAME + needed > self.file_bytes => Place::TooLarge,
            _ => Place::NeedsFile,
        }
    }

    /// The longest body that fits into a file of the configured size.
    pub fn body_bytes_max(&self) -> usize {
        let room = (self.file_bytes - FIRST_FRAME) as usize / BLOCK * BLOCK;
        room - HEADER_BYTES
    }

    /// Fills `out` with the next frame and returns where to write its first `Round::bytes`.
    ///
    /// `out` is the caller's aligned buffer of at least [`frame_bytes`] of the body. The caller has asked
    /// [`Sequencer::place`] and has less than [`ROUNDS_IN_FLIGHT_MAX`] rounds in flight.
    pub fn frame(&mut self, now_ms: u64, body: &Body<'_>, out: &mut [u8]) -> Round {
        assert!(self.tip.index.0 < self.synced.0 + ROUNDS_IN_FLIGHT_MAX, "too many rounds in flight");
        let bytes = frame_bytes(body.bytes());
        self.turn_to_file_for(bytes as u64);
        write_body(body, &mut out[..bytes]);
        let header = self.header(now_ms, &out[HEADER_BYTES..HEADER_BYTES + body.bytes()]);
        header.write(out);
        let round = Round { index: header.index, file: self.current.number, position: self.position, bytes };
        self.position += bytes as u64;
        self.tip = header.mark();
        self.covered_upto = header.synced_upto;
        if !body.is_empty() {
            self.commands_upto = header.index;
        }
        round
    }

    fn turn_to_file_for(&mut self, bytes: u64) {
        if self.position + bytes <= self.current.bytes {
            return;
        }
        let next = self.ready.pop_front().expect("`place` was asked and a file is ready");
        assert!(FIRST_FRAME + bytes <= next.bytes, "`place` was asked and the frame fits");
        self.closed.push_back(ClosedFile { header: self.current, last: self.tip.index });
        self.current = next;
        self.position = FIRST_FRAME;
    }

    fn header(&self, now_ms: u64, body: &[u8]) -> FrameHeader {
        let synced_upto = if planted(Fault::HastySyncedUpto) { self.tip.index } else { self.synced };
        let mut header = FrameHeader {
            kind: FrameKind::Commands,
            nonce: self.current.nonce,
            index: self.tip.index.next(),
            prev_index: self.tip.index,
            term: self.term,
            prev_term: self.tip.term,
            synced_upto,
            time_ms: now_ms.max(self.tip.time_ms),
            block: (self.position / BLOCK as u64) as u32,
            body_bytes: body.len() as u32,
            body_crc: crc32fast::hash(body),
            prev_chain: self.tip.chain,
            chain: 0,
        };
        header.chain = header.computed_chain();
        header
    }

    /// The round of `index` is durable: written and synced, as are all before it.
    pub fn synced(&mut self, index: FrameIndex) {
        assert_eq!(index, self.synced.next(), "the first round in flight");
        self.synced = index;
    }

    /// The last frame placed.
    pub fn tip(&self) -> Mark {
        self.tip
    }

    /// The last frame that is durable.
    pub fn committed(&self) -> FrameIndex {
        self.synced
    }

    /// Whether an empty frame is worth writing when nothing else is to be written: it says that the last ones with
    /// commands were synced.
    pub fn uncovered(&self) -> bool {
        self.commands_upto > self.covered_upto && self.synced == self.tip.index
    }

    /// Frames up to `safe` are in checkpoints: files with nothing later become spare.
    pub fn checkpointed(&mut self, safe: FrameIndex) {
        let needless = |file: &mut ClosedFile| file.last <= safe || planted(Fault::EarlyRecycling);
        while let Some(file) = self.closed.pop_front_if(needless) {
            self.spare.push_back(file.header);
        }
    }

    /// The next piece of work on files, if any is due and none is under way. `nonce` is only drawn for a new file.
    ///
    /// A file is always ready ahead of need, so that a full disk is known while the current file still has room.
    pub fn file_work(&mut self, nonce: impl FnOnce() -> u64) -> Option<FileWork> {
        if self.working {
            return None;
        }
        let work = if self.ready.is_empty() {
            self.preparation(nonce())
        } else if self.spare.len() > SPARE_FILES_MAX {
            FileWork::Remove(self.spare.pop_front()?.number)
        } else {
            return None;
        };
        self.working = true;
        Some(work)
    }

    /// A spare file of another length is not used again but removed in its turn.
    fn preparation(&mut self, nonce: u64) -> FileWork {
        let fits = self.spare.front().is_some_and(|spare| spare.bytes == self.file_bytes);
        let recycled = if fits { self.spare.pop_front() } else { None };
        let number = self.current.number.next();
        let nonce = if planted(Fault::OldNonce) { 0 } else { nonce };
        let header = FileHeader { number, nonce, cluster: self.cluster, bytes: self.file_bytes };
        FileWork::Prepare { header, recycled: recycled.map(|file| file.number) }
    }

    /// The work asked for is done.
    pub fn file_done(&mut self, done: FileDone) {
        assert!(self.working, "work was asked for");
        self.working = false;
        if let FileDone::Prepared(header) = done {
            self.ready.push_back(header);
        }
    }

    /// The work asked for found no room; [`Sequencer::file_work`] will ask for it again.
    pub fn file_refused(&mut self) {
        self.working = false;
    }
}

/// Copies the pieces of `body` behind the place of the header and zeroes what is left of `out`.
fn write_body(body: &Body<'_>, out: &mut [u8]) {
    let mut at = HEADER_BYTES;
    for piece in body.pieces() {
        out[at..at + piece.len()].copy_from_slice(piece);
        at += piece.len();
    }
    out[at..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::super::command::{Command, commands};
    use super::super::frame::Frame;
    use super::*;

    const FILE_BYTES: u64 = 8 * BLOCK as u64;

    fn file(number: u64) -> FileHeader {
        FileHeader {
            number: FileNumber(number),
            nonce: number * 1000,
            cluster: ClusterId([1; 16]),
            bytes: FILE_BYTES,
        }
    }

    fn sequencer() -> Sequencer {
        let end = LogEnd {
            tip: Mark::default(),
            current: file(1),
            position: FIRST_FRAME,
            closed: VecDeque::new(),
            ready: VecDeque::new(),
        };
        Sequencer::resume(end, FILE_BYTES)
    }

    fn round(sequencer: &mut Sequencer, block: &[u8]) -> (Round, Vec<u8>) {
        let mut body = Body::default();
        body.push(&Command::Events(block));
        let mut out = vec![0xff; frame_bytes(body.bytes())];
        let round = sequencer.frame(1000, &body, &mut out);
        sequencer.synced(round.index);
        (round, out)
    }

    /// Files `file_work` asks for are ready at once.
    fn prepare(sequencer: &mut Sequencer) -> Option<FileWork> {
        let work = sequencer.file_work(|| 77)?;
        match work {
            FileWork::Prepare { header, .. } => sequencer.file_done(FileDone::Prepared(header)),
            FileWork::Remove(number) => sequencer.file_done(FileDone::Removed(number)),
        }
        Some(work)
    }

    #[test]
    fn frames_continue_each_other_and_say_what_was_synced() {
        let mut sequencer = sequencer();
        let (first, first_bytes) = round(&mut sequencer, &[1; 64]);
        let (second, second_bytes) = round(&mut sequencer, &[2; 5000]);
        let (one, two) = (Frame::read(&first_bytes).unwrap(), Frame::read(&second_bytes).unwrap());
        assert_eq!((first.position, second.position, second.bytes), (4096, 8192, 8192));
        assert_eq!((one.header.index, one.header.term), (FrameIndex(1), Term(1)));
        assert!(two.header.follows(&one.header.mark()));
        assert_eq!(two.header.synced_upto, FrameIndex(1));
        assert_eq!(commands(two.body).next(), Some(Ok(Command::Events(&[2; 5000]))));
    }

    #[test]
    fn a_frame_placed_beside_another_says_what_was_synced_before_both() {
        let mut sequencer = sequencer();
        round(&mut sequencer, &[1; 64]);
        let place = |sequencer: &mut Sequencer| {
            let mut out = vec![0; BLOCK];
            let round = sequencer.frame(1000, &Body::default(), &mut out);
            (round, FrameHeader::read(&out).unwrap())
        };
        let (second, two) = place(&mut sequencer);
        let (third, three) = place(&mut sequencer);
        assert!(three.follows(&two.mark()));
        assert_eq!((two.synced_upto, three.synced_upto), (FrameIndex(1), FrameIndex(1)));
        assert!(!sequencer.uncovered());
        sequencer.synced(second.index);
        sequencer.synced(third.index);
        assert_eq!(sequencer.committed(), FrameIndex(3));
    }

    #[test]
    fn what_follows_the_body_in_the_buffer_is_zeroed() {
        let (_, bytes) = round(&mut sequencer(), &[1; 8]);
        assert!(bytes[HEADER_BYTES + 16..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn time_never_decreases() {
        let mut sequencer = sequencer();
        let mut out = vec![0; BLOCK];
        for (now, expected) in [(50, 50), (40, 50), (60, 60)] {
            let index = sequencer.frame(now, &Body::default(), &mut out).index;
            sequencer.synced(index);
            assert_eq!(sequencer.tip().time_ms, expected);
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_waits_for_the_next_file() {
        let mut sequencer = sequencer();
        round(&mut sequencer, &[1; 6 * 4096 - 200]);
        assert_eq!(sequencer.place(8000), Place::NeedsFile);
        assert_eq!(sequencer.place(100), Place::At(FileNumber(1)));
        assert!(prepare(&mut sequencer).is_some());
        assert_eq!(sequencer.place(8000), Place::At(FileNumber(2)));
        let (round, bytes) = round(&mut sequencer, &[1; 8000]);
        assert_eq!((round.file, round.position), (FileNumber(2), FIRST_FRAME));
        assert_eq!(Frame::read(&bytes).unwrap().header.nonce, 77);
    }

    #[test]
    fn the_longest_body_fits_and_one_more_byte_does_not() {
        let mut sequencer = sequencer();
        let most = sequencer.body_bytes_max();
        round(&mut sequencer, &[1; 8]);
        prepare(&mut sequencer);
        assert_eq!(sequencer.place(most), Place::At(FileNumber(2)));
        assert_eq!(sequencer.place(most + 1), Place::TooLarge);
    }

    #[test]
    fn files_are_recycled_oldest_first_and_only_below_the_checkpoint() {
        let mut sequencer = sequencer();
        prepare(&mut sequencer);
        for _ in 0..2 {
            round(&mut sequencer, &[1; 6 * 4096]);
            prepare(&mut sequencer);
        }
        sequencer.checkpointed(FrameIndex(0));
        assert!(sequencer.spare.is_empty());
        sequencer.checkpointed(FrameIndex(1));
        round(&mut sequencer, &[1; 6 * 4096]);
        let FileWork::Prepare { header, recycled } = prepare(&mut sequencer).unwrap() else { panic!() };
        assert_eq!((header.number, recycled), (FileNumber(4), Some(FileNumber(1))));
    }

    #[test]
    fn too_many_spare_files_are_removed() {
        let mut sequencer = sequencer();
        prepare(&mut sequencer);
        for _ in 0..SPARE_FILES_MAX + 3 {
            round(&mut sequencer, &[1; 6 * 4096]);
            prepare(&mut sequencer);
        }
        sequencer.checkpointed(sequencer.committed());
        assert_eq!(prepare(&mut sequencer), Some(FileWork::Remove(FileNumber(1))));
        assert_eq!(prepare(&mut sequencer), Some(FileWork::Remove(FileNumber(2))));
        assert_eq!(prepare(&mut sequencer), None);
    }

    #[test]
    fn only_one_piece_of_file_work_is_under_way_and_a_refused_one_is_asked_again() {
        let mut sequencer = sequencer();
        let asked = sequencer.file_work(|| 5);
        assert_eq!(sequencer.file_work(|| 6), None);
        sequencer.file_refused();
        assert_eq!(sequencer.file_work(|| 5), asked);
    }

    #[test]
    fn a_frame_with_commands_is_uncovered_until_another_follows() {
        let mut sequencer = sequencer();
        assert!(!sequencer.uncovered());
        round(&mut sequencer, &[1; 8]);
        assert!(sequencer.uncovered());
        let index = sequencer.frame(0, &Body::default(), &mut [0; BLOCK]).index;
        sequencer.synced(index);
        assert!(!sequencer.uncovered());
    }

    #[test]
    fn an_empty_frame_does_not_cover_the_one_it_was_placed_beside() {
        let mut sequencer = sequencer();
        let block = [1; 8];
        let mut body = Body::default();
        body.push(&Command::Events(&block));
        let first = sequencer.frame(0, &body, &mut [0; BLOCK]).index;
        let second = sequencer.frame(0, &Body::default(), &mut [0; BLOCK]).index;
        sequencer.synced(first);
        sequencer.synced(second);
        assert!(sequencer.uncovered());
        let third = sequencer.frame(0, &Body::default(), &mut [0; BLOCK]).index;
        sequencer.synced(third);
        assert!(!sequencer.uncovered());
    }
}

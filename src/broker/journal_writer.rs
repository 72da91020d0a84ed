//! The journal's hands: opens the files, writes the frames the sequencer places, durably, and has files made ahead of need.

use crate::id::FrameIndex;
use crate::journal::command::Body;
use crate::journal::disk::RealDisk;
use crate::journal::files::{FileJob, FileJobError, FileNumber, FileWork};
use crate::journal::frame::{FrameHeader, HEADER_BYTES, frame_bytes};
use crate::journal::random_nonce;
use crate::journal::sequencer::{Place, Round, Sequencer};
use crate::rt::blocking::Pool;
use crate::rt::file::{DirectFile, DmaBuffer};
use crate::rt::notify::Notify;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Time between two attempts to make a file on a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Writes the journal. One task at a time places frames; they may be written at the same time.
pub struct JournalWriter {
    dir: PathBuf,
    pool: Pool,
    sequencer: RefCell<Sequencer>,
    /// The file that is written, and its number.
    open: RefCell<Option<(FileNumber, Rc<DirectFile>)>>,
    /// A file became ready or could not be made.
    changed: Notify,
    /// The last attempt to make a file found no room.
    full: Cell<bool>,
}

/// A frame that has its place and is to be written.
pub struct Placed {
    pub round: Round,
    header: FrameHeader,
    buffer: Rc<DmaBuffer>,
    file: Rc<DirectFile>,
}

/// A frame that is durable.
pub struct Written {
    pub round: Round,
    pub header: FrameHeader,
    buffer: Rc<DmaBuffer>,
    /// How long writing it durably took.
    pub sync: Duration,
}

impl Written {
    /// The frame's body, as written.
    pub fn body(&self) -> &[u8] {
        &self.buffer.as_bytes()[HEADER_BYTES..][..self.header.body_bytes as usize]
    }
}

/// Why a frame cannot be written now. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotWrite {
    /// The disk has no room for the next file.
    DiskFull,
    /// The frame is longer than a journal file.
    TooLarge,
}

impl JournalWriter {
    pub fn new(dir: PathBuf, pool: Pool, sequencer: Sequencer) -> Rc<Self> {
        let sequencer = RefCell::new(sequencer);
        let (open, changed) = (RefCell::default(), Notify::default());
        Rc::new(Self { dir, pool, sequencer, open, changed, full: Cell::default() })
    }

    /// Longest body of a frame.
    pub fn body_bytes_max(&self) -> usize {
        self.sequencer.borrow().body_bytes_max()
    }

    /// Whether an empty frame is worth writing now: see [`Sequencer::uncovered`].
    pub fn uncovered(&self) -> bool {
        self.sequencer.borrow().uncovered()
    }

    /// Frames up to this one are in a durable checkpoint.
    pub fn checkpointed(self: &Rc<Self>, upto: FrameIndex) {
        self.sequencer.borrow_mut().checkpointed(upto);
        self.work_on_files();
    }

    /// Makes `body` the next frame, which is to be written then. `now_ms` is the proposer's clock.
    ///
    /// Any failure of the disk ends the process: what a failed write or sync left behind cannot be known.
    pub async fn place(self: &Rc<Self>, now_ms: u64, body: &Body<'_>) -> Result<Placed, CannotWrite> {
        let number = self.wait_for_place(body.bytes()).await?;
        let file = self.file(number).await;
        let mut buffer = file.buffer(frame_bytes(body.bytes()));
        let round = self.sequencer.borrow_mut().frame(now_ms, body, buffer.as_bytes_mut());
        assert_eq!(round.file, number, "nobody else places frames");
        let header = FrameHeader::read(buffer.as_bytes()).expect("the sequencer wrote this frame");
        self.work_on_files();
        Ok(Placed { round, header, buffer: Rc::new(buffer), file })
    }

    /// The frame of `index` and all before it are durable.
    pub fn synced(&self, index: FrameIndex) {
        self.sequencer.borrow_mut().synced(index);
    }

    async fn wait_for_place(self: &Rc<Self>, body_bytes: usize) -> Result<FileNumber, CannotWrite> {
        loop {
            let place = self.sequencer.borrow().place(body_bytes);
            match place {
                Place::At(number) => return Ok(number),
                Place::TooLarge => return Err(CannotWrite::TooLarge),
                Place::NeedsFile if self.full.get() => return Err(CannotWrite::DiskFull),
                Place::NeedsFile => {
                    self.work_on_files();
                    self.changed.notified().await;
                }
            }
        }
    }

    /// The open file of that number. Files are used in order, so the one before it is closed.
    async fn file(&self, number: FileNumber) -> Rc<DirectFile> {
        let open =
            self.open.borrow().as_ref().filter(|(open, _)| *open == number).map(|(_, file)| file.clone());
        if let Some(file) = open {
            return file;
        }
        let path = number.path(&self.dir);
        let file = Rc::new(DirectFile::open(&path).await.unwrap_or_else(|error| fail("opening", &error)));
        let before = self.open.replace(Some((number, file.clone())));
        if let Some(before) = before.and_then(|(_, file)| Rc::into_inner(file)) {
            before.close().await.unwrap_or_else(|error| fail("closing", &error));
        }
        file
    }

    /// Starts the next piece of work on files, if one is due.
    pub fn work_on_files(self: &Rc<Self>) {
        let work = self.sequencer.borrow_mut().file_work(random_nonce);
        if let Some(work) = work {
            let writer = self.clone();
            crate::rt::spawn(async move { writer.run_file_job(work).await });
        }
    }

    async fn run_file_job(self: &Rc<Self>, work: FileWork) {
        let job = FileJob::new(&RealDisk, &self.dir, work);
        match self.pool.run(move || job.run()).await {
            Ok(done) => {
                self.full.set(false);
                self.sequencer.borrow_mut().file_done(done);
                self.changed.notify();
                self.work_on_files();
            }
            Err(FileJobError::Broken(error)) => fail("preparing", &error),
            Err(full) => {
                tracing::warn!(error = %full, "the journal cannot grow");
                self.full.set(true);
                self.changed.notify();
                crate::rt::sleep(RETRY_AFTER).await;
                self.sequencer.borrow_mut().file_refused();
                self.work_on_files();
            }
        }
    }
}

impl Placed {
    /// Writes the frame and makes it durable.
    pub async fn write(self) -> Written {
        let Self { round, header, buffer, file } = self;
        let started = Instant::now();
        file.write(buffer.clone(), round.position).await.unwrap_or_else(|error| fail("writing", &error));
        Written { round, header, buffer, sync: started.elapsed() }
    }
}

/// Ends the process: after a failed write or sync nobody knows what is on the disk, and a retry could succeed without the
/// data being there.
fn fail(doing: &str, error: &io::Error) -> ! {
    super::abort(&format!("{doing} the journal failed: {error}"))
}

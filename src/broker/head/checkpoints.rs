//! Checkpoints: now and then the state and the reach of every partition are written down, so that the journal before them can
//! be recycled and a restart has little to replay.

use super::Head;
use crate::broker::Core;
use crate::broker::message::Message;
use crate::id::{FrameIndex, Partition};
use crate::journal::ClusterId;
use crate::journal::disk::RealDisk;
use crate::partition::End;
use crate::rt;
use crate::rt::notify::Notify;
use crate::state::checkpoint::{CheckpointError, CheckpointJob};
use futures_lite::FutureExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often it is looked whether a checkpoint is due because of its age, and whether the last frame needs one that covers it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The checkpoint under way and what has happened since the last one.
pub(super) struct Checkpoints {
    dir: PathBuf,
    cluster: ClusterId,
    /// The frame that the last one covers.
    covered: Cell<FrameIndex>,
    /// Journal bytes written since.
    bytes: Cell<u64>,
    at: Cell<Instant>,
    /// Reported by owners for the one under way.
    ends: RefCell<BTreeMap<Partition, End>>,
    under_way: Cell<Option<FrameIndex>>,
    progress: Notify,
    /// Frames that were written made the next one due.
    due: Notify,
}

impl Checkpoints {
    pub(super) fn new(dir: PathBuf, cluster: ClusterId, covered: FrameIndex) -> Self {
        Self {
            dir,
            cluster,
            covered: Cell::new(covered),
            bytes: Cell::default(),
            at: Cell::new(Instant::now()),
            ends: RefCell::default(),
            under_way: Cell::default(),
            progress: Notify::default(),
            due: Notify::default(),
        }
    }

    /// An owner made everything up to the mark durable.
    pub(super) fn marked(&self, index: FrameIndex, ends: Vec<(Partition, End)>) {
        if self.under_way.get() == Some(index) {
            self.ends.borrow_mut().extend(ends);
            self.progress.notify();
        }
    }
}

/// Makes checkpoints as long as the process lives.
pub(super) async fn run(head: Rc<Head>, core: Rc<Core>) {
    loop {
        head.checkpoints.due.notified().or(rt::sleep(LOOK_EVERY)).await;
        if core.is_stopping() {
            return;
        }
        if head.checkpoint_is_due(&core) {
            head.checkpoint(&core).await;
        } else if head.writer.uncovered() && head.queue.borrow().is_empty() {
            head.queue.borrow_mut().cover();
            head.work.notify();
        }
    }
}

impl Head {
    /// A frame was written.
    pub(super) fn count_written(&self, core: &Core, bytes: usize) {
        let checkpoints = &self.checkpoints;
        checkpoints.bytes.set(checkpoints.bytes.get() + bytes as u64);
        if self.checkpoint_is_due(core) {
            checkpoints.due.notify();
        }
    }

    fn checkpoint_is_due(&self, core: &Core) -> bool {
        let settings = &core.config.storage;
        let (bytes, age) = (self.checkpoints.bytes.get(), self.checkpoints.at.get().elapsed());
        bytes >= settings.checkpoint_bytes || bytes > 0 && age >= settings.checkpoint_interval
    }

    /// Makes a checkpoint of everything applied so far.
    pub(super) async fn checkpoint(self: &Rc<Self>, core: &Rc<Core>) {
        let checkpoints = &self.checkpoints;
        // Another one may be under way when the broker stops; it ends when the helper threads have done their part.
        while checkpoints.under_way.get().is_some() {
            rt::sleep(Duration::from_millis(1)).await;
        }
        // From here to the marks nothing waits: owners must have applied exactly what the snapshot has.
        let snapshot = self.state.borrow().snapshot();
        let index = snapshot.applied().index;
        if index == checkpoints.covered.get() {
            return;
        }
        checkpoints.bytes.set(0);
        checkpoints.ends.borrow_mut().clear();
        checkpoints.under_way.set(Some(index));
        core.post_all(|| Message::Mark { index });
        while checkpoints.ends.borrow().len() < usize::from(self.state.borrow().partitions()) {
            checkpoints.progress.notified().await;
        }
        let ends = checkpoints.ends.borrow().values().map(|end| (*end).into()).collect();
        let job = CheckpointJob::new(&RealDisk, &checkpoints.dir, checkpoints.cluster, snapshot, ends);
        let written = core.pool.run(move || job.run()).await;
        checkpoints.under_way.set(None);
        checkpoints.at.set(Instant::now());
        match written {
            Ok(done) => {
                checkpoints.covered.set(done.applied);
                self.writer.checkpointed(done.safe);
            }
            // The journal keeps growing until there is room; intake stops long before it cannot.
            Err(CheckpointError::Full(error)) => {
                return tracing::error!(%error, "no room for a checkpoint; it is tried again");
            }
            Err(error) => crate::broker::abort(&format!("the checkpoint cannot be written: {error}")),
        }
        core.metrics.numbers.checkpoints.add(1);
    }
}

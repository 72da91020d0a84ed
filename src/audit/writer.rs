//! The one thread that writes records for all cores: it takes what is queued, makes it durable with one sync, and answers.
//!
//! An answer wakes the session that waits for it, on its core. While records cannot be written, what was submitted waits here
//! and is tried again, or is let go without a record, as `on_failure` says. Who submits holds a share of a budget until the
//! answer comes, which bounds what waits.

use super::ledger::{Ledger, Terms};
use super::marks::Receiver;
use super::progress::Progress;
use crate::config::OnFailure;
use crate::journal::disk::Disk;
use crate::state::lock::DirectoryLock;
use futures_channel::oneshot;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes after which a round takes no further batch.
const ROUND_BYTES: usize = 1 << 20;
/// Pauses between attempts to write.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often an idle writer looks whether a day has ended.
const IDLE: Duration = Duration::from_secs(60);

/// An event that is to be recorded.
pub struct Delivery {
    pub partition: u8,
    pub offset: u64,
    /// Members of one JSON object for each person, without braces.
    pub records: Vec<Vec<u8>>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every record is durable.
    Recorded,
    /// There is no record, and the events may go all the same.
    Unrecorded,
}

/// Submits batches. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<Batch>,
    progress: Arc<Progress>,
}

struct Batch {
    receiver: Arc<Receiver>,
    deliveries: Vec<Delivery>,
    answer: oneshot::Sender<Outcome>,
}

struct Writer<D: Disk> {
    disk: D,
    terms: Terms,
    on_failure: OnFailure,
    queue: mpsc::Receiver<Batch>,
    waiting: VecDeque<Batch>,
    open: Option<(DirectoryLock, Ledger<D>)>,
    progress: Arc<Progress>,
    /// While writing fails: the next pause, and when to try again.
    failing: Option<(Duration, Instant)>,
}

impl Recorder {
    /// Starts the thread. A directory that cannot be used is tried again and again.
    pub fn start(
        disk: impl Disk,
        terms: Terms,
        on_failure: OnFailure,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        let (sender, queue) = mpsc::channel();
        let writer = Writer {
            disk,
            terms,
            on_failure,
            queue,
            waiting: VecDeque::new(),
            open: None,
            progress: progress.clone(),
            failing: None,
        };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        Ok(Self { queue: sender, progress })
    }

    /// Records the events and waits, without blocking the core, until they may leave the broker.
    pub async fn record(&self, receiver: Arc<Receiver>, deliveries: Vec<Delivery>) -> Outcome {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Batch { receiver, deliveries, answer }).expect("the writer ends with the process");
        answered.await.expect("the writer answers every batch")
    }

    /// What was counted.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }
}

impl<D: Disk> Writer<D> {
    fn run(mut self) {
        self.attempt();
        while self.gather() {
            self.attempt();
        }
    }

    /// Takes in what is queued, waiting for something to do. `false` when nobody can submit any more.
    fn gather(&mut self) -> bool {
        let pause = match self.failing {
            Some((_, at)) => at.saturating_duration_since(Instant::now()),
            None if self.waiting.is_empty() => IDLE,
            None => Duration::ZERO,
        };
        let is_open = match self.queue.recv_timeout(pause) {
            Ok(batch) => {
                self.waiting.push_back(batch);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        };
        self.waiting.extend(self.queue.try_iter());
        // Whoever has gone does not get the events, so there is nothing to record.
        self.waiting.retain(|batch| !batch.answer.is_canceled());
        self.progress.numbers.audit_waiting.store(self.waiting.len() as u64, Relaxed);
        is_open
    }

    fn attempt(&mut self) {
        if self.failing.is_some_and(|(_, at)| Instant::now() < at) {
            return self.let_go();
        }
        if let Err(error) = self.write() {
            self.failed(&error);
            self.let_go();
        }
    }

    /// Writes one round and answers its batches. After an error nothing was written that counts.
    fn write(&mut self) -> io::Result<()> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        if self.open.is_none() {
            let lock = DirectoryLock::acquire(&self.terms.dir).map_err(io::Error::other)?;
            self.open = Some((lock, Ledger::open(self.disk.clone(), self.terms.clone(), now_ms)?));
        }
        let Some((_, ledger)) = &mut self.open else { return Ok(()) };
        ledger.ready(now_ms, self.progress.unsent_from())?;
        let mut round = ledger.round(now_ms);
        let mut taken = 0;
        while let Some(batch) = self.waiting.get(taken).filter(|_| round.bytes() < ROUND_BYTES) {
            for Delivery { partition, offset, records } in &batch.deliveries {
                round.add(&batch.receiver, *partition, *offset, records);
            }
            taken += 1;
        }
        if taken > 0 {
            let (round, before) = (round.finish(), ledger.tip().next_seq);
            ledger.commit(round)?;
            let numbers = &self.progress.numbers;
            numbers.audit_records.fetch_add(ledger.tip().next_seq - before, Relaxed);
            numbers.audit_syncs.fetch_add(1, Relaxed);
        }
        self.progress.reached(ledger.tip());
        self.succeeded();
        for batch in self.waiting.drain(..taken) {
            // A session that has ended meanwhile hears nothing.
            let _ = batch.answer.send(Outcome::Recorded);
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        if self.failing.take().is_some() {
            self.progress.numbers.audit_failing.store(0, Relaxed);
            tracing::info!("records of personal data can be written again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.progress.numbers.audit_failures.fetch_add(1, Relaxed);
        self.progress.numbers.audit_failing.store(1, Relaxed);
        if self.failing.is_none() {
            let dir = self.terms.dir.display();
            tracing::error!(%error, %dir, policy = ?self.on_failure, "records of personal data cannot be written");
        }
        let pause = self.failing.map_or(RETRY_FIRST, |(pause, _)| (pause * 2).min(RETRY_MAX));
        self.failing = Some((pause, Instant::now() + pause));
    }

    /// While writing fails: answers what waits, if it may go without a record.
    fn let_go(&mut self) {
        if self.on_failure == OnFailure::Withhold {
            return;
        }
        for batch in self.waiting.drain(..) {
            let (client, group, events) =
                (&batch.receiver.user, &batch.receiver.group, batch.deliveries.len());
            tracing::error!(client, group, events, "personal data is delivered without a record");
            self.progress.numbers.audit_unrecorded.fetch_add(events as u64, Relaxed);
            let _ = batch.answer.send(Outcome::Unrecorded);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify::verify;
    use crate::journal::disk::RealDisk;
    use futures_lite::future::{block_on, poll_once, zip};
    use std::fs;
    use std::path::Path;

    fn terms(dir: &Path) -> Terms {
        Terms {
            dir: dir.join("audit"),
            event_type: "T".into(),
            file_bytes_max: 1 << 20,
            retention: None,
            events_live_for: Duration::from_secs(1),
        }
    }

    fn start(dir: &Path, on_failure: OnFailure) -> Recorder {
        Recorder::start(RealDisk, terms(dir), on_failure, Arc::default()).unwrap()
    }

    async fn record(recorder: &Recorder, group: &str, offset: u64) -> Outcome {
        let receiver = Arc::new(Receiver { user: "u".into(), group: group.into() });
        let members =
            format!("\"user\":\"u\",\"group\":\"{group}\",\"partition\":0,\"offset\":{offset}").into_bytes();
        let delivery = Delivery { partition: 0, offset, records: vec![members] };
        recorder.record(receiver, vec![delivery]).await
    }

    fn records(dir: &Path) -> u64 {
        let report = verify(&RealDisk, &terms(dir).dir).unwrap();
        assert!(report.breaks.is_empty(), "{report:?}");
        report.records
    }

    #[test]
    fn batches_are_answered_when_they_are_durable() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = start(dir.path(), OnFailure::Withhold);
        for offset in 0..20 {
            let (a, b) = block_on(zip(record(&recorder, "a", offset), record(&recorder, "b", offset)));
            assert_eq!((a, b), (Outcome::Recorded, Outcome::Recorded));
            assert_eq!(records(dir.path()), 2 * (offset + 1));
        }
    }

    #[test]
    fn while_the_directory_is_unusable_events_wait_and_go_on_when_it_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("audit"), "in the way").unwrap();
        let recorder = start(dir.path(), OnFailure::Withhold);
        block_on(async {
            let mut waiting = Box::pin(record(&recorder, "a", 1));
            while recorder.progress().numbers.audit_failures.load(Relaxed) < 2 {
                assert_eq!(poll_once(&mut waiting).await, None);
                std::thread::yield_now();
            }
            fs::remove_file(dir.path().join("audit")).unwrap();
            assert_eq!(waiting.await, Outcome::Recorded);
        });
        assert_eq!(records(dir.path()), 1);
        assert_eq!(recorder.progress().numbers.audit_failing.load(Relaxed), 0);
    }

    #[test]
    fn events_go_without_a_record_only_where_the_operator_said_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("audit"), "in the way").unwrap();
        let recorder = start(dir.path(), OnFailure::Deliver);
        assert_eq!(block_on(record(&recorder, "a", 1)), Outcome::Unrecorded);
        assert_eq!(recorder.progress().numbers.audit_unrecorded.load(Relaxed), 1);
    }

    #[test]
    fn a_batch_that_nobody_waits_for_any_more_is_not_recorded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("audit"), "in the way").unwrap();
        let recorder = start(dir.path(), OnFailure::Withhold);
        block_on(async {
            let mut gone = Box::pin(record(&recorder, "a", 1));
            assert_eq!(poll_once(&mut gone).await, None);
            drop(gone);
            fs::remove_file(dir.path().join("audit")).unwrap();
            assert_eq!(record(&recorder, "a", 2).await, Outcome::Recorded);
        });
        assert_eq!(records(dir.path()), 1);
    }

    #[test]
    fn a_directory_that_another_broker_uses_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let first = start(dir.path(), OnFailure::Withhold);
        assert_eq!(block_on(record(&first, "a", 1)), Outcome::Recorded);
        let second = start(dir.path(), OnFailure::Deliver);
        assert_eq!(block_on(record(&second, "a", 1)), Outcome::Unrecorded);
        assert_eq!(records(dir.path()), 1);
    }
}

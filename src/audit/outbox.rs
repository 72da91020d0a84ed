//! Sending every record to MLog: at least once, in order, on a thread of its own.
//!
//! What MLog says decides what happens. An answer of 2xx: the position moves on. A refusal of the records themselves (4xx, but not
//! one that speaks of access, address, pace or time): the request is halved until the record at fault is alone; when it is
//! refused [`REFUSALS_MAX`] times it is set aside in `refused.jsonl`, and the others go on. Anything else, a hanging or
//! missing service included: the same request again, after a pause that grows.

use super::directory;
use super::parcel::Parcel;
use super::position::Position;
use super::progress::Progress;
use crate::config::{Mlog, Problem};
use crate::journal::disk::RealDisk;
use crate::outgoing::{Client, Failure};
use serde::Serialize;
use serde_json::value::RawValue;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often MLog may refuse a record that is sent alone before it is set aside.
const REFUSALS_MAX: u32 = 3;
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long to wait for records before looking again.
const IDLE: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 64 << 10;
const CONTENT_TYPE: &str = "application/x-ndjson";
/// Where records that MLog refuses are kept.
const REFUSED: &str = "refused.jsonl";

/// The thread's state.
struct Outbox {
    dir: PathBuf,
    settings: Mlog,
    client: Client,
    progress: Arc<Progress>,
    position: Position,
    /// Failures in a row.
    failures: u32,
}

/// What became of a request.
enum Sent {
    Accepted,
    Refused { status: u16, answer: String },
}

/// A record that was set aside, with what MLog said.
#[derive(Serialize)]
struct Refused<'r> {
    refused_at: String,
    status: u16,
    answer: String,
    record: &'r RawValue,
}

/// Starts the thread; the problems are those of the files that `settings` name.
pub fn start(dir: PathBuf, settings: Mlog, progress: Arc<Progress>) -> Result<(), Vec<Problem>> {
    let client = Client::load(&settings.service, ANSWER_BYTES_MAX)?;
    // Nothing is removed until the outbox knows what it has sent.
    progress.sent_before(0);
    let position = Position { file: 0, bytes: 0, seq: 0 };
    let outbox = Outbox { dir, settings, client, progress, position, failures: 0 };
    let spawned = std::thread::Builder::new().name("mlog".into()).spawn(move || outbox.run());
    spawned.map(drop).map_err(|error| vec![Problem::of_file("mlog".as_ref(), format!("no thread: {error}"))])
}

impl Outbox {
    fn run(mut self) {
        // The writer has opened the directory once it tells how far it is.
        let mut seen = None;
        while seen.is_none() {
            seen = self.progress.wait(None, IDLE);
        }
        self.insist("the position of the outbox cannot be found", Self::find_position);
        while let Some(tip) = seen {
            let dir = self.dir.clone();
            let position = self.position;
            let parcel = self.insist("records cannot be read", |_| Parcel::read(&dir, position, &tip));
            match parcel.after(0..parcel.count()) {
                Some(end) => {
                    self.send_all(&parcel);
                    self.arrive(end);
                }
                None => {
                    self.progress.numbers.mlog_oldest_ms.store(0, Relaxed);
                    seen = self.progress.wait(Some(tip), IDLE);
                }
            }
        }
    }

    /// Where to go on; with nothing to go by, at the oldest record.
    fn find_position(&mut self) -> io::Result<()> {
        let known = Position::load(&self.dir).unwrap_or_else(|error| {
            tracing::error!(%error, "the position of the outbox is not readable; every record is sent again");
            None
        });
        let files = directory::numbers(&RealDisk, &self.dir)?;
        let (oldest, newest) = (files.first().copied().unwrap_or(1), files.last().copied().unwrap_or(1));
        self.position = match known {
            Some(position) if position.file <= newest => position,
            _ => Position::start_of(&self.dir, oldest)?,
        };
        self.progress.sent_before(self.position.file);
        self.progress.numbers.mlog_last_record.store(self.position.seq, Relaxed);
        Ok(())
    }

    /// Sends what is in a parcel, as one request if MLog takes it.
    fn send_all(&mut self, parcel: &Parcel) {
        let mut parts = Vec::new();
        parts.push(0..parcel.count());
        while let Some(part) = parts.pop().filter(|part| !part.is_empty()) {
            self.tell_oldest(parcel, part.start);
            match self.send(parcel, part.clone()) {
                Sent::Refused { .. } if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                    continue;
                }
                Sent::Refused { status, answer } => {
                    let text = parcel.text(part.clone());
                    self.insist("a refused record cannot be set aside", |outbox| {
                        outbox.set_aside(text, status, &answer)
                    });
                }
                Sent::Accepted => {}
            }
            if let Some(after) = parcel.after(part) {
                self.arrive(after);
            }
        }
    }

    /// Sends until there is an answer that says what becomes of the records.
    fn send(&mut self, parcel: &Parcel, part: Range<usize>) -> Sent {
        let mut refusals = 0;
        loop {
            match self.client.post("/register", CONTENT_TYPE, parcel.text(part.clone())) {
                // What it says beside a status of 2xx does not matter, however long it is.
                Ok(_) | Err(Failure::TooLarge(_)) => {
                    if self.failures > 0 {
                        tracing::info!(failures = self.failures, "MLog takes records again");
                        self.failures = 0;
                    }
                    return Sent::Accepted;
                }
                Err(Failure::Status { status, excerpt }) if is_refusal(status) => {
                    self.progress.numbers.mlog_requests_failed.fetch_add(1, Relaxed);
                    refusals += 1;
                    if part.len() > 1 || refusals == REFUSALS_MAX {
                        return Sent::Refused { status, answer: excerpt };
                    }
                    std::thread::sleep(self.pause(refusals));
                }
                Err(failure) => self.failed(&failure),
            }
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.progress.numbers.mlog_requests_failed.fetch_add(1, Relaxed);
        self.failures = self.failures.saturating_add(1);
        let pause = self.pause(self.failures);
        tracing::warn!(%failure, failures = self.failures, ?pause, "records cannot be sent to MLog");
        std::thread::sleep(pause);
        if let Failure::Tls(_) = failure {
            // The certificate may have been renewed meanwhile.
            match Client::load(&self.settings.service, ANSWER_BYTES_MAX) {
                Ok(client) => self.client = client,
                Err(problems) => {
                    problems.iter().for_each(|problem| tracing::error!(%problem, "the client for MLog"));
                }
            }
        }
    }

    /// Doubles with each failure, and differs a little from broker to broker.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.settings.retry_interval.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let jitter = u32::from(uuid::Uuid::new_v4().into_bytes()[0]) % 64;
        doubled.min(PAUSE_MAX) * (256 - jitter) / 256
    }

    /// Everything before `position` is sent or set aside.
    fn arrive(&mut self, position: Position) {
        if position == self.position {
            return;
        }
        self.position = position;
        self.insist("the position of the outbox cannot be kept", |outbox| position.save(&outbox.dir));
        self.progress.sent_before(position.file);
        self.progress.numbers.mlog_last_record.store(position.seq, Relaxed);
    }

    fn set_aside(&mut self, record: &[u8], status: u16, answer: &str) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let refused = Refused {
            refused_at: super::line::time_text(since.map_or(0, |since| since.as_millis() as u64)),
            status,
            answer: answer.to_owned(),
            record: serde_json::from_slice(record).map_err(io::Error::other)?,
        };
        let mut line = serde_json::to_vec(&refused).map_err(io::Error::other)?;
        line.push(b'\n');
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(self.dir.join(REFUSED))?;
        // A line that a crash cut off stays a line of its own.
        if !ends_whole(&file)? {
            line.insert(0, b'\n');
        }
        file.write_all(&line)?;
        file.sync_data()?;
        self.progress.numbers.mlog_refused.fetch_add(1, Relaxed);
        tracing::error!(status, answer, file = REFUSED, "MLog refuses a record; it was set aside");
        Ok(())
    }

    fn tell_oldest(&self, parcel: &Parcel, record: usize) {
        let time_ms = parcel.time_of(record).and_then(super::line::time_ms).unwrap_or(0);
        self.progress.numbers.mlog_oldest_ms.store(time_ms, Relaxed);
    }

    /// Does what the local disk must do, again and again until it does.
    fn insist<T>(&mut self, problem: &str, mut attempt: impl FnMut(&mut Self) -> io::Result<T>) -> T {
        let mut failures = 0;
        loop {
            match attempt(self) {
                Ok(done) => return done,
                Err(error) => {
                    failures += 1;
                    tracing::error!(%error, "{problem}");
                    std::thread::sleep(self.pause(failures));
                }
            }
        }
    }
}

/// Whether an answer speaks of the records, and not of access, address, pace or time.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && ![401, 403, 404, 405, 407, 408, 421, 423, 425, 429].contains(&status)
}

fn ends_whole(file: &File) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let mut last = *b"\n";
    if bytes > 0 {
        file.read_exact_at(&mut last, bytes - 1)?;
    }
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger::{Ledger, Terms};
    use crate::audit::marks::Receiver;
    use crate::audit::parcel::PARCEL_BYTES_MAX;
    use crate::client::double::{Double, Peer, read_request};
    use crate::config::service::Service;
    use std::io::Read;
    use std::path::Path;
    use std::sync::Mutex;
    use tempfile::TempDir;

    /// What the service does with a request, by its body and how many came before.
    type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

    enum Reply {
        Status(u16),
        Hang,
    }

    /// A service that keeps what it accepts.
    struct Desk {
        double: Double,
        accepted: Arc<Mutex<Vec<u64>>>,
        sizes: Arc<Mutex<Vec<usize>>>,
    }

    impl Desk {
        fn start(script: Box<Script>) -> Self {
            let accepted = Arc::<Mutex<Vec<u64>>>::default();
            let sizes = Arc::<Mutex<Vec<usize>>>::default();
            let (keep, note) = (accepted.clone(), sizes.clone());
            let double = Double::start(move |_, mut peer| {
                loop {
                    let (head, body) = read_request(&mut peer);
                    if head.is_empty() {
                        return;
                    }
                    assert!(head.starts_with("POST /log/register HTTP/1.1\r\n"), "{head}");
                    let body = String::from_utf8(body).unwrap();
                    let number = {
                        let mut sizes = note.lock().unwrap();
                        sizes.push(body.len());
                        sizes.len() - 1
                    };
                    match script(&body, number) {
                        Reply::Hang => return drop(peer.read(&mut [0; 1])),
                        Reply::Status(status) => {
                            if status < 300 {
                                keep.lock().unwrap().extend(body.lines().map(seq_of));
                            }
                            answer(&mut peer, status);
                        }
                    }
                }
            });
            Self { double, accepted, sizes }
        }

        fn settings(&self) -> Mlog {
            let file = |name: &str| self.double.dir.path().join("pki").join(name);
            let service = Service {
                url: format!("{}/log", self.double.url),
                certificate: file("demo.pem"),
                key: file("demo.key"),
                ca: vec![file("ca.pem")],
                timeout: Duration::from_secs(2),
            };
            Mlog { service, retry_interval: Duration::from_millis(10) }
        }
    }

    fn answer(peer: &mut Peer, status: u16) {
        // Whoever is told 201 is told a lot, and does not read all of it.
        let body = "no".repeat(if status == 201 { ANSWER_BYTES_MAX } else { 1 });
        let _ = write!(peer, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }

    fn seq_of(line: &str) -> u64 {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()
    }

    fn ledger(dir: &Path) -> Ledger<RealDisk> {
        let terms = Terms {
            dir: dir.to_owned(),
            event_type: "T".into(),
            file_bytes_max: 100 << 10,
            retention: None,
            events_live_for: Duration::from_secs(1),
        };
        Ledger::open(RealDisk, terms, 1).unwrap()
    }

    /// Writes `count` records of about `bytes` each and tells the outbox.
    fn write(ledger: &mut Ledger<RealDisk>, progress: &Progress, count: usize, bytes: usize) {
        let receiver = Arc::new(Receiver { user: "u".into(), group: "g".into() });
        for _ in 0..count {
            ledger.ready(1, progress.unsent_from()).unwrap();
            let mut round = ledger.round(1);
            let id = "x".repeat(bytes);
            let members =
                format!("\"user\":\"u\",\"group\":\"g\",\"partition\":0,\"offset\":0,\"id\":\"{id}\"");
            round.add(&receiver, 0, 0, &[members.into_bytes()]);
            let round = round.finish();
            ledger.commit(round).unwrap();
        }
        progress.reached(ledger.tip());
    }

    fn run(dir: &Path, service: &Desk) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        start(dir.to_owned(), service.settings(), progress.clone()).unwrap();
        progress
    }

    fn wait_until_sent(progress: &Progress, seq: u64) {
        let began = std::time::Instant::now();
        while progress.numbers.mlog_last_record.load(Relaxed) < seq {
            assert!(began.elapsed() < Duration::from_secs(60), "the outbox does not get there");
            // Between two looks at a number that another thread counts up and nobody signals.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn always(status: u16) -> Box<Script> {
        Box::new(move |_, _| Reply::Status(status))
    }

    fn dir() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn every_record_is_sent_in_order_across_files_in_requests_of_bounded_size() {
        let (dir, service) = (dir(), Desk::start(always(202)));
        let mut ledger = ledger(dir.path());
        let progress = run(dir.path(), &service);
        write(&mut ledger, &progress, 30, 20_000);
        wait_until_sent(&progress, 30);
        assert!(ledger.tip().file > 3);
        write(&mut ledger, &progress, 3, 10);
        wait_until_sent(&progress, 33);
        assert_eq!(*service.accepted.lock().unwrap(), (1..=33).collect::<Vec<_>>());
        let sizes = service.sizes.lock().unwrap();
        assert!(sizes.iter().all(|&bytes| bytes <= PARCEL_BYTES_MAX && bytes > 0), "{sizes:?}");
        assert_eq!(progress.unsent_from(), ledger.tip().file);
    }

    #[test]
    fn a_service_that_fails_hangs_or_refuses_access_gets_the_same_records_again() {
        let script = |_: &str, number: usize| match number {
            0 => Reply::Status(500),
            1 => Reply::Hang,
            2 => Reply::Status(403),
            3 => Reply::Status(429),
            _ => Reply::Status(200),
        };
        let (dir, service) = (dir(), Desk::start(Box::new(script)));
        let mut ledger = ledger(dir.path());
        let progress = Arc::<Progress>::default();
        write(&mut ledger, &progress, 3, 10);
        start(dir.path().to_owned(), service.settings(), progress.clone()).unwrap();
        wait_until_sent(&progress, 3);
        assert_eq!(*service.accepted.lock().unwrap(), [1, 2, 3]);
        assert_eq!(progress.numbers.mlog_requests_failed.load(Relaxed), 4);
        assert_eq!(progress.numbers.mlog_refused.load(Relaxed), 0);
    }

    #[test]
    fn records_are_accepted_however_long_the_answer_is() {
        let (dir, service) = (dir(), Desk::start(always(201)));
        let mut ledger = ledger(dir.path());
        let progress = run(dir.path(), &service);
        for seq in 1..4 {
            write(&mut ledger, &progress, 1, 10);
            wait_until_sent(&progress, seq);
        }
        assert_eq!(*service.accepted.lock().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_record_that_is_refused_is_set_aside_and_the_others_go_on() {
        let script = |body: &str, _: usize| match body.contains("\"seq\":5,") {
            true => Reply::Status(400),
            false => Reply::Status(200),
        };
        let (dir, service) = (dir(), Desk::start(Box::new(script)));
        let mut ledger = ledger(dir.path());
        let progress = Arc::<Progress>::default();
        write(&mut ledger, &progress, 9, 10);
        start(dir.path().to_owned(), service.settings(), progress.clone()).unwrap();
        wait_until_sent(&progress, 9);
        assert_eq!(*service.accepted.lock().unwrap(), [1, 2, 3, 4, 6, 7, 8, 9]);
        let refused = std::fs::read_to_string(dir.path().join(REFUSED)).unwrap();
        let refused: serde_json::Value = serde_json::from_str(refused.trim()).unwrap();
        assert_eq!((&refused["status"], &refused["record"]["seq"]), (&400.into(), &5.into()));
        assert_eq!(progress.numbers.mlog_refused.load(Relaxed), 1);
    }

    #[test]
    fn after_a_restart_sending_goes_on_where_it_stopped() {
        let (dir, service) = (dir(), Desk::start(always(200)));
        let mut ledger = ledger(dir.path());
        let progress = run(dir.path(), &service);
        write(&mut ledger, &progress, 4, 10);
        wait_until_sent(&progress, 4);
        let next = Desk::start(always(200));
        let progress = run(dir.path(), &next);
        write(&mut ledger, &progress, 2, 10);
        wait_until_sent(&progress, 6);
        assert_eq!(*next.accepted.lock().unwrap(), [5, 6]);
    }

    #[test]
    fn what_a_failed_write_left_behind_is_not_sent() {
        let (dir, service) = (dir(), Desk::start(always(200)));
        let mut first = ledger(dir.path());
        write(&mut first, &Progress::default(), 3, 10);
        drop(first);
        let path = directory::path(dir.path(), 1);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mut ledger = ledger(dir.path());
        let progress = run(dir.path(), &service);
        write(&mut ledger, &progress, 1, 10);
        wait_until_sent(&progress, 3);
        assert_eq!(*service.accepted.lock().unwrap(), [1, 2, 3]);
    }
}

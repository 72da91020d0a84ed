//! The clients known from the API, and which questions to ask it next. Pure: time comes in, questions and answers go out.
//!
//! * A certificate that no known client holds is asked for once, however many connections wait for the answer. What is not
//!   there is remembered for a short while, so that who knocks again and again does not become a flood of requests.
//! * A known client is asked for again well before its answer is too old, so that nobody waits for it a second time. While that
//!   fails, the client goes on as it was.
//! * First questions go before repeated ones, and neither may take all the room of the other.

use super::answer::Found;
use super::cache_file::Remembered;
use crate::id::ClientId;
use crate::registry::model::{CertificateKey, Client};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Certificates that wait for their first answer; more are turned away.
const ASKED_MAX: usize = 1024;
/// Certificates remembered as absent; beyond, the oldest are forgotten.
const ABSENT_MAX: usize = 10_000;
/// After a failed request, how soon the same certificate is asked for again.
const PAUSE_MS: u64 = 2_000;
/// After a failed repetition, how soon the client is asked for again, and how the pause grows.
const RETRY_MS: u64 = 15_000;
const RETRY_MS_MAX: u64 = 300_000;

/// How the directory works.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Age at which an answer is too old.
    pub found_for: Duration,
    /// For how long a certificate counts as unknown.
    pub unknown_for: Duration,
    /// Requests under way at a time.
    pub requests_max: usize,
    /// How long a certificate may wait for its request to begin.
    pub wait_max: Duration,
}

/// A question to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who holds this certificate?
    Certificate(CertificateKey),
    /// What is this client like now?
    Client(ClientId),
}

/// What came of a question.
#[derive(Debug)]
pub enum Reply {
    Found(Found),
    /// 404.
    NotFound,
    /// The API answered something that cannot be used.
    Unusable,
    /// The API did not answer, or with an error.
    Failed,
}

/// What whoever waits for a certificate hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A client holds it.
    Known,
    /// No client holds it.
    Unknown,
    /// Nobody can say at the moment.
    Unreachable,
    /// What the API says of its client cannot be used.
    Unusable,
}

/// The clients and who waits for them. `W` is how a waiter is told.
pub struct Directory<W> {
    rules: Rules,
    clients: BTreeMap<ClientId, Entry>,
    holders: HashMap<CertificateKey, ClientId>,
    absent: HashMap<CertificateKey, (Verdict, u64)>,
    /// The same in the order in which they were found absent.
    absent_since: VecDeque<CertificateKey>,
    asked: HashMap<CertificateKey, Asked<W>>,
    /// Asked for and not sent yet.
    queue: VecDeque<CertificateKey>,
    /// When each client is to be asked for again; those that are being asked for are not in it.
    due: BTreeSet<(u64, ClientId)>,
    first_under_way: usize,
    repeated: BTreeSet<ClientId>,
    changed: bool,
}

struct Entry {
    found: Found,
    /// When it was answered, Unix milliseconds.
    answered_ms: u64,
    /// Repetitions that failed since.
    failures: u32,
    /// When it is to be asked for again.
    due_ms: u64,
}

struct Asked<W> {
    since_ms: u64,
    waiters: Vec<W>,
}

impl<W> Directory<W> {
    /// A directory of the clients that an earlier process knew.
    pub fn new(rules: Rules, remembered: Vec<Remembered>) -> Self {
        let mut directory = Self {
            rules,
            clients: BTreeMap::new(),
            holders: HashMap::new(),
            absent: HashMap::new(),
            absent_since: VecDeque::new(),
            asked: HashMap::new(),
            queue: VecDeque::new(),
            due: BTreeSet::new(),
            first_under_way: 0,
            repeated: BTreeSet::new(),
            changed: false,
        };
        for Remembered { found, answered_ms } in remembered {
            directory.keep(found, answered_ms);
        }
        directory
    }

    /// Asks who holds a certificate. The answer, or `None`: then `waiter` comes out of [`answered`](Self::answered) or
    /// [`give_up`](Self::give_up) later.
    pub fn ask(&mut self, key: CertificateKey, waiter: W, now_ms: u64) -> Option<(W, Verdict)> {
        if self.holders.contains_key(&key) {
            return Some((waiter, Verdict::Known));
        }
        if let Some(verdict) = self.absence_of(&key, now_ms) {
            return Some((waiter, verdict));
        }
        if let Some(asked) = self.asked.get_mut(&key) {
            asked.waiters.push(waiter);
            return None;
        }
        if self.asked.len() >= ASKED_MAX {
            return Some((waiter, Verdict::Unreachable));
        }
        self.queue.push_back(key.clone());
        self.asked.insert(key, Asked { since_ms: now_ms, waiters: vec![waiter] });
        None
    }

    /// The next question to send, if there is one and room for it.
    pub fn next(&mut self, now_ms: u64) -> Option<Question> {
        let (requests_max, half) = (self.rules.requests_max, self.rules.requests_max.div_ceil(2));
        if self.first_under_way + self.repeated.len() >= requests_max {
            return None;
        }
        if let Some(key) = self.queue.pop_front() {
            self.first_under_way += 1;
            return Some(Question::Certificate(key));
        }
        let &(due_ms, id) = self.due.first()?;
        if self.repeated.len() >= half || self.is_to_come(due_ms, now_ms) {
            return None;
        }
        self.due.pop_first();
        self.repeated.insert(id);
        Some(Question::Client(id))
    }

    /// When [`next`](Self::next) or [`give_up`](Self::give_up) may have something without anything else happening.
    pub fn wake_at(&self) -> u64 {
        let waiting = self.queue.front().and_then(|key| self.asked.get(key));
        let give_up = waiting.map_or(u64::MAX, |asked| asked.since_ms + millis(self.rules.wait_max));
        self.due.first().map_or(u64::MAX, |(due_ms, _)| *due_ms).min(give_up)
    }

    /// Those that have waited too long for their request to begin.
    pub fn give_up(&mut self, now_ms: u64) -> Vec<(W, Verdict)> {
        let mut told = Vec::new();
        while let Some(key) = self.queue.front()
            && self.asked.get(key).is_none_or(|asked| asked.since_ms + millis(self.rules.wait_max) <= now_ms)
            && let Some(key) = self.queue.pop_front()
        {
            let waiters = self.asked.remove(&key).map(|asked| asked.waiters).unwrap_or_default();
            told.extend(waiters.into_iter().map(|waiter| (waiter, Verdict::Unreachable)));
        }
        told
    }

    /// Takes what came of a question and gives those that waited for it.
    pub fn answered(&mut self, question: Question, reply: Reply, now_ms: u64) -> Vec<(W, Verdict)> {
        match question {
            Question::Certificate(key) => {
                self.first_under_way -= 1;
                let verdict = self.first_reply(&key, reply, now_ms);
                let waiters = self.asked.remove(&key).map(|asked| asked.waiters).unwrap_or_default();
                waiters.into_iter().map(|waiter| (waiter, verdict)).collect()
            }
            Question::Client(id) => {
                self.repeated.remove(&id);
                self.repeated_reply(id, reply, now_ms);
                Vec::new()
            }
        }
    }

    fn first_reply(&mut self, key: &CertificateKey, reply: Reply, now_ms: u64) -> Verdict {
        let unknown_ms = millis(self.rules.unknown_for);
        let (verdict, for_ms) = match reply {
            Reply::Found(found) => {
                self.keep(found, now_ms);
                // The API looks for the serial number alone; another authority may have given the same one.
                match self.holders.contains_key(key) {
                    true => return Verdict::Known,
                    false => (Verdict::Unknown, unknown_ms),
                }
            }
            Reply::NotFound => (Verdict::Unknown, unknown_ms),
            Reply::Unusable => (Verdict::Unusable, unknown_ms),
            Reply::Failed => (Verdict::Unreachable, PAUSE_MS.min(unknown_ms)),
        };
        self.remember_absence(key.clone(), verdict, now_ms + for_ms);
        verdict
    }

    fn repeated_reply(&mut self, id: ClientId, reply: Reply, now_ms: u64) {
        match reply {
            Reply::Found(found) if found.client.id == id => self.keep(found, now_ms),
            Reply::NotFound => self.changed |= self.forget(id).is_some(),
            Reply::Found(_) | Reply::Unusable | Reply::Failed => {
                let Some(entry) = self.clients.get_mut(&id) else { return };
                let pause = RETRY_MS.saturating_mul(1 << entry.failures.min(10)).min(RETRY_MS_MAX);
                entry.failures += 1;
                entry.due_ms = now_ms + pause.min(millis(self.rules.found_for));
                self.due.insert((entry.due_ms, id));
            }
        }
    }

    /// Takes in a client, in place of what was known of it.
    fn keep(&mut self, found: Found, now_ms: u64) {
        let id = found.client.id;
        let before = self.forget(id);
        self.changed |= before.is_none_or(|before| before.answer != found.answer);
        for key in &found.client.certificates {
            // Another client may have held it.
            self.changed |= self.holders.insert(key.clone(), id).is_some();
            self.absent.remove(key);
        }
        let due_ms = now_ms + self.repeat_after_ms(id);
        if !self.repeated.contains(&id) {
            self.due.insert((due_ms, id));
        }
        self.clients.insert(id, Entry { found, answered_ms: now_ms, failures: 0, due_ms });
    }

    fn forget(&mut self, id: ClientId) -> Option<Found> {
        let Entry { found, due_ms, .. } = self.clients.remove(&id)?;
        self.due.remove(&(due_ms, id));
        for key in &found.client.certificates {
            if self.holders.get(key) == Some(&id) {
                self.holders.remove(key);
            }
        }
        Some(found)
    }

    /// At three quarters of the age at which an answer is too old, each client a little earlier or later than others.
    fn repeat_after_ms(&self, id: ClientId) -> u64 {
        let found_ms = millis(self.rules.found_for);
        let spread = u64::from(id.0[15] ^ id.0[0]) * (found_ms / 8) / 256;
        found_ms / 4 * 3 - spread
    }

    fn absence_of(&mut self, key: &CertificateKey, now_ms: u64) -> Option<Verdict> {
        let &(verdict, until_ms) = self.absent.get(key)?;
        // A clock that was set back must not keep anybody out for longer.
        let stands = now_ms < until_ms && until_ms <= now_ms + millis(self.rules.unknown_for).max(PAUSE_MS);
        stands.then_some(verdict)
    }

    fn remember_absence(&mut self, key: CertificateKey, verdict: Verdict, until_ms: u64) {
        if self.absent.insert(key.clone(), (verdict, until_ms)).is_none() {
            self.absent_since.push_back(key);
        }
        while self.absent.len() > ABSENT_MAX || self.absent_since.len() > 2 * ABSENT_MAX {
            let Some(oldest) = self.absent_since.pop_front() else { return };
            self.absent.remove(&oldest);
        }
    }

    /// Whether `due_ms` is in the future, and not because the clock was set back.
    fn is_to_come(&self, due_ms: u64, now_ms: u64) -> bool {
        now_ms < due_ms && due_ms <= now_ms + millis(self.rules.found_for)
    }

    /// Whether the clients are others than when this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether nothing about the client is new.
    pub fn knows(&self, found: &Found) -> bool {
        self.clients.get(&found.client.id).is_some_and(|entry| entry.found.answer == found.answer)
    }

    /// All clients, those of the oldest answers first: of two that claim a certificate, the later is right.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut entries: Vec<_> = self.clients.values().collect();
        entries.sort_by_key(|entry| entry.answered_ms);
        entries.into_iter().map(|entry| entry.found.client.clone()).collect()
    }

    /// What the next process is to know.
    pub fn remembered(&self) -> Vec<Remembered> {
        let remember =
            |entry: &Entry| Remembered { found: entry.found.clone(), answered_ms: entry.answered_ms };
        self.clients.values().map(remember).collect()
    }

    /// Number of clients, of certificates remembered as absent, and the age of the oldest answer in use.
    pub fn figures(&self, now_ms: u64) -> (usize, usize, Duration) {
        let oldest = self.clients.values().map(|entry| entry.answered_ms).min().unwrap_or(now_ms);
        (self.clients.len(), self.absent.len(), Duration::from_millis(now_ms.saturating_sub(oldest)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

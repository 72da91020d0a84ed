//! Clients from the client API: the head keeps the directory, threads of their own ask, and every core gets the registry
//! anew when a client has changed.

use super::Head;
use crate::broker::Core;
use crate::broker::live::Change;
use crate::broker::message::{Message, Ticket};
use crate::config::Mpass;
use crate::id::CoreId;
use crate::metrics;
use crate::outgoing::Client as Api;
use crate::registry::model::{CertificateKey, Client, Registry};
use crate::registry::mpass::{self, Asked, Bounds, Directory, Question, Remembered, Reply, Rules, Verdict};
use crate::rt;
use crate::rt::blocking::Pool;
use crate::rt::notify::Notify;
use futures_lite::FutureExt;
use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest pause before the directory is looked at again; shortest, while all requests are under way.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How often what is known is written to disk when clients have changed, and how often when they are only as they were.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);
const REWRITE_INTERVALS: u32 = 150;

/// What the clients are made of.
pub struct ClientsParts {
    pub settings: Mpass,
    pub bounds: Bounds,
    /// Threads that ask, as many as there may be requests under way.
    pub threads: Pool,
    /// What an earlier process knew.
    pub remembered: Vec<Remembered>,
}

/// Who waits for a look-up.
struct Waiter {
    core: CoreId,
    ticket: Ticket,
}

/// The clients that are known from the API.
pub(super) struct Clients {
    directory: RefCell<Directory<Waiter>>,
    /// Replaced when its certificates are.
    api: RefCell<Option<Api>>,
    bounds: Arc<Bounds>,
    threads: Pool,
    /// The data directory.
    dir: PathBuf,
    /// Replies that the directory has not taken yet.
    replies: RefCell<Vec<(Question, Reply)>>,
    /// There is a reply, or a new question.
    wake: Notify,
    /// Clients are known here of which the cores have not heard yet.
    publishing: Cell<bool>,
    /// Those that are told when the cores have.
    early: RefCell<Vec<(Waiter, Verdict)>>,
    health: RefCell<Health>,
    /// Clients have changed, or were answered again as they were, since the file was written.
    changed: Cell<bool>,
    repeated: Cell<bool>,
}

/// Since when the API fails, and how often.
#[derive(Default)]
struct Health {
    failing: Option<(Instant, u64)>,
}

impl Clients {
    pub fn new(parts: ClientsParts, dir: PathBuf) -> Rc<Self> {
        let ClientsParts { settings, bounds, threads, remembered } = parts;
        let rules = Rules {
            found_for: settings.cache,
            unknown_for: settings.unknown_cache,
            requests_max: settings.requests_max,
            wait_max: settings.service.timeout,
        };
        Rc::new(Self {
            directory: RefCell::new(Directory::new(rules, remembered)),
            api: RefCell::default(),
            bounds: Arc::new(bounds),
            threads,
            dir,
            replies: RefCell::default(),
            wake: Notify::default(),
            publishing: Cell::default(),
            early: RefCell::default(),
            health: RefCell::default(),
            changed: Cell::default(),
            repeated: Cell::default(),
        })
    }

    /// Asks with these certificates from now on.
    pub fn use_api(&self, api: Api) {
        self.api.replace(Some(api));
        self.wake.notify();
    }

    /// All clients that are known.
    pub fn known(&self) -> Vec<Arc<Client>> {
        self.directory.borrow().clients()
    }

    /// A core wants to know whose a certificate is.
    pub fn look_up(&self, core: &Core, from: CoreId, ticket: Ticket, key: CertificateKey) {
        let asked = self.directory.borrow_mut().ask(key, Waiter { core: from, ticket }, core.now_ms());
        match asked {
            Some(told) if self.publishing.get() => self.early.borrow_mut().push(told),
            Some(told) => tell(core, vec![told]),
            None => self.wake.notify(),
        }
    }

    /// Sends the questions for which there is room.
    fn ask(self: &Rc<Self>, core: &Rc<Core>) {
        let Some(api) = self.api.borrow().clone() else { return };
        loop {
            let next = self.directory.borrow_mut().next(core.now_ms());
            let Some(question) = next else { return };
            rt::spawn(self.clone().settle(core.clone(), api.clone(), question));
        }
    }

    async fn settle(self: Rc<Self>, core: Rc<Core>, api: Api, question: Question) {
        let began = Instant::now();
        let (asked, bounds) = (question.clone(), self.bounds.clone());
        let note =
            |text: String| tracing::warn!(text, "the client registry tells something that is left out");
        let Asked { reply, reason } = self.threads.run(move || mpass::ask(&api, &asked, &bounds, note)).await;
        let numbers = &core.metrics.numbers;
        numbers.registry_requests.add(1);
        metrics::record(&core.metrics.distributions.registry_request_ns, began.elapsed());
        if let Reply::Failed | Reply::Unusable = reply {
            numbers.registry_requests_failed.add(1);
        }
        self.health.borrow_mut().note(&question, &reply, reason.as_deref().unwrap_or_default());
        self.replies.borrow_mut().push((question, reply));
        self.wake.notify();
    }

    /// Gives the directory the replies that have come; tells those that waited for them, and those that waited for too long.
    fn take_replies(&self, core: &Core, registry: Option<&Registry>) -> Vec<(Waiter, Verdict)> {
        let mut directory = self.directory.borrow_mut();
        let now_ms = core.now_ms();
        let mut told = directory.give_up(now_ms);
        for (question, reply) in self.replies.take() {
            self.repeated.set(self.repeated.get() | matches!(reply, Reply::Found(_)));
            tell_operators(&directory, &question, &reply, registry);
            told.extend(directory.answered(question, reply, now_ms));
        }
        let (clients, absent, oldest) = directory.figures(now_ms);
        let numbers = &core.metrics.numbers;
        numbers.registry_clients.set(clients as u64);
        numbers.registry_certificates_unknown.set(absent as u64);
        numbers.registry_oldest_answer_ms.set(oldest.as_millis() as u64);
        told
    }

    fn pause(&self, now_ms: u64) -> Duration {
        let until = self.directory.borrow().wake_at().saturating_sub(now_ms);
        Duration::from_millis(until).clamp(PAUSE_MIN, PAUSE_MAX)
    }

    /// Keeps the file up to date, for as long as the process lives.
    async fn remember(self: Rc<Self>, core: Rc<Core>) {
        let (mut intervals, mut fails) = (0, false);
        loop {
            rt::sleep(WRITE_INTERVAL).await;
            intervals += 1;
            let due = self.repeated.get() && intervals >= REWRITE_INTERVALS;
            if !self.changed.get() && !due {
                continue;
            }
            self.changed.set(false);
            self.repeated.set(false);
            intervals = 0;
            let (dir, known) = (self.dir.clone(), self.directory.borrow().remembered());
            match core.pool.run(move || mpass::write_remembered(&dir, &known)).await {
                Ok(()) => fails = false,
                Err(error) => {
                    self.changed.set(true);
                    if !std::mem::replace(&mut fails, true) {
                        tracing::error!(%error, "the known clients cannot be written: a restart would not know them");
                    }
                }
            }
        }
    }
}

impl Health {
    /// One line when the API starts to fail and one when it works again.
    fn note(&mut self, question: &Question, reply: &Reply, reason: &str) {
        match (reply, &mut self.failing) {
            (Reply::Failed, Some((_, failures))) => {
                *failures += 1;
                tracing::debug!(?question, reason, "the client registry still fails");
            }
            (Reply::Failed, failing) => {
                *failing = Some((Instant::now(), 1));
                tracing::error!(
                    reason,
                    "the client registry fails; clients that are known go on as they were, others are answered 503"
                );
            }
            (Reply::Unusable, _) => {
                tracing::error!(
                    ?question,
                    reason,
                    "the client registry says of a client what cannot be used"
                );
            }
            (_, failing) => {
                if let Some((since, failures)) = failing.take() {
                    let after_s = since.elapsed().as_secs();
                    tracing::info!(after_s, failures, "the client registry answers again");
                }
            }
        }
    }
}

/// What is new about a client, and what in it is of no effect.
fn tell_operators(
    directory: &Directory<Waiter>,
    question: &Question,
    reply: &Reply,
    registry: Option<&Registry>,
) {
    match (question, reply) {
        (_, Reply::Found(found)) if !directory.knows(found) => {
            let Client { id, name, enabled, .. } = &*found.client;
            tracing::info!(client = %id, name, enabled, "a client is new or has changed");
            let unknown = registry.map(|registry| registry.unknown_types(&found.client)).unwrap_or_default();
            if !unknown.is_empty() {
                tracing::warn!(client = %id, types = unknown.join(", "), "a client has rights to event types that nobody defines");
            }
        }
        (Question::Client(id), Reply::NotFound) => {
            tracing::info!(client = %id, "a client is gone from the client registry");
        }
        _ => {}
    }
}

fn tell(core: &Core, told: Vec<(Waiter, Verdict)>) {
    for (Waiter { core: to, ticket }, verdict) in told {
        core.post(to, Message::LookedUp { ticket, verdict });
    }
}

impl Head {
    /// Starts what keeps the clients up to date, if they come from an API.
    pub(super) fn start_clients(self: &Rc<Self>, core: &Rc<Core>) {
        if let Some(clients) = &self.clients {
            rt::spawn(run(self.clone(), core.clone(), clients.clone()));
            rt::spawn(clients.clone().remember(core.clone()));
        }
    }

    /// Gives every core the registry with the clients of now. Before there is a registry there is nothing to change: the first
    /// one has the clients of then.
    async fn publish_clients(&self, core: &Core, clients: &Clients) {
        loop {
            let Some(before) = self.registry.borrow().clone() else { return };
            let (types, known) = (before.clone(), clients.known());
            let registry = core.pool.run(move || Arc::new(types.with_clients(known))).await;
            let is_current = self.registry.borrow().as_ref().is_some_and(|now| Arc::ptr_eq(now, &before));
            if !is_current {
                // It was reloaded meanwhile.
                continue;
            }
            self.registry.replace(Some(registry.clone()));
            return core.post_all(|| {
                Message::Live(Box::new(Change { registry: Some(registry.clone()), ..Change::default() }))
            });
        }
    }
}

async fn run(head: Rc<Head>, core: Rc<Core>, clients: Rc<Clients>) {
    loop {
        let registry = head.registry.borrow().clone();
        let told = clients.take_replies(&core, registry.as_deref());
        let changed = clients.directory.borrow_mut().take_changed();
        if changed {
            clients.changed.set(true);
            clients.publishing.set(true);
            head.publish_clients(&core, &clients).await;
            clients.publishing.set(false);
        }
        // After the registry that knows their clients.
        tell(&core, told);
        tell(&core, clients.early.take());
        clients.ask(&core);
        let pause = clients.pause(core.now_ms());
        clients.wake.notified().or(rt::sleep(pause)).await;
    }
}

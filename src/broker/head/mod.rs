//! The head: what only one core does. It orders and makes durable, keeps the replicated state and the groups, watches space
//! and age, swaps registries, keeps the clients of an API up to date, and admits connections.
//!
//! In reading order: [`queue`] gathers what is to be journalled, [`rounds`] writes it frame by frame, [`groups`] assigns
//! partitions, [`private`] numbers and follows clients' private logs, [`checkpoints`] and [`retention`] keep the disk from growing, [`space`] stops intake before it is full,
//! [`reload`] brings in registries, [`clients`] asks for clients, [`gather`] collects metrics, [`reception`] admits connections and
//! spreads them over the cores, [`rates`] and [`tally`] hold clients to their limits, [`stopping`] ends in good order.

mod checkpoints;
mod clients;
mod gather;
mod groups;
mod private;
mod queue;
mod rates;
mod reception;
mod reload;
mod retention;
mod rounds;
mod space;
mod stopping;
mod tally;

use super::Core;
use super::journal_writer::JournalWriter;
use super::message::Message;
use super::refusal::Refusal;
use crate::config::Config;
use crate::delivery::coordinator::Coordinator;
use crate::id::FrameIndex;
use crate::journal::ClusterId;
use crate::journal::sequencer::Sequencer;
use crate::registry::model::Registry;
use crate::rt::blocking::Pool;
use crate::rt::notify::Notify;
use crate::state::State;
pub use clients::ClientsParts;
pub use reload::Loaded;

use checkpoints::Checkpoints;
use clients::Clients;
use gather::Gatherings;
use groups::Joining;
use private::Private;
use queue::Queue;
use rates::Accounts;
use reception::{Limits, Reception};
use retention::Losses;
use rounds::Flight;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use stopping::Stopping;
use tally::Tally;

/// Bytes of events that may wait for the journal. More is refused: it would only wait longer.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Bytes of events that may be in the journal and not yet in segments.
const UNAPPENDED_BYTES_MAX: usize = 64 << 20;

/// What the head is made of.
pub struct HeadParts {
    pub sequencer: Sequencer,
    pub state: State,
    /// The data directory.
    pub dir: PathBuf,
    pub cluster: ClusterId,
    /// When clients come from an API.
    pub clients: Option<ClientsParts>,
}

/// The head's part of core 0.
pub struct Head {
    writer: Rc<JournalWriter>,
    state: RefCell<State>,
    coordinator: RefCell<Coordinator>,
    reception: RefCell<Reception>,
    tally: RefCell<Tally>,
    accounts: RefCell<Accounts>,
    queue: RefCell<Queue>,
    /// Frames on their way to the disk, in their order.
    flights: RefCell<VecDeque<Flight>>,
    /// What was taken from the queue is not in `flights` yet.
    placing: Cell<bool>,
    /// Something waits in the queue.
    work: Notify,
    /// Bytes of events that owners have not yet reported as appended.
    unappended: Cell<usize>,
    /// Owners reported progress.
    appended: Notify,
    /// Why nothing is taken in at the moment.
    refusing: Cell<Option<Refusal>>,
    /// A frame was written and applied: for those who wait for a command of their own.
    committed: Notify,
    joining: RefCell<Joining>,
    private: RefCell<Private>,
    checkpoints: Checkpoints,
    losses: RefCell<Losses>,
    gatherings: RefCell<Gatherings>,
    stopping: Stopping,
    /// What every core has, or will have when it comes to its messages.
    registry: RefCell<Option<Arc<Registry>>>,
    /// When clients come from an API.
    clients: Option<Rc<Clients>>,
}

impl Head {
    pub(super) fn new(
        parts: HeadParts,
        partitions: NonZeroU8,
        config: &Config,
        pool: &Pool,
        cores: usize,
    ) -> Rc<Self> {
        let HeadParts { sequencer, state, dir, cluster, clients } = parts;
        let limits = Limits {
            total_max: config.server.max_connections,
            per_address_max: config.server.max_connections_per_address,
        };
        Rc::new(Self {
            writer: JournalWriter::new(dir.join("journal"), pool.clone(), sequencer),
            coordinator: RefCell::new(Coordinator::new(partitions.get())),
            reception: RefCell::new(Reception::new(cores, limits)),
            tally: RefCell::default(),
            accounts: RefCell::default(),
            queue: RefCell::default(),
            flights: RefCell::default(),
            placing: Cell::default(),
            work: Notify::default(),
            unappended: Cell::default(),
            appended: Notify::default(),
            refusing: Cell::default(),
            committed: Notify::default(),
            joining: RefCell::default(),
            private: RefCell::default(),
            checkpoints: Checkpoints::new(dir.join("checkpoint"), cluster, FrameIndex(0)),
            losses: RefCell::default(),
            gatherings: RefCell::default(),
            stopping: Stopping::default(),
            registry: RefCell::default(),
            clients: clients.map(|parts| Clients::new(parts, dir.clone())),
            state: RefCell::new(state),
        })
    }

    /// Why nothing is taken in at the moment, if so.
    pub fn refusing(&self) -> Option<Refusal> {
        self.refusing.get()
    }

    /// Starts the head's tasks.
    pub fn start(self: &Rc<Self>, core: &Rc<Core>) {
        self.writer.work_on_files();
        crate::rt::spawn(rounds::run(self.clone(), core.clone()));
        crate::rt::spawn(checkpoints::run(self.clone(), core.clone()));
        crate::rt::spawn(space::run(self.clone(), core.clone()));
        self.start_clients(core);
    }

    pub(super) fn handle(self: &Rc<Self>, core: &Rc<Core>, message: Message) {
        match message {
            Message::LookUp { core: from, ticket, key } => {
                let clients = self.clients.as_ref().expect("cores look up only where there is an API");
                clients.look_up(core, from, ticket, key);
            }
            Message::Accepted { accepted, on } => self.receive(core, accepted, on),
            Message::Gone { address, core } => self.reception.borrow_mut().gone(address, core),
            Message::TakePlace { client, kind, place, limit } => {
                let max = limit.map(|(max, _)| max);
                let admitted = self.tally.borrow_mut().take(client, kind, place, max);
                if let Some((_, ticket)) = limit {
                    core.post(place.core, Message::PlaceTaken { ticket, admitted });
                }
            }
            Message::GivePlaceBack { client, kind, place } => {
                self.tally.borrow_mut().give_back(client, kind, place);
            }
            Message::Submit(submission) => self.submit(core, submission),
            Message::Appended { bytes } => {
                self.unappended.set(self.unappended.get() - bytes);
                self.appended.notify();
            }
            Message::Introduce { client, core: from } => self.introduce(core, client, from),
            Message::Join(join) => self.join(core, join),
            Message::Confirm { session, confirms } => self.confirm(core, session, &confirms),
            Message::Revoked { session, partition, epoch } => self.revoked(core, session, partition, epoch),
            Message::Left { session } => self.left(core, session),
            Message::Marked { index, ends } => self.checkpoints.marked(index, ends),
            Message::Expirable { partition, start } => self.propose_expiry(partition, start),
            Message::Lost { cursor, events } => self.lost(&cursor, events),
            Message::Scraped { number, core: from, snapshot } => self.scraped(core, number, from, *snapshot),
            Message::Lagged { number, lags } => self.lagged(core, number, lags),
            Message::Survey { from, ticket, client, after } => {
                core.post(from, Message::Surveyed { ticket, page: self.page(core, client, after) });
            }
            Message::Stopped { core } => self.stopping.stopped(core),
            _ => unreachable!("every other message is handled by each core"),
        }
    }

    /// Admits a connection and sends it to the core that is to serve it.
    fn receive(&self, core: &Core, accepted: crate::rt::socket::Accepted, on: crate::id::CoreId) {
        let admitted = self.reception.borrow_mut().admit(accepted.peer.ip(), on);
        match admitted {
            Ok(to) => core.post(to, Message::Serve(accepted)),
            Err(refusal) => {
                core.metrics.numbers.connections_refused.add(1);
                tracing::warn!(address = %accepted.peer.ip(), ?refusal, "a connection is turned away");
                drop(accepted.open());
            }
        }
    }
}

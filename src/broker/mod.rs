//! The broker between the interface and the disk: one [`Core`] per executor, and the messages between them.
//!
//! A core has up to four roles, each in a file of its own:
//!
//! * every core takes in produce requests ([`intake`]) and serves consumer sessions ([`sessions`]) and
//!   long-polling instances ([`instances`]); what its clients take up
//!   is in [`places`], clients that it does not know it has looked up ([`lookups`]), and connections of those that may no longer
//!   be here it ends ([`guests`]);
//! * every core owns some partitions ([`owner`]): partition `p` belongs to core `p % cores`;
//! * core 0 is the [`head`]: it orders and makes durable, keeps the replicated state and the groups, and admits connections.
//!
//! What a client asks about itself goes through all of them: [`survey`], and on the owners [`backlog`].
//!
//! Nothing is shared between cores but immutable blocks and mapped segments. A core that wants something of another sends a
//! [`message`]; handling one never waits. What must wait, waits in a task of its own, for an answer with its ticket ([`awaited`]).

pub mod awaited;
mod backlog;
pub mod budget;
pub mod guests;
mod head;
pub mod instances;
mod intake;
mod introductions;
mod journal_writer;
pub mod live;
pub mod lookups;
pub mod message;
mod owner;
pub mod places;
pub mod recording;
pub mod refusal;
mod route;
pub mod sessions;
pub mod store;
pub mod survey;

pub use crate::ingress::Block;
pub use head::{ClientsParts, Head, HeadParts, Loaded};
pub use store::Store;

/// An event as sessions hold it: a part of a mapped segment.
pub type Slice = crate::partition::Slice<crate::partition::FileMap>;

use crate::audit::writer::Recorder;
use crate::config::Config;
use crate::http::date::HttpDate;
use crate::id::{Bridge, CoreId, Partition};
use crate::log::Quota;
use crate::metrics::CoreMetrics;
use crate::rt::blocking::Pool;
use crate::rt::buffers::Buffers;
use crate::rt::bus::Bus;
use crate::rt::deadline::Deadlines;
use crate::rt::socket::Accepted;
use budget::Shares;
use guests::Guests;
use instances::Instances;
use intake::Intake;
use introductions::Introductions;
use live::Live;
use lookups::LookUps;
use message::Message;
use owner::Owner;
use places::Places;
use recording::Recording;
use sessions::Sessions;
use std::cell::{Cell, RefCell};
use std::num::NonZeroU8;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use survey::Surveys;

/// Bytes of produce requests that all cores together hold at a time.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Refused requests that each core logs in a second.
const REFUSAL_LINES_MAX: u32 = 100;

/// One core of the broker, shared by all tasks of its executor.
pub struct Core {
    pub id: CoreId,
    pub config: Arc<Config>,
    /// Partitions that keys are spread over.
    pub partitions: NonZeroU8,
    pub metrics: CoreMetrics,
    pub pool: Pool,
    /// Threads that read cold events.
    pub readers: Pool,
    pub budget: Shares,
    pub sessions: Sessions,
    instances: Instances,
    /// Tells this process from others, and from itself before a restart, in the addresses of instances.
    pub bridge: Bridge,
    pub recording: Recording,
    pub guests: Guests,
    look_ups: LookUps,
    pub deadlines: Deadlines,
    pub buffers: Rc<Buffers>,
    /// For bytes that are made and queued within one poll.
    pub scratch: RefCell<Vec<u8>>,
    pub date: RefCell<HttpDate>,
    /// For the lines of requests that were refused or failed.
    pub refusal_lines: Quota,
    intake: Intake,
    surveys: Surveys,
    places: Places,
    introductions: Introductions,
    owner: Owner,
    head: Option<Rc<Head>>,
    bus: Bus<Message>,
    live: RefCell<Option<Rc<Live>>>,
    /// Connections served by this core now.
    connections: Cell<usize>,
    stopping: Cell<bool>,
    started: Instant,
    edge: Box<dyn Edge>,
}

/// What the broker needs of the layers above it.
pub trait Edge {
    /// Serves a connection that was given to this core.
    fn serve(&self, core: &Rc<Core>, accepted: Accepted);
    /// The core has its first registry: start listening. Connections that come while the broker stops are not taken.
    fn open(&self, core: &Rc<Core>);
}

/// What one core is made of.
pub struct CoreParts {
    pub id: CoreId,
    pub config: Arc<Config>,
    pub partitions: NonZeroU8,
    pub bridge: Bridge,
    pub pool: Pool,
    /// Threads that read cold events.
    pub readers: Pool,
    /// The partitions that this core owns.
    pub logs: Vec<(Partition, store::PartitionLog)>,
    /// The writer of records of personal data.
    pub recorder: Recorder,
    /// On core 0.
    pub head: Option<HeadParts>,
}

impl Core {
    /// Puts a core together on its executor.
    pub fn new(parts: CoreParts, bus: Bus<Message>, edge: Box<dyn Edge>) -> Rc<Self> {
        let CoreParts { id, config, partitions, bridge, pool, readers, logs, recorder, head } = parts;
        let cores = bus.cores();
        Rc::new(Self {
            id,
            partitions,
            metrics: CoreMetrics::default(),
            budget: Shares::new(REQUEST_BYTES_MAX / cores),
            sessions: Sessions::default(),
            instances: Instances::default(),
            bridge,
            recording: Recording::new(recorder, cores),
            guests: Guests::default(),
            look_ups: LookUps::default(),
            deadlines: Deadlines::default(),
            buffers: Rc::new(Buffers::default()),
            scratch: RefCell::default(),
            date: RefCell::default(),
            refusal_lines: Quota::new(REFUSAL_LINES_MAX),
            intake: Intake::default(),
            surveys: Surveys::default(),
            places: Places::default(),
            introductions: Introductions::default(),
            owner: Owner::new(logs, cores),
            head: head.map(|parts| Head::new(parts, partitions, &config, &pool, cores)),
            bus,
            live: RefCell::default(),
            connections: Cell::new(0),
            stopping: Cell::new(false),
            started: Instant::now(),
            edge,
            config,
            pool,
            readers,
        })
    }

    /// Sends a message to a core, this one included.
    pub fn post(&self, to: CoreId, message: Message) {
        self.bus.post(usize::from(to.0), message);
    }

    /// Sends a message to every core, this one included.
    fn post_all(&self, message: impl Fn() -> Message) {
        for core in 0..self.bus.cores() {
            self.bus.post(core, message());
        }
    }

    /// Number of cores.
    pub fn cores(&self) -> usize {
        self.bus.cores()
    }

    /// The core that owns a partition.
    pub fn owner_of(&self, partition: Partition) -> CoreId {
        CoreId((usize::from(partition.0) % self.bus.cores()) as u8)
    }

    /// The registry, schemas and certificates of now.
    pub fn live(&self) -> Rc<Live> {
        self.live_if_any().expect("the core listens only when it has its registry")
    }

    fn live_if_any(&self) -> Option<Rc<Live>> {
        self.live.borrow().clone()
    }

    /// The broker's clock, Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    /// Milliseconds since this core started: for deadlines, which must not jump with the clock.
    pub fn uptime_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Whether the broker is stopping: finish what is under way and take nothing new.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Counts a connection of this core until the result is dropped.
    pub fn count_connection(self: &Rc<Self>) -> OpenConnection {
        self.set_connections(self.connections.get() + 1);
        OpenConnection(self.clone())
    }

    fn set_connections(&self, count: usize) {
        self.connections.set(count);
        self.metrics.numbers.connections_open.set(count as u64);
    }

    /// Counts the consumers of this core, of either kind.
    fn count_consumers(&self) {
        let (all, polling) = (self.sessions.count(), self.instances.count());
        self.metrics.numbers.polling_instances_open.set(polling as u64);
        self.metrics.numbers.websockets_open.set(all.saturating_sub(polling) as u64);
    }

    /// The head, on core 0.
    pub fn head(&self) -> Option<&Rc<Head>> {
        self.head.as_ref()
    }
}

/// A connection that counts as open.
pub struct OpenConnection(Rc<Core>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.set_connections(self.0.connections.get() - 1);
    }
}

/// Ends the process at once: for a broken invariant or a disk that failed. Recovery at the next start is made for this.
pub fn abort(why: &str) -> ! {
    tracing::error!(why, "the broker cannot go on");
    // Past the logger, which may not come to write its line any more.
    eprintln!("nistru: fatal: {why}");
    std::process::abort()
}

//! What cores say to each other. Everything large is behind an `Arc` and immutable.

use super::instances::{Asked, InstanceId, Told};
use super::live::Change;
use super::places::{Kind, PlaceId};
use super::refusal::Refusal;
use super::survey::{Backlog, Page};
use crate::delivery::session::FetchId;
use crate::delivery::{Confirm, Wanted};
use crate::id::{
    ClientId, CoreId, Epoch, FrameIndex, GroupId, Offset, Partition, PrivateLog, PrivateTypes, SessionId,
    TypeId,
};
use crate::ingress::Block;
use crate::metrics::Snapshot;
use crate::partition::{End, TypeFilter};
use crate::registry::model::{CertificateKey, Rates};
use crate::registry::mpass::Verdict;
use crate::rt::socket::Accepted;
use std::net::IpAddr;
use std::sync::Arc;

/// The core that orders: it owns the journal, the replicated state, the groups and the admission of connections.
pub const HEAD: CoreId = CoreId(0);

/// A message. The comment of each variant says who sends it to whom.
pub enum Message {
    /// Any core to the head: whose is this certificate, which no client of the registry holds?
    LookUp {
        core: CoreId,
        ticket: Ticket,
        key: CertificateKey,
    },
    /// The answer. If there is a client, the core has a registry that knows it.
    LookedUp {
        ticket: Ticket,
        verdict: Verdict,
    },
    /// Any core to the head: a connection was accepted here.
    Accepted {
        accepted: Accepted,
        on: CoreId,
    },
    /// The head to the core that is to serve the connection.
    Serve(Accepted),
    /// The core that served a connection to the head.
    Gone {
        address: IpAddr,
        core: CoreId,
    },

    /// Any core to the head: count this place for the client, which may have so many of its kind; who has a limit waits.
    TakePlace {
        client: ClientId,
        kind: Kind,
        place: PlaceId,
        limit: Option<(usize, Ticket)>,
    },
    /// The answer to one with a limit.
    PlaceTaken {
        ticket: Ticket,
        admitted: bool,
    },
    /// Any core to the head.
    GivePlaceBack {
        client: ClientId,
        kind: Kind,
        place: PlaceId,
    },

    /// An ingress core to the head: these events are to be stored.
    Submit(Submission),
    /// The head to the ingress core: these submissions are durable.
    Committed(Vec<Receipt>),
    /// The head to the ingress core: this submission was not stored.
    Refused {
        ticket: Ticket,
        refusal: Refusal,
    },

    /// The head to every core that owns a partition with events in the frame, in the order of frames.
    Apply(Arc<Applied>),
    /// An owner to the head: this many bytes that `Apply` sent here are in segments now.
    Appended {
        bytes: usize,
    },

    /// A session's core to the owner of the partition.
    Fetch(Fetch),
    /// A session's core to the owner: the answer is not wanted any more.
    CancelFetch {
        session: SessionId,
        partition: Partition,
        fetch: FetchId,
    },
    /// The owner to the session's core.
    Fetched {
        session: SessionId,
        fetch: FetchId,
        next: Offset,
        events: Vec<super::Slice>,
    },

    /// Any core to the head: what are the numbers of this client's private logs?
    Introduce {
        client: ClientId,
        core: CoreId,
    },
    /// The answer.
    Introduced {
        client: ClientId,
        types: PrivateTypes,
    },

    /// A session's core to the head.
    Join(Join),
    Confirm {
        session: SessionId,
        confirms: Vec<Confirm>,
    },
    Revoked {
        session: SessionId,
        partition: Partition,
        epoch: Epoch,
    },
    Left {
        session: SessionId,
    },
    /// The head to the session's core: it is to read its client's events of a private log.
    Follow {
        session: SessionId,
        log: PrivateLog,
        type_id: TypeId,
        from: Offset,
    },
    Assign {
        session: SessionId,
        partition: Partition,
        epoch: Epoch,
        from: Offset,
    },
    Revoke {
        session: SessionId,
        partition: Partition,
        epoch: Epoch,
    },
    Dismiss {
        session: SessionId,
        reason: &'static str,
    },

    /// The home of a long-polling instance to the core of a connection: has this answer reached its client?
    Probe {
        instance: InstanceId,
        client: ClientId,
        answer: u64,
        patient: bool,
    },
    /// A request's core to the home of a long-polling instance. Its word on a probe is such a message too.
    Ask(Box<Asked>),
    /// The home to the request's core.
    Told {
        instance: InstanceId,
        client: ClientId,
        ticket: Ticket,
        told: Told,
    },

    /// The head to every core: a new registry, or new certificates. The first one has everything.
    Live(Box<Change>),

    /// The head to every core: flush the segments as they are after everything applied so far.
    Mark {
        index: FrameIndex,
    },
    /// The answer.
    Marked {
        index: FrameIndex,
        ends: Vec<(Partition, End)>,
    },

    /// The head to the owner: the journal says that everything before `start` is gone. `cursors` are those that stood below.
    Expire {
        partition: Partition,
        start: Offset,
        cursors: Vec<ExpiredCursor>,
    },
    /// An owner to the head: everything before `start` is old enough to go.
    Expirable {
        partition: Partition,
        start: Offset,
    },
    /// An owner to the head: what a group lost by retention.
    Lost {
        cursor: ExpiredCursor,
        events: u64,
    },

    /// The head to every core and back: what was counted.
    Scrape {
        number: u64,
    },
    Scraped {
        number: u64,
        core: CoreId,
        snapshot: Box<Snapshot>,
    },
    /// The head to an owner and back: how far groups are behind.
    Lag {
        number: u64,
        cursors: Vec<GroupCursor>,
    },
    Lagged {
        number: u64,
        lags: Vec<(GroupId, u64)>,
    },

    /// Any core to the head and back: some of a client's groups, those behind `after`.
    Survey {
        from: CoreId,
        ticket: Ticket,
        client: ClientId,
        after: Option<GroupId>,
    },
    Surveyed {
        ticket: Ticket,
        page: Page,
    },
    /// Any core to an owner and back: what lies behind each cursor.
    Measure {
        from: CoreId,
        ticket: Ticket,
        cursors: Vec<GroupCursor>,
    },
    Measured {
        ticket: Ticket,
        backlogs: Vec<Backlog>,
    },

    /// The head to every core: take nothing new, finish what is under way, close sessions.
    Stop,
    /// A core to the head: that is done.
    Stopped {
        core: CoreId,
    },
}

/// A session wants to read.
pub struct Join {
    pub session: SessionId,
    pub client: ClientId,
    pub group: String,
    pub wanted: Wanted,
}

/// Events that one request wants stored, all or nothing.
pub struct Submission {
    pub from: CoreId,
    pub ticket: Ticket,
    pub block: Block,
    /// `None` for what no limit is held against.
    pub charge: Option<Charge>,
}

/// Whose limits a submission is held against.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub client: ClientId,
    pub rates: Rates,
}

/// Names a submission on the core that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// A submission is durable.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    pub ticket: Ticket,
    /// Events of it that were repeats and not stored again.
    pub repeats: u32,
}

/// The events of one committed frame.
pub struct Applied {
    pub index: FrameIndex,
    pub blocks: Vec<Block>,
}

/// A session wants events.
pub struct Fetch {
    pub session: SessionId,
    pub fetch: FetchId,
    pub partition: Partition,
    pub from: Offset,
    pub bytes_max: usize,
    pub types: TypeFilter,
}

/// A cursor that retention overtook.
#[derive(Clone)]
pub struct ExpiredCursor {
    pub group: GroupId,
    pub at: Offset,
    pub types: TypeFilter,
}

/// Where a group stands in one partition.
#[derive(Clone)]
pub struct GroupCursor {
    pub group: GroupId,
    pub partition: Partition,
    pub at: Offset,
    pub types: TypeFilter,
}

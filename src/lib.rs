//! nistru: an event broker for registers. This page is its architecture.
//!
//! # Bird's-eye view
//!
//! ```text
//!             core 0                    core 1        …        core N-1       one glommio executor each, pinned
//!  ┌─────────────────────────┐ ┌─────────────────────────┐
//!  │ listener (SO_REUSEPORT) │ │ listener                │   accept, TLS, HTTP/1.1, HTTP/2, WebSocket,
//!  │ intake                  │ │ intake                  │   authenticate, parse, validate, encode
//!  │ partitions 0, 2, 4, …   │ │ partitions 1, 3, 5, …   │   a fixed subset of the 12: segments, index, readers
//!  │ sessions                │ │ sessions                │   consumers connected to this core
//!  │ head                    │ │                         │   journal, replicated state, groups, admission
//!  └─────────────────────────┘ └─────────────────────────┘
//!         no shared mutable memory; bounded message queues between cores
//! ```
//!
//! **Producing.** A core reads a request ([`net`], [`http`]), finds out whose it is ([`auth`]) and turns it into one block of
//! records, or into everything that is wrong with it ([`ingress`], with [`event`] and [`schema`]). The head takes what is queued,
//! writes it as one *frame* and syncs it ([`journal`]): the frame is committed, the producer gets 202, and the owners of the touched
//! partitions append its records to memory ([`partition`]) by plain copy; helper threads write that to the segment files.
//!
//! **Consuming.** A session ([`delivery::session`]) pulls from the owners of the partitions that the group coordinator
//! ([`delivery::coordinator`]) gave it. Owners answer with slices of mapped segments; the session's core adds the offset, frames
//! and encrypts. Confirms go back through the journal as small commands.
//!
//! **Personal data.** What a rule of the client covers is recorded before it is sent: the feed holds the batch back until one thread
//! for all cores has written and synced the records ([`audit`]).
//!
//! **What only the client itself sees**, dead events that its consumers reported and test events it made for them, are records
//! like others, in two partitions behind the shared ones and numbered by client in place of the type ([`id::PrivateLog`]). No
//! coordinator divides them: every session that asks reads all of its client's.
//!
//! **Why one journal in front of the partitions.** A batch may touch all partitions and must be all or nothing. One frame, one
//! checksum, one sync make that a property of the log instead of a protocol between partitions. It is one order for events,
//! confirms and group changes, and one log to replicate. Partitions are a materialisation: recovery rebuilds them from the
//! last checkpoint and the frames after it ([`broker::store`]).
//!
//! # Code map, in the order in which data flows
//!
//! | module | what it is |
//! | --- | --- |
//! | [`rt`] | the only module that knows glommio: executors, queues between cores, sockets, deadlines, helper threads |
//! | [`net`] | connections: TLS by hand, the HTTP/1.1 loop, HTTP/2 with a task for each stream |
//! | [`http`], [`ws`] | the protocols, sans-IO |
//! | [`api`] | the public interface: endpoints, their documentation, and the tasks that serve WebSocket consumers and long-polling instances |
//! | [`auth`] | from a certificate to a registered client |
//! | [`ingress`], [`event`], [`schema`] | from a request to a block of records |
//! | [`broker`] | one core of the broker: its roles, and the messages between cores |
//! | [`journal`], [`state`] | frames and commands, their files and recovery; what the commands add up to, and checkpoints |
//! | [`partition`] | segments, indexes, reading, retention |
//! | [`delivery`] | groups, sessions, windows of unconfirmed events; pure |
//! | [`audit`] | personal data: who received whose, recorded before an event leaves and sent to MLog |
//! | [`registry`], [`config`] | clients (from files or from an API), event types, schemas; `nistru.toml` |
//! | [`outgoing`] | requests that the broker makes of other services |
//! | [`metrics`], [`log`] | what operators see |
//! | [`server`], [`cli`], [`dev`] | putting a broker together; the commands; the development directory |
//! | [`client`] | a blocking client, for the commands, the load generator and the tests |
//! | [`fault`] | bugs planted on purpose, for the simulation |
//!
//! Protocol parsing, the journal's logic, partition indexes and group coordination take inputs and return effects. Only `rt`, `net`
//! and each core's loops do I/O, and what may block comes out as a job for a helper thread.
//!
//! # Invariants
//!
//! 1. An answer of 2xx means that every event of the request is in a frame that was synced.
//! 2. A batch lies wholly inside one frame; a frame is applied wholly before any later one is visible.
//! 3. Partition offsets are dense, the same after every replay, and never reused.
//! 4. With one partition key, if A was acknowledged before B was sent, A's offset is smaller and every session sees A first.
//! 5. A cursor never moves past an event that was not confirmed, reported dead or expired, and never back except by an operator's reset.
//! 6. At most one session of a group reads a partition at an epoch; confirms of an older epoch change nothing.
//! 7. Every queue is bounded in bytes; a full one becomes back-pressure or 503, never memory.
//! 8. An event that a rule on personal data covers leaves the broker after its record is durable, unless the operator's policy says
//!    otherwise.
//! 9. No executor blocks: no cold page, no file system call, no lock, no long computation without a pause.
//!
//! # What does not know what
//!
//! * `journal` knows no command's meaning, `state` knows no file of the journal, `delivery` knows neither disk nor wire.
//! * `ingress` knows HTTP only as a content type, attributes and a body; `http` knows no client and no event.
//! * `audit` knows neither cores nor sessions: it is files, two threads, and what they are asked to record.
//! * `broker` never calls `api` or `net`'s loops: what it needs of them is the trait [`broker::Edge`].
//! * Nothing outside [`rt`] names glommio; `unsafe` is in `rt`, the maps of `partition` and two calls of `libc` elsewhere.

pub mod api;
pub mod audit;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod fault;
pub mod http;
pub mod id;
pub mod ingress;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod net;
pub mod outgoing;
pub mod partition;
pub mod registry;
pub mod rt;
pub mod schema;
pub mod server;
pub mod state;
pub mod ws;

//! Partitions: the readable, indexed form of the events, one log each, owned by one core.
//!
//! A [`Partition`] is a materialisation of the journal. Its offsets are a pure function of the journal's frames, its files can be cut back to
//! a checkpoint's [`End`] and written again by replay. Nothing here makes an event durable before it is acknowledged, and nothing
//! here is asked before the journal has committed.
//!
//! How the owner drives one:
//!
//! 1. At start, on plain threads: [`Partition::open`] with the checkpoint's end, [`Partition::append_blocking`] and [`Partition::expire`] for each frame after
//!    it, then [`Partition::require`].
//! 2. On its core: [`Partition::append`] per committed record, [`Waiters::appended`] per type; [`Partition::read`] for a reader, [`Waiters::park`] when it
//!    is at the end. After each of them, and at a [`Partition::tick`], [`Partition::job`] until there is none.
//! 3. Each [`Job`] runs on a helper thread; its outcome comes back to [`Partition::finish`] or [`Partition::failed`].
//! 4. For a checkpoint: [`Partition::flush_job`] after the frame was applied; the checkpoint may be written when
//!    [`Finished::Flushed`] came back from every partition.
//!
//! - [`segment`] and [`index`]: the two kinds of files, byte by byte.
//! - `log`: append, expiry, counting. `read`: slices of mapped memory for readers. `upkeep` and `job`: what may block.
//! - `recovery`: opening. `site`: the directory.
//! - [`Waiters`]: readers parked until an event of their types comes.
//! - [`map`]: mapped memory, shared by a writer and readers. [`file_map`] and [`heap`]: the real and the simulated one. `memory`: what the
//!   real one appends to.

pub mod error;
pub mod file_map;
pub mod filter;
pub mod heap;
pub mod index;
pub mod job;
mod log;
pub mod map;
mod memory;
mod read;
mod recovery;
pub mod segment;
mod site;
mod upkeep;
mod waiters;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use file_map::FileMap;
pub use filter::TypeFilter;
pub use job::{ColdId, Done, Job, JobError, JobKind};
pub use log::{Config, Counted, End, NoRoom, Partition, RECENT_BYTES};
pub use map::MapDisk;
pub use read::{Budget, Read, Slice, Status};
pub use segment::Identity;
pub use upkeep::Finished;
pub use waiters::Waiters;

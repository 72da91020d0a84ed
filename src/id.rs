//! The identities that travel between modules, each its own type so that one cannot be passed for another.

use std::fmt;
use std::num::NonZeroU8;

/// Number of partitions of a data directory made with default settings. The real number stands in `genesis`.
pub const DEFAULT_PARTITIONS: u8 = 12;
/// Partitions that every data directory has beside those: one for each [`PrivateLog`].
pub const PRIVATE_PARTITIONS: u8 = PrivateLog::ALL.len() as u8;
/// The most partitions that keys may be spread over: a set of all partitions fits into 64 bits.
pub const SHARED_PARTITIONS_MAX: u8 = 64 - PRIVATE_PARTITIONS;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// One executor, counted from 0. Core 0 also owns the journal and the group coordinator.
    CoreId(u8)
);
number!(
    /// A partition, counted from 0.
    Partition(u8)
);
number!(
    /// Position of an event in its partition: dense, from 0, never reused.
    Offset(u64)
);
number!(
    /// Position of a frame in the journal: dense, from 1. 0 means "before the first frame".
    FrameIndex(u64)
);
number!(
    /// Replication term. A single machine writes term 1.
    Term(u64)
);
number!(
    /// An event type known to the journal. Numbers are given once, in journal order, and never reused.
    TypeId(u32)
);
number!(
    /// A (client, group name) pair known to the journal. Numbers are given once and never reused.
    GroupId(u32)
);
number!(
    /// Counts the assignments of one (group, partition); a confirm of an older epoch changes nothing.
    Epoch(u64)
);
number!(
    /// A consumer connection or polling instance, unique while the process lives: core in the top byte.
    SessionId(u64)
);

/// Events that only the client itself ever sees. Each kind of all clients together is one more partition, numbered after
/// those that the producers' events are spread over; its records carry a number of their client's own in place of the
/// event type's, so that a client's events are found like those of a type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PrivateLog {
    /// What the client reported as events that it cannot consume.
    Dead,
    /// What the client produced for its own consumers to try them out.
    Test,
}

impl PrivateLog {
    pub const ALL: [Self; 2] = [Self::Dead, Self::Test];

    /// The partition in which the log lies, behind the `shared` partitions.
    pub fn partition(self, shared: NonZeroU8) -> Partition {
        Partition(shared.get() + self as u8)
    }

    /// The log that lies in `partition`, if that is none of the `shared` ones.
    pub fn of(partition: Partition, shared: NonZeroU8) -> Option<Self> {
        Self::ALL.into_iter().find(|log| log.partition(shared) == partition)
    }

    /// The name under which the journal numbers the client's events in this log. No event type has a slash in its name.
    pub fn type_name(self, client: ClientId) -> String {
        format!("{}/{client}", self.name())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Test => "test",
        }
    }
}

/// The numbers under which the journal knows one client's events in its private logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrivateTypes {
    pub dead: TypeId,
    pub test: TypeId,
}

impl PrivateTypes {
    pub fn of(self, log: PrivateLog) -> TypeId {
        match log {
            PrivateLog::Dead => self.dead,
            PrivateLog::Test => self.test,
        }
    }
}

/// Tells one life of a broker process from every other, in addresses that end with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bridge(u32);

impl Bridge {
    /// A new one, at random.
    pub fn of_this_process() -> Self {
        Self(uuid::Uuid::new_v4().as_fields().0)
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Offset {
    /// The offset that follows this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl FrameIndex {
    /// The index that follows this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl SessionId {
    /// The `n`th session of `core`.
    pub fn new(core: CoreId, n: u64) -> Self {
        Self(u64::from(core.0) << 56 | n & 0x00ff_ffff_ffff_ffff)
    }

    /// The core on which the session lives.
    pub fn core(self) -> CoreId {
        CoreId((self.0 >> 56) as u8)
    }
}

/// The GUID of a registered client, as its 16 bytes in text order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 16]);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_logs_lie_behind_the_shared_partitions() {
        let shared = NonZeroU8::new(12).unwrap();
        assert_eq!(PrivateLog::ALL.map(|log| log.partition(shared)), [Partition(12), Partition(13)]);
        assert_eq!(PrivateLog::of(Partition(11), shared), None);
        assert_eq!(PrivateLog::of(Partition(13), shared), Some(PrivateLog::Test));
    }

    #[test]
    fn a_session_id_tells_its_core() {
        let id = SessionId::new(CoreId(7), 42);
        assert_eq!((id.core(), id.0 & 0xff), (CoreId(7), 42));
    }
}

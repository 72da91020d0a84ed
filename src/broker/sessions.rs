//! Consumer sessions of this core: who they are, and how messages reach the task that serves each.

use super::Slice;
use super::message::{HEAD, Join, Message};
use super::refusal::Refusal;
use crate::broker::Core;
use crate::delivery::Wanted;
use crate::delivery::session::FetchId;
use crate::id::{ClientId, Epoch, Offset, Partition, PrivateLog, SessionId, TypeId};
use crate::rt::notify::Notify;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll};

/// What the rest of the broker tells a session.
pub enum Notice {
    Follow {
        log: PrivateLog,
        type_id: TypeId,
        from: Offset,
    },
    Assign {
        partition: Partition,
        epoch: Epoch,
        from: Offset,
    },
    Revoke {
        partition: Partition,
        epoch: Epoch,
    },
    Fetched {
        fetch: FetchId,
        next: Offset,
        events: Vec<Slice>,
    },
    /// The registry changed: the session looks whether its client may go on, and with which types.
    RegistryChanged,
    /// Time to look at deadlines.
    Tick,
    /// The dead event that the session reported, for which `offset` was delivered, is durable or was not stored.
    Reported {
        offset: Option<u64>,
        outcome: Result<(), Refusal>,
    },
    /// The batch of events that waited for records of personal data may go, but for those with these session offsets: they
    /// became dead events.
    Recorded {
        withheld: Vec<u64>,
    },
    /// The events that waited are in memory.
    Brought,
    /// The session cannot be served.
    Dismiss {
        reason: &'static str,
    },
    /// The broker stops.
    Stop,
}

/// Notices to one session, in order.
#[derive(Default)]
pub struct Mailbox {
    notices: RefCell<VecDeque<Notice>>,
    filled: Notify,
    /// When the session wants a [`Notice::Tick`], by [`Core::uptime_ms`].
    tick_at_ms: Cell<u64>,
}

/// All sessions of a core.
#[derive(Default)]
pub struct Sessions {
    opened: Cell<u64>,
    mailboxes: RefCell<HashMap<SessionId, Rc<Mailbox>, ahash::RandomState>>,
}

/// A session's membership in its group. Dropping it leaves.
pub struct Membership {
    core: Rc<Core>,
    pub session: SessionId,
    pub mailbox: Rc<Mailbox>,
}

impl Mailbox {
    /// The next notice.
    pub fn take(&self) -> Option<Notice> {
        self.notices.borrow_mut().pop_front()
    }

    /// Asks for a tick at `at_ms`, by [`Core::uptime_ms`].
    pub fn tick_at(&self, at_ms: u64) {
        self.tick_at_ms.set(at_ms);
    }

    /// Ready when there may be a notice.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.notices.borrow().is_empty() { self.filled.poll(cx) } else { Poll::Ready(()) }
    }

    fn put(&self, notice: Notice) {
        self.notices.borrow_mut().push_back(notice);
        self.filled.notify();
    }
}

impl Sessions {
    /// Sessions connected now.
    pub fn count(&self) -> usize {
        self.mailboxes.borrow().len()
    }

    /// Gives a tick to the sessions that asked for one by now.
    pub fn tick(&self, now_ms: u64) {
        for mailbox in self.mailboxes.borrow().values().filter(|mailbox| mailbox.tick_at_ms.get() <= now_ms) {
            mailbox.tick_at_ms.set(u64::MAX);
            mailbox.put(Notice::Tick);
        }
    }

    /// Tells one session; one that has ended hears nothing.
    pub fn tell(&self, session: SessionId, notice: Notice) {
        if let Some(mailbox) = self.mailboxes.borrow().get(&session) {
            mailbox.put(notice);
        }
    }

    /// Tells every session.
    pub(super) fn tell_all(&self, notice: impl Fn() -> Notice) {
        for mailbox in self.mailboxes.borrow().values() {
            mailbox.put(notice());
        }
    }
}

impl Core {
    /// A new session of `client` that reads what is `wanted` for `group`. When the broker stops already, it hears so at once.
    pub fn join(self: &Rc<Self>, client: ClientId, group: String, wanted: Wanted) -> Membership {
        let number = self.sessions.opened.get() + 1;
        self.sessions.opened.set(number);
        let session = SessionId::new(self.id, number);
        let mailbox = Rc::new(Mailbox::default());
        if self.is_stopping() {
            mailbox.put(Notice::Stop);
        }
        self.sessions.mailboxes.borrow_mut().insert(session, mailbox.clone());
        self.count_consumers();
        self.post(HEAD, Message::Join(Join { session, client, group, wanted }));
        Membership { core: self.clone(), session, mailbox }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.core.sessions.mailboxes.borrow_mut().remove(&self.session);
        self.core.count_consumers();
        self.core.post(HEAD, Message::Left { session: self.session });
    }
}

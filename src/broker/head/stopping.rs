//! An orderly end: every core drains, the last confirms are written, a checkpoint is made, and the process may exit.

use super::Head;
use crate::broker::Core;
use crate::broker::message::{HEAD, Message};
use crate::broker::refusal::Refusal;
use crate::broker::sessions::Notice;
use crate::id::CoreId;
use crate::rt;
use crate::rt::notify::Notify;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// How often a draining core looks whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Who has drained.
#[derive(Default)]
pub(super) struct Stopping {
    drained: RefCell<BTreeSet<CoreId>>,
    changed: Notify,
}

impl Stopping {
    pub(super) fn stopped(&self, core: CoreId) {
        self.drained.borrow_mut().insert(core);
        self.changed.notify();
    }
}

impl Head {
    /// Stops the broker in good order. When this returns, everything is durable and the process may exit.
    pub async fn stop(self: &Rc<Self>, core: &Rc<Core>) {
        core.post_all(|| Message::Stop);
        while self.stopping.drained.borrow().len() < core.cores() {
            self.stopping.changed.notified().await;
        }
        self.refusing.set(Some(Refusal::Stopping));
        // Every core has sent what it had to say; its messages are here when the queue has been empty for a moment.
        while !self.queue.borrow().is_empty() || self.is_writing() {
            self.work.notify();
            rt::sleep(LOOK_EVERY).await;
        }
        self.checkpoint(core).await;
    }
}

impl Core {
    /// Takes nothing new, closes sessions, and reports when nothing is under way any more.
    pub(in crate::broker) fn drain(self: &Rc<Self>) {
        self.stopping.set(true);
        self.deadlines.end_idle();
        self.sessions.tell_all(|| Notice::Stop);
        let core = self.clone();
        rt::spawn(async move {
            while core.connections.get() > 0 || core.sessions.count() > 0 || core.intake.under_way() > 0 {
                core.deadlines.end_idle();
                rt::sleep(LOOK_EVERY).await;
            }
            core.post(HEAD, Message::Stopped { core: core.id });
        });
    }
}

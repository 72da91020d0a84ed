//! Waking one task of this core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag that one task waits for and others on the same core raise. Raising it twice before the task looks counts once.
#[derive(Default)]
pub struct Notify {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Notify {
    /// Raises the flag and wakes the task that waits for it.
    pub fn notify(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Ready, and lowered again, once the flag is raised. One task at a time may wait.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Waits until the flag is raised, and lowers it.
    pub async fn notified(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

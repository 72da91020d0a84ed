//! Deadlines of sockets: when one passes, the socket is shut down and whoever reads or writes it sees the end. What has no
//! socket of its own has an [`Alarm`] instead, which wakes the task that waits for it.

use super::notify::Notify;
use super::socket::{is_over, unacknowledged};
use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How late a deadline may be noticed.
pub const RESOLUTION: Duration = Duration::from_millis(200);

/// How long a connection whose client broke its protocol stays, unread, after it was told so. The client comes back no sooner, and
/// the handshake that this costs everybody on the core comes a few times a second instead of hundreds: without it the p99 of
/// others rose to three times its value under four clients that flood and reconnect.
pub const DETENTION: Duration = Duration::from_secs(1);

/// All deadlines of one core. A scan over all of them every [`RESOLUTION`] costs about 5 ns a socket, which is less than
/// keeping a wheel in order when deadlines move with every request.
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<Vec<Weak<Entry>>>,
}

struct Entry {
    ends: Ends,
    at: Cell<Option<Instant>>,
    /// `SHUT_RD` while the peer's answer is awaited, so that it can still be told; `SHUT_RDWR` otherwise.
    how: Cell<libc::c_int>,
    /// Nothing is under way: the connection may end at any time.
    idle: Cell<bool>,
    passed: Cell<bool>,
    /// Bytes handed to the kernel.
    sent: Cell<u64>,
}

/// What a deadline that has passed puts an end to.
enum Ends {
    Socket(RawFd),
    Wait(Notify),
}

/// The deadline of one socket. Dropping it takes it off the list; it must be dropped before the socket is closed.
pub struct Deadline {
    entry: Rc<Entry>,
}

/// Ends the connection of a deadline from elsewhere on the core. Without effect once the deadline is dropped.
#[derive(Clone)]
pub struct Handle {
    entry: Weak<Entry>,
}

/// A time at which one task wants to be woken.
pub struct Alarm {
    entry: Rc<Entry>,
}

impl Deadlines {
    /// A deadline for `socket`, not yet set.
    pub fn watch(&self, socket: RawFd) -> Deadline {
        Deadline { entry: self.add(Ends::Socket(socket)) }
    }

    /// An alarm that is not set.
    pub fn alarm(&self) -> Alarm {
        Alarm { entry: self.add(Ends::Wait(Notify::default())) }
    }

    fn add(&self, ends: Ends) -> Rc<Entry> {
        let entry = Rc::new(Entry {
            ends,
            at: Cell::new(None),
            how: Cell::new(libc::SHUT_RDWR),
            idle: Cell::new(false),
            passed: Cell::new(false),
            sent: Cell::new(0),
        });
        self.entries.borrow_mut().push(Rc::downgrade(&entry));
        entry
    }

    /// Ends every connection that is idle now.
    pub fn end_idle(&self) {
        for entry in self.entries.borrow().iter().filter_map(Weak::upgrade).filter(|entry| entry.idle.get()) {
            entry.end(libc::SHUT_RD);
        }
    }

    /// Ends whatever has its deadline before `now`.
    pub fn expire(&self, now: Instant) {
        self.entries.borrow_mut().retain(|entry| {
            let Some(entry) = entry.upgrade() else { return false };
            if entry.at.get().is_some_and(|at| at <= now) {
                entry.at.set(None);
                entry.passed.set(true);
                entry.end(entry.how.get());
            }
            true
        });
    }
}

impl Entry {
    fn end(&self, how: libc::c_int) {
        match &self.ends {
            Ends::Socket(socket) => shut_down(*socket, how),
            Ends::Wait(waiting) => waiting.notify(),
        }
    }
}

impl Handle {
    /// Bytes sent on the connection so far; `None` once it is over.
    pub fn sent(&self) -> Option<u64> {
        Some(self.entry.upgrade()?.sent.get())
    }

    /// Whether the connection stands and the peer's kernel has acknowledged so many of the bytes sent on it.
    pub fn has_delivered(&self, bytes: u64) -> bool {
        let unacknowledged = |socket| match is_over(socket) {
            Ok(false) => unacknowledged(socket).ok(),
            _ => None,
        };
        let Some(entry) = self.entry.upgrade() else { return false };
        let waiting = match entry.ends {
            Ends::Socket(socket) => unacknowledged(socket),
            Ends::Wait(_) => None,
        };
        waiting.is_some_and(|waiting| entry.sent.get().saturating_sub(waiting as u64) >= bytes)
    }

    /// Ends the connection if it is idle now.
    pub fn end_if_idle(&self) {
        if let Some(entry) = self.entry.upgrade().filter(|entry| entry.idle.get()) {
            entry.end(libc::SHUT_RD);
        }
    }
}

impl Alarm {
    /// Goes off after this time; an earlier setting counts no more.
    pub fn set(&self, after: Duration) {
        self.entry.passed.set(false);
        self.entry.at.set(Some(Instant::now() + after));
    }

    /// Takes the setting away.
    pub fn lift(&self) {
        self.entry.at.set(None);
    }

    /// Whether it has gone off since it was set.
    pub fn passed(&self) -> bool {
        self.entry.passed.get()
    }

    /// Ready once it has gone off. One task at a time may wait.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.entry.ends {
            // A flag raised by an earlier setting is taken down on the way.
            Ends::Wait(waiting) => while !self.passed() && waiting.poll(cx).is_ready() {},
            Ends::Socket(_) => {}
        }
        if self.passed() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Deadline {
    /// Nothing is under way; after this time, or when the broker stops, nothing more is received.
    pub fn limit_idle(&self, after: Duration) {
        self.set(after, libc::SHUT_RD);
        self.entry.idle.set(true);
    }

    /// After this time nothing more is received: a pending read ends, but an answer can still be sent.
    pub fn limit_receiving(&self, after: Duration) {
        self.set(after, libc::SHUT_RD);
    }

    /// After this time the connection is over, whatever is under way.
    pub fn limit(&self, after: Duration) {
        self.set(after, libc::SHUT_RDWR);
    }

    /// Takes the deadline away.
    pub fn lift(&self) {
        self.entry.at.set(None);
        self.entry.idle.set(false);
    }

    /// Counts bytes that were handed to the kernel.
    pub fn count_sent(&self, bytes: usize) {
        self.entry.sent.set(self.entry.sent.get() + bytes as u64);
    }

    /// A handle for those who may end the connection.
    pub fn handle(&self) -> Handle {
        Handle { entry: Rc::downgrade(&self.entry) }
    }

    /// Whether the time was up once.
    pub fn passed(&self) -> bool {
        self.entry.passed.get()
    }

    fn set(&self, after: Duration, how: libc::c_int) {
        self.entry.at.set(Some(Instant::now() + after));
        self.entry.how.set(how);
        self.entry.idle.set(false);
    }
}

fn shut_down(socket: RawFd, how: libc::c_int) {
    // SAFETY: the deadline is dropped before its socket is closed, so the descriptor is still the socket's. An error
    // means that the peer was faster, which is as good.
    unsafe { libc::shutdown(socket, how) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn, poll_once};

    #[test]
    fn an_alarm_goes_off_once_for_each_setting() {
        block_on(async {
            let deadlines = Deadlines::default();
            let alarm = deadlines.alarm();
            let went_off = async || poll_once(poll_fn(|cx| alarm.poll(cx))).await.is_some();
            let later = || Instant::now() + Duration::from_secs(2);
            deadlines.expire(later());
            assert!(!went_off().await, "an alarm that was not set");
            alarm.set(Duration::from_secs(1));
            deadlines.expire(Instant::now());
            assert!(!went_off().await, "too early");
            deadlines.expire(later());
            assert!(went_off().await && went_off().await && alarm.passed());
            alarm.set(Duration::from_secs(1));
            assert!(!went_off().await, "set again");
            alarm.lift();
            deadlines.expire(later());
            assert!(!went_off().await, "lifted");
        });
    }

    #[test]
    fn what_was_dropped_is_forgotten() {
        let deadlines = Deadlines::default();
        let (kept, dropped) = (deadlines.alarm(), deadlines.alarm());
        drop(dropped);
        deadlines.expire(Instant::now());
        assert_eq!(deadlines.entries.borrow().len(), 1);
        drop(kept);
    }
}

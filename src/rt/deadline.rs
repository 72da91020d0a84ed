//! Deadlines of sockets: when one passes, the socket is shut down and whoever reads or writes it sees the end.

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// How late a deadline may be noticed.
pub const RESOLUTION: Duration = Duration::from_millis(200);

/// All deadlines of one core. A scan over all of them every [`RESOLUTION`] costs about 5 ns a socket, which is less than
/// keeping a wheel in order when deadlines move with every request.
#[derive(Default)]
pub struct Deadlines {
    entries: RefCell<Vec<Weak<Entry>>>,
}

struct Entry {
    socket: RawFd,
    at: Cell<Option<Instant>>,
    /// `SHUT_RD` while the peer's answer is awaited, so that it can still be told; `SHUT_RDWR` otherwise.
    how: Cell<libc::c_int>,
    /// Nothing is under way: the connection may end at any time.
    idle: Cell<bool>,
    passed: Cell<bool>,
}

/// The deadline of one socket. Dropping it takes it off the list; it must be dropped before the socket is closed.
pub struct Deadline {
    entry: Rc<Entry>,
}

/// Ends the connection of a deadline from elsewhere on the core. Without effect once the deadline is dropped.
pub struct Handle {
    entry: Weak<Entry>,
}

impl Handle {
    /// Ends the connection if it is idle now.
    pub fn end_if_idle(&self) {
        if let Some(entry) = self.entry.upgrade().filter(|entry| entry.idle.get()) {
            shut_down(entry.socket, libc::SHUT_RD);
        }
    }
}

impl Deadlines {
    /// A deadline for `socket`, not yet set.
    pub fn watch(&self, socket: RawFd) -> Deadline {
        let entry = Rc::new(Entry {
            socket,
            at: Cell::new(None),
            how: Cell::new(libc::SHUT_RDWR),
            idle: Cell::new(false),
            passed: Cell::new(false),
        });
        self.entries.borrow_mut().push(Rc::downgrade(&entry));
        Deadline { entry }
    }

    /// Ends every connection that is idle now.
    pub fn end_idle(&self) {
        for entry in self.entries.borrow().iter().filter_map(Weak::upgrade).filter(|entry| entry.idle.get()) {
            shut_down(entry.socket, libc::SHUT_RD);
        }
    }

    /// Shuts down every socket whose deadline is before `now`.
    pub fn expire(&self, now: Instant) {
        self.entries.borrow_mut().retain(|entry| {
            let Some(entry) = entry.upgrade() else { return false };
            if entry.at.get().is_some_and(|at| at <= now) {
                entry.at.set(None);
                entry.passed.set(true);
                shut_down(entry.socket, entry.how.get());
            }
            true
        });
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

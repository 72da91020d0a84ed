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
    passed: Cell<bool>,
}

/// The deadline of one socket. Dropping it takes it off the list; it must be dropped before the socket is closed.
pub struct Deadline {
    entry: Rc<Entry>,
}

impl Deadlines {
    /// A deadline for `socket`, not yet set.
    pub fn watch(&self, socket: RawFd) -> Deadline {
        let entry = Rc::new(Entry { socket, at: Cell::new(None), passed: Cell::new(false) });
        self.entries.borrow_mut().push(Rc::downgrade(&entry));
        Deadline { entry }
    }

    /// Shuts down every socket whose deadline is before `now`.
    pub fn expire(&self, now: Instant) {
        self.entries.borrow_mut().retain(|entry| {
            let Some(entry) = entry.upgrade() else { return false };
            if entry.at.get().is_some_and(|at| at <= now) {
                entry.at.set(None);
                entry.passed.set(true);
                shut_down(entry.socket);
            }
            true
        });
    }
}

impl Deadline {
    /// Sets or moves the deadline; `None` takes it away.
    pub fn set(&self, after: Option<Duration>) {
        self.entry.at.set(after.map(|after| Instant::now() + after));
    }

    /// Whether the socket was shut down because its time was up.
    pub fn passed(&self) -> bool {
        self.entry.passed.get()
    }

    /// Shuts the socket down now, in both directions.
    pub fn shut_down_now(&self) {
        shut_down(self.entry.socket);
    }
}

fn shut_down(socket: RawFd) {
    // SAFETY: the deadline is dropped before its socket is closed, so the descriptor is still the socket's. An error
    // means that the peer was faster, which is as good.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

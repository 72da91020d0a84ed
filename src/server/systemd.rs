//! What the service manager is told: readiness, reloads, stopping, and the watchdog (`sd_notify(3)`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The way to the service manager, if one started this process.
#[derive(Clone)]
pub struct Manager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> io::Result<Self> {
        let socket = match std::env::var_os("NOTIFY_SOCKET") {
            Some(path) => Some(Arc::new(connect(path.as_encoded_bytes())?)),
            None => None,
        };
        let for_us = std::env::var("WATCHDOG_PID").is_ok_and(|pid| pid == std::process::id().to_string())
            || std::env::var_os("WATCHDOG_PID").is_none();
        let interval_us =
            std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok()).filter(|_| for_us);
        Ok(Self { socket, watchdog: interval_us.map(Duration::from_micros) })
    }

    /// How often the watchdog must be fed at least; `None` when nobody watches.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// A line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen is not this process's problem.
            drop(socket.send(message.as_bytes()));
        }
    }
}

fn connect(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::new(&*String::from_utf8_lossy(path)))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

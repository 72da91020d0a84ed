//! What the broker uses while it is under load, as the kernel and its own metrics tell.

mod admin;
mod metrics;
mod process;

use crate::report::{Flow, Server};
use metrics::Metrics;
use process::Reading;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often memory is looked at: the kernel walks all pages for it, and holds up the broker meanwhile.
const MEMORY_EVERY: Duration = Duration::from_secs(2);

/// A broker's process that is looked at.
pub struct Watch {
    pid: u32,
    /// Where its data are, if that is known: the device there counts what is written.
    data: Option<PathBuf>,
    /// The admin listener, if it was found.
    admin: Option<SocketAddr>,
    idle_mib: Option<f64>,
    peak_mib: Option<f64>,
    looked: Instant,
    begin: Option<Moment>,
    end: Option<Moment>,
}

/// What was counted up to a moment.
struct Moment {
    at: Instant,
    reading: Reading,
    metrics: Option<Metrics>,
}

impl Watch {
    /// The process `pid`.
    pub fn of(pid: u32, data: Option<PathBuf>) -> Result<Self, String> {
        if Reading::of(pid, None).is_none() {
            return Err(format!("there is no process {pid} that may be looked at"));
        }
        let admin = admin::find(pid);
        let (idle_mib, peak_mib, looked) = (None, None, Instant::now());
        Ok(Self { pid, data, admin, idle_mib, peak_mib, looked, begin: None, end: None })
    }

    /// Notes the memory before anybody connects.
    pub fn idle(&mut self) {
        self.idle_mib = process::pss_mib(self.pid);
    }

    /// Notes the start of the window.
    pub fn begin(&mut self) {
        self.begin = self.moment();
    }

    /// Notes the end of the window.
    pub fn end(&mut self) {
        self.end = self.moment();
        self.look_at_memory();
    }

    /// To be called now and then.
    pub fn look(&mut self) {
        if self.looked.elapsed() >= MEMORY_EVERY {
            self.look_at_memory();
        }
    }

    fn look_at_memory(&mut self) {
        self.looked = Instant::now();
        let now_mib = process::pss_mib(self.pid);
        if now_mib > self.peak_mib {
            self.peak_mib = now_mib;
        }
    }

    fn moment(&self) -> Option<Moment> {
        let reading = Reading::of(self.pid, self.data.as_deref())?;
        let metrics = self.admin.and_then(admin::scrape).map(|text| Metrics::of(&text));
        Some(Moment { at: Instant::now(), reading, metrics })
    }

    /// What was used within the window, in which these events were acknowledged.
    pub fn facts(&self, acknowledged: &Flow) -> Server {
        let (pss_idle_mib, pss_peak_mib) = (self.idle_mib, self.peak_mib);
        let memory = Server { pss_idle_mib, pss_peak_mib, ..Server::default() };
        let (Some(begin), Some(end)) = (&self.begin, &self.end) else { return memory };
        let seconds = (end.at - begin.at).as_secs_f64();
        let cpu_s = end.reading.cpu_s - begin.reading.cpu_s;
        let written = end.reading.written_bytes.saturating_sub(begin.reading.written_bytes);
        let per = |amount: f64, of: u64| (of > 0).then(|| amount / of as f64);
        let metrics = begin.metrics.as_ref().zip(end.metrics.as_ref());
        let flushes = metrics.and_then(|(begin, end)| end.flushes_since(begin));
        Server {
            cpu_s: Some(cpu_s),
            cpu_us_per_event: per(cpu_s * 1e6, acknowledged.events),
            disk_bytes_per_event_byte: per(written as f64, acknowledged.bytes),
            flushes_per_s: flushes.map(|flushes| flushes / seconds),
            stalls: metrics.and_then(|(begin, end)| end.stalls_since(begin)),
            ..memory
        }
    }
}

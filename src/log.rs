//! Logs: one JSON object a line on stderr, written by one thread so that no core ever waits for the terminal or a pipe.
//!
//! Lines never carry payload data. When the writer falls behind, lines are dropped and counted, and the count is logged.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the writer thread.
const WAITING_LINES_MAX: usize = 8192;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, for machines.
    Json,
    /// Plain text, for a person at a terminal.
    Text,
}

/// How many lines of one kind a core writes in a second.
pub struct Quota {
    lines_max: u32,
    /// The second at hand, and the lines written in it.
    second: Cell<u64>,
    written: Cell<u32>,
}

/// Sends lines to the writer thread.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// Collects one line.
struct Line {
    queue: Queue,
    bytes: Vec<u8>,
}

impl Quota {
    pub const fn new(lines_max: u32) -> Self {
        Self { lines_max, second: Cell::new(0), written: Cell::new(0) }
    }

    /// Whether another line may be written in this second. The first that may not leaves a line that says so.
    pub fn take(&self, second: u64) -> bool {
        if self.second.replace(second) != second {
            self.written.set(0);
        }
        let written = self.written.get();
        self.written.set(written.saturating_add(1));
        if written == self.lines_max {
            tracing::warn!(
                lines = self.lines_max,
                "more lines of refused requests are left out in this second"
            );
        }
        written < self.lines_max
    }
}

/// The HTTP/2 library warns of what clients do wrong, as often as they like, and tells of every frame at level `debug`.
const QUIET: &str = "h2=error";

/// Starts logging for the process. `level` is a filter such as `info` or `nistru=debug,info`.
pub fn start(level: &str, format: Format) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(format!("{QUIET},{level}"))
        .map_err(|e| format!("log level {level:?}: {e}"))?;
    let (lines, received) = sync_channel(WAITING_LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = Queue { lines, dropped: dropped.clone() };
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&received, &dropped))
        .map_err(|e| format!("the log thread does not start: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue);
    match format {
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        Format::Text => builder.with_target(false).with_ansi(false).try_init(),
    }
    .map_err(|e| format!("logging does not start: {e}"))
}

fn write_lines(lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    let mut stderr = io::stderr();
    while let Ok(line) = lines.recv() {
        let missing = dropped.swap(0, Relaxed);
        if missing > 0 {
            tracing::warn!(
                lines = missing,
                "log lines were dropped because the reader of stderr is too slow"
            );
        }
        // Nothing can be said about a stderr that does not take what is said.
        drop(stderr.write_all(&line));
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { queue: self.clone(), bytes: Vec::with_capacity(256) }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.bytes.is_empty() && self.queue.lines.try_send(std::mem::take(&mut self.bytes)).is_err() {
            self.queue.dropped.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_begins_anew_with_each_second() {
        let quota = Quota::new(2);
        let taken = [1, 1, 1, 1, 2, 2, 2].map(|second| quota.take(second));
        assert_eq!(taken, [true, true, false, false, true, true, false]);
    }
}

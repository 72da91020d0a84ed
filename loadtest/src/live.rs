//! Figures of a run that is going on, and the line that shows them.

use crate::fleet;
use crate::group::Group;
use crate::measure::Window;
use crate::report::{Flow, Latency};
use crate::run::Run;
use crate::scenario::TypeSet;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the workers tell about the last second.
#[derive(Debug, Default)]
pub struct Live {
    pub refused: AtomicU64,
    /// Connections that broke, and that were opened anew because it was their turn.
    pub broken: AtomicU64,
    pub renewed: AtomicU64,
    acknowledged_p99_us: AtomicU64,
    end_to_end_p99_us: AtomicU64,
}

impl Live {
    /// Takes over the latencies of the second before `second`.
    pub fn show(&self, second: Option<usize>, acknowledged: &Flow, consumed: &Flow) {
        let Some(last) = second.and_then(|second| second.checked_sub(1)) else { return };
        for (flow, shown) in [(acknowledged, &self.acknowledged_p99_us), (consumed, &self.end_to_end_p99_us)]
        {
            if let Some(second) = flow.per_second.get(last..=last) {
                let p99_us = Latency::of_seconds(second).quantile_ms(0.99) * 1e3;
                shown.store(p99_us as u64, Ordering::Relaxed);
            }
        }
    }
}

/// A line on stderr, drawn when it is a terminal.
pub struct Progress {
    bar: ProgressBar,
    /// Events acknowledged and consumed at the last look, and when that was.
    last: (u64, u64, u64),
}

impl Progress {
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, last: (0, 0, 0) }
    }

    /// One that nobody sees.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), last: (0, 0, 0) }
    }

    pub fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Rates, latencies, lag and refusals now. Called several times a second; changes once a second.
    pub fn show(&mut self, run: &Run, groups: &[Group], window: Window) {
        let now_ns = run.clock.now_ns();
        let seconds = now_ns.saturating_sub(self.last.2) as f64 / 1e9;
        if seconds < 1.0 {
            return;
        }
        let acknowledged = run.acknowledged_of(&TypeSet::All);
        let consumed: u64 = groups.iter().map(|group| group.ledger.received()).sum();
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let mut line = format!(
            "{} · {:.0} events/s acknowledged, p99 {:.1} ms",
            clock(window, now_ns),
            rate(acknowledged, self.last.0),
            ms(&run.live.acknowledged_p99_us),
        );
        if !groups.is_empty() {
            let lag: u64 = groups.iter().map(|group| group.lag(run)).sum();
            let (rate, p99_ms) = (rate(consumed, self.last.1), ms(&run.live.end_to_end_p99_us));
            line += &format!(" · {rate:.0}/s consumed, p99 {p99_ms:.1} ms, lag {lag}");
        }
        for (count, what) in
            [(&run.live.refused, "refused"), (&run.live.broken, "broken"), (&run.live.renewed, "renewed")]
        {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                line += &format!(" · {count} {what}");
            }
        }
        self.say(line);
        self.last = (acknowledged, consumed, now_ns);
    }

    /// Rates of a run over several processes. Called several times a second; changes once a second.
    pub fn show_sum(&mut self, sum: &fleet::Progress, now_ns: u64) {
        let seconds = now_ns.saturating_sub(self.last.2) as f64 / 1e9;
        if seconds < 1.0 {
            return;
        }
        let (owed, consumed) = (sum.owed.iter().sum::<u64>(), sum.received.iter().sum::<u64>());
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        self.say(format!(
            "{:.0} events/s acknowledged · {:.0}/s consumed, lag {}",
            rate(sum.acknowledged, self.last.0),
            rate(consumed, self.last.1),
            owed.saturating_sub(consumed)
        ));
        self.last = (sum.acknowledged, consumed, now_ns);
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn ms(us: &AtomicU64) -> f64 {
    us.load(Ordering::Relaxed) as f64 / 1e3
}

fn clock(window: Window, now_ns: u64) -> String {
    match now_ns.checked_sub(window.start_ns) {
        None => "warming up".to_owned(),
        Some(passed_ns) => format!("{:.0}/{:.0} s", passed_ns as f64 / 1e9, window.seconds()),
    }
}

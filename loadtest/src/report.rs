//! The result, for people and for programs.

use crate::args::Load;
use crate::ledger::Verdict;
use crate::measure::{Flow, Problems, Summary, Window};
use crate::producing::Produced;
use crate::run::Used;
use crate::usage::Usage;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt;

/// Everything a run has found out.
#[derive(Debug, Serialize)]
pub struct Report {
    pub settings: Settings,
    /// From the moment a request was to be sent to its 202.
    pub acknowledged: Summary,
    pub requests_per_s: f64,
    /// From the moment a request was to be sent to the arrival of each of its events, over all groups.
    pub consumed: Option<Summary>,
    pub sent: u64,
    /// Events that were due and never sent, because the answers before them came late. Their latency is not measured.
    pub unsent: u64,
    pub refused: u64,
    /// Events whose answer never came.
    pub unanswered: u64,
    /// One judgement for each group.
    pub groups: Vec<Verdict>,
    /// Texts of what went wrong, each with how often.
    pub problems: Problems,
    /// Within the measurement, by this program.
    pub load_usage: Usage,
    /// Within the measurement, by the broker, if it was started for the test.
    pub broker_usage: Option<Usage>,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub struct Settings {
    pub producers: usize,
    pub consumers: usize,
    pub groups: usize,
    pub batch: usize,
    /// Events a second; none means as fast as the broker answers.
    pub rate: Option<f64>,
    pub event_bytes: u64,
    pub seconds: f64,
    pub event_type: String,
}

impl Report {
    pub fn new(
        load: &Load,
        window: Window,
        produced: &Produced,
        consumed: &Flow,
        groups: Vec<Verdict>,
        used: &Used,
    ) -> Self {
        Self {
            settings: Settings {
                producers: load.producers,
                consumers: load.consumers,
                groups: groups.len(),
                batch: load.batch,
                rate: load.rate,
                event_bytes: produced.flow.bytes.checked_div(produced.flow.events).unwrap_or_default(),
                seconds: window.seconds(),
                event_type: load.event_type.clone(),
            },
            acknowledged: produced.flow.summary(window),
            requests_per_s: produced.flow.events as f64 / load.batch as f64 / window.seconds(),
            consumed: (!groups.is_empty()).then(|| consumed.summary(window)),
            sent: produced.sent.sent.iter().sum(),
            unsent: produced.unsent,
            refused: produced.sent.refused.len() as u64,
            unanswered: produced.sent.unknown.len() as u64,
            groups,
            problems: produced.problems.clone(),
            load_usage: used.load,
            broker_usage: used.broker,
        }
    }

    /// The program's exit code: see `--help`.
    pub fn exit_code(&self) -> u8 {
        match () {
            () if !self.groups.iter().all(Verdict::is_good) => 2,
            () if !self.problems.is_empty() => 3,
            () => 0,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "events/s", "MiB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"]);
        table.add_row(row("acknowledged", &self.acknowledged));
        if let Some(consumed) = &self.consumed {
            table.add_row(row("end to end", consumed));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn row(name: &str, flow: &Summary) -> Vec<String> {
    let ms = |value: f64| format!("{value:.2}");
    let latencies = [flow.p50_ms, flow.p90_ms, flow.p99_ms, flow.p999_ms, flow.max_ms].map(ms);
    let rates = [format!("{:.0}", flow.events_per_s), format!("{:.1}", flow.mib_per_s)];
    [name.to_owned()].into_iter().chain(rates).chain(latencies).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { producers, consumers, groups, batch, rate, event_bytes, seconds, event_type } =
            &self.settings;
        let rate = rate.map_or("as fast as answered".to_owned(), |rate| format!("{rate} events/s"));
        writeln!(
            f,
            "{event_type}, events of {event_bytes} bytes, {batch} in a request, {rate}, {seconds} s"
        )?;
        writeln!(f, "{producers} producers, {groups} groups of {consumers} consumers")?;
        writeln!(f, "{}", self.table())?;
        writeln!(f, "requests/s {:.0}", self.requests_per_s)?;
        write_usage(f, "load generator", self.load_usage, self.settings.seconds)?;
        if let Some(usage) = self.broker_usage {
            write_usage(f, "broker", usage, self.settings.seconds)?;
        }
        writeln!(
            f,
            "sent {}, due but not sent {}, refused {}, unanswered {}",
            self.sent, self.unsent, self.refused, self.unanswered
        )?;
        for (number, verdict) in self.groups.iter().enumerate() {
            let Verdict { received, repeated, lost, out_of_order, unexpected } = verdict;
            let word = if verdict.is_good() { "good" } else { "BROKEN" };
            writeln!(
                f,
                "group {number}: {word}: received {received}, repeated {repeated}, lost {lost}, \
                 out of order {out_of_order}, unexpected {unexpected}"
            )?;
        }
        self.problems.iter().try_for_each(|(text, count)| writeln!(f, "{count} x {text}"))
    }
}

fn write_usage(f: &mut fmt::Formatter<'_>, name: &str, usage: Usage, seconds: f64) -> fmt::Result {
    writeln!(f, "{name}: {:.2} cores busy, {:.0} MiB at most", usage.cpu_s / seconds, usage.peak_mib)
}

//! The report as text, for a terminal.

use super::flow::Flow;
use super::model::{Report, Server};
use crate::ledger::Verdict;
use comfy_table::{CellAlignment, Table, presets};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, {} s", self.scenario.name, self.scenario.summary, self.seconds)?;
        writeln!(f, "{}", self.table())?;
        self.reservations().try_for_each(|reservation| writeln!(f, "{reservation}"))?;
        self.write_usage(f)?;
        let Self { sent, unsent, unanswered, .. } = self;
        let refused = self.refusals();
        writeln!(f, "sent {sent}, due but not sent {unsent}, refused {refused}, unanswered {unanswered}")?;
        for group in &self.groups {
            let Verdict { received, repeated, unexcused, lost, out_of_order, unexpected } = group.verdict;
            let word = if group.verdict.is_good() { "good" } else { "BROKEN" };
            writeln!(
                f,
                "group {}: {word}: received {received}, repeated {repeated} ({unexcused} without a reason), lost {lost}, \
                 out of order {out_of_order}, unexpected {unexpected}",
                group.name
            )?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        self.problems.iter().try_for_each(|(text, count)| writeln!(f, "{count} x {text}"))
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "events/s", "MiB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"]);
        self.flows().for_each(|(name, flow)| {
            table.add_row(row(name, flow));
        });
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// How many events were refused, and for what reasons.
    fn refusals(&self) -> String {
        let status = |(status, events)| format!("{events} with {status}");
        let reasons: Vec<String> = self.refused_by_status.iter().map(status).collect();
        match reasons.is_empty() {
            true => self.refused.to_string(),
            false => format!("{} ({})", self.refused, reasons.join(", ")),
        }
    }

    fn write_usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = |cpu_s: f64| if self.seconds > 0.0 { cpu_s / self.seconds } else { 0.0 };
        let usage = self.client.usage;
        let busy = cores(usage.cpu_s);
        writeln!(f, "load generator: {busy:.2} cores busy, {:.0} MiB at most", usage.peak_mib)?;
        let Some(server) = &self.server else { return Ok(()) };
        let facts: Vec<String> = facts(server, server.cpu_s.map(cores)).into_iter().flatten().collect();
        writeln!(f, "broker: {}", facts.join(", "))
    }
}

fn row(name: &str, flow: &Flow) -> Vec<String> {
    let latency = &flow.latency;
    let latencies = [0.5, 0.9, 0.99, 0.999]
        .map(|quantile| latency.quantile_ms(quantile))
        .into_iter()
        .chain([latency.max_ms()]);
    // Of nothing there is no latency, and 0 would look like a very good one.
    let show = |ms: f64| if latency.samples() > 0 { format!("{ms:.2}") } else { "–".to_owned() };
    let rates = [format!("{:.0}", flow.events_per_s()), format!("{:.1}", flow.mib_per_s())];
    [name.to_owned()].into_iter().chain(rates).chain(latencies.map(show)).collect()
}

fn facts(server: &Server, cores_busy: Option<f64>) -> [Option<String>; 7] {
    [
        cores_busy.map(|cores| format!("{cores:.2} cores busy")),
        server.cpu_us_per_event.map(|us| format!("{us:.1} µs an event")),
        server.pss_idle_mib.map(|mib| format!("{mib:.0} MiB idle")),
        server.pss_peak_mib.map(|mib| format!("{mib:.0} MiB at most")),
        server
            .disk_bytes_per_event_byte
            .map(|ratio| format!("{ratio:.2} bytes to disk for each of an event")),
        server.flushes_per_s.map(|flushes| format!("{flushes:.0} flushes/s")),
        server
            .stalls
            .map(|stalls| format!("{} stalls, longest {:.1} ms", stalls.over_1_ms, stalls.longest_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn refusals_are_told_with_their_status() {
        let mut report = sample::report(2);
        assert!(report.to_string().contains("refused 2 (1 with 429, 1 with 503), unanswered 0"));
        (report.refused, report.refused_by_status) = (0, [].into());
        assert!(report.to_string().contains("refused 0, unanswered 0"));
    }

    #[test]
    fn of_nothing_there_is_no_latency() {
        let report = super::Report { acknowledged: super::Flow::new(), consumed: None, ..sample::report(2) };
        let text = report.to_string();
        assert!(text.contains('–') && !text.contains("0.00"), "{text}");
    }

    #[test]
    fn latencies_that_are_lower_bounds_are_told_below_their_table() {
        let text = sample::report(2).to_string();
        assert!(text.contains("acknowledged: 1 of 301 latencies are lower bounds"), "{text}");
        assert!(!text.contains("end to end: "), "{text}");
    }
}

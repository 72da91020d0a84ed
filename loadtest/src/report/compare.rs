//! Two reports side by side: what got better, what got worse, and whether they may be compared at all.

use super::figure::{Better, FIGURES, Figure};
use super::model::Report;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt;

/// How a figure changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Better,
    Worse,
    /// Within the noise.
    Same,
    /// One report lacks it, or it is neither good nor bad.
    Unjudged,
}

/// One figure of both reports.
pub struct Row {
    pub figure: &'static Figure,
    pub before: Option<f64>,
    pub after: Option<f64>,
    pub change: Change,
    /// How many times worse it is: below 1 it is better. `None` when it is not judged.
    times_worse: Option<f64>,
}

/// Both reports, compared.
pub struct Comparison<'a> {
    pub before: &'a Report,
    pub after: &'a Report,
    /// Changes up to this share are noise, such as 0.2.
    pub noise: f64,
    pub rows: Vec<Row>,
    /// Why the figures may differ for other reasons than the broker.
    pub warnings: Vec<String>,
}

impl<'a> Comparison<'a> {
    pub fn of(before: &'a Report, after: &'a Report, noise: f64) -> Self {
        let rows = FIGURES.iter().filter_map(|figure| Row::of(figure, before, after, noise)).collect();
        Self { before, after, noise, rows, warnings: warnings(before, after) }
    }

    pub fn title(&self) -> String {
        let (before, after) = (&self.before.scenario.name, &self.after.scenario.name);
        if before == after { format!("{before}: A and B") } else { format!("{before} and {after}") }
    }

    /// How many times worse the figure is that got worst; 1 when none did.
    pub fn worst(&self) -> f64 {
        self.rows.iter().filter_map(|row| row.times_worse).fold(1.0, f64::max)
    }

    pub fn summary(&self) -> String {
        let count = |change| self.rows.iter().filter(|row| row.change == change).count();
        format!(
            "{} better, {} worse, {} within {} %",
            count(Change::Better),
            count(Change::Worse),
            count(Change::Same),
            (self.noise * 100.0).round()
        )
    }

    /// The comparison for programs.
    pub fn json(&self) -> serde_json::Value {
        let row = |row: &Row| {
            serde_json::json!({
                "figure": row.figure.name,
                "before": row.before,
                "after": row.after,
                "ratio": row.ratio(),
                "change": row.change,
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        serde_json::json!({ "noise": self.noise, "warnings": self.warnings, "figures": rows })
    }
}

impl Row {
    fn of(figure: &'static Figure, before: &Report, after: &Report, noise: f64) -> Option<Self> {
        let (before, after) = ((figure.of)(before), (figure.of)(after));
        before.or(after)?;
        let times_worse = before.zip(after).and_then(|(before, after)| match figure.better {
            Better::Higher => Some(ratio(before, after)),
            Better::Lower => Some(ratio(after, before)),
            Better::Neither => None,
        });
        let change = match times_worse {
            None => Change::Unjudged,
            Some(times) if times > 1.0 + noise => Change::Worse,
            Some(times) if times < 1.0 / (1.0 + noise) => Change::Better,
            Some(_) => Change::Same,
        };
        Some(Self { figure, before, after, change, times_worse })
    }

    /// B divided by A.
    fn ratio(&self) -> Option<f64> {
        self.before
            .zip(self.after)
            .map(|(before, after)| ratio(after, before))
            .filter(|ratio| ratio.is_finite())
    }

    pub fn ratio_text(&self) -> String {
        self.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
    }

    pub fn show(&self, value: Option<f64>) -> String {
        value.map_or("–".to_owned(), |value| self.figure.show(value))
    }
}

impl Change {
    pub fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Same => "same",
            Self::Unjudged => "",
        }
    }
}

/// `a` divided by `b`; nothing and nothing are the same, and anything is infinitely more than nothing.
fn ratio(a: f64, b: f64) -> f64 {
    if a == b { 1.0 } else { a / b }
}

fn warnings(before: &Report, after: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, before: &dyn fmt::Display, after: &dyn fmt::Display| {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            warnings.push(format!("{what} differs: {before} and {after}"));
        }
    };
    differ("format", &before.format, &after.format);
    differ("scenario", &before.scenario.name, &after.scenario.name);
    differ("load", &before.scenario.summary, &after.scenario.summary);
    differ("length", &before.seconds, &after.seconds);
    let (machine, other) = (&before.machine, &after.machine);
    differ("processor", &machine.cpu, &other.cpu);
    differ("number of cores", &machine.cores, &other.cores);
    differ("kernel", &machine.kernel, &other.kernel);
    let text = |value: &Option<String>| value.clone().unwrap_or("unknown".to_owned());
    differ("file system", &text(&machine.filesystem), &text(&other.filesystem));
    let cores = |report: &Report| report.broker.cores.map_or("all".to_owned(), |cores| cores.to_string());
    differ("cores of the broker", &cores(before), &cores(after));
    differ("processes of the load generator", &before.client.processes, &after.client.processes);
    if before.scenario.text != after.scenario.text && before.scenario.name == after.scenario.name {
        warnings.push("the scenarios have the same name and different texts".to_owned());
    }
    // A few MiB come and go with the kernel's version.
    if machine.memory_mib.abs_diff(other.memory_mib) > machine.memory_mib / 20 {
        warnings.push(format!("memory differs: {} MiB and {} MiB", machine.memory_mib, other.memory_mib));
    }
    for (name, report) in [("A", before), ("B", after)] {
        if !report.is_good() {
            warnings.push(format!("in {name} the broker broke a promise"));
        }
        warnings.extend(report.reservations().map(|reservation| format!("in {name} {reservation}")));
    }
    warnings
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "A", "B", "B / A", ""]);
        for row in &self.rows {
            let (before, after) = (row.show(row.before), row.show(row.after));
            table.add_row([row.figure.label, &before, &after, &row.ratio_text(), row.change.word()]);
        }
        for column in table.column_iter_mut().skip(1).take(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        writeln!(f, "{}", self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn change(comparison: &Comparison<'_>, figure: &str) -> Change {
        comparison.rows.iter().find(|row| row.figure.name == figure).unwrap().change
    }

    #[test]
    fn changes_beyond_the_noise_are_told_in_the_direction_that_counts() {
        let (fast, slow) = (sample::report(2), sample::report(4));
        let worse = Comparison::of(&fast, &slow, 0.2);
        assert_eq!(change(&worse, "acknowledged_p50_ms"), Change::Worse);
        assert_eq!(change(&worse, "acknowledged_per_s"), Change::Same);
        assert!((worse.worst() - 2.0).abs() < 0.01, "{}", worse.worst());
        let better = Comparison::of(&slow, &fast, 0.2);
        assert_eq!(change(&better, "acknowledged_p50_ms"), Change::Better);
        assert!(better.worst() < 1.02);
        assert_eq!(change(&Comparison::of(&fast, &slow, 1.5), "acknowledged_p50_ms"), Change::Same);
    }

    #[test]
    fn anything_is_worse_than_nothing_and_nothing_is_as_good_as_nothing() {
        let mut losing = sample::report(2);
        losing.groups[0].verdict.lost = 1;
        let report = sample::report(2);
        assert_eq!(change(&Comparison::of(&report, &losing, 0.2), "lost"), Change::Worse);
        assert_eq!(Comparison::of(&report, &losing, 0.2).worst(), f64::INFINITY);
        assert_eq!(change(&Comparison::of(&losing, &report, 0.2), "lost"), Change::Better);
        assert_eq!(change(&Comparison::of(&report, &report, 0.2), "lost"), Change::Same);
    }

    #[test]
    fn a_report_is_the_same_as_itself_and_needs_no_warning() {
        let mut report = sample::report(2);
        report.acknowledged.lower_bounds = 0;
        let comparison = Comparison::of(&report, &report, 0.2);
        assert_eq!((comparison.worst(), &comparison.warnings[..]), (1.0, &[][..]));
    }

    #[test]
    fn other_machines_scenarios_and_broken_promises_are_warned_of() {
        let mut other = sample::report(2);
        other.machine.cores = 64;
        other.scenario.text.push('#');
        other.groups[0].verdict.lost = 1;
        let warnings = Comparison::of(&sample::report(2), &other, 0.2).warnings.join("\n");
        assert!(warnings.contains("number of cores differs: 2 and 64"), "{warnings}");
        assert!(
            warnings.contains("different texts") && warnings.contains("in B the broker broke"),
            "{warnings}"
        );
        assert!(warnings.contains("in B acknowledged: 1 of 301 latencies are lower bounds"), "{warnings}");
    }

    #[test]
    fn a_figure_that_one_report_lacks_is_shown_and_not_judged() {
        let bare = Report { server: None, ..sample::report(2) };
        let report = sample::report(2);
        let comparison = Comparison::of(&report, &bare, 0.2);
        assert_eq!(change(&comparison, "broker_pss_peak_mib"), Change::Unjudged);
        assert!(comparison.to_string().contains("–"));
    }
}

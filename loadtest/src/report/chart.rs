//! What the pages plot, and the same numbers as tables.

use super::figure::grouped;
use super::flow::{Flow, Latency, Second};
use super::model::Report;
use super::plot::{Line, Plot, Scale};

/// Most points of a line over time; longer runs are drawn in longer steps.
const POINTS_MAX: usize = 300;
/// Points of a line for each nine of its percentiles.
const POINTS_PER_NINE: u32 = 24;
/// Percentiles in the table.
const SHARES: [f64; 8] = [0.0, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999, 1.0];

/// A plot and its numbers.
pub struct Chart {
    pub plot: Plot,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A report and what to call it among others; empty when it is alone.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    pub name: &'a str,
    pub report: &'a Report,
}

/// All charts of one report or of several on the same axes.
pub fn charts(reports: &[Named<'_>]) -> Vec<Chart> {
    let all = [percentiles(reports), throughput(reports), latency(reports)];
    all.into_iter().filter(|chart| !chart.rows.is_empty()).collect()
}

/// The flows of a report that have anything to show.
fn flows<'a>(reports: &[Named<'a>]) -> Vec<(String, &'a Flow)> {
    let mut flows = Vec::new();
    for Named { name, report } in reports {
        for (point, flow) in report.flows() {
            if flow.latency.samples() > 0 {
                flows.push((format!("{name} {point}").trim().to_owned(), flow));
            }
        }
    }
    flows
}

fn percentiles(reports: &[Named<'_>]) -> Chart {
    let flows = flows(reports);
    let line = |(label, flow): &(String, &Flow)| {
        let latency = &flow.latency;
        let points = shares(latency.samples()).map(|share| (share, latency.quantile_ms(share))).collect();
        Line { label: label.clone(), points, step: None }
    };
    let row = |share: &f64| {
        let name = if *share == 1.0 { "max".to_owned() } else { format!("p{}", (share * 1e6).round() / 1e4) };
        [name].into_iter().chain(flows.iter().map(|(_, flow)| ms(flow.latency.quantile_ms(*share)))).collect()
    };
    Chart {
        plot: Plot {
            title: "Latency by percentile",
            description:
                "How late the given share of events was at most, from the moment each was to be sent."
                    .to_owned(),
            x: (Scale::Percentile, "percentile"),
            y: (Scale::Log, "ms"),
            lines: flows.iter().map(line).collect(),
        },
        head: head("percentile", " ms", flows.iter().map(|(label, _)| label.as_str())),
        rows: if flows.is_empty() { Vec::new() } else { SHARES.iter().map(row).collect() },
    }
}

/// Shares from 0 to that of all samples but the slowest, evenly spread over the axis of nines.
fn shares(samples: u64) -> impl Iterator<Item = f64> {
    let nines = (samples.max(10) as f64).log10();
    let steps = (nines * f64::from(POINTS_PER_NINE)).ceil() as u32;
    (0..=steps).map(move |step| 1.0 - 10f64.powf(-nines * f64::from(step) / f64::from(steps)))
}

fn throughput(reports: &[Named<'_>]) -> Chart {
    let step = step_s(reports);
    let mut lines = Vec::new();
    for Named { name, report } in reports {
        let counts = |flow: &Flow| flow.per_second.iter().map(|second| second.events).collect::<Vec<_>>();
        let mut add = |point: &str, counts: &[u64]| {
            lines.push(Line {
                label: format!("{name} {point}").trim().to_owned(),
                points: rates(counts, report.seconds, step),
                step: Some(step as f64),
            });
        };
        add("acknowledged", &counts(&report.acknowledged));
        if let Some(consumed) = &report.consumed {
            add("consumed", &counts(consumed));
        }
        if report.refused > 0 {
            let mut refused = report.refused_per_second.clone();
            refused.resize(report.seconds.ceil() as usize, 0);
            add("refused", &refused);
        }
    }
    lines.retain(|line| !line.points.is_empty());
    let description = "Events in each second of the measurement.".to_owned();
    over_time("Throughput over time", description, (Scale::Linear, "events/s"), lines, |rate| {
        grouped(&format!("{rate:.0}"))
    })
}

/// Events a second in steps of `step` seconds; the last step may be shorter.
fn rates(counts: &[u64], seconds: f64, step: usize) -> Vec<(f64, f64)> {
    let rate = |(index, chunk): (usize, &[u64])| {
        let start = (index * step) as f64;
        let end = (start + step as f64).min(seconds.max(start));
        (end > start).then(|| (end, chunk.iter().sum::<u64>() as f64 / (end - start)))
    };
    counts.chunks(step).enumerate().filter_map(rate).collect()
}

fn latency(reports: &[Named<'_>]) -> Chart {
    let step = step_s(reports);
    // Side by side only the p99: eight lines could not be told apart.
    let quantiles: &[(f64, &str)] =
        if reports.len() > 1 { &[(0.99, "p99")] } else { &[(0.5, "p50"), (0.99, "p99")] };
    let mut lines = Vec::new();
    for (label, flow) in flows(reports) {
        for (quantile, name) in quantiles {
            lines.push(Line {
                label: format!("{label} {name}"),
                points: latencies(&flow.per_second, step, *quantile),
                step: Some(step as f64),
            });
        }
    }
    lines.retain(|line| !line.points.is_empty());
    let description = "How late the events were that passed in each second of the measurement.".to_owned();
    over_time("Latency over time", description, (Scale::Log, "ms"), lines, ms)
}

fn latencies(seconds: &[Second], step: usize, quantile: f64) -> Vec<(f64, f64)> {
    let point = |(index, chunk): (usize, &[Second])| {
        let latency = Latency::of_seconds(chunk);
        (latency.samples() > 0).then(|| ((index * step + chunk.len()) as f64, latency.quantile_ms(quantile)))
    };
    seconds.chunks(step).enumerate().filter_map(point).collect()
}

fn over_time(
    title: &'static str,
    description: String,
    y: (Scale, &'static str),
    lines: Vec<Line>,
    show: impl Fn(f64) -> String,
) -> Chart {
    let mut times: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let value = |line: &Line, time: f64| {
        let at = line.points.iter().find(|point| point.0 == time);
        at.map_or(String::new(), |point| show(point.1))
    };
    let row = |time: &f64| {
        [format!("{time}")].into_iter().chain(lines.iter().map(|line| value(line, *time))).collect()
    };
    let rows = times.iter().map(row).collect();
    let unit = format!(" {}", y.1);
    let head = head("until second", &unit, lines.iter().map(|line| line.label.as_str()));
    Chart { plot: Plot { title, description, x: (Scale::Linear, "seconds"), y, lines }, head, rows }
}

fn step_s(reports: &[Named<'_>]) -> usize {
    let longest = reports.iter().map(|named| named.report.seconds.ceil() as usize).max().unwrap_or(1);
    longest.div_ceil(POINTS_MAX).max(1)
}

fn head<'a>(first: &str, unit: &str, labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    [first.to_owned()].into_iter().chain(labels.map(|label| format!("{label},{unit}"))).collect()
}

fn ms(value: f64) -> String {
    format!("{value:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_second_counts_by_its_own_length() {
        assert_eq!(rates(&[10, 10, 5], 2.5, 1), [(1.0, 10.0), (2.0, 10.0), (2.5, 10.0)]);
        assert_eq!(rates(&[10, 20, 30], 3.0, 2), [(2.0, 15.0), (3.0, 30.0)]);
    }

    #[test]
    fn percentiles_end_before_the_slowest_sample() {
        let shares: Vec<f64> = shares(1000).collect();
        assert_eq!(shares[0], 0.0);
        assert!((shares.last().unwrap() - 0.999).abs() < 1e-9, "{shares:?}");
    }
}

//! The figures of a report that can be compared and that a scenario can state targets for.

use super::flow::Flow;
use super::model::{Report, Server};
use crate::ledger::Verdict;

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
    /// It explains others.
    Neither,
}

/// One number of a report.
pub struct Figure {
    /// As targets and JSON call it; ends with its unit.
    pub name: &'static str,
    /// As people call it.
    pub label: &'static str,
    pub better: Better,
    /// Digits after the point that are worth reading.
    pub digits: usize,
    /// `None` where a report does not have it.
    pub of: fn(&Report) -> Option<f64>,
}

/// All figures, in the order in which they are shown.
pub static FIGURES: &[Figure] = &[
    higher("acknowledged_per_s", "acknowledged events/s", |report| Some(report.acknowledged.events_per_s())),
    higher("consumed_per_s", "consumed events/s, over all groups", |report| {
        report.consumed.as_ref().map(Flow::events_per_s)
    }),
    lower("acknowledged_p50_ms", "acknowledgement p50, ms", 3, |report| {
        quantile(Some(&report.acknowledged), 0.5)
    }),
    lower("acknowledged_p99_ms", "acknowledgement p99, ms", 3, |report| {
        quantile(Some(&report.acknowledged), 0.99)
    }),
    lower("acknowledged_p999_ms", "acknowledgement p99.9, ms", 3, |report| {
        quantile(Some(&report.acknowledged), 0.999)
    }),
    lower("acknowledged_max_ms", "acknowledgement at most, ms", 3, |report| {
        quantile(Some(&report.acknowledged), 1.0)
    }),
    lower("end_to_end_p50_ms", "end to end p50, ms", 3, |report| quantile(report.consumed.as_ref(), 0.5)),
    lower("end_to_end_p99_ms", "end to end p99, ms", 3, |report| quantile(report.consumed.as_ref(), 0.99)),
    lower("end_to_end_p999_ms", "end to end p99.9, ms", 3, |report| {
        quantile(report.consumed.as_ref(), 0.999)
    }),
    lower("end_to_end_max_ms", "end to end at most, ms", 3, |report| quantile(report.consumed.as_ref(), 1.0)),
    lower("acknowledged_lower_bounds", "acknowledgements still awaited", 0, |report| {
        Some(report.acknowledged.lower_bounds as f64)
    }),
    lower("end_to_end_lower_bounds", "deliveries still awaited", 0, |report| {
        report.consumed.as_ref().map(|flow| flow.lower_bounds as f64)
    }),
    lower("lost", "events lost", 0, |report| over_groups(report, |verdict| verdict.lost)),
    lower("out_of_order", "events out of order", 0, |report| {
        over_groups(report, |verdict| verdict.out_of_order)
    }),
    lower("unexpected", "events nobody should get", 0, |report| {
        over_groups(report, |verdict| verdict.unexpected)
    }),
    lower("repeated", "events repeated", 0, |report| over_groups(report, |verdict| verdict.repeated)),
    lower("refused", "events refused", 0, |report| Some(report.refused as f64)),
    lower("refused_share", "share of events refused", 4, |report| {
        (report.sent > 0).then(|| report.refused as f64 / report.sent as f64)
    }),
    lower("unsent", "events due but not sent", 0, |report| Some(report.unsent as f64)),
    lower("unanswered", "events not answered", 0, |report| Some(report.unanswered as f64)),
    lower("broker_cpu_us_per_event", "broker CPU, µs an event", 2, |report| {
        server(report)?.cpu_us_per_event
    }),
    lower("broker_pss_idle_mib", "broker memory idle, MiB", 1, |report| server(report)?.pss_idle_mib),
    lower("broker_pss_peak_mib", "broker memory at most, MiB", 1, |report| server(report)?.pss_peak_mib),
    lower("disk_bytes_per_event_byte", "bytes to disk per event byte", 2, |report| {
        server(report)?.disk_bytes_per_event_byte
    }),
    Figure {
        better: Better::Neither,
        ..lower("flushes_per_s", "flushes/s", 0, |report| server(report)?.flushes_per_s)
    },
    lower("stalls_over_1_ms", "executor stalls over 1 ms", 0, |report| {
        Some(server(report)?.stalls?.over_1_ms as f64)
    }),
    lower("longest_stall_ms", "longest executor stall, ms", 2, |report| {
        Some(server(report)?.stalls?.longest_ms)
    }),
    lower("client_cpu_us_per_event", "load generator CPU, µs an event", 2, |report| {
        let events = report.acknowledged.events.max(report.consumed.as_ref().map_or(0, |flow| flow.events));
        (events > 0).then(|| report.client.usage.cpu_s * 1e6 / events as f64)
    }),
];

const fn higher(name: &'static str, label: &'static str, of: fn(&Report) -> Option<f64>) -> Figure {
    Figure { name, label, better: Better::Higher, digits: 0, of }
}

const fn lower(
    name: &'static str,
    label: &'static str,
    digits: usize,
    of: fn(&Report) -> Option<f64>,
) -> Figure {
    Figure { name, label, better: Better::Lower, digits, of }
}

impl Figure {
    /// The figure that targets call `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        FIGURES.iter().find(|figure| figure.name == name)
    }

    /// A value of the figure, with as many digits as are worth reading.
    pub fn show(&self, value: f64) -> String {
        grouped(&format!("{value:.*}", self.digits))
    }

    /// Whether `value` is as good as `bound`, or better.
    pub fn is_met(&self, value: f64, bound: f64) -> bool {
        match self.better {
            Better::Higher => value >= bound,
            Better::Lower | Better::Neither => value <= bound,
        }
    }

    /// What a target for it is.
    pub fn bound(&self) -> &'static str {
        match self.better {
            Better::Higher => "at least",
            Better::Lower | Better::Neither => "at most",
        }
    }
}

/// A number with thin gaps in its whole part, such as 1 234 567.8, so that large ones can be read.
pub fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = String::from(sign);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text + fraction
}

fn quantile(flow: Option<&Flow>, quantile: f64) -> Option<f64> {
    flow.filter(|flow| flow.latency.samples() > 0).map(|flow| flow.latency.quantile_ms(quantile))
}

fn over_groups(report: &Report, count: fn(&Verdict) -> u64) -> Option<f64> {
    let sum: u64 = report.groups.iter().map(|group| count(&group.verdict)).sum();
    (!report.groups.is_empty()).then_some(sum as f64)
}

fn server(report: &Report) -> Option<&Server> {
    report.server.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three_digits() {
        for (plain, shown) in
            [("7", "7"), ("1234", "1 234"), ("-1234567.25", "-1 234 567.25"), ("123", "123")]
        {
            assert_eq!(grouped(plain).replace('\u{202f}', " "), shown);
        }
    }

    #[test]
    fn names_are_unique() {
        for figure in FIGURES {
            assert!(std::ptr::eq(Figure::named(figure.name).unwrap(), figure), "{}", figure.name);
        }
    }
}

//! What is needed of the broker's metrics (OpenMetrics text).

use crate::report::Stalls;
use std::collections::BTreeMap;

const FLUSHES: &str = "nistru_journal_rounds_total";
const STALLS: &str = "nistru_executor_stall_seconds_bucket";
/// Stalls of the broker's own making; others had the processor in the rest.
const OWN: [&str; 2] = ["cause=\"ran\"", "cause=\"waited\""];
const STALL_S: f64 = 0.001;

/// Sums over all cores.
#[derive(Debug, Default)]
pub struct Metrics {
    flushes: Option<f64>,
    /// By the upper bound of the bucket in nanoseconds, `u64::MAX` without one: stalls up to it.
    stalls: BTreeMap<u64, f64>,
}

impl Metrics {
    pub fn of(text: &str) -> Self {
        let mut metrics = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            match name {
                FLUSHES => *metrics.flushes.get_or_insert(0.0) += value,
                STALLS if OWN.iter().any(|cause| labels.contains(cause)) => {
                    let bound_ns = bound_s(labels).map_or(u64::MAX, |bound_s| (bound_s * 1e9).round() as u64);
                    *metrics.stalls.entry(bound_ns).or_default() += value;
                }
                _ => {}
            }
        }
        metrics
    }

    /// Journal frames that were written and synced.
    pub fn flushes_since(&self, earlier: &Self) -> Option<f64> {
        Some(self.flushes? - earlier.flushes?)
    }

    /// Pieces of work that kept a core; the longest to the bound of its bucket, and only that it was longer than the last
    /// bound.
    pub fn stalls_since(&self, earlier: &Self) -> Option<Stalls> {
        let up_to = |(bound_ns, count): (&u64, &f64)| {
            (*bound_ns as f64 / 1e9, count - earlier.stalls.get(bound_ns).copied().unwrap_or_default())
        };
        let counts: Vec<(f64, f64)> = self.stalls.iter().map(up_to).collect();
        let (_, all) = *counts.last()?;
        let short = counts.iter().rfind(|(bound_s, _)| *bound_s <= STALL_S).map_or(0.0, |(_, count)| *count);
        let last_bound_s = counts.iter().rev().nth(1).map_or(0.0, |(bound_s, _)| *bound_s);
        let longest_s = counts.iter().find(|(_, count)| *count == all).map_or(0.0, |(bound_s, _)| *bound_s);
        let longest_s = if all == 0.0 { 0.0 } else { longest_s.min(last_bound_s) };
        Some(Stalls { over_1_ms: (all - short) as u64, longest_ms: longest_s * 1e3 })
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels, value.parse().ok()?))
}

/// The upper bound of a bucket; `None` when it has none.
fn bound_s(labels: &str) -> Option<f64> {
    let text = labels.split("le=\"").nth(1)?.split('"').next()?;
    text.parse().ok().filter(|bound: &f64| bound.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both causes of the broker's own making have the same `buckets`.
    fn text(rounds: u64, buckets: [u64; 3]) -> String {
        let [short, middle, all] = buckets;
        let stalls = |cause: &str| {
            [("0.001", short), ("0.002", middle), ("+Inf", all)].map(|(bound, count)| {
                format!("{STALLS}{{le=\"{bound}\",core=\"0\",cause=\"{cause}\"}} {count}\n")
            })
        };
        let stalls = [stalls("ran"), stalls("waited")].concat().concat();
        format!(
            "# TYPE nistru_journal_rounds counter\nnistru_journal_rounds_total{{core=\"0\"}} {rounds}\n\
             nistru_journal_rounds_total{{core=\"1\"}} 5\n{stalls}\
             {STALLS}{{le=\"+Inf\",core=\"0\",cause=\"descheduled\"}} 99\n# EOF\n"
        )
    }

    #[test]
    fn flushes_and_stalls_are_those_since_the_earlier_scrape() {
        let before = Metrics::of(&text(10, [100, 101, 101]));
        let after = Metrics::of(&text(110, [150, 153, 153]));
        assert_eq!(after.flushes_since(&before), Some(100.0));
        assert_eq!(after.stalls_since(&before), Some(Stalls { over_1_ms: 4, longest_ms: 2.0 }));
        assert_eq!(before.stalls_since(&before), Some(Stalls::default()));
    }

    #[test]
    fn a_broker_that_does_not_count_stalls_has_none_to_tell() {
        let metrics = Metrics::of("nistru_journal_rounds_total{core=\"0\"} 1\n");
        assert_eq!(metrics.stalls_since(&Metrics::default()), None);
    }
}

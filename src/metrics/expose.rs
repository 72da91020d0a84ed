//! The Prometheus text format (OpenMetrics 1.0) of a scrape.

use super::{GroupGauge, Kind, PartitionGauge, Snapshot};
use crate::rt::stall::{BOUNDS_NS, Durations, Stalls};
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// Quantiles told of each distribution.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// A number that no core counts: its name, kind, help text and value.
pub type Number = (&'static str, Kind, &'static str, u64);

/// The text of a scrape: `cores` in the order of their numbers, `shared` beside them.
pub fn expose(
    cores: Vec<Snapshot>,
    groups: Vec<GroupGauge>,
    shared: Vec<Number>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("nistru");
    registry.register_collector(Box::new(Scrape { cores, groups, shared }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

struct Scrape {
    cores: Vec<Snapshot>,
    groups: Vec<GroupGauge>,
    shared: Vec<Number>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scrape of {} cores", self.cores.len())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.encode_numbers(&mut encoder)?;
        self.encode_shared(&mut encoder)?;
        self.encode_distributions(&mut encoder)?;
        self.encode_stalls(&mut encoder)?;
        self.encode_partitions(&mut encoder)?;
        self.encode_groups(&mut encoder)
    }
}

impl Scrape {
    fn encode_numbers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(first) = self.cores.first() else { return Ok(()) };
        for (at, (name, kind, help, _)) in first.numbers.iter().enumerate() {
            let values = self
                .cores
                .iter()
                .enumerate()
                .map(|(core, snapshot)| ([("core", core.to_string())], snapshot.numbers[at].3));
            family(encoder, name, help, *kind, values)?;
        }
        Ok(())
    }

    fn encode_shared(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.shared.iter().try_for_each(|(name, kind, help, value)| {
            family::<0>(encoder, name, help, *kind, std::iter::once(([], *value)))
        })
    }

    fn encode_distributions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let merged = |pick: fn(&Snapshot) -> &Histogram<u64>| {
            let mut all = super::histogram(super::LONGEST_NS);
            for snapshot in &self.cores {
                all.add(pick(snapshot)).expect("histograms of one process share their bounds");
            }
            all
        };
        quantiles(
            encoder,
            "produce_seconds",
            "From the end of a produce request to its answer",
            1e-9,
            &merged(|s| &s.produce_ns),
        )?;
        quantiles(
            encoder,
            "journal_sync_seconds",
            "Duration of a durable journal write",
            1e-9,
            &merged(|s| &s.sync_ns),
        )?;
        quantiles(
            encoder,
            "registry_request_seconds",
            "Duration of a request to the API that clients come from",
            1e-9,
            &merged(|s| &s.registry_request_ns),
        )?;
        quantiles(encoder, "journal_round_bytes", "Size of a journal frame", 1.0, &merged(|s| &s.round_bytes))
    }

    fn encode_stalls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stall = |quantile: f64| {
            self.cores.iter().enumerate().map(move |(core, snapshot)| {
                let ns = snapshot.stall_ns.value_at_quantile(quantile);
                ([("core", core.to_string())], ns as f64 * 1e-9)
            })
        };
        gauges(
            encoder,
            "core_stall_longest_seconds",
            "Longest time a core took to react to a wake-up",
            stall(1.0),
        )?;
        gauges(
            encoder,
            "core_stall_p99_seconds",
            "Time within which a core reacted to 99 of 100 wake-ups",
            stall(0.99),
        )?;
        self.encode_polls(encoder)
    }

    fn encode_polls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "executor_stall_seconds",
            "For how long single polls of tasks kept their core: running, waiting, or because others had the CPU",
            None,
            MetricType::Histogram,
        )?;
        for (core, snapshot) in self.cores.iter().enumerate() {
            let Stalls { ran, waited, descheduled } = &snapshot.stalls;
            for (cause, durations) in [("ran", ran), ("waited", waited), ("descheduled", descheduled)] {
                let labels = [("core", core.to_string()), ("cause", cause.to_owned())];
                histogram(&mut family.encode_family(&labels)?, durations)?;
            }
        }
        Ok(())
    }

    fn encode_partitions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = || self.cores.iter().flat_map(|snapshot| &snapshot.partitions);
        let label = |gauge: &PartitionGauge| [("partition", gauge.partition.clone())];
        let starts = all().map(|gauge| (label(gauge), gauge.start as f64));
        gauges(encoder, "partition_start_offset", "Oldest retained offset", starts)?;
        let ends = all().map(|gauge| (label(gauge), gauge.end as f64));
        gauges(encoder, "partition_end_offset", "Offset of the next event", ends)
    }

    fn encode_groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let label = |gauge: &GroupGauge| [("client", gauge.client.clone()), ("group", gauge.group.clone())];
        let lags = self.groups.iter().map(|gauge| (label(gauge), gauge.lag as f64));
        gauges(encoder, "group_lag_events", "Events that the group has not confirmed", lags)?;
        let members = self.groups.iter().map(|gauge| (label(gauge), gauge.members as f64));
        gauges(encoder, "group_members", "Sessions of the group that are connected", members)?;
        let expired = self.groups.iter().map(|gauge| (label(gauge), gauge.expired));
        family(
            encoder,
            "group_expired_events",
            "Events deleted by retention before the group confirmed them",
            Kind::Counter,
            expired,
        )
    }
}

/// Encodes one number with one value per set of labels.
fn family<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: Kind,
    values: impl Iterator<Item = ([(&'static str, String); N], u64)>,
) -> fmt::Result {
    if kind == Kind::Gauge {
        return gauges(encoder, name, help, values.map(|(labels, value)| (labels, value as f64)));
    }
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = ([(&'static str, String); N], f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn histogram(encoder: &mut MetricEncoder<'_>, durations: &Durations) -> fmt::Result {
    let bounds = BOUNDS_NS.iter().map(|bound| *bound as f64 * 1e-9).chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(durations.buckets).collect();
    let count = durations.buckets.iter().sum();
    encoder.encode_histogram::<[(&str, &str); 0]>(durations.sum_ns as f64 * 1e-9, count, &buckets, None)
}

fn quantiles(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: f64,
    histogram: &Histogram<u64>,
) -> fmt::Result {
    let values = QUANTILES.iter().map(|&quantile| {
        ([("quantile", quantile.to_string())], histogram.value_at_quantile(quantile) as f64 * unit)
    });
    gauges(encoder, name, help, values)?;
    let count = std::iter::once(([], histogram.len()));
    family::<0>(encoder, &format!("{name}_observations"), &format!("{help}: how many"), Kind::Counter, count)
}

//! Flags that stand in place of what a scenario says.

use super::{Arrival, EventType, Group, KEYS_MAX, PRODUCERS_MAX, Scenario};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;

/// The load; what is not given stays as the scenario says.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Load, in place of what the scenario says")]
pub struct Overrides {
    /// Producer connections, each with one request in flight [default: 32]
    #[arg(long, short, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=PRODUCERS_MAX as u64))]
    pub producers: Option<usize>,
    /// Consumers in each group [default: 4]
    #[arg(long, short, value_name = "N")]
    pub consumers: Option<usize>,
    /// Consumer groups; every group gets every event [default: 1]
    #[arg(long, value_name = "N")]
    pub groups: Option<usize>,
    /// Name of the first group; the others get a number after it [default: load]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Events in a request [default: 1]
    #[arg(long, short, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    pub batch: Option<usize>,
    /// Events a second, over all producers [default: as many as the broker takes]
    #[arg(long, short, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// How the requests of a rate are spread over time [default: even]
    #[arg(long, value_name = "HOW", value_enum)]
    pub arrival: Option<Arrival>,
    /// Size of an event in bytes, as produced [default: 1024]
    #[arg(long, value_name = "N")]
    pub bytes: Option<usize>,
    /// Partition keys of each producer [default: 16]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=KEYS_MAX as u64))]
    pub keys: Option<usize>,
    /// Seconds of load before the measurement [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub warm_up: Option<f64>,
    /// Seconds of measurement [default: 10]
    #[arg(long, short, value_name = "SECONDS", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Longest wait for events that are still under way, in seconds without any progress [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub drain: Option<f64>,
    /// Threads that drive producers and consumers [default: 1]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    pub threads: Option<usize>,
    /// Confirm at least after every N events of a consumer [default: 256]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub confirm_every: Option<usize>,
    /// Event type [default: Demo.Load.Record.Created]
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Source [default: urn:demo]
    #[arg(long, value_name = "URI")]
    pub source: Option<String>,
    /// A JSON file that is the `data` of every event, in place of a generated record; --bytes has no effect then
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Open connections that break again, until they hold
    #[arg(long)]
    pub reconnect: bool,
}

impl Overrides {
    /// Puts what was given into `scenario`.
    pub fn apply(&self, scenario: &mut Scenario) -> Result<(), String> {
        let given = self.clone();
        let load = &mut scenario.load;
        load.rate = given.rate.or(load.rate);
        load.data = given.data.or(load.data.take());
        set(&mut load.producers, given.producers);
        set(&mut load.batch, given.batch);
        set(&mut load.arrival, given.arrival);
        set(&mut load.keys, given.keys);
        set(&mut load.warm_up_s, given.warm_up);
        set(&mut load.duration_s, given.duration);
        set(&mut load.drain_s, given.drain);
        set(&mut load.threads, given.threads);
        set(&mut load.source, given.source);
        scenario.connections.reconnect |= given.reconnect;
        self.apply_to_types(scenario);
        self.apply_to_groups(scenario)
    }

    fn apply_to_types(&self, scenario: &mut Scenario) {
        if let Some(bytes) = self.bytes {
            scenario.load.bytes = bytes;
            scenario.types.iter_mut().for_each(|kind| kind.bytes = None);
        }
        if let Some(name) = &self.event_type {
            scenario.types = vec![EventType::named(name)];
            scenario.groups.iter_mut().for_each(|group| group.types = None);
        }
    }

    fn apply_to_groups(&self, scenario: &mut Scenario) -> Result<(), String> {
        if scenario.groups.is_empty() && self.consumers.is_some() {
            scenario.groups.push(Group::named("load"));
        }
        for group in &mut scenario.groups {
            set(&mut group.consumers, self.consumers);
            set(&mut group.confirm_every, self.confirm_every);
        }
        match scenario.groups.as_mut_slice() {
            [group] => {
                set(&mut group.count, self.groups);
                set(&mut group.name, self.group.clone());
                Ok(())
            }
            _ if self.groups.is_some() || self.group.is_some() => {
                Err("--groups and --group are for scenarios with one [[groups]]".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("expected a number of events a second above 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=31_536_000.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds, such as 2 or 0.5".to_owned()),
    }
}

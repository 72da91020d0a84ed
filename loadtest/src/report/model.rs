//! The report of a run: one shape for text, JSON, HTML, comparison and targets.
//!
//! The JSON form is stable: [`FORMAT`] changes when a field changes its meaning or disappears; readers ignore fields
//! that they do not know. Times are in the unit that the name ends with, sizes in bytes or MiB (2^20).

use super::flow::Flow;
use super::machine::Machine;
use super::targets::Target;
use crate::ledger::Verdict;
use crate::measure::Problems;
use crate::usage::Usage;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the JSON form. In format 1 events that were never sent or answered had no latency.
pub const FORMAT: u32 = 2;

/// Everything a run has found out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub scenario: Scenario,
    pub broker: Broker,
    /// The machine that the load came from. With `broker.started` the broker ran there too.
    pub machine: Machine,
    /// Start of the measurement, RFC 3339.
    pub started: String,
    /// Length of the measurement.
    pub seconds: f64,
    /// From the moment a request was to be sent to its 202.
    pub acknowledged: Flow,
    /// Requests that were acknowledged within the window, each with one or more events.
    pub requests: u64,
    /// From the moment a request was to be sent to the arrival of each of its events, over all groups.
    pub consumed: Option<Flow>,
    /// Events sent, in the window and around it.
    pub sent: u64,
    /// Events that were due and never sent, because the answers before them came late.
    pub unsent: u64,
    /// Events that the broker refused.
    pub refused: u64,
    /// Refused events by the status of the answer.
    pub refused_by_status: BTreeMap<u16, u64>,
    /// Refused events in each second of the window.
    pub refused_per_second: Vec<u64>,
    /// Events whose answer never came.
    pub unanswered: u64,
    /// One for each consumer group.
    pub groups: Vec<Group>,
    /// Texts of what went wrong, each with how often.
    pub problems: Problems,
    pub client: Client,
    /// What the broker used, when it could be asked or was started for the test.
    pub server: Option<Server>,
    /// What the scenario demands, judged.
    pub targets: Vec<Target>,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    pub name: String,
    /// The whole scenario as TOML, as it was run.
    pub text: String,
    /// In a few words, such as `64 producers, 1 event a request, as fast as answered`.
    pub summary: String,
}

/// Which broker it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    pub url: String,
    /// As the broker says, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it was started for the test, and so on the same machine.
    pub started: bool,
    /// Cores it was given; none means all.
    pub cores: Option<usize>,
}

/// The judgement on a consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What the load generator itself used within the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Client {
    /// Processes that put the load on, over all machines.
    pub processes: usize,
    /// Over all processes.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What the broker used. Figures that could not be taken are missing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Server {
    /// Proportional set size before the load, in MiB.
    pub pss_idle_mib: Option<f64>,
    /// Largest one seen under load.
    pub pss_peak_mib: Option<f64>,
    /// Processor time within the window.
    pub cpu_s: Option<f64>,
    /// The same, divided by acknowledged events.
    pub cpu_us_per_event: Option<f64>,
    /// Bytes written to disk, divided by the bytes of the acknowledged events.
    pub disk_bytes_per_event_byte: Option<f64>,
    pub flushes_per_s: Option<f64>,
    pub stalls: Option<Stalls>,
}

/// How long the broker's executors were held up, over all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Stalls {
    /// Stalls of a millisecond and more within the window.
    pub over_1_ms: u64,
    pub longest_ms: f64,
}

impl Report {
    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn of_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format } =
            serde_json::from_str(text).map_err(|error| format!("not a report: {error}"))?;
        if !(1..=FORMAT).contains(&format) {
            return Err(format!("a report of format {format}, and this program reads formats 1 to {FORMAT}"));
        }
        serde_json::from_str(text).map_err(|error| format!("not a report: {error}"))
    }

    /// The report for programs, a JSON object over many lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has text keys only")
    }

    /// Adds what another process measured of the same run. The judgement on groups, and what is known of the broker,
    /// belong to the whole run and stay as they are.
    pub fn merge(&mut self, other: Self) {
        self.acknowledged.merge(other.acknowledged);
        self.consumed = match (self.consumed.take(), other.consumed) {
            (Some(mut ours), Some(theirs)) => {
                ours.merge(theirs);
                Some(ours)
            }
            (ours, theirs) => ours.or(theirs),
        };
        self.requests += other.requests;
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        add_counts(&mut self.refused_by_status, other.refused_by_status);
        add_counts(&mut self.problems, other.problems);
        add_seconds(&mut self.refused_per_second, &other.refused_per_second);
        self.client.processes += other.client.processes;
        self.client.usage.cpu_s += other.client.usage.cpu_s;
        self.client.usage.peak_mib += other.client.usage.peak_mib;
    }

    /// The flows with their names.
    pub fn flows(&self) -> impl Iterator<Item = (&'static str, &Flow)> {
        let consumed = self.consumed.as_ref().map(|flow| ("end to end", flow));
        [("acknowledged", &self.acknowledged)].into_iter().chain(consumed)
    }

    /// What is to be known before the latencies are believed.
    pub fn reservations(&self) -> impl Iterator<Item = String> {
        self.flows().filter(|(_, flow)| flow.lower_bounds > 0).map(|(name, flow)| {
            let (bounds, samples) = (flow.lower_bounds, flow.latency.samples());
            format!(
                "{name}: {bounds} of {samples} latencies are lower bounds, of events still awaited in the end"
            )
        })
    }

    /// Whether the broker kept its promises to every group.
    pub fn is_good(&self) -> bool {
        self.groups.iter().all(|group| group.verdict.is_good())
    }

    /// The program's exit code: see `--help`.
    pub fn exit_code(&self) -> u8 {
        match () {
            () if !self.is_good() => 2,
            () if self.targets.iter().any(|target| !target.met) => 4,
            () if !self.problems.is_empty() => 3,
            () => 0,
        }
    }
}

fn add_counts<K: Ord>(sum: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        *sum.entry(key).or_default() += count;
    }
}

fn add_seconds(sum: &mut Vec<u64>, more: &[u64]) {
    sum.resize(sum.len().max(more.len()), 0);
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// A report of this format. If this file has to change, so has [`FORMAT`], unless a field was only added.
    const GOLDEN: &str = include_str!("golden.json");

    #[test]
    fn the_json_form_is_the_one_that_other_programs_know() {
        assert_eq!(sample::report(2).to_json(), GOLDEN.trim_end());
    }

    #[test]
    fn a_report_comes_back_from_json_with_everything() {
        assert_eq!(Report::of_json(GOLDEN).unwrap().to_json(), GOLDEN.trim_end());
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_formats_are_not() {
        let newer = GOLDEN.replacen('{', "{ \"new\": 1,", 1);
        assert!(Report::of_json(&newer).is_ok());
        let error = Report::of_json(&GOLDEN.replacen("\"format\": 2", "\"format\": 3", 1)).unwrap_err();
        assert!(error.contains("format 3"), "{error}");
        assert!(Report::of_json("[]").unwrap_err().starts_with("not a report"));
    }

    #[test]
    fn a_report_of_the_format_before_is_read() {
        let old = GOLDEN
            .replacen("\"format\": 2", "\"format\": 1", 1)
            .replace("\"lower_bounds\": 1,", "")
            .replace("\"lower_bounds\": 0,", "");
        assert!(!old.contains("lower_bounds"));
        let report = Report::of_json(&old).unwrap();
        assert_eq!((report.format, report.acknowledged.lower_bounds), (1, 0));
    }

    #[test]
    fn a_broken_promise_outweighs_a_missed_target_and_that_a_problem() {
        let mut report = sample::report(2);
        assert_eq!(report.exit_code(), 3);
        report.targets.push(Target { figure: "lost".to_owned(), stated: 0.0, measured: None, met: false });
        assert_eq!(report.exit_code(), 4);
        report.groups[0].verdict.lost = 1;
        assert_eq!(report.exit_code(), 2);
    }
}

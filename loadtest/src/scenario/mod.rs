//! What a run does, as a TOML file says it. `scenarios/example.toml` documents every key.

mod mix;
mod overrides;

pub use mix::{Mix, MixedType, TypeSet};
pub use overrides::Overrides;

use crate::report::{self, Targets};
use nistru::config::Problem;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;

/// Most producers: their number has four hexadecimal digits in a partition key.
pub const PRODUCERS_MAX: usize = 0xffff;
/// Most keys of a producer: two hexadecimal digits.
pub const KEYS_MAX: usize = 0xff;

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// [default: the file's name]
    pub name: String,
    pub load: Load,
    /// [default: one type of small records]
    pub types: Vec<EventType>,
    /// Without any, nobody consumes.
    #[serde(default)]
    pub groups: Vec<Group>,
    pub connections: Connections,
    pub targets: Targets,
}

/// What producers do, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Connections, each with one request in flight.
    #[serde(deserialize_with = "between::<1, PRODUCERS_MAX, _>")]
    pub producers: usize,
    /// Events in a request.
    #[serde(deserialize_with = "between::<1, 100_000, _>")]
    pub batch: usize,
    /// Events a second over all producers; `None`: each sends as soon as its last request was answered.
    #[serde(deserialize_with = "rate")]
    pub rate: Option<f64>,
    pub arrival: Arrival,
    /// Partition keys of each producer.
    #[serde(deserialize_with = "between::<1, KEYS_MAX, _>")]
    pub keys: usize,
    /// Size of an event as produced.
    pub bytes: usize,
    pub source: String,
    /// A JSON file that is the `data` of every event in place of a generated record.
    pub data: Option<PathBuf>,
    /// Load before the measurement, the measurement, and the longest wait without progress after it.
    #[serde(deserialize_with = "seconds")]
    pub warm_up_s: f64,
    #[serde(deserialize_with = "seconds")]
    pub duration_s: f64,
    #[serde(deserialize_with = "seconds")]
    pub drain_s: f64,
    /// Threads that drive producers and consumers.
    #[serde(deserialize_with = "between::<1, 64, _>")]
    pub threads: usize,
    /// Whether answers of 429 and 503 are what the scenario is about, and no problem.
    pub expect_refusals: bool,
}

/// How the requests of a rate are spread over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// The same time between any two.
    #[default]
    Even,
    /// Independent of each other, as those of many producers are.
    Poisson,
}

/// A type of events, or several with the same share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventType {
    pub name: String,
    /// Its part of the traffic, relative to the other types'; 0: nobody sends it.
    #[serde(default = "one_share", deserialize_with = "share")]
    pub share: f64,
    /// Size of its events in place of that of `[load]`.
    #[serde(default)]
    pub bytes: Option<usize>,
    /// So many types, `NAME-0001` and so on, which divide the share.
    #[serde(default = "one", deserialize_with = "between::<1, 60_000, _>")]
    pub count: usize,
    /// Whether a broker that is started here validates it; compiling a schema takes it some milliseconds.
    #[serde(default = "yes")]
    pub schema: bool,
}

/// Consumer groups of one kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Name of the first; the others get a number after it.
    pub name: String,
    #[serde(default = "one", deserialize_with = "between::<0, 100_000, _>")]
    pub count: usize,
    /// In each of them.
    #[serde(default = "one", deserialize_with = "between::<0, 100_000, _>")]
    pub consumers: usize,
    /// The types it reads; `None`: all.
    #[serde(default)]
    pub types: Option<Vec<Spanned<String>>>,
    /// As which client its consumers come: the broker gives a client the types that it is registered for.
    #[serde(default)]
    pub client: Option<String>,
    #[serde(default)]
    pub confirm: Confirm,
    /// At the latest after so many events.
    #[serde(default = "confirm_every", deserialize_with = "between::<1, 1_000_000, _>")]
    pub confirm_every: usize,
}

/// When a consumer confirms what it has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// When nothing more has come, and after `confirm_every` events.
    #[default]
    Burst,
    /// After `confirm_every` events only, so that some stay unconfirmed.
    Count,
}

/// Connections that come and go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Producers and consumers that connect anew in each second, in turn.
    #[serde(deserialize_with = "per_second")]
    pub producers_renewed_per_s: f64,
    #[serde(deserialize_with = "per_second")]
    pub consumers_renewed_per_s: f64,
    /// Whether a connection that breaks is opened again until it holds, and is no problem.
    pub reconnect: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            load: Load::default(),
            types: vec![EventType::named("Demo.Load.Record.Created")],
            groups: Vec::new(),
            connections: Connections::default(),
            targets: Targets::default(),
        }
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            producers: 32,
            batch: 1,
            rate: None,
            arrival: Arrival::Even,
            keys: 16,
            bytes: 1024,
            source: "urn:demo".to_owned(),
            data: None,
            warm_up_s: 2.0,
            duration_s: 10.0,
            drain_s: 10.0,
            threads: 1,
            expect_refusals: false,
        }
    }
}

impl Load {
    pub fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up_s)
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_s)
    }

    pub fn drain(&self) -> Duration {
        Duration::from_secs_f64(self.drain_s)
    }
}

impl EventType {
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), share: 1.0, bytes: None, count: 1, schema: true }
    }

    /// The names of the types it stands for.
    pub fn names(&self) -> Vec<String> {
        match self.count {
            1 => vec![self.name.clone()],
            count => (1..=count).map(|number| format!("{}-{number:04}", self.name)).collect(),
        }
    }
}

impl Group {
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            count: 1,
            consumers: 1,
            types: None,
            client: None,
            confirm: Confirm::Burst,
            confirm_every: confirm_every(),
        }
    }

    /// The names of the groups it stands for.
    pub fn names(&self) -> Vec<String> {
        let name = |index| if index == 0 { self.name.clone() } else { format!("{}-{index}", self.name) };
        (0..self.count).map(name).collect()
    }
}

impl Scenario {
    /// What flags alone start from: as an empty file, and one group of four consumers.
    pub fn ad_hoc() -> Self {
        let groups = vec![Group { consumers: 4, ..Group::named("load") }];
        Self { name: "ad hoc".to_owned(), groups, ..Self::default() }
    }

    /// Reads a scenario file. The error says where and what was expected.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut scenario = Self::parse(file, &text).map_err(|problem| problem.to_string())?;
        if scenario.name.is_empty() {
            scenario.name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        // Files in a scenario are named from where the scenario is.
        let beside = |data: PathBuf| file.parent().unwrap_or(Path::new("")).join(data);
        scenario.load.data = scenario.load.data.map(beside);
        Ok(scenario)
    }

    /// Reads what [`text`](Self::text) wrote.
    pub fn of_text(text: &str) -> Result<Self, String> {
        Self::parse(Path::new("the scenario"), text).map_err(|problem| problem.to_string())
    }

    fn parse(file: &Path, text: &str) -> Result<Self, Problem> {
        let wrong = |error: toml::de::Error| {
            Problem::at(file, text, error.span().map_or(0, |span| span.start), error.message())
        };
        let scenario: Self = toml::from_str(text).map_err(wrong)?;
        scenario.check().map_err(|(at, message)| Problem::at(file, text, at, message))?;
        Ok(scenario)
    }

    /// What no single value shows: the byte of the text where it is, and what is wrong.
    fn check(&self) -> Result<(), (usize, String)> {
        let known: BTreeSet<&str> = self.types.iter().map(|kind| kind.name.as_str()).collect();
        if known.len() < self.types.len() {
            return Err((0, "two of [[types]] have the same name".to_owned()));
        }
        if !self.types.iter().any(|kind| kind.share > 0.0) {
            return Err((0, "no type has a share above 0, so there is nothing to send".to_owned()));
        }
        self.groups.iter().try_for_each(|group| check_types(group, &known))
    }

    /// In a few words.
    pub fn summary(&self) -> String {
        let Load { producers, batch, rate, .. } = &self.load;
        let rate = rate.map_or("as fast as answered".to_owned(), |rate| format!("{rate} events/s"));
        let groups: usize = self.groups.iter().map(|group| group.count).sum();
        let consumers: usize = self.groups.iter().map(|group| group.count * group.consumers).sum();
        format!(
            "{producers} producers, {batch} events a request, {rate}, {consumers} consumers in {groups} groups"
        )
    }

    /// What a report says about it.
    pub fn facts(&self) -> report::Scenario {
        report::Scenario { name: self.name.clone(), text: self.text(), summary: self.summary() }
    }

    /// The scenario as a file would say it.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("a scenario is a table of plain values")
    }
}

fn check_types(group: &Group, known: &BTreeSet<&str>) -> Result<(), (usize, String)> {
    let Some(types) = &group.types else { return Ok(()) };
    for named in types {
        if !known.contains(named.get_ref().as_str()) {
            let names = known.iter().copied().collect::<Vec<_>>().join(", ");
            let message = format!("no [[types]] has the name {:?}; expected one of {names}", named.get_ref());
            return Err((named.span().start, message));
        }
    }
    if group.client.is_none() && types.len() < known.len() {
        let at = types.first().map_or(0, |first| first.span().start);
        let message = "a group that does not read all types needs a `client` that is registered for these";
        return Err((at, message.to_owned()));
    }
    Ok(())
}

fn one() -> usize {
    1
}

fn one_share() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn confirm_every() -> usize {
    256
}

fn between<'de, const MIN: usize, const MAX: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    let number = i64::deserialize(deserializer)?;
    match usize::try_from(number) {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(de::Error::custom(format!("expected a number from {MIN} to {MAX}, found {number}"))),
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    not_negative(deserializer, "seconds, such as 2 or 0.5")
}

fn per_second<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    not_negative(deserializer, "connections a second, 0 or more")
}

fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    not_negative(deserializer, "a share of 0 or more")
}

fn not_negative<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    match number {
        // A year in seconds: above it a duration is a mistake.
        0.0..=31_536_000.0 => Ok(number),
        _ => Err(de::Error::custom(format!("expected {expected}, found {number}"))),
    }
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match f64::deserialize(deserializer)? {
        rate if rate > 0.0 && rate.is_finite() => Ok(Some(rate)),
        rate => Err(de::Error::custom(format!("expected events a second above 0, found {rate}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scenario, String> {
        Scenario::parse(Path::new("s.toml"), text).map_err(|problem| problem.to_string())
    }

    #[test]
    fn an_empty_file_is_a_run_with_defaults() {
        let scenario = parse("").unwrap();
        assert_eq!((scenario.load.producers, scenario.load.batch, scenario.groups.len()), (32, 1, 0));
    }

    #[test]
    fn mistakes_name_file_line_column_and_what_was_expected() {
        for (text, start, part) in [
            ("[load]\nproducer = 3", "s.toml:2:1: ", "expected one of `producers`, `batch`, `rate`"),
            ("[load]\nproducers = 0", "s.toml:2:13: ", "expected a number from 1 to 65535, found 0"),
            ("[load]\nrate = -1.0", "s.toml:2:8: ", "above 0, found -1"),
            ("[load]\nduration_s = \"2\"", "s.toml:2:14: ", "expected f64"),
            ("[load]\narrival = \"random\"", "s.toml:2:11: ", "expected `even` or `poisson`"),
            ("[[types]]\nshare = 1", "s.toml:1:1: ", "missing field `name`"),
            (
                "[[groups]]\nname = \"g\"\ntypes = [\"Nope\"]",
                "s.toml:3:10: ",
                "expected one of Demo.Load.Record",
            ),
            ("[targets]\np99 = 1", "s.toml:", "unknown figure p99, expected one of "),
            ("[load", "s.toml:1:", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(start) && error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_group_of_some_types_says_as_which_client_it_comes() {
        let text = "[[types]]\nname = \"A.B.C.D\"\n[[types]]\nname = \"A.B.C.E\"\n\
                    [[groups]]\nname = \"g\"\ntypes = [\"A.B.C.E\"]\n";
        assert!(parse(text).unwrap_err().contains("s.toml:7:10: a group that does not read all types needs"));
        assert!(parse(&format!("{text}client = \"few\"\n")).is_ok());
    }

    #[test]
    fn a_scenario_comes_back_from_its_text() {
        let text =
            "name = \"x\"\n[load]\nrate = 5\n[[types]]\nname = \"A.B.C.D\"\nshare = 3\n[targets]\nlost = 5";
        let scenario = parse(text).unwrap();
        let again = parse(&scenario.text()).unwrap();
        assert_eq!(again.text(), scenario.text());
        assert_eq!((again.load.rate, again.types[0].share), (Some(5.0), 3.0));
        assert_eq!(again.targets, scenario.targets);
    }

    #[test]
    fn every_scenario_that_is_shipped_can_be_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 10);
        for file in files {
            assert_eq!(Scenario::load(&file).map(|_| ()), Ok(()));
        }
    }

    #[test]
    fn the_example_names_every_key() {
        let example = include_str!("../../scenarios/example.toml");
        let all: toml::Table = parse(example).unwrap().text().parse().unwrap();
        let keys = |table: &toml::Value| table.as_table().unwrap().keys().cloned().collect::<Vec<_>>();
        let first = |list: &str| all[list][0].clone();
        let tables = [all["load"].clone(), all["connections"].clone(), first("types"), first("groups")];
        for key in tables.iter().flat_map(keys) {
            assert!(example.contains(&format!("{key} = ")), "{key} is not in the example");
        }
    }
}

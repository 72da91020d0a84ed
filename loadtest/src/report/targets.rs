//! What a scenario demands of the figures, and whether they meet it.

use super::figure::{FIGURES, Figure};
use super::model::Report;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The table `[targets]` of a scenario: a bound for each figure named. Of figures that are better when higher, such as
/// `acknowledged_per_s`, it is the least that will do; of all others, such as `end_to_end_p99_ms`, the most.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Targets(BTreeMap<&'static str, f64>);

/// A target and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub figure: String,
    pub stated: f64,
    /// None when the run could not tell, which meets no target.
    pub measured: Option<f64>,
    pub met: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = Figure::named(&self.figure);
        let show = |value| figure.map_or(format!("{value}"), |figure| figure.show(value));
        let (label, bound) =
            figure.map_or((self.figure.as_str(), ""), |figure| (figure.label, figure.bound()));
        let measured = self.measured.map_or("not measured".to_owned(), show);
        let word = if self.met { "met" } else { "MISSED" };
        write!(f, "target {word}: {label} {measured}, stated {bound} {}", show(self.stated))
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut targets = Self::default();
        for (name, bound) in BTreeMap::<String, f64>::deserialize(deserializer)? {
            targets.state(&name, bound).map_err(D::Error::custom)?;
        }
        Ok(targets)
    }
}

impl Targets {
    /// States a target, in place of an earlier one for the same figure.
    pub fn state(&mut self, name: &str, bound: f64) -> Result<(), String> {
        let Some(figure) = Figure::named(name) else {
            let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
            return Err(format!("unknown figure {name}, expected one of {}", names.join(", ")));
        };
        if !bound.is_finite() {
            return Err(format!("{name}: expected a finite number"));
        }
        self.0.insert(figure.name, bound);
        Ok(())
    }

    /// Judges `report`, in the order in which figures are shown.
    pub fn judge(&self, report: &Report) -> Vec<Target> {
        let judge = |figure: &Figure| {
            let stated = *self.0.get(figure.name)?;
            let measured = (figure.of)(report);
            let met = measured.is_some_and(|value| figure.is_met(value, stated));
            Some(Target { figure: figure.name.to_owned(), stated, measured, met })
        };
        FIGURES.iter().filter_map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn judged(toml: &str) -> Vec<Target> {
        toml::from_str::<Targets>(toml).unwrap().judge(&sample::report(2))
    }

    #[test]
    fn a_target_is_a_lower_bound_of_what_is_better_when_higher_and_an_upper_bound_of_the_rest() {
        for (text, met) in [
            ("acknowledged_per_s = 99", true),
            ("acknowledged_per_s = 101", false),
            ("end_to_end_p50_ms = 5.0", true),
            ("end_to_end_p50_ms = 3.0", false),
            ("lost = 0", true),
            ("refused = 1", false),
        ] {
            assert_eq!(judged(text)[0].met, met, "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_meets_no_target() {
        let report = super::Report { server: None, ..sample::report(2) };
        let targets: Targets = toml::from_str("broker_pss_peak_mib = 1000").unwrap();
        let judged = targets.judge(&report);
        assert_eq!((judged[0].measured, judged[0].met), (None, false));
        assert!(judged[0].to_string().contains("MISSED") && judged[0].to_string().contains("not measured"));
    }

    #[test]
    fn an_unknown_figure_is_told_with_those_there_are() {
        let error = toml::from_str::<Targets>("ack = 1").unwrap_err().to_string();
        assert!(error.contains("unknown figure ack") && error.contains("acknowledged_per_s"), "{error}");
        assert!(toml::from_str::<Targets>("lost = inf").unwrap_err().to_string().contains("finite"));
    }
}

//! Which events hold personal data for a consumer, and where the record of a transfer gets its values from.
//!
//! [`Written`] is the form in which a rule stands in a client's file or in the settings of the client API; [`Rule`] is what the
//! broker works with. The broker's own defaults are a [`Written`] too.

use super::path::{Path, PathError, VALUE_BYTES_MAX};
use crate::event::json::Value;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A rule as an operator writes it. Texts that start with `$` are JSON paths into `data`, all others are constants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    /// Event types that the rule is for; empty means all of the consumer's.
    pub types: Vec<String>,
    /// Sources that the rule is for; empty means all.
    pub sources: Vec<String>,
    pub legal_basis: Option<String>,
    pub legal_reason: Option<String>,
    pub subject: Option<String>,
    pub subject_type: Option<String>,
    pub missing: Option<Missing>,
}

/// What happens to an event that lacks a value that its rule asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// It is delivered, and the record says what is missing.
    #[default]
    Deliver,
    /// It is not delivered but kept as a dead event of the client.
    Withhold,
}

/// A rule that is known to be sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Empty means all.
    pub types: BTreeSet<String>,
    /// Empty means all.
    pub sources: BTreeSet<String>,
    pub legal_basis: Origin,
    pub legal_reason: Origin,
    /// The state number of the person.
    pub subject: Path,
    pub subject_type: Origin,
    pub missing: Missing,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    Constant(String),
    Path(Path),
}

/// A part of a written rule that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Name of the field, as in [`Written`].
    pub field: &'static str,
    /// The character of its text that is wrong, from 0.
    pub at: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

impl Written {
    /// The rule, with what it leaves open taken from `defaults`; or everything that is wrong with it.
    pub fn compile(&self, defaults: &Self) -> Result<Rule, Vec<RuleError>> {
        let mut errors = Vec::new();
        if self.types.is_empty() && self.sources.is_empty() {
            errors.push(RuleError::new("types", "a rule needs `types`, `sources` or both"));
        }
        let mut origin = |field, own: &Option<String>, default: &Option<String>| {
            required(field, own.as_ref().or(default.as_ref()))
                .and_then(|text| Origin::read(field, text))
                .map_err(|error| errors.push(error))
                .ok()
        };
        let legal_basis = origin("legal_basis", &self.legal_basis, &defaults.legal_basis);
        let legal_reason = origin("legal_reason", &self.legal_reason, &defaults.legal_reason);
        let subject_type = origin("subject_type", &self.subject_type, &defaults.subject_type);
        let subject = subject(self.subject.as_ref().or(defaults.subject.as_ref()))
            .map_err(|error| errors.push(error))
            .ok();
        let rule = || {
            Some(Rule {
                types: self.types.iter().cloned().collect(),
                sources: self.sources.iter().cloned().collect(),
                legal_basis: legal_basis?,
                legal_reason: legal_reason?,
                subject: subject?,
                subject_type: subject_type?,
                missing: self.missing.or(defaults.missing).unwrap_or_default(),
            })
        };
        rule().filter(|_| errors.is_empty()).ok_or(errors)
    }

    /// What is wrong with defaults: they may leave anything open but the events, which are not theirs to name.
    pub fn check_as_defaults(&self) -> Vec<RuleError> {
        let texts = [
            ("legal_basis", &self.legal_basis),
            ("legal_reason", &self.legal_reason),
            ("subject_type", &self.subject_type),
        ];
        let origins = texts.into_iter().filter_map(|(field, text)| Origin::read(field, text.as_ref()?).err());
        let path = self.subject.as_ref().and_then(|text| subject(Some(text)).err());
        origins.chain(path).collect()
    }
}

fn required<'a>(field: &'static str, text: Option<&'a String>) -> Result<&'a str, RuleError> {
    let missing =
        || RuleError::new(field, format!("the rule has no `{field}`, and [audit] has no default for it"));
    text.map(String::as_str).ok_or_else(missing)
}

fn subject(text: Option<&String>) -> Result<Path, RuleError> {
    let text = required("subject", text)?;
    match text.starts_with('$') {
        true => Path::read(text).map_err(|error| RuleError::of_path("subject", error)),
        false => Err(RuleError::new("subject", "expected a JSON path into data such as \"$.person.idnp\"")),
    }
}

impl Origin {
    fn read(field: &'static str, text: &str) -> Result<Self, RuleError> {
        match text {
            "" => {
                Err(RuleError::new(field, "expected a text, or a JSON path into data such as \"$.reason\""))
            }
            path if path.starts_with('$') => {
                Path::read(path).map(Self::Path).map_err(|error| RuleError::of_path(field, error))
            }
            long if long.len() > VALUE_BYTES_MAX => {
                Err(RuleError::new(field, format!("expected at most {VALUE_BYTES_MAX} bytes")))
            }
            constant => Ok(Self::Constant(constant.to_owned())),
        }
    }

    /// The value for one event. Several different values are as good as none.
    pub fn value(&self, data: Option<Value<'_>>, decoded: &mut Option<serde_json::Value>) -> Option<String> {
        match self {
            Self::Constant(text) => Some(text.clone()),
            Self::Path(path) => {
                let found = path.find(data?, decoded);
                let first = found.values.first()?.clone();
                (found.unusable == 0 && found.values.iter().all(|value| *value == first)).then_some(first)
            }
        }
    }
}

impl Rule {
    /// Whether finding the values decodes a copy of the event's data.
    pub fn has_query(&self) -> bool {
        let is_query = |origin: &Origin| matches!(origin, Origin::Path(path) if path.is_query());
        self.subject.is_query()
            || [&self.legal_basis, &self.legal_reason, &self.subject_type].into_iter().any(is_query)
    }
}

impl RuleError {
    fn new(field: &'static str, message: impl Into<String>) -> Self {
        Self { field, at: 0, message: message.into() }
    }

    fn of_path(field: &'static str, error: PathError) -> Self {
        Self { field, at: error.at, message: error.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        serde_json::from_str(
            r#"{"types":["A.B.C.D"],"legal_basis":"Law 133/2011","legal_reason":"$.reason","subject":"$.idnp",
                "subject_type":"person"}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_rule_takes_what_it_leaves_open_from_the_defaults() {
        let defaults = Written {
            legal_basis: Some("default".into()),
            subject_type: Some("$.kind".into()),
            missing: Some(Missing::Withhold),
            ..Written::default()
        };
        let rule = Written { subject_type: None, ..written() }.compile(&defaults).unwrap();
        assert_eq!(rule.legal_basis, Origin::Constant("Law 133/2011".into()));
        assert!(matches!(rule.subject_type, Origin::Path(_)));
        assert_eq!(rule.missing, Missing::Withhold);
        assert_eq!(written().compile(&Written::default()).unwrap().missing, Missing::Deliver);
    }

    #[test]
    fn everything_wrong_with_a_rule_is_told_with_its_field() {
        let wrong = Written {
            legal_basis: None,
            legal_reason: Some("$.a[".into()),
            subject: Some("2000000000001".into()),
            subject_type: Some(String::new()),
            types: Vec::new(),
            ..written()
        };
        let errors = wrong.compile(&Written::default()).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field).collect();
        assert_eq!(fields, ["types", "legal_basis", "legal_reason", "subject_type", "subject"]);
        assert_eq!(wrong.check_as_defaults().len(), 3);
    }

    #[test]
    fn unknown_members_and_policies_are_refused() {
        assert!(serde_json::from_str::<Written>(r#"{"tipes":[]}"#).is_err());
        assert!(serde_json::from_str::<Written>(r#"{"missing":"drop"}"#).is_err());
    }
}

//! `[audit]`: how transfers of personal data are recorded, and the form in which rules on them are written.

use super::document::{Document, Located, Section, Setting};
use super::service::Service;
use super::units::Bytes;
use crate::audit::rule::{Missing, RuleError, Written};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// `[audit]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Where the records are kept.
    pub dir: PathBuf,
    /// A file whose records have grown to this size is followed by a new one; so is one of an earlier day (UTC).
    pub file_bytes_max: u64,
    /// For how long files are kept after their last record; `None` means for ever.
    pub retention: Option<Duration>,
    /// What happens to personal data while records cannot be written.
    pub on_failure: OnFailure,
    /// The `event_type` of a record: the prefix in front of `.PersonalData.Transfer`.
    pub event_type: String,
    /// What rules leave open.
    pub defaults: Written,
    /// `[audit.mlog]`: the service that gets every record.
    pub mlog: Option<Mlog>,
}

/// `[audit.mlog]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlog {
    pub service: Service,
    /// Pause after the first failure; every further one doubles it, up to a minute.
    pub retry_interval: Duration,
}

/// What happens to personal data while records cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// `"withhold"`: it waits.
    Withhold,
    /// `"deliver"`: it is delivered without a record, which is logged and counted.
    Deliver,
}

impl Audit {
    /// The defaults, for a broker with this data directory.
    pub fn new(storage_dir: &Path) -> Self {
        Self {
            dir: storage_dir.join("audit"),
            file_bytes_max: 64 << 20,
            retention: None,
            on_failure: OnFailure::Withhold,
            event_type: event_type("Nistru"),
            defaults: Written::default(),
            mlog: None,
        }
    }

    /// Reads the section; `storage_dir` is the data directory.
    pub(super) fn read(
        document: &Document<'_>,
        mut section: Section<'_, '_>,
        base: &Path,
        storage_dir: &Path,
    ) -> Self {
        let default = Self::new(storage_dir);
        let dir: Option<PathBuf> = section.optional("dir");
        let sizes = Bytes(4 * KIB)..=Bytes(GIB);
        let audit = Self {
            dir: dir.map_or(default.dir, |dir| base.join(dir)),
            file_bytes_max: section.within("file_bytes_max", sizes, Bytes(default.file_bytes_max)).0,
            retention: section.optional_within("retention", DAY..=DAY * 36_500),
            on_failure: section.or("on_failure", default.on_failure),
            event_type: section
                .optional("event_type_prefix")
                .map_or(default.event_type, |prefix| event_type(&checked_prefix(document, prefix))),
            defaults: written(&mut section),
            mlog: section.optional_section("mlog").and_then(|mlog| Mlog::read(document, mlog, base)),
        };
        report(document, &section, audit.defaults.check_as_defaults());
        section.finish();
        audit
    }
}

impl Mlog {
    fn read(document: &Document<'_>, mut section: Section<'_, '_>, base: &Path) -> Option<Self> {
        let service = Service::read(document, &mut section, base);
        let retry_interval = section.within("retry_interval", RETRY_MIN..=RETRY_MAX, Duration::from_secs(1));
        section.finish();
        Some(Self { service: service?, retry_interval })
    }
}

fn event_type(prefix: &str) -> String {
    format!("{prefix}.PersonalData.Transfer")
}

fn checked_prefix(document: &Document<'_>, prefix: Located<String>) -> String {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if prefix.value.len() > 256 || !prefix.value.split('.').all(is_part) {
        document.report(
            prefix.at,
            format!(
                "\"{}\" is no start of an event type; expected one such as Organization.System",
                prefix.value
            ),
        );
    }
    prefix.value
}

/// What a section says of the values of a record: of a rule, or of the defaults of all rules.
pub fn written(section: &mut Section<'_, '_>) -> Written {
    Written {
        legal_basis: section.optional("legal_basis"),
        legal_reason: section.optional("legal_reason"),
        subject: section.optional("subject"),
        subject_type: section.optional("subject_type"),
        missing: section.optional("missing"),
        ..Written::default()
    }
}

/// Reports what is wrong with a rule where it stands.
pub fn report(document: &Document<'_>, section: &Section<'_, '_>, errors: Vec<RuleError>) {
    for RuleError { field, at, message } in errors {
        // Behind the quote, unless the whole text is meant.
        let within = if at > 0 { at + 1 } else { 0 };
        document.report(section.at(field) + within, message);
    }
}

impl Setting for Missing {
    const EXPECTED: &'static str = "\"deliver\" or \"withhold\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "deliver" => Some(Self::Deliver),
            "withhold" => Some(Self::Withhold),
            _ => None,
        }
    }
}

impl Setting for OnFailure {
    const EXPECTED: &'static str = "\"withhold\" or \"deliver\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "withhold" => Some(Self::Withhold),
            "deliver" => Some(Self::Deliver),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Audit, Vec<String>> {
        let read = |document: &Document<'_>, mut top: Section<'_, '_>| {
            let audit =
                Audit::read(document, top.section("audit"), Path::new("/etc/nistru"), Path::new("/data"));
            top.finish();
            Some(audit)
        };
        Document::read(Path::new("f"), text, read)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_the_section_everything_has_its_default() {
        let audit = read("").unwrap();
        assert_eq!(audit, Audit::new(Path::new("/data")));
        assert_eq!(audit.dir, Path::new("/data/audit"));
        assert_eq!(audit.event_type, "Nistru.PersonalData.Transfer");
    }

    #[test]
    fn settings_that_are_written_replace_the_defaults() {
        let audit = read(
            "[audit]\ndir = \"a\"\nretention = \"365d\"\non_failure = \"deliver\"\nevent_type_prefix = \"MD.Events\"\n\
             legal_basis = \"Law 133\"\nmissing = \"withhold\"\n[audit.mlog]\nurl = \"https://mlog.example/api/\"\n\
             certificate = \"c\"\nkey = \"k\"\nca = [\"ca\"]\n",
        )
        .unwrap();
        assert_eq!(audit.dir, Path::new("/etc/nistru/a"));
        assert_eq!((audit.retention, audit.on_failure), (Some(DAY * 365), OnFailure::Deliver));
        assert_eq!(audit.event_type, "MD.Events.PersonalData.Transfer");
        assert_eq!(audit.defaults.missing, Some(Missing::Withhold));
        assert_eq!(audit.mlog.unwrap().service.url, "https://mlog.example/api");
    }

    #[test]
    fn mistakes_are_reported_where_they_stand() {
        let problems = read(
            "[audit]\nretention = \"1h\"\non_failure = \"drop\"\nevent_type_prefix = \"a b\"\nsubject = \"$.a[\"\n\
             types = [\"A.B.C.D\"]\n[audit.mlog]\nurl = \"x\"\n",
        )
        .unwrap_err();
        assert_eq!(problems.len(), 9, "{problems:#?}");
        assert!(problems.iter().any(|problem| problem.starts_with("f:5:15: \"$.a[\" is no JSON path")));
        assert!(problems.iter().any(|problem| problem.contains("`types` is unknown in [audit]")));
    }
}

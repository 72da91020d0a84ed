//! `[registry]`: where clients, event types and schemas come from.

use super::document::{Document, Located, Section, Setting};
use super::service::Service;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[registry]`.
#[derive(Debug, Clone, PartialEq)]
pub enum RegistrySource {
    /// `source = "files"`: a directory with `clients/`, `types/` and `schemas/`.
    Files {
        /// The directory.
        dir: PathBuf,
    },
    /// `source = "mpass"`: types and schemas from a directory, clients from an API.
    Mpass {
        /// The directory, of which `clients/` is not looked at.
        dir: PathBuf,
        /// `[registry.mpass]`.
        mpass: Mpass,
    },
}

/// `[registry.mpass]`: the client API of MPass.
#[derive(Debug, Clone, PartialEq)]
pub struct Mpass {
    pub service: Service,
    /// For how long a client counts as it was answered. It is asked for again before that, and goes on while that fails.
    pub cache: Duration,
    /// For how long a certificate without a client is not asked for again.
    pub unknown_cache: Duration,
    /// Requests under way at a time.
    pub requests_max: usize,
}

/// The value of `source`.
enum Source {
    Files,
    Mpass,
}

impl RegistrySource {
    /// The directory with `types/` and `schemas/`.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Files { dir } | Self::Mpass { dir, .. } => dir,
        }
    }

    /// The API, if clients come from one.
    pub fn mpass(&self) -> Option<&Mpass> {
        match self {
            Self::Files { .. } => None,
            Self::Mpass { mpass, .. } => Some(mpass),
        }
    }

    pub(super) fn read(document: &Document<'_>, mut section: Section<'_, '_>, base: &Path) -> Option<Self> {
        let source = section.or("source", Located { value: Source::Files, at: 0 });
        let dir = section.required::<PathBuf>("dir").map(|dir| base.join(dir));
        let at = section.at("mpass");
        let api = section.optional_section("mpass");
        section.finish();
        match (source.value, api) {
            (Source::Files, None) => Some(Self::Files { dir: dir? }),
            (Source::Mpass, Some(api)) => {
                let mpass = Mpass::read(document, api, base);
                Some(Self::Mpass { dir: dir?, mpass: mpass? })
            }
            (Source::Files, Some(_)) => {
                document
                    .report(at, "[registry.mpass] is of no use without `source = \"mpass\"` in [registry]");
                None
            }
            (Source::Mpass, None) => {
                document.report(source.at, "`source = \"mpass\"` needs a table [registry.mpass]");
                None
            }
        }
    }
}

impl Mpass {
    /// The defaults, around the service that has none.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            cache: Duration::from_secs(30 * 60),
            unknown_cache: Duration::from_secs(30),
            requests_max: 8,
        }
    }

    fn read(document: &Document<'_>, mut section: Section<'_, '_>, base: &Path) -> Option<Self> {
        let service = Service::read(document, &mut section, base);
        let cache = section.optional_within("cache", SECOND..=DAY);
        let unknown_cache = section.optional_within("unknown_cache", SECOND..=HOUR);
        let requests_max = section.optional_within("requests_max", 1..=64);
        section.finish();
        let default = Self::new(service?);
        Some(Self {
            cache: cache.unwrap_or(default.cache),
            unknown_cache: unknown_cache.unwrap_or(default.unknown_cache),
            requests_max: requests_max.unwrap_or(default.requests_max),
            ..default
        })
    }
}

impl Setting for Source {
    const EXPECTED: &'static str = "\"files\" or \"mpass\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "files" => Some(Self::Files),
            "mpass" => Some(Self::Mpass),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "[mpass]\nurl = \"https://mpass\"\ncertificate = \"c\"\nkey = \"k\"\nca = [\"a\"]\n";

    fn read(text: &str) -> Result<RegistrySource, Vec<String>> {
        Document::read(Path::new("f"), text, |document, top| {
            RegistrySource::read(document, top, Path::new("/etc/nistru"))
        })
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn clients_come_from_files_unless_an_api_is_named() {
        assert_eq!(read("dir = \"r\"\n"), Ok(RegistrySource::Files { dir: "/etc/nistru/r".into() }));
        let source = read(&format!("source = \"mpass\"\ndir = \"r\"\n{API}cache = \"10m\"\n")).unwrap();
        let mpass = source.mpass().unwrap();
        assert_eq!((mpass.cache, mpass.unknown_cache), (Duration::from_secs(600), Duration::from_secs(30)));
        assert_eq!(source.dir(), Path::new("/etc/nistru/r"));
    }

    #[test]
    fn an_api_that_is_named_without_use_or_used_without_a_name_is_reported() {
        for (text, part) in [
            (format!("dir = \"r\"\n{API}"), "of no use"),
            ("source = \"mpass\"\ndir = \"r\"\n".to_owned(), "f:1:10: `source = \"mpass\"` needs"),
            ("source = \"ldap\"\ndir = \"r\"\n".to_owned(), "expected \"files\" or \"mpass\""),
            (format!("source = \"mpass\"\ndir = \"r\"\n{API}requests_max = 0\n"), "between 1 and 64"),
        ] {
            let found = read(&text).unwrap_err();
            assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:?}");
        }
    }
}

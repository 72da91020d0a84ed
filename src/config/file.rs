//! From the text of `nistru.toml` to a checked [`Config`].

use super::document::{Document, Located, Section, Setting};
use super::problem::Problem;
use super::units::Bytes;
use super::{
    Admin, Audit, Config, Delivery, Log, LogFormat, Polling, RegistrySource, Server, Storage, Tls, TlsVersion,
};
use crate::id::SHARED_PARTITIONS_MAX;
use fluent_uri::Uri;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Segments and journal files are made of blocks of this size.
const BLOCK_BYTES: u64 = 4096;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it start at its own directory.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![Problem::of_file(path, format!("cannot be read: {error}"))])?;
        Self::parse(path, &text)
    }

    /// Checks `text`, the content of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Problem>> {
        let base = path.parent().unwrap_or(Path::new(""));
        Document::read(path, text, |document, top| config(document, top, base))
    }
}

fn config(document: &Document<'_>, mut top: Section<'_, '_>, base: &Path) -> Option<Config> {
    let server = server(document, top.section("server"));
    let tls = tls(top.section("tls"), base);
    let storage = storage(document, top.section("storage"), base, &server);
    let delivery = delivery(document, top.section("delivery"), &server);
    let polling = polling(document, top.section("polling"));
    let storage_dir = storage.as_ref().map(|storage| storage.dir.clone()).unwrap_or_default();
    let audit = Audit::read(document, top.section("audit"), base, &storage_dir);
    let admin = admin(top.section("admin"));
    let registry = RegistrySource::read(document, top.section("registry"), base);
    let log = log(document, top.section("log"));
    top.finish();
    Some(Config {
        server,
        tls: tls?,
        storage: storage?,
        delivery,
        polling,
        audit,
        admin,
        registry: registry?,
        log,
    })
}

fn server(document: &Document<'_>, mut section: Section<'_, '_>) -> Server {
    let default = Server::default();
    let server = Server {
        listen: section.non_empty("listen").unwrap_or(default.listen),
        cores: section.optional_within("cores", 1..=64),
        public_url: public_url(document, &mut section),
        max_connections: section.within("max_connections", 1..=1_000_000, default.max_connections),
        max_connections_per_address: section.within(
            "max_connections_per_address",
            1..=1_000_000,
            default.max_connections_per_address,
        ),
        handshake_timeout: seconds(&mut section, "handshake_timeout", default.handshake_timeout),
        request_timeout: seconds(&mut section, "request_timeout", default.request_timeout),
        idle_timeout: seconds(&mut section, "idle_timeout", default.idle_timeout),
        stop_timeout: seconds(&mut section, "stop_timeout", default.stop_timeout),
        request_bytes_max: size(&mut section, "request_bytes_max", KIB, 64 * MIB, default.request_bytes_max),
        event_bytes_max: size(&mut section, "event_bytes_max", KIB, 16 * MIB, default.event_bytes_max),
        time_skew: section.within("time_skew", Duration::ZERO..=DAY, default.time_skew),
        head_bytes_max: size(&mut section, "head_bytes_max", KIB, MIB, default.head_bytes_max),
    };
    section.finish();
    server
}

fn tls(mut section: Section<'_, '_>, base: &Path) -> Option<Tls> {
    let certificate = path(&mut section, "certificate", base);
    let key = path(&mut section, "key", base);
    let client_ca = section.required_list("client_ca").map(|files| resolve_all(base, files));
    let client_crl = resolve_all(base, section.or("client_crl", Vec::new()));
    let strict = section.or("strict", false);
    let min_version = section.or("min_version", TlsVersion::V1_2);
    let watch_interval = section.optional_within("watch_interval", Duration::ZERO..=HOUR);
    section.finish();
    let tls = Tls::new(certificate?, key?, client_ca?);
    let watch_interval = watch_interval.unwrap_or(tls.watch_interval);
    Some(Tls { client_crl, strict, min_version, watch_interval, ..tls })
}

fn storage(
    document: &Document<'_>,
    mut section: Section<'_, '_>,
    base: &Path,
    server: &Server,
) -> Option<Storage> {
    let dir = path(&mut section, "dir", base);
    let default = Storage::new(PathBuf::new());
    let partitions =
        section.within("partitions", 1..=u64::from(SHARED_PARTITIONS_MAX), u64::from(default.partitions));
    let storage = Storage {
        dir: dir.unwrap_or_default(),
        partitions: u8::try_from(partitions).unwrap_or(default.partitions),
        segment_bytes: blocks(document, &mut section, "segment_bytes", default.segment_bytes),
        journal_file_bytes: blocks(document, &mut section, "journal_file_bytes", default.journal_file_bytes),
        retention: section.within("retention", SECOND..=DAY * 3650, default.retention),
        dead_retention: section.within("dead_retention", SECOND..=DAY * 3650, default.dead_retention),
        test_retention: section.within("test_retention", SECOND..=DAY * 3650, default.test_retention),
        min_free_bytes: section.within("min_free_bytes", Bytes(MIB)..=Bytes(1024 * GIB), Bytes(GIB)).0,
        checkpoint_interval: section.within(
            "checkpoint_interval",
            SECOND..=HOUR,
            default.checkpoint_interval,
        ),
        checkpoint_bytes: section
            .within("checkpoint_bytes", Bytes(MIB)..=Bytes(1024 * GIB), Bytes(default.checkpoint_bytes))
            .0,
    };
    fits(document, &section, &storage, server);
    section.finish();
    (!storage.dir.as_os_str().is_empty()).then_some(storage)
}

/// A request lies in one journal file, an event in one segment.
fn fits(document: &Document<'_>, section: &Section<'_, '_>, storage: &Storage, server: &Server) {
    if server.request_bytes_max as u64 > storage.request_bytes_bound() {
        let least = server.request_bytes_max as u64 * Storage::GROWTH;
        document.report(
            section.at("journal_file_bytes"),
            format!(
                "`journal_file_bytes` is {} bytes; with `request_bytes_max` = {} it must be at least {least}",
                storage.journal_file_bytes, server.request_bytes_max
            ),
        );
    }
    if server.event_bytes_max as u64 > storage.event_bytes_bound() {
        let least = server.event_bytes_max as u64 * Storage::EVENTS_PER_SEGMENT;
        document.report(
            section.at("segment_bytes"),
            format!(
                "`segment_bytes` is {} bytes; with `event_bytes_max` = {} it must be at least {least}",
                storage.segment_bytes, server.event_bytes_max
            ),
        );
    }
}

fn delivery(document: &Document<'_>, mut section: Section<'_, '_>, server: &Server) -> Delivery {
    let default = Delivery::default();
    let delivery = Delivery {
        window_events: section.within("window_events", 1..=1_000_000, default.window_events),
        window_bytes: size(&mut section, "window_bytes", KIB, GIB, default.window_bytes),
        ping_interval: seconds(&mut section, "ping_interval", default.ping_interval),
        pong_timeout: seconds(&mut section, "pong_timeout", default.pong_timeout),
        revoke_grace: section.within("revoke_grace", Duration::ZERO..=HOUR, default.revoke_grace),
    };
    if delivery.window_bytes < server.event_bytes_max {
        document.report(
            section.at("window_bytes"),
            format!(
                "`window_bytes` is {}, less than the largest event ({} bytes)",
                delivery.window_bytes, server.event_bytes_max
            ),
        );
    }
    section.finish();
    delivery
}

fn polling(document: &Document<'_>, mut section: Section<'_, '_>) -> Polling {
    let default = Polling::default();
    let polling = Polling {
        timeout: seconds(&mut section, "timeout", default.timeout),
        instance_timeout: seconds(&mut section, "instance_timeout", default.instance_timeout),
        batch_events: section.within("batch_events", 1..=100_000, default.batch_events),
        max_instances: section.within("max_instances", 1..=1_000_000, default.max_instances),
        max_instances_per_client: section.within(
            "max_instances_per_client",
            1..=1_000_000,
            default.max_instances_per_client,
        ),
    };
    if polling.instance_timeout <= polling.timeout {
        let (instance, poll) = (polling.instance_timeout, polling.timeout);
        document.report(
            section.at("instance_timeout"),
            format!(
                "`instance_timeout` is {instance:?}; it must be longer than `timeout`, which is {poll:?}"
            ),
        );
    }
    section.finish();
    polling
}

fn admin(mut section: Section<'_, '_>) -> Admin {
    let admin = Admin { listen: section.or("listen", Admin::default().listen) };
    section.finish();
    admin
}

fn log(document: &Document<'_>, mut section: Section<'_, '_>) -> Log {
    let default = Log::default();
    let level: Option<Located<String>> = section.optional("level");
    if let Some(level) = &level
        && !level.value.split(',').all(is_directive)
    {
        let message = format!("expected one of {}, or a filter `info,target=debug`", LEVELS.join(", "));
        document.report(level.at, message);
    }
    let level = level.map_or(default.level, |level| level.value);
    let log = Log { level, format: section.or("format", default.format) };
    section.finish();
    log
}

/// `level` or `target=level`. A lone word that is no level would silently be taken for a target.
fn is_directive(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
    LEVELS.contains(&level.trim().to_ascii_lowercase().as_str())
}

fn seconds(section: &mut Section<'_, '_>, key: &'static str, default: Duration) -> Duration {
    section.within(key, SECOND..=HOUR, default)
}

fn size(section: &mut Section<'_, '_>, key: &'static str, least: u64, most: u64, default: usize) -> usize {
    let bytes = section.optional_within(key, Bytes(least)..=Bytes(most));
    bytes.and_then(|Bytes(bytes)| usize::try_from(bytes).ok()).unwrap_or(default)
}

fn blocks(document: &Document<'_>, section: &mut Section<'_, '_>, key: &'static str, default: u64) -> u64 {
    let Bytes(bytes) = section.within(key, Bytes(64 * KIB)..=Bytes(GIB), Bytes(default));
    if !bytes.is_multiple_of(BLOCK_BYTES) {
        document.report(section.at(key), format!("`{key}` is {bytes}; expected a multiple of {BLOCK_BYTES}"));
    }
    bytes
}

fn path(section: &mut Section<'_, '_>, key: &'static str, base: &Path) -> Option<PathBuf> {
    section.required::<PathBuf>(key).map(|path| base.join(path))
}

fn resolve_all(base: &Path, files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.into_iter().map(|file| base.join(file)).collect()
}

fn public_url(document: &Document<'_>, section: &mut Section<'_, '_>) -> Option<String> {
    let url: Located<String> = section.optional("public_url")?;
    let text = url.value.trim_end_matches('/');
    let is_base = Uri::parse(text).is_ok_and(|uri| {
        uri.scheme().as_str() == "https"
            && uri.authority().is_some_and(|authority| !authority.host().is_empty())
            && uri.path().as_str().is_empty()
            && uri.query().is_none()
            && uri.fragment().is_none()
    });
    if !is_base {
        document.report(url.at, "expected https://host or https://host:port");
    }
    Some(text.to_owned())
}

impl Setting for TlsVersion {
    const EXPECTED: &'static str = "\"1.2\" or \"1.3\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "1.2" => Some(Self::V1_2),
            "1.3" => Some(Self::V1_3),
            _ => None,
        }
    }
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "\"json\" or \"text\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str()? {
            "json" => Some(Self::Json),
            "text" => Some(Self::Text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "[tls]\ncertificate = \"s.pem\"\nkey = \"/k\"\nclient_ca = [\"ca.pem\"]\n\
                         [storage]\ndir = \"data\"\n[registry]\ndir = \"registry\"\n";

    fn parse(text: &str) -> Result<Config, Vec<String>> {
        Config::parse(Path::new("/etc/nistru/nistru.toml"), text)
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn the_least_file_gives_the_defaults_with_paths_beside_the_file() {
        let at = |name: &str| Path::new("/etc/nistru").join(name);
        let tls = Tls::new(at("s.pem"), "/k".into(), vec![at("ca.pem")]);
        assert_eq!(parse(LEAST), Ok(Config::new(tls, at("data"), at("registry"))));
    }

    #[test]
    fn the_defaults_fit_together() {
        let storage = Storage::new("d".into());
        let server = Server::default();
        assert!(storage.request_bytes_bound() >= server.request_bytes_max as u64);
        assert!(storage.event_bytes_bound() >= server.event_bytes_max as u64);
    }

    #[test]
    fn settings_that_are_written_replace_the_defaults() {
        let text = LEAST.replace("[storage]", "[storage]\nretention = \"1h\"\nsegment_bytes = \"1 MiB\"")
            + "[server]\nlisten = [\"127.0.0.1:0\"]\ncores = 2\npublic_url = \"https://events.example/\"\n\
               [log]\nlevel = \"info,nistru=debug\"\nformat = \"text\"\n[admin]\nlisten = []\n";
        let config = parse(&text).unwrap();
        assert_eq!(config.storage.retention, HOUR);
        assert_eq!(config.storage.segment_bytes, MIB);
        assert_eq!(config.server.cores, Some(2));
        assert_eq!(config.server.public_url.as_deref(), Some("https://events.example"));
        assert_eq!(config.log, Log { level: "info,nistru=debug".into(), format: LogFormat::Text });
        assert!(config.admin.listen.is_empty());
    }

    #[test]
    fn an_empty_file_is_told_every_key_it_lacks() {
        let problems = parse("").unwrap_err();
        for key in ["certificate", "key", "client_ca", "`dir` in [storage]", "`dir` in [registry]"] {
            assert!(problems.iter().any(|problem| problem.contains(key)), "{key}: {problems:?}");
        }
    }

    #[test]
    fn every_mistake_of_a_file_is_found_in_one_run() {
        let wrong = "[server]\nlisten = [\"localhost\"]\ncores = 0\npublic_url = \"ftp://x\"\ntime_skew = 5\n\
                     [log]\nlevel = \"loud\"\nformat = \"xml\"\n[sever]\n[delivery]\nwindow_bytes = \"2 KiB\"\n";
        let problems = parse(&(LEAST.to_owned() + wrong)).unwrap_err();
        let expected = [
            "listen",
            "cores",
            "https://host",
            "duration",
            "one of off",
            "\"json\"",
            "sever",
            "window_bytes",
        ];
        for part in &expected[1..] {
            assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:?}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        assert!(
            problems[0].starts_with("/etc/nistru/nistru.toml:10:11: expected an address"),
            "{problems:?}"
        );
    }

    #[test]
    fn an_instance_lives_longer_than_its_polls() {
        let text = LEAST.to_owned() + "[polling]\ntimeout = \"60s\"\n";
        assert!(parse(&text).unwrap_err()[0].contains("`instance_timeout` is 60s; it must be longer"));
        let text = text + "instance_timeout = \"61s\"\nbatch_events = 7\n";
        let polling = parse(&text).unwrap().polling;
        assert_eq!((polling.timeout.as_secs(), polling.instance_timeout.as_secs()), (60, 61));
        assert_eq!(polling.batch_events, 7);
    }

    #[test]
    fn sizes_that_do_not_fit_together_are_refused() {
        let text = LEAST
            .replace("[storage]", "[storage]\nsegment_bytes = 65536\njournal_file_bytes = 1052672\n")
            + "[server]\nevent_bytes_max = \"64 KiB\"\n";
        let problems = parse(&text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains("`segment_bytes` is 65536")), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("`journal_file_bytes` is 1052672")));
        let text = LEAST.replace("[storage]", "[storage]\nsegment_bytes = 1000000\n");
        assert!(parse(&text).unwrap_err()[0].contains("multiple of 4096"));
    }
}

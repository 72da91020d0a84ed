//! `nistru.toml`: every setting of one broker, with its default and its bounds.
//!
//! A [`Config`] that exists is complete and checked: paths are resolved against the directory of the file they
//! stand in, sizes fit together, and nothing is looked up again later. Reading a file reports every problem in
//! one run, see [`Problem`].

pub mod audit;
pub mod document;
mod file;
pub mod pem;
mod problem;
pub mod registry;
pub mod service;
pub mod units;

pub use audit::{Audit, Mlog, OnFailure};
pub use problem::{Place, Problem};
pub use registry::{Mpass, RegistrySource};
pub use service::Service;

use crate::id::PrivateLog;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

/// All settings of one broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[server]`: listeners, cores and what one client may ask of them.
    pub server: Server,
    /// `[tls]`: our certificate and whose certificates we trust.
    pub tls: Tls,
    /// `[storage]`: where events live, and for how long.
    pub storage: Storage,
    /// `[delivery]`: what one consumer session may hold.
    pub delivery: Delivery,
    /// `[polling]`: consumers that ask again and again.
    pub polling: Polling,
    /// `[audit]`: the record of who received whose personal data.
    pub audit: Audit,
    /// `[admin]`: health and metrics.
    pub admin: Admin,
    /// `[registry]`: where clients, event types and schemas come from.
    pub registry: RegistrySource,
    /// `[log]`: what is logged, and how it looks.
    pub log: Log,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Addresses of the HTTPS listener, never empty. Port 0 lets the system choose: the first address then
    /// decides, and every further address with port 0 takes the same number.
    pub listen: Vec<SocketAddr>,
    /// Executors to run, 1 to 64; `None` means every core the process may use.
    pub cores: Option<usize>,
    /// `https://host[:port]` under which clients reach the broker, without a trailing slash; `None` means the
    /// `Host` a client sent.
    pub public_url: Option<String>,
    /// Connections of the whole broker.
    pub max_connections: usize,
    /// Connections from one client address.
    pub max_connections_per_address: usize,
    /// From the first byte of a connection to the end of its TLS handshake.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to its last.
    pub request_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// From SIGTERM to the end of the process, checkpoint included.
    pub stop_timeout: Duration,
    /// Largest HTTP request body.
    pub request_bytes_max: usize,
    /// Largest event as delivered, the longest possible `offset` included.
    pub event_bytes_max: usize,
    /// How far in the future the `time` of an event may lie.
    pub time_skew: Duration,
    /// Largest request line and header section together.
    pub head_bytes_max: usize,
}

/// `[tls]`. The three paths have no default.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// PEM file: the server's certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the private key of the certificate (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// PEM files of the authorities that issue client certificates, never empty.
    pub client_ca: Vec<PathBuf>,
    /// PEM files of revocation lists of these authorities.
    pub client_crl: Vec<PathBuf>,
    /// Reject a missing or bad client certificate in the handshake instead of answering 400 or 401.
    pub strict: bool,
    /// Oldest TLS version spoken.
    pub min_version: TlsVersion,
    /// How often the files are looked at, to read them again when they have changed; zero means never.
    pub watch_interval: Duration,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// `"1.2"`
    V1_2,
    /// `"1.3"`
    V1_3,
}

/// `[storage]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// The data directory.
    pub dir: PathBuf,
    /// Number of partitions of a new data directory, 1 to 62. An existing one keeps the number it was made with.
    pub partitions: u8,
    /// Size of one partition segment; a multiple of 4096.
    pub segment_bytes: u64,
    /// Size of one journal file; a multiple of 4096.
    pub journal_file_bytes: u64,
    /// For how long events are kept.
    pub retention: Duration,
    /// For how long dead events are kept.
    pub dead_retention: Duration,
    /// For how long test events are kept.
    pub test_retention: Duration,
    /// Producers get 503 while the file system of `dir` has less free space than this.
    pub min_free_bytes: u64,
    /// Longest time between two checkpoints of a broker that stores something.
    pub checkpoint_interval: Duration,
    /// Most journal bytes between two checkpoints: bounds the time a restart takes.
    pub checkpoint_bytes: u64,
}

/// `[delivery]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Events delivered to one session and not yet confirmed.
    pub window_events: usize,
    /// Bytes of these events.
    pub window_bytes: usize,
    /// Silence after which a WebSocket is pinged.
    pub ping_interval: Duration,
    /// How long the answer to a ping may take.
    pub pong_timeout: Duration,
    /// How long a session may still confirm what it holds of a partition that moves to another session.
    pub revoke_grace: Duration,
}

/// `[polling]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Polling {
    /// How long a poll waits for events.
    pub timeout: Duration,
    /// An instance that nobody polls for so long is deleted; longer than `timeout`.
    pub instance_timeout: Duration,
    /// Events in one answer with several.
    pub batch_events: usize,
    /// Instances of the whole broker.
    pub max_instances: usize,
    /// Instances of one client.
    pub max_instances_per_client: usize,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Addresses of the plain HTTP listener for health and metrics; none switches it off. Port 0 lets the
    /// system choose.
    pub listen: Vec<SocketAddr>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter in the syntax of `tracing`:
    /// `info,nistru::journal=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Plain text.
    Text,
}

impl Config {
    /// The services of others that the broker asks.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        let mpass = self.registry.mpass().map(|mpass| &mpass.service);
        mpass.into_iter().chain(self.audit.mlog.as_ref().map(|mlog| &mlog.service))
    }

    /// Every file with certificates, keys or revocation lists that is read again when it changes.
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        let mpass = self.registry.mpass().map(|mpass| mpass.service.files());
        self.tls.files().into_iter().chain(mpass.into_iter().flatten()).collect()
    }

    /// The defaults, around the settings that have none.
    pub fn new(tls: Tls, storage_dir: PathBuf, registry_dir: PathBuf) -> Self {
        Self {
            server: Server::default(),
            tls,
            audit: Audit::new(&storage_dir),
            storage: Storage::new(storage_dir),
            delivery: Delivery::default(),
            polling: Polling::default(),
            admin: Admin::default(),
            registry: RegistrySource::Files { dir: registry_dir },
            log: Log::default(),
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::UNSPECIFIED, 8443).into(), (Ipv6Addr::UNSPECIFIED, 8443).into()],
            cores: None,
            public_url: None,
            max_connections: 20_000,
            max_connections_per_address: 2_000,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            // Longer than the 60 to 120 s for which the .NET client library keeps idle connections.
            idle_timeout: Duration::from_secs(150),
            stop_timeout: Duration::from_secs(15),
            request_bytes_max: 1024 * KIB,
            event_bytes_max: 64 * KIB,
            time_skew: Duration::from_secs(5),
            head_bytes_max: 16 * KIB,
        }
    }
}

impl Tls {
    /// The defaults, around the files that have none.
    pub fn new(certificate: PathBuf, key: PathBuf, client_ca: Vec<PathBuf>) -> Self {
        Self {
            certificate,
            key,
            client_ca,
            client_crl: Vec::new(),
            strict: false,
            min_version: TlsVersion::V1_2,
            watch_interval: Duration::from_secs(5),
        }
    }

    /// Every file that is read.
    pub fn files(&self) -> Vec<PathBuf> {
        let pair = [&self.certificate, &self.key];
        pair.into_iter().chain(&self.client_ca).chain(&self.client_crl).cloned().collect()
    }
}

impl Storage {
    /// The least number of times that the largest request must fit into a journal file: a body of many tiny
    /// events grows to less than three times its size by what the broker adds to each event.
    pub const GROWTH: u64 = 4;
    /// The least number of largest events that must fit into a segment.
    pub const EVENTS_PER_SEGMENT: u64 = 4;

    /// For how long the events of a private log are kept, or those of the other partitions.
    pub fn retention_of(&self, log: Option<PrivateLog>) -> Duration {
        match log {
            None => self.retention,
            Some(PrivateLog::Dead) => self.dead_retention,
            Some(PrivateLog::Test) => self.test_retention,
        }
    }

    /// The largest request body, in bytes, that any setting may allow.
    pub fn request_bytes_bound(&self) -> u64 {
        self.journal_file_bytes / Self::GROWTH
    }

    /// The largest event, in bytes, that any setting may allow.
    pub fn event_bytes_bound(&self) -> u64 {
        self.segment_bytes / Self::EVENTS_PER_SEGMENT
    }

    /// The defaults, around the directory that has none.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            partitions: crate::id::DEFAULT_PARTITIONS,
            segment_bytes: 64 * MIB,
            journal_file_bytes: 64 * MIB,
            retention: Duration::from_secs(120 * 3600),
            dead_retention: Duration::from_secs(30 * 86_400),
            test_retention: Duration::from_secs(86_400),
            min_free_bytes: 1024 * MIB,
            checkpoint_interval: Duration::from_secs(60),
            checkpoint_bytes: 64 * MIB,
        }
    }
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            instance_timeout: Duration::from_secs(60),
            batch_events: 500,
            max_instances: 10_000,
            max_instances_per_client: 100,
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            window_events: 2_000,
            window_bytes: 4 * 1024 * KIB,
            ping_interval: Duration::from_secs(30),
            // Longer than most clients work on one event without reading the next frame.
            pong_timeout: Duration::from_secs(60),
            // A joining member waits at most this long for a busy one, and gets its first event well within a second.
            revoke_grace: Duration::from_millis(500),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: vec![(Ipv4Addr::LOCALHOST, 9443).into()] }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Json }
    }
}

//! `clients/*.toml`: one client system a file.

use super::model::{CertificateKey, Client, ClientLimits, Consumer, Producer, Rates};
use super::personal_data;
use super::type_file::{Types, event_bytes_max};
use crate::audit::rule::Written;
use crate::config::document::{Document, Located, Section, Setting};
use crate::config::units::Bytes;
use crate::config::{Problem, Storage, pem};
use crate::id::ClientId;
use fluent_uri::UriRef;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// Digits of an IDNO, the state number of an organisation.
pub(super) const IDNO_DIGITS: usize = 13;

/// Smallest limit on the body of a request.
pub(super) const REQUEST_BYTES_MIN: u64 = 1024;
/// Largest limit on events or bytes per second.
pub(super) const RATE_MAX: u64 = 1 << 40;
/// Largest limit on connections or instances.
pub(super) const COUNT_MAX: usize = 1_000_000;

/// The clients read so far.
#[derive(Default)]
pub struct Clients {
    /// Those without a mistake.
    pub clients: Vec<Client>,
    /// Certificate files that clients name.
    pub certificate_files: BTreeSet<PathBuf>,
    /// Every GUID that a file registers, and which.
    ids: BTreeMap<ClientId, PathBuf>,
    /// Every certificate that a file registers, and which.
    certificates: BTreeMap<CertificateKey, PathBuf>,
}

/// One file under reading and what it is checked against.
struct Reader<'r> {
    document: &'r Document<'r>,
    file: &'r Path,
    types: &'r Types,
    storage: &'r Storage,
    /// What rules on personal data leave open.
    defaults: &'r Written,
    known: &'r mut Clients,
}

impl Clients {
    /// Reads one more file.
    pub fn add(
        &mut self,
        file: &Path,
        text: &str,
        types: &Types,
        storage: &Storage,
        defaults: &Written,
    ) -> Result<(), Vec<Problem>> {
        let client = Document::read(file, text, |document, top| {
            Reader { document, file, types, storage, defaults, known: self }.client(top)
        })?;
        self.clients.push(client);
        Ok(())
    }
}

impl Reader<'_> {
    fn client(mut self, mut top: Section<'_, '_>) -> Option<Client> {
        let id = self.id(&mut top);
        let name: Option<String> = top.required("name");
        let owner_idno = self.owner_idno(&mut top);
        let enabled = top.or("enabled", true);
        let certificates = self.certificates(&mut top);
        let networks = top.required_list::<Network>("networks");
        let producer = top.optional_section("producer").map(|section| self.producer(section));
        let consumer = top.optional_section("consumer").map(|section| self.consumer(section));
        let limits = self.limits(top.section("limits"));
        top.finish();
        Some(Client {
            id: id?,
            name: name?,
            owner_idno: owner_idno?,
            enabled,
            certificates,
            networks: networks?.into_iter().map(|Network(network)| network).collect(),
            producer,
            consumer,
            limits,
        })
    }

    fn id(&mut self, top: &mut Section<'_, '_>) -> Option<ClientId> {
        let id: Located<ClientId> = top.required("id")?;
        if let Some(other) = self.known.ids.get(&id.value) {
            self.document.report(
                id.at,
                format!("the client {} is already registered in {}", id.value, other.display()),
            );
        }
        self.known.ids.entry(id.value).or_insert_with(|| self.file.to_owned());
        Some(id.value)
    }

    fn owner_idno(&self, top: &mut Section<'_, '_>) -> Option<String> {
        let idno: Located<String> = top.required("owner_idno")?;
        if !is_idno(&idno.value) {
            self.document
                .report(idno.at, format!("\"{}\" is no IDNO; expected {IDNO_DIGITS} digits", idno.value));
        }
        Some(idno.value)
    }

    fn certificates(&mut self, top: &mut Section<'_, '_>) -> Vec<CertificateKey> {
        let sections = top.sections("certificates");
        if sections.is_empty() {
            self.document.report(
                top.at("certificates"),
                "the client has no certificate; expected at least one [[certificates]]",
            );
        }
        sections.into_iter().filter_map(|section| self.certificate(section)).collect()
    }

    /// Either `file`, or `issuer` and `serial`.
    fn certificate(&mut self, mut section: Section<'_, '_>) -> Option<CertificateKey> {
        let file: Option<Located<PathBuf>> = section.optional("file");
        let key = match file {
            Some(file) => self.certificate_in(file),
            None => self.typed_certificate(&mut section),
        };
        let at = section.at("file").max(section.at("serial"));
        section.finish();
        let key = key?;
        if let Some(other) = self.known.certificates.get(&key) {
            self.document.report(
                at,
                format!(
                    "the certificate {} of \"{}\" is already registered in {}",
                    key.serial,
                    key.issuer,
                    other.display()
                ),
            );
        }
        self.known.certificates.entry(key.clone()).or_insert_with(|| self.file.to_owned());
        Some(key)
    }

    fn certificate_in(&mut self, file: Located<PathBuf>) -> Option<CertificateKey> {
        let path = self.file.parent().unwrap_or(Path::new("")).join(file.value);
        let chain = pem::certificates(&path).map_err(|problem| problem.to_string());
        let chain = self.document.note(file.at, chain)?;
        let key = CertificateKey::of_der(chain.first()?);
        let key = key.map_err(|reason| format!("{}: {reason}", path.display()));
        let key = self.document.note(file.at, key)?;
        self.known.certificate_files.insert(path);
        Some(key)
    }

    fn typed_certificate(&self, section: &mut Section<'_, '_>) -> Option<CertificateKey> {
        let issuer: Option<Located<String>> = section.required("issuer");
        let serial: Option<Located<String>> = section.required("serial");
        let issuer = issuer
            .and_then(|issuer| self.document.note(issuer.at, CertificateKey::typed_issuer(&issuer.value)));
        let serial = serial
            .and_then(|serial| self.document.note(serial.at, CertificateKey::typed_serial(&serial.value)));
        Some(CertificateKey { issuer: issuer?, serial: serial? })
    }

    fn producer(&self, mut section: Section<'_, '_>) -> Producer {
        let sources = section.required_list::<Located<String>>("sources").unwrap_or_default();
        for source in &sources {
            self.document.note(source.at, check_source(&source.value));
        }
        let types = self.types(&mut section);
        section.finish();
        Producer { sources: sources.into_iter().map(|source| source.value).collect(), types }
    }

    fn consumer(&self, mut section: Section<'_, '_>) -> Consumer {
        let types = self.types(&mut section);
        let rules = section.sections("personal_data");
        let personal_data = personal_data::rules(self.document, rules, &types, self.defaults);
        section.finish();
        Consumer { types, personal_data }
    }

    fn types(&self, section: &mut Section<'_, '_>) -> BTreeSet<String> {
        let types = section.required_list::<Located<String>>("types").unwrap_or_default();
        for named in types.iter().filter(|named| self.types.lacks(&named.value)) {
            self.document
                .report(named.at, format!("no file of types/ defines the event type \"{}\"", named.value));
        }
        types.into_iter().map(|named| named.value).collect()
    }

    fn limits(&self, mut section: Section<'_, '_>) -> ClientLimits {
        let event_bytes_max = event_bytes_max(&mut section, self.storage);
        let bounds = Bytes(REQUEST_BYTES_MIN)..=Bytes(self.storage.request_bytes_bound());
        let request_bytes_max = section
            .optional_within("request_bytes_max", bounds)
            .and_then(|Bytes(bytes)| bytes.try_into().ok());
        let rates = Rates {
            events_per_second_max: section.optional_within("events_per_second_max", 1..=RATE_MAX),
            bytes_per_second_max: section
                .optional_within("bytes_per_second_max", Bytes(1)..=Bytes(RATE_MAX))
                .map(|Bytes(bytes)| bytes),
        };
        let connections_max = section.optional_within("connections_max", 1..=COUNT_MAX);
        let instances_max = section.optional_within("instances_max", 1..=COUNT_MAX);
        section.finish();
        ClientLimits { event_bytes_max, request_bytes_max, rates, connections_max, instances_max }
    }
}

/// Whether `text` is an IDNO.
pub(super) fn is_idno(text: &str) -> bool {
    text.len() == IDNO_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// That `source` can be the source of an event.
pub(super) fn check_source(source: &str) -> Result<(), String> {
    match source.is_empty() || UriRef::parse(source).is_err() {
        true => Err(format!("\"{source}\" is no URI-reference; expected one such as urn:asp")),
        false => Ok(()),
    }
}

impl Setting for ClientId {
    const EXPECTED: &'static str = "a GUID such as \"5f0c7a52-6d1b-4f0e-9b0a-0c2f6a4d1e11\"";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        uuid::Uuid::try_parse(value.as_str()?).ok().map(|id| Self(id.into_bytes()))
    }
}

pub(super) struct Network(pub IpNet);

impl Network {
    /// An IPv4 address written as IPv6 would never match: peers are compared as what they are.
    pub fn parse(text: &str) -> Option<Self> {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        let is_exact = network.trunc() == network;
        let is_mapped = network.addr().to_canonical() != network.addr();
        (is_exact && !is_mapped).then_some(Self(network))
    }
}

impl Setting for Network {
    const EXPECTED: &'static str = "an IP address such as \"10.1.2.3\", or a network such as \"10.1.0.0/16\" without bits after its prefix";

    fn of(value: &DeValue<'_>) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

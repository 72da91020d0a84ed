//! A certification authority for one directory, and the certificates it issues.

use super::files::{Access, create};
use crate::config::Problem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::fs;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

/// The clients that get certificates.
pub const CLIENTS: [&str; 5] = ["asp", "ms", "police", "cnam", "demo"];
const SERVER: &str = "server";
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const CA_YEARS: i64 = 20;
const YEARS: i64 = 10;
const ORGANIZATION: &str = "nistru dev";

/// The directory `pki/`.
pub struct Pki<'d> {
    dir: &'d Path,
    /// The files that were made.
    pub created: Vec<PathBuf>,
}

impl<'d> Pki<'d> {
    /// Makes what is missing of the authority, the server's and the `clients`' keys and certificates in `dir`.
    pub fn complete(dir: &'d Path, clients: &[&str]) -> Result<Self, Problem> {
        let mut pki = Self { dir, created: Vec::new() };
        let names = [SERVER].into_iter().chain(clients.iter().copied());
        let (present, missing): (Vec<_>, Vec<_>) = names.partition(|name| pki.certificate(name).exists());
        for name in &present {
            pki.demand_key(name)?;
        }
        if !missing.is_empty() || !pki.certificate("ca").exists() {
            let authority = pki.authority(present.is_empty())?;
            for name in missing {
                pki.issue(&authority, name)?;
            }
        }
        Ok(pki)
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    /// A certificate without its key is of no use, and its key cannot be made again.
    fn demand_key(&self, name: &str) -> Result<(), Problem> {
        if self.key(name).exists() {
            return Ok(());
        }
        let certificate = self.certificate(name);
        let message =
            format!("is missing; remove {} as well, and both are made again", certificate.display());
        Err(Problem::of_file(&self.key(name), message))
    }

    /// A new authority only where the old one has issued nothing: its certificates would lead nowhere.
    fn authority(&mut self, may_be_new: bool) -> Result<Issuer<'static, KeyPair>, Problem> {
        let path = self.certificate("ca");
        if !self.key("ca").exists() && (path.exists() || !may_be_new) {
            let message = format!("is missing, but needed; remove {} to start anew", self.dir.display());
            return Err(Problem::of_file(&self.key("ca"), message));
        }
        let key = self.key_pair("ca")?;
        let certificate = authority_params().self_signed(&key).map_err(|error| unusable(&path, &error))?;
        self.create(&path, &certificate.pem(), Access::Public)?;
        let pem = read(&path)?;
        if !certifies(&pem, &key) {
            let message = format!("is not the certificate of the key {}", self.key("ca").display());
            return Err(Problem::of_file(&path, message));
        }
        Issuer::from_ca_cert_pem(&pem, key).map_err(|error| unusable(&path, &error))
    }

    fn issue(&mut self, authority: &Issuer<'_, KeyPair>, name: &str) -> Result<(), Problem> {
        let path = self.certificate(name);
        let key = self.key_pair(name)?;
        let certificate = params(name).and_then(|params| params.signed_by(&key, authority));
        let certificate = certificate.map_err(|error| unusable(&path, &error))?;
        self.create(&path, &certificate.pem(), Access::Public)
    }

    /// The key of that name, a new one unless its file exists.
    fn key_pair(&mut self, name: &str) -> Result<KeyPair, Problem> {
        let path = self.key(name);
        if !path.exists() {
            let key = KeyPair::generate().map_err(|error| unusable(&path, &error))?;
            self.create(&path, &key.serialize_pem(), Access::Secret)?;
        }
        KeyPair::from_pem(&read(&path)?).map_err(|error| unusable(&path, &error))
    }

    fn create(&mut self, path: &Path, content: &str, access: Access) -> Result<(), Problem> {
        if create(path, content, access)? {
            self.created.push(path.to_owned());
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    fs::read_to_string(path).map_err(|error| Problem::of_file(path, format!("cannot be read: {error}")))
}

fn unusable(path: &Path, error: &rcgen::Error) -> Problem {
    Problem::of_file(path, format!("cannot be made or used: {error}"))
}

fn certifies(pem: &str, key: &KeyPair) -> bool {
    let Some(Ok(pem)) = Pem::iter_from_buffer(pem.as_bytes()).next() else { return false };
    pem.parse_x509()
        .is_ok_and(|certificate| certificate.public_key().subject_public_key.data == key.public_key_raw())
}

fn authority_params() -> CertificateParams {
    let mut params = basic_params("nistru dev CA", CA_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let (names, purpose) = match name {
        SERVER => (SERVER_NAMES.map(str::to_owned).to_vec(), ExtendedKeyUsagePurpose::ServerAuth),
        _ => (Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
    };
    let mut params = basic_params(name, YEARS);
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Valid from yesterday on, for machines whose clocks differ.
fn basic_params(common_name: &str, years: i64) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(365 * years);
    params.serial_number = Some(SerialNumber::from_slice(&serial()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Random, positive and never the same length less: the two highest bits are 0 and 1.
fn serial() -> [u8; 16] {
    let mut serial = uuid::Uuid::new_v4().into_bytes();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

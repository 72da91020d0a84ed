//! Certificates for tests: those of clients and servers that the authority of a test broker issues, and what it revokes.

use crate::harness::{Broker, PATIENCE};
use nistru::client::Endpoint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// Who issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate and those above it, without the root.
    chain: String,
}

/// A certificate chain and its key, in files.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// The one that `nistru dev` made.
    pub fn of(broker: &Broker) -> Self {
        let read = |name: &str| std::fs::read_to_string(broker.pki(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap(), chain: String::new() }
    }

    /// One that nobody knows.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { issuer: Issuer::new(authority(name), key), chain: String::new() }
    }

    /// One that only calls itself what [`Authority::of`] is called.
    pub fn named_as(broker: &Broker) -> Self {
        let pem = std::fs::read_to_string(broker.pki("ca.pem")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, chain: String::new() }
    }

    /// One below this.
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { issuer: Issuer::new(params, key), chain: certificate + &self.chain }
    }

    /// A certificate of a client with the serial number 0x40, 0x00 and then `serial`.
    pub fn client(
        &self,
        dir: &Path,
        name: &str,
        serial: u8,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.serial_number = Some(serial_number(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        self.issue(dir, name, params)
    }

    /// A certificate of a server on this machine.
    pub fn server(&self, dir: &Path, name: &str) -> Identity {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(dir, name, params)
    }

    fn issue(&self, dir: &Path, name: &str, mut params: CertificateParams) -> Identity {
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let identity =
            Identity { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&identity.certificate, certificate + &self.chain).unwrap();
        std::fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// A revocation list of these serial numbers, as PEM.
    pub fn revoked(&self, serials: &[u8]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoke = |&serial: &u8| RevokedCertParams {
            serial_number: serial_number(serial),
            revocation_time: now - Duration::hours(1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoke).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Identity {
    /// How a client with this certificate reaches the broker.
    pub fn endpoint(&self, broker: &Broker) -> Endpoint {
        let files = (self.certificate.as_path(), self.key.as_path());
        Endpoint::new(&broker.url(), &broker.pki("ca.pem"), Some(files)).unwrap().patient(PATIENCE)
    }

    /// Registers the certificate for the client `name`, before the broker starts.
    pub fn register(&self, broker: &Broker, name: &str) {
        let file = broker.registry(&format!("clients/{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let entry = format!("[[certificates]]\nfile = {:?}\n\n[[certificates]]", self.certificate);
        std::fs::write(file, text.replacen("[[certificates]]", &entry, 1)).unwrap();
    }
}

fn serial_number(serial: u8) -> SerialNumber {
    SerialNumber::from_slice(&[0x40, 0, serial])
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

//! Client certificates: proof of possession in the handshake, the chain afterwards.

use super::revocation;
use crate::registry::model::CertificateKey;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most certificates a peer may send. Every further one multiplies the paths to try, which the peer does not pay for.
const CHAIN_MAX: usize = 6;

/// Decides whether a client's certificate chain is good. Shared by all cores; replaced as a whole on reload.
#[derive(Debug)]
pub struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

/// What is wrong with the certificate of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateProblem {
    /// The peer sent none: 400.
    Missing,
    /// No path leads from the certificate to a trusted authority, mostly because the peer left out an
    /// intermediate: 400. Carries the issuer as an RFC 4514 string.
    UnknownIssuer(String),
    /// The certificate is no X.509 certificate, or not one for a TLS client: 400. Carries the reason.
    Unusable(String),
    /// It, or one of its chain, was valid only until then (RFC 3339): 401.
    Expired(String),
    /// It, or one of its chain, becomes valid only then (RFC 3339): 401.
    NotYetValid(String),
    /// A revocation list of its issuer names it: 401.
    Revoked,
}

impl Verifier {
    /// Trusts the certificates that chain to `roots`, except those that `crls` revoke. A certificate of an
    /// authority without a revocation list counts as not revoked, and so does one whose list is out of date:
    /// a forgotten list must not lock every client out.
    pub fn new(
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, VerifierBuilderError> {
        let roots = Arc::new(roots);
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
            .with_crls(crls.clone())
            .allow_unknown_revocation_status()
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain, roots, crls })
    }

    /// The authorities of the lists that newer ones should have replaced by now, and since when.
    pub fn outdated_lists(&self, now: UnixTime) -> Vec<(String, String)> {
        self.crls.iter().filter_map(|list| revocation::outdated(list, now)).collect()
    }

    /// Whether both have the same authorities and revocation lists, and so find the same of every chain.
    pub(super) fn trusts_as(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots && self.crls == other.crls
    }

    /// Checks the chain a peer sent, its own certificate first, and tells whose certificate it is.
    ///
    /// Takes some hundred microseconds of signature checks: once a connection, not once a request.
    pub fn check(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        now: UnixTime,
    ) -> Result<CertificateKey, CertificateProblem> {
        let (leaf, intermediates) = chain.and_then(<[_]>::split_first).ok_or(CertificateProblem::Missing)?;
        if intermediates.len() >= CHAIN_MAX {
            return Err(CertificateProblem::Unusable(format!(
                "more than {CHAIN_MAX} certificates were sent"
            )));
        }
        let key = CertificateKey::of_der(leaf).map_err(CertificateProblem::Unusable)?;
        match self.chain.verify_client_cert(leaf, intermediates, now) {
            Ok(_) => Ok(key),
            Err(error) => Err(CertificateProblem::of(error, key.issuer)),
        }
    }

    /// For the handshake of a `strict` broker: it fails without a certificate that [`check`](Self::check) likes.
    pub(super) fn strict(&self) -> Arc<dyn ClientCertVerifier> {
        self.chain.clone()
    }

    /// For the handshake of any other broker: see [`Possession`].
    pub(super) fn lenient(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Possession { chain: self.chain.clone() })
    }
}

/// Asks for a certificate, takes a missing one, and of a present one checks only that the peer holds its key.
#[derive(Debug)]
struct Possession {
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty: some clients send no certificate at all when their issuer is not among the hints, and could
    /// then not be told what is wrong.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl CertificateProblem {
    fn of(error: rustls::Error, issuer: String) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self::Unusable(error.to_string());
        };
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer(issuer),
            CertificateError::Revoked => Self::Revoked,
            CertificateError::ExpiredContext { not_after, .. } => Self::Expired(instant(not_after)),
            CertificateError::NotValidYetContext { not_before, .. } => Self::NotYetValid(instant(not_before)),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// RFC 3339 with seconds, UTC.
fn instant(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|instant| instant.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", time.as_secs()))
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no client certificate was sent; this service needs one"),
            Self::UnknownIssuer(issuer) => write!(
                f,
                "the client certificate leads to no trusted authority: its issuer \"{issuer}\" is not one, and no \
                 intermediate certificate that leads to one was sent with it"
            ),
            Self::Unusable(reason) => write!(f, "the client certificate cannot be used: {reason}"),
            Self::Expired(at) => write!(f, "the client certificate, or one of its chain, expired at {at}"),
            Self::NotYetValid(at) => {
                write!(f, "the client certificate, or one of its chain, is not valid before {at}")
            }
            Self::Revoked => f.write_str("the client certificate, or one of its chain, is revoked"),
        }
    }
}

impl std::error::Error for CertificateProblem {}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
        ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
        SerialNumber, date_time_ymd,
    };
    use std::time::Duration;

    const SERIAL: u64 = 0x1fa007;

    struct Authority {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 1);
        params
    }

    fn authority(name: &str, above: Option<&Authority>) -> Authority {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn client(authority: &Authority, purpose: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
        let mut params = params("client");
        params.serial_number = Some(SerialNumber::from(SERIAL));
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &authority.issuer).unwrap().into()
    }

    /// Revokes [`SERIAL`].
    fn list() -> CertificateRevocationListParams {
        CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(SERIAL),
                revocation_time: date_time_ymd(2025, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        }
    }

    fn verifier(root: &Authority, crls: Vec<CertificateRevocationListDer<'static>>) -> Verifier {
        let mut roots = RootCertStore::empty();
        roots.add(root.certificate.der().clone()).unwrap();
        Verifier::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()), roots, crls).unwrap()
    }

    fn at(year: i32) -> UnixTime {
        let seconds = date_time_ymd(year, 6, 1).unix_timestamp();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds.unsigned_abs()))
    }

    #[test]
    fn a_certificate_of_a_trusted_authority_is_known_by_issuer_and_serial() {
        let root = authority("root", None);
        let leaf = client(&root, ExtendedKeyUsagePurpose::ClientAuth);
        let key = verifier(&root, Vec::new()).check(Some(&[leaf]), at(2025)).unwrap();
        assert_eq!(key, CertificateKey { issuer: "CN=root".into(), serial: "1fa007".into() });
    }

    #[test]
    fn a_chain_needs_its_intermediates() {
        let root = authority("root", None);
        let middle = authority("middle", Some(&root));
        let leaf = client(&middle, ExtendedKeyUsagePurpose::ClientAuth);
        let verifier = verifier(&root, Vec::new());
        let whole = [leaf.clone(), middle.certificate.der().clone()];
        assert_eq!(verifier.check(Some(&whole), at(2025)).unwrap().issuer, "CN=middle");
        let problem = verifier.check(Some(&[leaf]), at(2025)).unwrap_err();
        assert_eq!(problem, CertificateProblem::UnknownIssuer("CN=middle".into()));
    }

    #[test]
    fn a_peer_without_certificate_is_told_so() {
        let verifier = verifier(&authority("root", None), Vec::new());
        assert_eq!(verifier.check(None, at(2025)), Err(CertificateProblem::Missing));
        assert_eq!(verifier.check(Some(&[]), at(2025)), Err(CertificateProblem::Missing));
    }

    #[test]
    fn a_chain_of_many_certificates_is_refused_before_any_work() {
        let root = authority("root", None);
        let leaf = client(&root, ExtendedKeyUsagePurpose::ClientAuth);
        let problem =
            verifier(&root, Vec::new()).check(Some(&vec![leaf; CHAIN_MAX + 1]), at(2025)).unwrap_err();
        assert!(problem.to_string().contains("more than 6 certificates"), "{problem}");
    }

    #[test]
    fn dates_are_checked_and_named() {
        let root = authority("root", None);
        let leaf = [client(&root, ExtendedKeyUsagePurpose::ClientAuth)];
        let verifier = verifier(&root, Vec::new());
        let expired = verifier.check(Some(&leaf), at(2026)).unwrap_err();
        assert_eq!(expired, CertificateProblem::Expired("2026-01-01T00:00:00Z".into()));
        let early = verifier.check(Some(&leaf), at(2023)).unwrap_err();
        assert_eq!(early, CertificateProblem::NotYetValid("2024-01-01T00:00:00Z".into()));
    }

    #[test]
    fn a_revoked_certificate_is_refused_and_others_of_its_authority_are_not() {
        let root = authority("root", None);
        let list = list().signed_by(&root.issuer).unwrap();
        let verifier = verifier(&root, vec![list.der().clone()]);
        let leaf = client(&root, ExtendedKeyUsagePurpose::ClientAuth);
        assert_eq!(verifier.check(Some(&[leaf]), at(2025)), Err(CertificateProblem::Revoked));
        let other = params("other").signed_by(&KeyPair::generate().unwrap(), &root.issuer).unwrap();
        assert!(verifier.check(Some(&[other.into()]), at(2025)).is_ok());
    }

    #[test]
    fn a_list_must_be_signed_by_the_authority_that_it_names_where_that_is_known() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let (root, impostor, middle) =
            (authority("root", None), authority("root", None), authority("middle", None));
        let mut roots = RootCertStore::empty();
        roots.add(root.certificate.der().clone()).unwrap();
        let checked = |by: &Authority| {
            let list = list().signed_by(&by.issuer).unwrap();
            revocation::check(list.der(), &roots, &provider)
        };
        assert_eq!(checked(&root), Ok(()));
        assert_eq!(checked(&middle), Ok(()));
        assert!(checked(&impostor).unwrap_err().contains("is not signed by \"CN=root\""));
        assert!(revocation::check(b"hello", &roots, &provider).is_err());
    }

    #[test]
    fn a_list_that_should_have_been_replaced_is_told() {
        let root = authority("root", None);
        let list = list().signed_by(&root.issuer).unwrap();
        let verifier = verifier(&root, vec![list.der().clone()]);
        assert_eq!(verifier.outdated_lists(UnixTime::since_unix_epoch(Duration::ZERO)), []);
        assert_eq!(verifier.outdated_lists(at(2026))[0].0, "CN=root");
    }

    #[test]
    fn what_is_no_client_certificate_is_refused_with_a_reason() {
        let root = authority("root", None);
        let verifier = verifier(&root, Vec::new());
        let unusable = [
            CertificateDer::from(b"hello".to_vec()),
            client(&root, ExtendedKeyUsagePurpose::ServerAuth),
            root.certificate.der().clone(),
        ];
        for leaf in unusable {
            let problem = verifier.check(Some(&[leaf]), at(2025)).unwrap_err();
            assert!(matches!(problem, CertificateProblem::Unusable(_)), "{problem}");
        }
    }

    #[test]
    fn a_certificate_that_only_names_a_trusted_authority_is_refused() {
        let (root, impostor) = (authority("root", None), authority("root", None));
        let leaf = client(&impostor, ExtendedKeyUsagePurpose::ClientAuth);
        assert!(verifier(&root, Vec::new()).check(Some(&[leaf]), at(2025)).is_err());
    }
}

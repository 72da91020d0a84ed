//! Client certificates: proof of possession in the handshake, the chain afterwards.

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

/// Decides whether a client's certificate chain is good. Shared by all cores; replaced as a whole on reload.
#[derive(Debug)]
pub struct Verifier {
    chain: Arc<dyn ClientCertVerifier>,
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
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self { chain })
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

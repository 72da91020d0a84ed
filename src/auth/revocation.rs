//! Revocation lists, looked at when they are read: a list that is found out to be forged or broken only when a certificate is
//! held against it would lock out every client of its authority.

use crate::registry::model::CertificateKey;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use x509_parser::asn1_rs::{Any, FromDer};
use x509_parser::prelude::CertificateRevocationList;

/// That the list is signed by its authority, as far as that is one of `roots`: the key of an intermediate authority comes
/// only with its clients.
pub(super) fn check(list: &[u8], roots: &RootCertStore, provider: &CryptoProvider) -> Result<(), String> {
    let signed = Signed::read(list).ok_or("it is not a revocation list")?;
    let issuer = issuer(list)?;
    let mut keys = roots.roots.iter().filter(|root| root.subject.as_ref() == signed.issuer).peekable();
    if keys.peek().is_none() || keys.any(|root| signed.is_by(&root.subject_public_key_info, provider)) {
        return Ok(());
    }
    Err(format!("a revocation list is not signed by \"{issuer}\", which it names as its issuer"))
}

/// Since when a newer list than this should be there, if so, and whose list it is.
pub(super) fn outdated(list: &[u8], now: UnixTime) -> Option<(String, String)> {
    let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
    let next = parsed.next_update()?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    (next.timestamp() < now).then(|| (issuer(list).unwrap_or_default(), next.to_string()))
}

fn issuer(list: &[u8]) -> Result<String, String> {
    let (_, list) = CertificateRevocationList::from_der(list)
        .map_err(|error| format!("it is not a revocation list: {error}"))?;
    CertificateKey::issuer_of(list.issuer())
}

/// The parts of a list, as bytes. Each is the content of its DER element, but for what is signed, which is a whole element.
struct Signed<'l> {
    issuer: &'l [u8],
    message: &'l [u8],
    algorithm: &'l [u8],
    signature: &'l [u8],
}

impl<'l> Signed<'l> {
    fn read(list: &'l [u8]) -> Option<Self> {
        let (_, content) = element(list)?;
        let (rest, tbs) = element(content)?;
        let message = &content[..content.len() - rest.len()];
        let (rest, algorithm) = element(rest)?;
        let (_, bits) = element(rest)?;
        // Version 2, the algorithm once more, then the issuer (RFC 5280, 5.1).
        let (rest, _) = element(tbs)?;
        let (rest, _) = element(rest)?;
        let (_, issuer) = element(rest)?;
        Some(Self { issuer, message, algorithm, signature: bits.strip_prefix(&[0])? })
    }

    /// Whether the key in `info`, the content of a SubjectPublicKeyInfo, made the signature.
    fn is_by(&self, info: &[u8], provider: &CryptoProvider) -> bool {
        let key = element(info)
            .and_then(|(rest, algorithm)| Some((algorithm, element(rest)?.1.strip_prefix(&[0])?)));
        let Some((key_algorithm, key)) = key else { return false };
        provider.signature_verification_algorithms.all.iter().any(|known| {
            known.signature_alg_id().as_ref() == self.algorithm
                && known.public_key_alg_id().as_ref() == key_algorithm
                && known.verify_signature(key, self.message, self.signature).is_ok()
        })
    }
}

/// The first DER element of `bytes`: what follows it, and its content.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, element) = Any::from_der(bytes).ok()?;
    Some((rest, element.data))
}

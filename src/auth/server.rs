//! The TLS side of the listener.

use super::verifier::Verifier;
use crate::config::{Problem, Tls, TlsVersion, pem};
use crate::registry::model::CertificateKey;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::path::Path;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the listener needs to speak TLS. Immutable: a reload makes a new one for new connections.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// For `rustls::ServerConnection::new`.
    pub config: Arc<ServerConfig>,
    /// Checks, after the handshake, the certificates that `ServerConnection::peer_certificates` returns.
    pub verifier: Arc<Verifier>,
}

/// What is read from the files that `[tls]` names.
struct Files {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Verifier,
}

impl ServerTls {
    /// Reads the files of `[tls]` and builds the TLS configuration: TLS 1.2 or 1.3, no session resumption,
    /// `alpn` in order of preference. Reports everything that is wrong with any of the files, a server
    /// certificate that is not valid at `now` included.
    pub fn load(tls: &Tls, alpn: &[&[u8]], now: UnixTime) -> Result<Self, Vec<Problem>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let files = Files::read(tls, &provider, now)?;
        let verifier = Arc::new(files.verifier);
        let client_verifier = if tls.strict { verifier.strict() } else { verifier.lenient() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(tls.min_version))
            .map(|builder| builder.with_client_cert_verifier(client_verifier))
            .and_then(|builder| builder.with_single_cert(files.chain, files.key))
            .map_err(|error| vec![key_problem(tls, error)])?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        forbid_resumption(&mut config);
        Ok(Self { config: Arc::new(config), verifier })
    }
}

static FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// A resumed session would skip the client certificate, and a client that was removed could come back with it.
fn forbid_resumption(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_3,
    }
}

fn key_problem(tls: &Tls, error: rustls::Error) -> Problem {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Problem::of_file(
            &tls.key,
            format!("is not the key of the certificate in {}", tls.certificate.display()),
        ),
        other => Problem::of_file(&tls.key, format!("cannot be used with its certificate: {other}")),
    }
}

impl Files {
    fn read(tls: &Tls, provider: &Arc<CryptoProvider>, now: UnixTime) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let chain = note(pem::certificates(&tls.certificate), &mut problems);
        let key = note(pem::private_key(&tls.key), &mut problems);
        let verifier = verifier(tls, provider, &mut problems);
        if let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) {
            note(valid_at(&tls.certificate, leaf, now), &mut problems);
        }
        match (chain, key, verifier) {
            (Some(chain), Some(key), Some(verifier)) if problems.is_empty() => {
                Ok(Self { chain, key, verifier })
            }
            _ => Err(problems),
        }
    }
}

fn verifier(tls: &Tls, provider: &Arc<CryptoProvider>, problems: &mut Vec<Problem>) -> Option<Verifier> {
    let mut roots = RootCertStore::empty();
    for file in &tls.client_ca {
        for root in note(pem::certificates(file), problems).unwrap_or_default() {
            let added = roots.add(root);
            note(
                added.map_err(|error| Problem::of_file(file, format!("cannot be trusted: {error}"))),
                problems,
            );
        }
    }
    let mut crls = Vec::new();
    for file in &tls.client_crl {
        crls.extend(note(pem::revocation_lists(file), problems).unwrap_or_default());
    }
    if roots.is_empty() {
        return None;
    }
    let at = tls.client_crl.first().or(tls.client_ca.first())?;
    let verifier = Verifier::new(provider.clone(), roots, crls);
    note(verifier.map_err(|error| Problem::of_file(at, error.to_string())), problems)
}

fn note<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// That `certificate`, the first of `file`, is valid at `now`.
pub(super) fn valid_at(file: &Path, certificate: &[u8], now: UnixTime) -> Result<(), Problem> {
    let wrong = |message: String| Err(Problem::of_file(file, message));
    if let Err(reason) = CertificateKey::of_der(certificate) {
        return wrong(reason);
    }
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return wrong("it is not an X.509 certificate".into());
    };
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if validity.not_after.timestamp() < now {
        return wrong(format!("the certificate expired at {}", validity.not_after));
    }
    if validity.not_before.timestamp() > now {
        return wrong(format!("the certificate is not valid before {}", validity.not_before));
    }
    Ok(())
}

//! The TLS side of the listener.

use super::revocation;
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

    /// The same, to replace `running`: a verifier that would find nothing new is kept, so that not every certificate of
    /// every open connection is checked again for nothing.
    pub fn in_place_of(self, running: &Self) -> Self {
        match self.verifier.trusts_as(&running.verifier) {
            true => Self { verifier: running.verifier.clone(), ..self },
            false => self,
        }
    }
}

/// Has the random generator of this thread seeded. It measures the processor's jitter for that, which takes 30 to 50 ms: too long for a
/// task of a core.
pub fn draw_seed() {
    // A generator that does not work fails the handshakes, which say so.
    let _ = aws_lc_rs::default_provider().secure_random.fill(&mut [0]);
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
        for list in note(pem::revocation_lists(file), problems).unwrap_or_default() {
            let checked = revocation::check(&list, &roots, provider);
            note(checked.map_err(|reason| Problem::of_file(file, reason)), problems);
            crls.push(list);
        }
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
pub fn valid_at(file: &Path, certificate: &[u8], now: UnixTime) -> Result<(), Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::CertificateProblem;
    use rustls::client::Resumption;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection};
    use std::path::PathBuf;
    use std::time::Duration;

    struct Dev {
        dir: tempfile::TempDir,
    }

    impl Dev {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            crate::dev::scaffold(dir.path(), 0).unwrap();
            Self { dir }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.dir.path().join("pki").join(name)
        }

        fn tls(&self) -> Tls {
            Tls::new(self.file("server.pem"), self.file("server.key"), vec![self.file("ca.pem")])
        }

        /// A client that trusts this directory's authority and shows the certificate `name` of `from`.
        fn client(&self, name: Option<(&Dev, &str)>) -> ClientConfig {
            let mut roots = RootCertStore::empty();
            roots.add(pem::certificates(&self.file("ca.pem")).unwrap().remove(0)).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(versions(TlsVersion::V1_2))
                .unwrap()
                .with_root_certificates(roots);
            let Some((from, name)) = name else { return builder.with_no_client_auth() };
            let chain = pem::certificates(&from.file(&format!("{name}.pem"))).unwrap();
            let key = pem::private_key(&from.file(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }

    fn now() -> UnixTime {
        UnixTime::now()
    }

    fn connect(
        server: &ServerTls,
        client: &Arc<ClientConfig>,
    ) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(client.clone(), name).unwrap();
        let mut server = ServerConnection::new(server.config.clone()).unwrap();
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let sent = wire.len();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            if sent + wire.len() == 0 {
                return Ok((server, client));
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
    }

    #[test]
    fn a_client_is_known_by_the_certificate_it_showed() {
        let dev = Dev::new();
        let tls = ServerTls::load(&dev.tls(), &[b"h2", b"http/1.1"], now()).unwrap();
        let mut client = dev.client(Some((&dev, "asp")));
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (server, _) = connect(&tls, &Arc::new(client)).unwrap();
        let key = tls.verifier.check(server.peer_certificates(), now()).unwrap();
        let file = pem::certificates(&dev.file("asp.pem")).unwrap();
        assert_eq!(Ok(key), CertificateKey::of_der(&file[0]));
        assert_eq!(server.alpn_protocol(), Some(&b"http/1.1"[..]));
    }

    #[test]
    fn clients_without_a_good_certificate_get_through_the_handshake_to_be_told() {
        let (dev, other) = (Dev::new(), Dev::new());
        let tls = ServerTls::load(&dev.tls(), &[], now()).unwrap();
        let (server, _) = connect(&tls, &Arc::new(dev.client(None))).unwrap();
        let problem = tls.verifier.check(server.peer_certificates(), now());
        assert_eq!(problem, Err(CertificateProblem::Missing));
        let (server, _) = connect(&tls, &Arc::new(dev.client(Some((&other, "asp"))))).unwrap();
        assert!(tls.verifier.check(server.peer_certificates(), now()).is_err());
    }

    #[test]
    fn a_strict_server_refuses_them_in_the_handshake() {
        let (dev, other) = (Dev::new(), Dev::new());
        let tls = ServerTls::load(&Tls { strict: true, ..dev.tls() }, &[], now()).unwrap();
        assert!(connect(&tls, &Arc::new(dev.client(None))).is_err());
        assert!(connect(&tls, &Arc::new(dev.client(Some((&other, "asp"))))).is_err());
        assert!(connect(&tls, &Arc::new(dev.client(Some((&dev, "asp"))))).is_ok());
    }

    #[test]
    fn sessions_are_never_resumed_so_every_connection_shows_its_certificate() {
        let dev = Dev::new();
        let tls = ServerTls::load(&dev.tls(), &[], now()).unwrap();
        for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
            let mut client = dev.client(Some((&dev, "asp")));
            client.resumption = Resumption::in_memory_sessions(8);
            let mut roots = RootCertStore::empty();
            roots.add(pem::certificates(&dev.file("ca.pem")).unwrap().remove(0)).unwrap();
            let mut one_version = ClientConfig::builder_with_provider(client.crypto_provider().clone())
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_client_cert_resolver(client.client_auth_cert_resolver.clone());
            one_version.resumption = client.resumption;
            let client = Arc::new(one_version);
            for _ in 0..2 {
                let (server, _) = connect(&tls, &client).unwrap();
                assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
                assert!(server.peer_certificates().is_some());
            }
        }
    }

    #[test]
    fn the_oldest_version_can_be_raised() {
        let dev = Dev::new();
        let tls = ServerTls::load(&Tls { min_version: TlsVersion::V1_3, ..dev.tls() }, &[], now()).unwrap();
        let (server, _) = connect(&tls, &Arc::new(dev.client(None))).unwrap();
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let only_1_2 = ClientConfig::builder_with_provider(tls.config.crypto_provider().clone())
            .with_protocol_versions(&[&version::TLS12])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        assert!(connect(&tls, &Arc::new(only_1_2)).is_err());
    }

    #[test]
    fn every_unusable_file_is_reported() {
        let dev = Dev::new();
        let tls = Tls {
            certificate: dev.file("ca.key"),
            key: dev.file("ca.pem"),
            client_crl: vec![dev.file("no.pem")],
            ..dev.tls()
        };
        let problems = ServerTls::load(&tls, &[], now()).unwrap_err();
        let files: Vec<_> = problems.iter().map(|problem| problem.file.clone()).collect();
        assert_eq!(files, [dev.file("ca.key"), dev.file("ca.pem"), dev.file("no.pem")]);
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let dev = Dev::new();
        let tls = Tls { key: dev.file("asp.key"), ..dev.tls() };
        let problems = ServerTls::load(&tls, &[], now()).unwrap_err();
        assert!(problems[0].message.starts_with("is not the key of the certificate"), "{problems:?}");
    }

    #[test]
    fn a_server_certificate_out_of_its_dates_is_told() {
        let dev = Dev::new();
        let year = 365 * 86_400;
        for (at, part) in
            [(now().as_secs() + 11 * year, "expired"), (now().as_secs() - year, "not valid before")]
        {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            let problems = ServerTls::load(&dev.tls(), &[], at).unwrap_err();
            assert!(problems[0].message.contains(part), "{problems:?}");
        }
    }
}

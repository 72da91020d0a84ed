//! Where the broker is, whom to trust and which certificate to show.

use super::Error;
use fluent_uri::Uri;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::fmt;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Port of the broker when the URL names none.
const DEFAULT_PORT: u16 = 8443;
/// Longest wait for a connection, for one read and for one write, unless set.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Everything a connection needs to know before it is opened.
#[derive(Clone)]
pub struct Endpoint {
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    patience: Duration,
}

/// Which TLS versions to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl TlsVersions {
    fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static ONLY_13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Only12 => &ONLY_12,
            Self::Only13 => &ONLY_13,
        }
    }
}

impl Endpoint {
    /// The broker at `url` (`https://HOST[:PORT]`), which must show a certificate under the authorities in the PEM
    /// file `ca`. `identity` names the PEM files of the client's certificate chain and its private key.
    pub fn new(url: &str, ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, Error> {
        Self::with_versions(url, ca, identity, TlsVersions::Both)
    }

    /// As [`Endpoint::new`], offering only some versions of TLS.
    pub fn with_versions(
        url: &str,
        ca: &Path,
        identity: Option<(&Path, &Path)>,
        versions: TlsVersions,
    ) -> Result<Self, Error> {
        let (host, port) = address(url)?;
        let server_name = ServerName::try_from(host.clone()).map_err(|_| {
            Error::Setup(format!("URL \"{url}\": \"{host}\" is neither a host name nor an address"))
        })?;
        let tls = Arc::new(client_config(ca, identity, versions)?);
        Ok(Self { host, port, server_name, tls, patience: DEFAULT_PATIENCE })
    }

    /// The broker of a directory made by `nistru dev`, as its client `name`: certificates are taken from `DIR/pki`.
    pub fn of_dev(url: &str, dir: &Path, name: &str) -> Result<Self, Error> {
        let (ca, certificate, key) = dev_files(dir, name);
        Self::new(url, &ca, Some((&certificate, &key)))
    }

    /// The same with another bound on each wait.
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same, offering these protocols by ALPN instead of HTTP/1.1, or not using ALPN when there are none.
    pub fn offering(mut self, protocols: &[&[u8]]) -> Self {
        Arc::make_mut(&mut self.tls).alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Host and port as a `Host` header writes them.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Host name, or address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the broker's certificate must be for.
    pub fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// Certificates and protocols, for whoever drives TLS himself.
    pub fn tls(&self) -> Arc<ClientConfig> {
        self.tls.clone()
    }

    /// A connection to the first of its addresses that answers.
    pub fn dial(&self) -> Result<TcpStream, Error> {
        let unreachable = |cause| Error::Unreachable { address: self.authority(), cause };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host(), self.port).to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&address, self.patience) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    /// Bound of each wait.
    pub fn patience(&self) -> Duration {
        self.patience
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// The authority, certificate and key files of client `name` below a directory made by `nistru dev`.
pub fn dev_files(dir: &Path, name: &str) -> (PathBuf, PathBuf, PathBuf) {
    let pki = dir.join("pki");
    (pki.join("ca.pem"), pki.join(format!("{name}.pem")), pki.join(format!("{name}.key")))
}

/// Host (without brackets) and port of `https://HOST[:PORT]`.
fn address(url: &str) -> Result<(String, u16), Error> {
    let wrong = |why: &str| Error::Setup(format!("URL \"{url}\": {why}; expected https://HOST[:PORT]"));
    let uri = Uri::parse(url).map_err(|error| wrong(&error.to_string()))?;
    if !uri.scheme().as_str().eq_ignore_ascii_case("https") {
        return Err(wrong("the scheme is not https"));
    }
    if !matches!(uri.path().as_str(), "" | "/") || uri.has_query() || uri.has_fragment() {
        return Err(wrong("there is something after the port"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("there is no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong("there is no host"));
    }
    let port = authority.port_to_u16().map_err(|_| wrong("the port is not a number up to 65535"))?;
    Ok((host.to_owned(), port.unwrap_or(DEFAULT_PORT)))
}

fn client_config(
    ca: &Path,
    identity: Option<(&Path, &Path)>,
    versions: TlsVersions,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions.list())
        .map_err(Error::Tls)?
        .with_root_certificates(authorities(ca)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| mismatch(certificate, key, error))?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Every connection shows its certificate: what is tested and measured is the full handshake.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn mismatch(certificate: &Path, key: &Path, error: rustls::Error) -> Error {
    let (certificate, key) = (certificate.display(), key.display());
    Error::Setup(format!("{key}: cannot be used with the certificate {certificate}: {error}"))
}

fn authorities(file: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        let wrong =
            |error| Error::Setup(format!("{}: not an authority's certificate: {error}", file.display()));
        store.add(certificate).map_err(wrong)?;
    }
    Ok(store)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error| Error::Setup(format!("{}: {}", file.display(), pem_problem(error)));
    let list = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(wrong)?;
    if list.is_empty() {
        return Err(Error::Setup(format!("{}: no certificate in it; expected PEM", file.display())));
    }
    Ok(list)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let wrong = |error| Error::Setup(format!("{}: {}", file.display(), pem_problem(error)));
    PrivateKeyDer::from_pem_file(file).map_err(wrong)
}

fn pem_problem(error: rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error::{Io, NoItemsFound};
    match error {
        Io(error) => error.to_string(),
        NoItemsFound => "no private key in it; expected PEM".to_owned(),
        other => format!("not PEM: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_host_and_port() {
        let accepted = |url: &str| address(url).unwrap();
        assert_eq!(accepted("https://localhost:9000"), ("localhost".to_owned(), 9000));
        assert_eq!(accepted("HTTPS://events.example/"), ("events.example".to_owned(), 8443));
        assert_eq!(accepted("https://[::1]:1"), ("::1".to_owned(), 1));
    }

    #[test]
    fn anything_else_is_refused_with_what_was_expected() {
        for url in [
            "localhost:8443",
            "http://localhost",
            "https://",
            "https://h:70000",
            "https://h/ce",
            "https://h?a",
            "",
        ] {
            let error = address(url).unwrap_err().to_string();
            assert!(error.contains("expected https://HOST[:PORT]"), "{url}: {error}");
        }
    }

    #[test]
    fn a_missing_or_wrong_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let problem = |ca: &Path| Endpoint::new("https://localhost", ca, None).unwrap_err().to_string();
        assert!(problem(&ca).contains("ca.pem"));
        std::fs::write(&ca, "no PEM here").unwrap();
        assert!(problem(&ca).contains("ca.pem: no certificate in it"));
    }
}

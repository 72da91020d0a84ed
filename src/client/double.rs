//! A stand-in for the broker in tests: a TLS listener that asks for client certificates and plays a script.

use super::Endpoint;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use tempfile::TempDir;

/// The server's side of one connection.
pub(crate) type Peer = StreamOwned<ServerConnection, TcpStream>;

/// A listener on a free port with a directory as `nistru dev` lays it out: certificates of `demo`.
pub(crate) struct Double {
    pub dir: TempDir,
    pub url: String,
}

impl Double {
    /// Gives every connection, on a thread of its own, to `serve` with its number from 0.
    pub fn start(serve: impl Fn(usize, Peer) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Arc::new(certify(&dir.path().join("pki")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for (number, socket) in listener.incoming().enumerate() {
                let peer = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket.unwrap());
                let serve = serve.clone();
                thread::spawn(move || serve(number, peer));
            }
        });
        Self { dir, url }
    }

    /// The endpoint of client `demo`.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::of_dev(&self.url, self.dir.path(), "demo").unwrap()
    }
}

/// Reads one request with a `Content-Length`: its head and its body. Empty at the end of the connection.
pub(crate) fn read_request(peer: &mut Peer) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(peer.read(&mut byte), Ok(1)) {
            return Default::default();
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let is_length = |name: &str| name.eq_ignore_ascii_case("Content-Length");
    let length = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| is_length(name));
    let length = length.map_or("0", |(_, length)| length);
    let mut body = vec![0; length.parse().unwrap()];
    peer.read_exact(&mut body).unwrap();
    (head, body)
}

/// Writes an authority and certificates under it, and makes the server's configuration.
fn certify(pki: &Path) -> ServerConfig {
    fs::create_dir(pki).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let key = KeyPair::generate().unwrap();
    fs::write(pki.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    for (name, host) in [("server", "localhost"), ("demo", "demo")] {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        fs::write(pki.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(pki.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    server_config(pki)
}

fn server_config(pki: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = |name: &str| CertificateDer::from_pem_file(pki.join(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![certificate("server.pem")],
            PrivateKeyDer::from_pem_file(pki.join("server.key")).unwrap(),
        )
        .unwrap()
}

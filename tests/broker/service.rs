//! A service of others: HTTPS with client certificates on a free port, with answers that a test decides on.

use crate::authority::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// A request.
pub struct Request {
    /// `GET /path?query`.
    pub line: String,
}

/// What comes of a request.
pub enum Response {
    /// An answer with this status and body.
    Answer(u16, String),
    /// Nothing, for as long as the client waits.
    Silence,
}

type Connection = StreamOwned<ServerConnection, TcpStream>;

/// Answers every request with what `respond` says, each connection on a thread of its own, for as long as the test runs. Takes
/// clients with certificates of the authorities in `ca` only. Gives the port.
pub fn start(
    identity: &Identity,
    ca: &Path,
    respond: impl Fn(Request) -> Response + Send + Sync + 'static,
) -> u16 {
    let config = Arc::new(config(identity, ca));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let respond = Arc::new(respond);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (config, respond) = (config.clone(), respond.clone());
            thread::spawn(move || {
                let tls = ServerConnection::new(config).unwrap();
                serve(StreamOwned::new(tls, socket.unwrap()), &*respond);
            });
        }
    });
    port
}

fn config(identity: &Identity, ca: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let chain = CertificateDer::pem_file_iter(&identity.certificate).unwrap().map(Result::unwrap).collect();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&identity.key).unwrap())
        .unwrap()
}

fn serve(mut connection: Connection, respond: &dyn Fn(Request) -> Response) {
    while let Some(request) = read_request(&mut connection) {
        match respond(request) {
            Response::Answer(status, body) => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                if connection.write_all((head + &body).as_bytes()).is_err() {
                    return;
                }
            }
            Response::Silence => {
                // Until the client has had enough.
                let _ = connection.read(&mut [0]);
                return;
            }
        }
    }
}

/// `None` at the end of the connection, or when it has failed.
fn read_request(connection: &mut Connection) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
    let length = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| is_length(name));
    let length = length.map_or(Ok(0), |(_, length)| length.parse()).ok()?;
    connection.read_exact(&mut vec![0; length]).ok()?;
    Some(Request { line })
}

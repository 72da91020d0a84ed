//! The server's side of TLS 1.3: decrypting requests, encrypting event frames.

use crate::{HotPath, READY_RUNS, sample, websocket};
use nistru::auth::ServerTls;
use nistru::config::pem;
use nistru::net::connection::decrypt;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConnection};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Both ends of a connection whose hands are shaken.
struct Pair {
    server: ServerConnection,
    client: ClientConnection,
}

/// Receives the same request again and again.
struct Receiving {
    pair: Pair,
    request: Vec<u8>,
    /// Encrypted requests; those before `next` have been received.
    encrypted: Vec<Vec<u8>>,
    next: usize,
    plain: Vec<u8>,
}

/// Sends the same frames again and again.
struct Sending {
    pair: Pair,
    frames: Vec<u8>,
    encrypted: Vec<u8>,
}

/// A POST of so many events.
pub fn received(events: usize) -> Box<dyn HotPath> {
    let (pair, request) = (Pair::new(), sample::post(events));
    Box::new(Receiving { pair, request, encrypted: Vec::new(), next: 0, plain: Vec::new() })
}

/// Frames of so many events.
pub fn sent(events: usize) -> Box<dyn HotPath> {
    Box::new(Sending { pair: Pair::new(), frames: websocket::frames(events), encrypted: Vec::new() })
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = nistru::dev::config(dir.path(), Some(0), None).expect("a development directory");
        let tls = ServerTls::load(&config.tls, &[b"http/1.1"], UnixTime::now()).expect("good certificates");
        let mut server = ServerConnection::new(tls.config).expect("a server");
        server.set_buffer_limit(None);
        let mut client = client(&dir.path().join("pki"));
        client.set_buffer_limit(None);
        let mut pair = Self { server, client };
        while pair.server.is_handshaking() || pair.client.is_handshaking() {
            take(&mut pair.server, &flush(&mut pair.client));
            take(&mut pair.client, &flush(&mut pair.server));
        }
        pair
    }
}

fn client(pki: &Path) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = pem::certificates(&pki.join("ca.pem")).expect("the authority").remove(0);
    roots.add(authority).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            pem::certificates(&pki.join("demo.pem")).expect("a certificate"),
            pem::private_key(&pki.join("demo.key")).expect("a key"),
        );
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(Arc::new(config.expect("an identity")), name).expect("a client")
}

/// All that an end wants to send.
fn flush<Data>(end: &mut ConnectionCommon<Data>) -> Vec<u8> {
    let mut wire = Vec::new();
    while end.wants_write() {
        end.write_tls(&mut wire).expect("vectors take everything");
    }
    wire
}

/// Gives an end what the other one sent, and returns what it said.
fn take<Data>(end: &mut ConnectionCommon<Data>, mut wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        end.read_tls(&mut wire).expect("room");
        end.process_new_packets().expect("good records");
        match end.reader().read_to_end(&mut plain) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("the connection ended: {error}"),
            _ => {}
        }
    }
    plain
}

impl HotPath for Receiving {
    fn ready(&mut self) {
        self.encrypted.drain(..self.next);
        self.next = 0;
        while self.encrypted.len() < READY_RUNS as usize {
            self.pair.client.writer().write_all(&self.request).expect("no limit");
            self.encrypted.push(flush(&mut self.pair.client));
        }
    }

    fn run(&mut self) {
        self.plain.clear();
        let take = |record: &[u8]| self.plain.extend_from_slice(record);
        decrypt(&mut self.pair.server, &self.encrypted[self.next], take).expect("good records");
        self.next += 1;
    }

    fn outcome(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.plain)
    }
}

impl HotPath for Sending {
    fn run(&mut self) {
        let server = &mut self.pair.server;
        server.writer().write_all(&self.frames).expect("no limit");
        self.encrypted.clear();
        while server.wants_write() {
            server.write_tls(&mut self.encrypted).expect("vectors take everything");
        }
    }

    fn outcome(&mut self) -> Vec<u8> {
        take(&mut self.pair.client, &self.encrypted)
    }
}

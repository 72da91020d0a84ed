//! MLog for tests: an HTTPS service that asks for client certificates, answers as told, and can be stopped and started again.

use crate::harness::Broker;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

type Peer = StreamOwned<ServerConnection, TcpStream>;
type Script = dyn Fn(&str, usize) -> Reply + Send + Sync;

/// The address of the service, whether or not it runs.
pub struct Mlog {
    address: SocketAddr,
    /// Numbers of all records that were ever accepted.
    seen: Arc<Mutex<BTreeSet<u64>>>,
}

/// A running service; stops when it is dropped.
pub struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the service does with a request.
pub enum Reply {
    Status(u16),
    Hang,
}

struct Shared {
    config: Arc<ServerConfig>,
    script: Box<Script>,
    stopping: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    accepted: Mutex<Vec<u64>>,
    sizes: Mutex<Vec<usize>>,
    seen: Arc<Mutex<BTreeSet<u64>>>,
}

impl Mlog {
    /// An address on which nothing listens yet.
    pub fn reserve() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { address, seen: Arc::default() }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/api/", self.address.port())
    }

    /// Starts the service with the certificates of `broker`. `script` gets the body of each request and its number.
    pub fn serve(
        &self,
        broker: &Broker,
        script: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Service {
        let shared = Arc::new(Shared {
            config: Arc::new(config(broker)),
            script: Box::new(script),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            accepted: Mutex::default(),
            sizes: Mutex::default(),
            seen: self.seen.clone(),
        });
        let listener = TcpListener::bind(self.address).unwrap();
        let serving = shared.clone();
        let thread = thread::spawn(move || accept(&listener, &serving));
        Service { address: self.address, shared, thread: Some(thread) }
    }

    /// Numbers of all records that were ever accepted.
    pub fn seen(&self) -> BTreeSet<u64> {
        self.seen.lock().unwrap().clone()
    }
}

impl Service {
    /// Numbers of the accepted records, in order.
    pub fn accepted(&self) -> Vec<u64> {
        self.shared.accepted.lock().unwrap().clone()
    }

    /// Sizes of all requests.
    pub fn sizes(&self) -> Vec<usize> {
        self.shared.sizes.lock().unwrap().clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        drop(TcpStream::connect(self.address));
        for connection in self.shared.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(SeqCst) {
            return;
        }
        let socket = socket.unwrap();
        shared.connections.lock().unwrap().push(socket.try_clone().unwrap());
        let peer = StreamOwned::new(ServerConnection::new(shared.config.clone()).unwrap(), socket);
        let shared = shared.clone();
        thread::spawn(move || serve(peer, &shared));
    }
}

fn serve(mut peer: Peer, shared: &Shared) {
    while let Some((head, body)) = read_request(&mut peer) {
        assert!(head.starts_with("POST /api/register HTTP/1.1\r\n"), "{head}");
        let number = {
            let mut sizes = shared.sizes.lock().unwrap();
            sizes.push(body.len());
            sizes.len() - 1
        };
        match (shared.script)(&body, number) {
            Reply::Hang => {
                let _ = peer.read(&mut [0; 1]);
                return;
            }
            Reply::Status(status) => {
                if status < 300 {
                    keep(shared, &body);
                }
                if write!(peer, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").is_err() {
                    return;
                }
            }
        }
    }
}

fn keep(shared: &Shared, body: &str) {
    let record = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a record a line");
    let numbers: Vec<u64> = body.lines().map(|line| record(line)["seq"].as_u64().unwrap()).collect();
    shared.seen.lock().unwrap().extend(&numbers);
    shared.accepted.lock().unwrap().extend(numbers);
}

fn read_request(peer: &mut Peer) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(peer.read(&mut byte), Ok(1)) {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let is_length = |name: &str| name.eq_ignore_ascii_case("Content-Length");
    let length = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| is_length(name))?.1;
    let mut body = vec![0; length.parse().unwrap()];
    peer.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn config(broker: &Broker) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = |name: &str| CertificateDer::from_pem_file(broker.pki(name)).unwrap();
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
            PrivateKeyDer::from_pem_file(broker.pki("server.key")).unwrap(),
        )
        .unwrap()
}

//! The connection between a coordinator and an agent: messages of JSON, each after its length, over TLS 1.3.
//!
//! Both ends show the client certificate with which they come to the broker, and each takes only its own: a run is
//! directed by nobody but a holder of the same private key. So there is nothing to set up, and names, authorities and
//! expiry do not matter.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, ServerConnection, SignatureScheme, StreamOwned,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Largest message in bytes; what consumers of many producers have received is some MiB.
const MESSAGE_BYTES_MAX: u32 = 256 << 20;
/// Longest wait for a connection and for its handshake.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Both ends of a link that this process may be.
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

/// One end of a connection.
pub struct Link<S>(S);

pub type Outgoing = Link<StreamOwned<ClientConnection, TcpStream>>;
pub type Incoming = Link<StreamOwned<ServerConnection, TcpStream>>;

impl Identity {
    /// That of the holder of `key`, PEM files.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(certificate, &error))?;
        let ours = chain.first().ok_or_else(|| wrong(certificate, &"no certificate in it"))?.clone();
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(OnlyOurs { ours, provider: provider.clone() });
        let versions = &[&rustls::version::TLS13];
        let unusable = |error: Error| wrong(certificate, &error);
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_auth_cert(chain.clone(), secret.clone_key())
            .map_err(unusable)?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, secret)
            .map_err(unusable)?;
        // A resumed session would not ask for the certificate again.
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }

    /// Connects to the agent at `address`, HOST:PORT.
    pub fn connect(&self, address: &str) -> io::Result<Outgoing> {
        let socket = dial(address)?;
        // The name plays no part: the certificate is compared as a whole.
        let name = ServerName::try_from("agent").expect("a valid name");
        let tls = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Link(stream))
    }

    /// Completes the handshake with a coordinator.
    pub fn accept(&self, socket: TcpStream) -> io::Result<Incoming> {
        patient(&socket, CONNECT_PATIENCE)?;
        let tls = ServerConnection::new(self.server.clone()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Link(stream))
    }
}

fn dial(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(socket) => {
                patient(&socket, CONNECT_PATIENCE)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn patient(socket: &TcpStream, patience: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))
}

impl Outgoing {
    /// Sets the longest wait for the other side to go on.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        patient(&self.0.sock, patience)
    }
}

impl Incoming {
    /// Sets the longest wait for the other side to go on.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        patient(&self.0.sock, patience)
    }
}

impl<S: Read + Write> Link<S> {
    pub fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a message of too many bytes"))?;
        self.0.write_all(&length.to_be_bytes())?;
        self.0.write_all(&body)?;
        self.0.flush()
    }

    pub fn receive<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).map_err(end)?;
        let length = u32::from_be_bytes(length);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        // It grows with what comes, not with what was announced.
        let mut body = Vec::new();
        (&mut self.0).take(u64::from(length)).read_to_end(&mut body).map_err(end)?;
        if body.len() < length as usize {
            return Err(end(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

/// What a process that dies leaves behind, in place of what TLS has to say about it.
fn end(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::UnexpectedEof => io::Error::new(kind, "the other side ended the connection"),
        _ => error,
    }
}

/// Takes one certificate, and proof of its key.
#[derive(Debug)]
struct OnlyOurs {
    ours: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl OnlyOurs {
    fn check(&self, theirs: &CertificateDer<'_>) -> Result<(), Error> {
        if *theirs == self.ours {
            return Ok(());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Only TLS 1.3 is offered.
fn no_tls12() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}

impl ServerCertVerifier for OnlyOurs {
    fn verify_server_cert(
        &self,
        theirs: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(theirs).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for OnlyOurs {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        theirs: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(theirs).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// What both ends make of each other when they are these clients of one broker.
    fn meet(coordinator: &str, agent: &str) -> (io::Result<String>, io::Result<String>) {
        let dir = tempfile::tempdir().unwrap();
        nistru::dev::scaffold(dir.path(), 0).unwrap();
        let pki = dir.path().join("pki");
        let identity = |name: &str| {
            Identity::read(&pki.join(format!("{name}.pem")), &pki.join(format!("{name}.key"))).unwrap()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (ours, theirs) = (identity(coordinator), identity(agent));
        thread::scope(|scope| {
            let agent = scope.spawn(|| {
                let mut link = theirs.accept(listener.accept().unwrap().0)?;
                let message: String = link.receive()?;
                link.send(&message)?;
                Ok(message)
            });
            let talk = || {
                let mut link = ours.connect(&address)?;
                link.send(&"x".repeat(100_000))?;
                link.receive()
            };
            (talk(), agent.join().unwrap())
        })
    }

    #[test]
    fn holders_of_the_same_key_understand_each_other() {
        let (there, back) = meet("demo", "demo");
        assert_eq!(there.unwrap(), back.unwrap());
    }

    #[test]
    fn another_client_of_the_same_broker_is_not_obeyed() {
        let (there, back) = meet("server", "demo");
        assert!(there.is_err() && back.is_err());
    }
}

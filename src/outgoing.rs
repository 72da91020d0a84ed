//! Requests that the broker itself makes of other services, over HTTPS with a client certificate.
//!
//! Blocking: whoever calls brings a thread of its own, never an executor. A request takes at most the service's timeout,
//! the connection included, and its answer at most a bound of bytes. Redirects are not followed, because a service that
//! is reached with the broker's certificate is the one that the operator named; for the same reason the proxy variables
//! of the environment are not looked at.

use crate::auth::valid_at;
use crate::config::service::Service;
use crate::config::{Problem, pem};
use base64::prelude::{BASE64_STANDARD, Engine};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, Error};

/// A connection must stand within this part of the timeout, so that a service that is down shows before one that is slow.
const CONNECT_PART: u32 = 2;
/// How much of the body of a failing answer is told.
const EXCERPT_BYTES: u64 = 512;
/// Idle connections are closed before most servers and middle boxes do it unasked.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A client of one service. Cheap to clone; clones share the kept connections.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    timeout: Duration,
    answer_bytes_max: u64,
}

/// An answer with a status of 200 to 299.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Why a request failed, by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke. What was asked may or may not have happened.
    Unreachable(String),
    /// One side refuses the certificate of the other, or TLS cannot be agreed on.
    Tls(String),
    /// The timeout passed.
    Timeout(Duration),
    /// The service answered, but not with a status of 200 to 299.
    Status { status: u16, excerpt: String },
    /// The answer is larger than this.
    TooLarge(u64),
    /// The answer is not HTTP.
    Protocol(String),
}

/// What is read from the files of a service.
struct Files {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
}

/// Everything that is wrong with the files of `service`, a certificate that is not valid at `now` included.
pub fn check(service: &Service, now: UnixTime) -> Vec<Problem> {
    match Files::read(service) {
        Ok(files) => {
            files.chain.iter().filter_map(|der| valid_at(&service.certificate, der, now).err()).collect()
        }
        Err(problems) => problems,
    }
}

impl Client {
    /// A client of `service` that takes answers of at most `answer_bytes_max`. Reads the certificates but makes no
    /// connection. An expired certificate is no reason to fail: the service will say so, and what it answered before may
    /// still be of use.
    pub fn load(service: &Service, answer_bytes_max: usize) -> Result<Self, Vec<Problem>> {
        let files = Files::read(service)?;
        let owned = |der: &CertificateDer<'_>| Certificate::from_der(der).to_owned();
        let chain: Vec<_> = files.chain.iter().map(owned).collect();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider())
            .root_certs(RootCerts::from(files.roots.iter().map(owned)))
            .client_cert(Some(ClientCert::new_with_certs(&chain, private_key(&files.key))))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("nistru/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(service.timeout / CONNECT_PART))
            .max_idle_age(IDLE_MAX)
            .build();
        Ok(Self {
            agent: config.new_agent(),
            url: service.url.clone(),
            timeout: service.timeout,
            answer_bytes_max: answer_bytes_max as u64,
        })
    }

    /// `GET {url}{rest}`. Asked once more when a kept connection turns out to be closed.
    pub fn get(&self, rest: &str) -> Result<Answer, Failure> {
        let began = Instant::now();
        let ask = || self.send(Method::GET, rest, None, self.timeout.saturating_sub(began.elapsed()));
        match ask() {
            Err(Error::Io(error)) if is_hang_up(&error) => ask(),
            answered => answered,
        }
        .map_err(|error| self.failure(error))
        .and_then(|response| self.read(response))
    }

    /// `POST {url}{rest}`. Never repeated here: the service may have seen what failed.
    pub fn post(&self, rest: &str, content_type: &str, body: &[u8]) -> Result<Answer, Failure> {
        let sent = self.send(Method::POST, rest, Some((content_type, body)), self.timeout);
        sent.map_err(|error| self.failure(error)).and_then(|response| self.read(response))
    }

    fn send(
        &self,
        method: Method,
        rest: &str,
        content: Option<(&str, &[u8])>,
        within: Duration,
    ) -> Result<Response<Body>, Error> {
        let request = Request::builder().method(method).uri(format!("{}{rest}", self.url));
        let (request, body) = match content {
            Some((content_type, body)) => (request.header("Content-Type", content_type), body),
            None => (request, &[][..]),
        };
        let request = self.agent.configure_request(request.body(body)?).timeout_global(Some(within)).build();
        self.agent.run(request)
    }

    fn read(&self, mut response: Response<Body>) -> Result<Answer, Failure> {
        let status = response.status();
        let bytes_max = if status.is_success() { self.answer_bytes_max } else { EXCERPT_BYTES };
        // What is beyond an excerpt is of no interest, and neither is an excerpt that breaks.
        let body = response.body_mut().with_config().limit(bytes_max).read_to_vec();
        match body {
            _ if !status.is_success() => {
                let excerpt = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                Err(Failure::Status { status: status.as_u16(), excerpt })
            }
            Ok(body) => Ok(Answer { status: status.as_u16(), body }),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// The one place that sorts the errors of the library.
    fn failure(&self, error: Error) -> Failure {
        match error {
            Error::Timeout(_) => Failure::Timeout(self.timeout),
            Error::Io(error) if is_timeout(&error) => Failure::Timeout(self.timeout),
            Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                Some(tls) => Failure::Tls(tls.to_string()),
                None => Failure::Unreachable(error.to_string()),
            },
            Error::Rustls(error) => Failure::Tls(error.to_string()),
            Error::Tls(reason) => Failure::Tls(reason.to_owned()),
            Error::HostNotFound | Error::ConnectionFailed => Failure::Unreachable(error.to_string()),
            Error::BodyExceedsLimit(bytes) => Failure::TooLarge(bytes),
            other => Failure::Protocol(other.to_string()),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn is_hang_up(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The library takes a key of any kind only as PEM.
fn private_key(key: &PrivateKeyDer<'_>) -> PrivateKey<'static> {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let body = BASE64_STANDARD.encode(key.secret_der());
    let pem = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    PrivateKey::from_pem(pem.as_bytes()).expect("the PEM was made here")
}

impl Files {
    fn read(service: &Service) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut note = |problem| problems.push(problem);
        let chain = pem::certificates(&service.certificate).map_err(&mut note).ok();
        let key = pem::private_key(&service.key).map_err(&mut note).ok();
        let mut roots = Vec::new();
        for file in &service.ca {
            match pem::certificates(file) {
                Ok(found) => roots.extend(found.into_iter().map(|root| (file, root))),
                Err(problem) => note(problem),
            }
        }
        let mut store = RootCertStore::empty();
        for (file, root) in &roots {
            if let Err(error) = store.add(root.clone()) {
                note(Problem::of_file(file, format!("cannot be trusted: {error}")));
            }
        }
        let (Some(chain), Some(key), true) = (chain, key, problems.is_empty()) else { return Err(problems) };
        let files = Self { chain, key, roots: roots.into_iter().map(|(_, root)| root).collect() };
        match files.fit_together(store) {
            Ok(()) => Ok(files),
            Err(error) => Err(vec![key_problem(service, &error)]),
        }
    }

    /// That TLS can be spoken with these: the library that speaks it later takes that for granted.
    fn fit_together(&self, roots: RootCertStore) -> Result<(), rustls::Error> {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map(drop)
    }
}

fn key_problem(service: &Service, error: &rustls::Error) -> Problem {
    let message = match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("is not the key of the certificate in {}", service.certificate.display())
        }
        other => format!("cannot be used with its certificate: {other}"),
    };
    Problem::of_file(&service.key, message)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) => write!(f, "the service cannot be reached: {reason}"),
            Self::Tls(reason) => write!(f, "no TLS connection with the service: {reason}"),
            Self::Timeout(limit) => write!(f, "the service did not answer within {limit:?}"),
            Self::Status { status, excerpt } if excerpt.is_empty() => {
                write!(f, "the service answered {status}")
            }
            Self::Status { status, excerpt } => write!(f, "the service answered {status}: {excerpt:?}"),
            Self::TooLarge(bytes_max) => {
                write!(f, "the answer of the service is larger than {bytes_max} bytes")
            }
            Self::Protocol(reason) => write!(f, "the service does not answer as HTTP asks: {reason}"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::double::{Double, Peer, read_request};
    use std::io::{Read, Write};
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    fn service(double: &Double) -> Service {
        let file = |name: &str| double.dir.path().join("pki").join(name);
        Service {
            url: format!("{}/api", double.url),
            certificate: file("demo.pem"),
            key: file("demo.key"),
            ca: vec![file("ca.pem")],
            timeout: Duration::from_secs(20),
        }
    }

    fn answer(peer: &mut Peer, status: &str, body: &str) {
        let length = body.len();
        write!(peer, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    }

    /// A client of a service that gives every request the same answer.
    fn answering(status: &'static str, body: &'static str) -> (Double, Client) {
        let double = Double::start(move |_, mut peer| {
            while !read_request(&mut peer).0.is_empty() {
                answer(&mut peer, status, body);
            }
        });
        let client = Client::load(&service(&double), 64).unwrap();
        (double, client)
    }

    #[test]
    fn requests_arrive_under_the_address_with_their_bodies_on_one_connection() {
        let (seen, requests) = channel();
        let seen = Mutex::new(seen);
        let double = Double::start(move |number, mut peer| {
            loop {
                let (head, body) = read_request(&mut peer);
                if head.is_empty() {
                    return;
                }
                let line = head.lines().next().unwrap().to_owned();
                seen.lock().unwrap().send((number, line, body)).unwrap();
                answer(&mut peer, "200 OK", "fine");
            }
        });
        let client = Client::load(&service(&double), 64).unwrap();
        assert_eq!(client.get("?a=b%20c"), Ok(Answer { status: 200, body: b"fine".to_vec() }));
        assert!(client.post("/register", "text/plain", b"hello").is_ok());
        assert_eq!(requests.recv(), Ok((0, "GET /api?a=b%20c HTTP/1.1".into(), Vec::new())));
        assert_eq!(requests.recv(), Ok((0, "POST /api/register HTTP/1.1".into(), b"hello".to_vec())));
    }

    #[test]
    fn other_statuses_are_failures_with_what_the_service_says_and_redirects_are_not_followed() {
        let (_double, client) = answering("404 Not Found", "who?");
        assert_eq!(client.get(""), Err(Failure::Status { status: 404, excerpt: "who?".into() }));
        let (_double, client) = answering("302 Found\r\nLocation: /elsewhere", "");
        assert_eq!(client.get(""), Err(Failure::Status { status: 302, excerpt: String::new() }));
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_read() {
        let (_double, client) =
            answering("200 OK", "0123456789012345678901234567890123456789012345678901234567890123456789");
        assert_eq!(client.get(""), Err(Failure::TooLarge(64)));
    }

    #[test]
    fn a_service_that_hangs_is_left_after_the_timeout() {
        let double = Double::start(|_, mut peer| {
            read_request(&mut peer);
            // The client goes away first.
            let _ = peer.read(&mut [0; 1]);
        });
        let service = Service { timeout: Duration::from_millis(300), ..service(&double) };
        let client = Client::load(&service, 64).unwrap();
        assert_eq!(client.get(""), Err(Failure::Timeout(Duration::from_millis(300))));
    }

    #[test]
    fn a_service_that_drips_its_answer_does_not_stretch_the_timeout() {
        let double = Double::start(|_, mut peer| {
            read_request(&mut peer);
            let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n");
            while peer.write_all(b"x").and_then(|()| peer.flush()).is_ok() {
                // There is no condition to wait for: that the answer takes its time is what is tested.
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let service = Service { timeout: Duration::from_millis(300), ..service(&double) };
        let client = Client::load(&service, 64).unwrap();
        assert_eq!(client.get(""), Err(Failure::Timeout(Duration::from_millis(300))));
    }

    #[test]
    fn a_service_that_is_not_there_is_unreachable() {
        let double = Double::start(|_, _| {});
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let service = Service { url: format!("https://localhost:{port}"), ..service(&double) };
        let found = Client::load(&service, 64).unwrap().get("").unwrap_err();
        assert!(matches!(found, Failure::Unreachable(_)), "{found}");
    }

    #[test]
    fn certificates_that_one_side_does_not_trust_are_told_as_such() {
        let (trusted, other) = (answering("200 OK", "").0, answering("200 OK", "").0);
        let theirs = service(&other);
        let wrong_server = Service { ca: theirs.ca, ..service(&trusted) };
        let found = Client::load(&wrong_server, 64).unwrap().get("").unwrap_err();
        assert!(matches!(found, Failure::Tls(_)), "{found}");
        let wrong_client = Service { certificate: theirs.certificate, key: theirs.key, ..service(&trusted) };
        let found = Client::load(&wrong_client, 64).unwrap().get("").unwrap_err();
        assert!(matches!(found, Failure::Tls(_)), "{found}");
    }

    #[test]
    fn a_kept_connection_that_the_service_has_closed_is_replaced() {
        let double = Double::start(|_, mut peer| {
            read_request(&mut peer);
            answer(&mut peer, "200 OK", "once");
        });
        let client = Client::load(&service(&double), 64).unwrap();
        for _ in 0..5 {
            assert_eq!(client.get("").map(|answer| answer.status), Ok(200));
        }
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let double = Double::start(|_, _| {});
        let good = service(&double);
        assert_eq!(check(&good, UnixTime::now()), []);
        let later = UnixTime::since_unix_epoch(Duration::from_secs(1 << 37));
        assert!(check(&good, later)[0].message.contains("expired"));
        let wrong = Service { key: good.key.with_file_name("server.key"), ..good.clone() };
        let found = check(&wrong, UnixTime::now());
        assert!(found[0].file.ends_with("server.key") && found[0].message.contains("demo.pem"), "{found:?}");
        let missing = Service { ca: vec!["/nonexistent".into()], key: "/nonexistent".into(), ..good };
        assert_eq!(Client::load(&missing, 64).err().map(|problems| problems.len()), Some(2));
    }
}

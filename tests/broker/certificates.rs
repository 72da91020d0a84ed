//! Certificates: who is let in, who is put out again, and the broker's own.

use crate::authority::{Authority, Identity};
use crate::harness::{Broker, PATIENCE, closed, expect, post_event, record, wait_for};
use crate::http2_client::Http2;
use crate::transport::replace_line;
use nistru::client::{Connection, Consumer, Endpoint, Subscription};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// Looks at the files often.
const WATCHFUL: (&str, &str, &str) = ("tls", "watch_interval", r#""100ms""#);
const WITH_LIST: (&str, &str, &str) = ("tls", "client_crl", r#"["crl.pem"]"#);

/// The answer to a good event sent to `endpoint`.
fn answer_to(endpoint: &Endpoint) -> (u16, String) {
    let answer = post_event(&mut Connection::open(endpoint).unwrap(), &record("1", 1));
    (answer.status, answer.text())
}

fn assert_refused(endpoint: &Endpoint, expected: u16, reason: &str) {
    let (status, text) = answer_to(endpoint);
    assert!(status == expected && text.contains(reason), "{status} {text}, expected {expected} {reason}");
}

fn nobody(broker: &Broker) -> Endpoint {
    Endpoint::new(&broker.url(), &broker.pki("ca.pem"), None).unwrap().patient(PATIENCE)
}

/// Waits until the broker has ended an idle connection.
fn wait_for_end_of(connection: &mut Connection) {
    wait_for("the end of the connection", || connection.stream().unwrap().has_ended().then_some(()));
}

fn open_session(endpoint: &Endpoint) -> Consumer {
    Consumer::open(endpoint, &Subscription::group("g")).unwrap()
}

/// Replaces a file in one step.
fn put(file: &std::path::Path, content: impl AsRef<[u8]>) {
    let draft = file.with_extension("draft");
    fs::write(&draft, content).unwrap();
    fs::rename(draft, file).unwrap();
}

/// Valid until some seconds from now.
fn for_seconds(seconds: i64) -> impl FnOnce(&mut rcgen::CertificateParams) {
    move |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::seconds(seconds);
    }
}

#[test]
fn every_kind_of_certificate_gets_an_answer_that_says_what_is_wrong() {
    let mut broker = Broker::prepare(&[WITH_LIST]);
    let authority = Authority::of(&broker);
    let client = |name: &str, serial, change: fn(&mut rcgen::CertificateParams)| {
        let identity = authority.client(broker.dir(), name, serial, change);
        identity.register(&broker, "demo");
        identity
    };
    let expired = client("expired", 1, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let early = client("early", 2, |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    });
    let revoked = client("revoked", 3, |_| {});
    let good = client("good", 4, |_| {});
    let stranger = authority.client(broker.dir(), "stranger", 5, |_| {});
    let lonely = Authority::new("another CA").client(broker.dir(), "lonely", 6, |_| {});
    let server = authority.server(broker.dir(), "other-server");
    fs::write(broker.dir().join("crl.pem"), authority.revoked(&[3])).unwrap();
    broker.launch();

    assert_refused(&nobody(&broker), 400, "no client certificate was sent");
    assert_refused(&lonely.endpoint(&broker), 400, "intermediate");
    assert_refused(&server.endpoint(&broker), 400, "cannot be used");
    assert_refused(&stranger.endpoint(&broker), 401, "no client is registered");
    assert_refused(&expired.endpoint(&broker), 401, "expired at 2021-01-01T00:00:00Z");
    assert_refused(&early.endpoint(&broker), 401, "not valid before 2090-01-01T00:00:00Z");
    assert_refused(&revoked.endpoint(&broker), 401, "revoked");
    assert_eq!(answer_to(&good.endpoint(&broker)).0, 202);
}

#[test]
fn intermediates_are_taken_from_the_handshake_and_a_missing_one_is_named() {
    let mut broker = Broker::prepare(&[]);
    let below = Authority::of(&broker).intermediate("branch CA");
    let whole = below.client(broker.dir(), "branch", 1, |_| {});
    whole.register(&broker, "demo");
    let leaf = CertificateDer::pem_file_iter(&whole.certificate).unwrap().next().unwrap().unwrap();
    let alone = Identity { certificate: broker.dir().join("alone.pem"), key: whole.key.clone() };
    let pem = fs::read_to_string(&whole.certificate).unwrap();
    let end = pem.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----\n".len();
    fs::write(&alone.certificate, &pem[..end]).unwrap();
    assert_eq!(CertificateDer::from_pem_file(&alone.certificate).unwrap(), leaf);
    broker.launch();
    assert_eq!(answer_to(&whole.endpoint(&broker)).0, 202);
    assert_refused(&alone.endpoint(&broker), 400, "CN=branch CA");
}

#[test]
fn a_client_may_come_only_from_its_networks() {
    let broker = Broker::start();
    broker.reload_with("clients/demo.toml", |text| {
        replace_line(&text, "networks", r#"networks = ["192.0.2.0/24"]"#)
    });
    let text = expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 401);
    assert!(text.contains("127.0.0.1"), "{text}");
}

#[test]
fn a_strict_broker_refuses_bad_certificates_in_the_handshake() {
    let mut broker = Broker::prepare(&[("tls", "strict", "true"), WITH_LIST]);
    let authority = Authority::of(&broker);
    let revoked = authority.client(broker.dir(), "revoked", 3, |_| {});
    let lonely = Authority::new("another CA").client(broker.dir(), "lonely", 6, |_| {});
    fs::write(broker.dir().join("crl.pem"), authority.revoked(&[3])).unwrap();
    broker.launch();
    for endpoint in [nobody(&broker), lonely.endpoint(&broker), revoked.endpoint(&broker)] {
        let refused = Connection::open(&endpoint).and_then(|mut connection| connection.get("/", &[]));
        assert!(refused.is_err());
    }
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
}

#[test]
fn a_certificate_that_expires_takes_its_connections_and_sessions_with_it() {
    let mut broker = Broker::prepare(&[]);
    let authority = Authority::of(&broker);
    authority.client(broker.dir(), "short", 1, |_| {}).register(&broker, "demo");
    broker.launch();
    // Another with the same serial number, because starting a broker may take a while.
    let short = authority.client(broker.dir(), "short", 1, for_seconds(12));
    let endpoint = short.endpoint(&broker);
    let mut idle = Connection::open(&endpoint).unwrap();
    expect(&post_event(&mut idle, &record("1", 1)), 202);
    let mut session = open_session(&endpoint);
    let mut other = broker.consume("police", "g");

    let (code, reason) = closed(&mut session);
    assert!(code == 1008 && reason.contains("expired at "), "{code} {reason}");
    wait_for_end_of(&mut idle);
    assert_refused(&endpoint, 401, "expired at ");
    assert!(other.next(std::time::Duration::from_millis(100)).unwrap().is_none());
}

#[test]
fn a_new_revocation_list_takes_effect_by_itself_also_on_open_connections() {
    let mut broker = Broker::prepare(&[WATCHFUL, WITH_LIST]);
    let authority = Authority::of(&broker);
    let client = authority.client(broker.dir(), "client", 7, |_| {});
    client.register(&broker, "demo");
    let list = broker.dir().join("crl.pem");
    fs::write(&list, authority.revoked(&[])).unwrap();
    broker.launch();
    let endpoint = client.endpoint(&broker);
    let mut session = open_session(&endpoint);
    let mut idle = Connection::open(&endpoint).unwrap();
    let mut busy = Connection::open(&endpoint).unwrap();
    let mut other = broker.connect("demo");
    for connection in [&mut idle, &mut busy, &mut other] {
        expect(&post_event(connection, &record("1", 1)), 202);
    }
    let first = busy.stream().unwrap().local_addr().unwrap();

    put(&list, authority.revoked(&[7]));
    // A request in between is refused; a connection that was ended first is opened anew by the client, and refused as well.
    let refused = wait_for("the refusal", || {
        Some(post_event(&mut busy, &record("2", 2))).filter(|answer| answer.status == 401)
    });
    assert!(refused.text().contains("revoked"), "{}", refused.text());
    // However busy, it does not keep the connection.
    wait_for("the end of a busy connection", || {
        post_event(&mut busy, &record("2", 2));
        let ended = !busy.is_open() || busy.stream().unwrap().local_addr().unwrap() != first;
        ended.then_some(())
    });
    let (code, reason) = closed(&mut session);
    assert!(code == 1008 && reason.contains("revoked"), "{code} {reason}");
    wait_for_end_of(&mut idle);
    assert!(other.is_open());
    expect(&post_event(&mut other, &record("3", 3)), 202);
}

#[test]
fn a_disabled_client_loses_its_idle_connections() {
    let broker = Broker::start();
    let mut idle = broker.connect("demo");
    expect(&post_event(&mut idle, &record("1", 1)), 202);
    let mut other = broker.connect("asp");
    expect(&other.get("/none", &[]).unwrap(), 404);
    broker.reload_with("clients/demo.toml", |text| "enabled = false\n".to_owned() + &text);
    wait_for_end_of(&mut idle);
    assert!(!other.stream().unwrap().has_ended());
}

#[test]
fn http2_connections_and_their_sessions_end_as_well() {
    let broker = Broker::start();
    let mut idle = Http2::open(&broker, "demo");
    assert_eq!(idle.post_event(&record("1", 1)).status, 202);
    let mut consuming = Http2::open(&broker, "demo");
    let mut session = consuming.consume("g");
    broker.reload_with("clients/demo.toml", |text| "enabled = false\n".to_owned() + &text);
    let (code, reason) = session.closed(&mut consuming);
    assert!(code == 1008 && reason.contains("disabled"), "{code} {reason}");
    idle.wait_for_goodbye();
    consuming.wait_for_goodbye();
}

#[test]
fn a_peer_without_a_client_keeps_its_connection_and_is_answered_on_it() {
    let broker = Broker::start();
    let mut connection = Connection::open(&nobody(&broker)).unwrap();
    expect(&connection.get("/", &[]).unwrap(), 400);
    expect(&connection.get("/", &[]).unwrap(), 400);
    assert!(connection.is_open());
}

/// A TLS connection of nobody in particular, for what it shows of the server.
fn handshake(broker: &Broker) -> (ClientConnection, TcpStream) {
    let (mut tls, mut socket) = (tls(broker, &rustls::version::TLS13), socket(broker));
    tls.complete_io(&mut socket).unwrap();
    (tls, socket)
}

fn socket(broker: &Broker) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn config(broker: &Broker, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(broker.pki("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn tls(broker: &Broker, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(Arc::new(config(broker, version)), name).unwrap()
}

fn shown_certificate(broker: &Broker) -> CertificateDer<'static> {
    handshake(broker).0.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn a_new_server_certificate_is_shown_without_a_signal_and_no_connection_is_dropped() {
    let broker = Broker::with(&[WATCHFUL]);
    let mut old = broker.connect("demo");
    let mut session = broker.consume("demo", "g");
    expect(&post_event(&mut old, &record("1", 1)), 202);
    let next = Authority::of(&broker).server(broker.dir(), "next");
    let expected = CertificateDer::from_pem_file(&next.certificate).unwrap();
    assert_ne!(shown_certificate(&broker), expected);

    put(&broker.pki("server.key"), fs::read(&next.key).unwrap());
    put(&broker.pki("server.pem"), fs::read(&next.certificate).unwrap());
    wait_for("the new certificate", || (shown_certificate(&broker) == expected).then_some(()));

    assert!(!old.stream().unwrap().has_ended());
    expect(&post_event(&mut old, &record("2", 2)), 202);
    assert_eq!(crate::harness::next_ids(&mut session, 2), ["1", "2"]);
}

#[test]
fn broken_files_are_refused_with_the_reason_and_what_runs_stays() {
    let broker = Broker::with(&[WATCHFUL]);
    let before = shown_certificate(&broker);
    put(&broker.pki("server.pem"), "-----BEGIN CERTIFICATE-----\nnonsense");
    broker.wait_for_log("the running certificates stay as they are");
    broker.wait_for_log("server.pem: the PEM is damaged");
    assert_eq!(shown_certificate(&broker), before);

    // A certificate of another key is no better.
    let next = Authority::of(&broker).server(broker.dir(), "next");
    put(&broker.pki("server.pem"), fs::read(&next.certificate).unwrap());
    broker.wait_for_log("is not the key of the certificate in");
    assert_eq!(shown_certificate(&broker), before);

    // With its key it is.
    put(&broker.pki("server.key"), fs::read(&next.key).unwrap());
    broker.wait_for_log("the certificates were loaded");
    assert_ne!(shown_certificate(&broker), before);
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
}

#[test]
fn a_revocation_list_that_its_authority_did_not_sign_is_refused() {
    let mut broker = Broker::prepare(&[WATCHFUL, WITH_LIST]);
    let list = broker.dir().join("crl.pem");
    fs::write(&list, Authority::of(&broker).revoked(&[])).unwrap();
    broker.launch();
    put(&list, Authority::named_as(&broker).revoked(&[7]));
    broker.wait_for_log("is not signed by");
    expect(&post_event(&mut broker.connect("demo"), &record("1", 1)), 202);
}

#[test]
fn an_unwatched_certificate_is_replaced_by_a_signal() {
    let broker = Broker::with(&[("tls", "watch_interval", r#""0s""#)]);
    let next = Authority::of(&broker).server(broker.dir(), "next");
    put(&broker.pki("server.key"), fs::read(&next.key).unwrap());
    put(&broker.pki("server.pem"), fs::read(&next.certificate).unwrap());
    broker.reload_with("clients/demo.toml", |text| text);
    assert_eq!(shown_certificate(&broker), CertificateDer::from_pem_file(&next.certificate).unwrap());
}

/// Runs `openssl s_client` as the client `demo` and gives what it printed.
fn openssl(broker: &Broker, arguments: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", broker.port()), "-ign_eof"])
        .args(["-CAfile".as_ref(), broker.pki("ca.pem").as_os_str()])
        .args(["-cert".as_ref(), broker.pki("demo.pem").as_os_str()])
        .args(["-key".as_ref(), broker.pki("demo.key").as_os_str()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let request = "GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn no_session_is_resumed_so_that_none_passes_by_the_checks() {
    let broker = Broker::start();
    let saved = broker.dir().join("session");
    let saved = saved.to_str().unwrap();
    let reconnected = openssl(&broker, &["-tls1_2", "-reconnect"]);
    assert!(reconnected.matches("New, TLSv1.2").count() > 1, "{reconnected}");
    assert!(!reconnected.contains("Reused"), "{reconnected}");
    for version in ["-tls1_2", "-tls1_3"] {
        let first = openssl(&broker, &[version, "-sess_out", saved]);
        assert!(first.contains("404 Not Found") && !first.contains("TLS session ticket:"), "{first}");
        // With TLS 1.3 there is no session to save.
        if fs::exists(saved).unwrap() {
            let second = openssl(&broker, &[version, "-sess_in", saved]);
            assert!(second.contains("404 Not Found") && !second.contains("Reused"), "{second}");
            fs::remove_file(saved).unwrap();
        }
    }
}

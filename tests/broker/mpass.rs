//! Clients from the client API of MPass, which here is a server of the test: slow, failing, lying, silent, or as it should be.

use crate::authority::{Authority, Identity};
use crate::harness::{Broker, Setting, closed, expect, next_ids, post_event, record, wait_for};
use crate::service::{self, Request, Response};
use nistru::client::{Answer, Connection};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Condvar, Mutex};

const DEMO: &str = "636a42bd-e9a8-4f69-ad04-092012f31b0e";
const ASP: &str = "9a0f2a5e-0000-4000-8000-000000000001";
const TYPES: [&str; 2] = ["Demo.Load.Record.Created", "Demo.Load.Blob.Created"];

/// How the API behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Fine,
    /// Answers only once the mood is another.
    Slow,
    Silent,
    Broken,
    Garbage,
}

#[derive(Default)]
struct Book {
    /// Clients by GUID.
    clients: HashMap<String, Value>,
    requests: Vec<String>,
    mood: Option<Mood>,
}

/// The API.
#[derive(Clone, Default)]
struct Api {
    book: Arc<(Mutex<Book>, Condvar)>,
}

impl Api {
    /// Registers a client with the certificate `pki/{name}.pem`.
    fn register(&self, broker: &Broker, id: &str, name: &str, settings: &Value) {
        let pem = fs::read_to_string(broker.pki(&format!("{name}.pem"))).unwrap();
        self.register_with(id, name, json!([{ "Certificate": pem }]), settings);
    }

    fn register_with(&self, id: &str, name: &str, certificates: Value, settings: &Value) {
        let client = json!({
            "ID": id, "Name": name, "OwnerID": "1002600024700",
            "Certificates": certificates, "Settings": settings.to_string(),
        });
        self.change(|book| drop(book.clients.insert(id.to_owned(), client)));
    }

    fn forget(&self, id: &str) {
        self.change(|book| drop(book.clients.remove(id)));
    }

    fn feels(&self, mood: Mood) {
        self.change(|book| book.mood = Some(mood));
    }

    fn change(&self, change: impl FnOnce(&mut Book)) {
        change(&mut self.book.0.lock().unwrap());
        self.book.1.notify_all();
    }

    /// Requests so far that search by this.
    fn requests(&self, by: &str) -> usize {
        let book = self.book.0.lock().unwrap();
        book.requests.iter().filter(|line| line.contains(&format!("searchType={by}&"))).count()
    }

    fn respond(&self, request: &Request) -> Response {
        let (book, changed) = &*self.book;
        let mut book = book.lock().unwrap();
        book.requests.push(request.line.clone());
        book = changed.wait_while(book, |book| book.mood == Some(Mood::Slow)).unwrap();
        match book.mood {
            Some(Mood::Silent) => Response::Silence,
            Some(Mood::Broken) => Response::Answer(500, "out of order".into()),
            Some(Mood::Garbage) => Response::Answer(200, "<html>".into()),
            _ => match find(&book, &request.line) {
                Some(client) => Response::Answer(200, client.to_string()),
                None => Response::Answer(404, String::new()),
            },
        }
    }
}

fn find<'b>(book: &'b Book, line: &str) -> Option<&'b Value> {
    let query = line.strip_prefix("GET /api?searchType=").expect("the request is for the API");
    let (by, searched) = query.split_once("&searchValue=").expect("the request searches for something");
    match by {
        "ID" => book.clients.get(searched),
        "CertificateSerialNumber" => book.clients.values().find(|client| holds(client, searched)),
        other => panic!("nobody searches by {other}"),
    }
}

/// As the API would, by the serial number alone.
fn holds(client: &Value, serial: &str) -> bool {
    client["Certificates"].as_array().unwrap().iter().any(|item| match item["Certificate"].as_str() {
        Some(pem) => serial_of(pem) == serial,
        None => item["SerialNumber"] == serial,
    })
}

fn serial_of(pem: &str) -> String {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    certificate.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// What a client may that produces and consumes.
fn settings() -> Value {
    json!({
        "networks": ["127.0.0.0/8"],
        "producer": {"sources": ["urn:demo"], "types": TYPES},
        "consumer": {"types": TYPES},
    })
}

/// A broker that asks `api`, which shows the certificate `server`.
fn prepare(api: &Api, server: impl FnOnce(&Broker) -> Identity, settings: &[Setting<'_>]) -> Broker {
    let broker = Broker::prepare(&[]);
    let authority = Authority::of(&broker);
    authority.client(broker.dir(), "broker", 1, |_| {});
    let (answering, server) = (api.clone(), server(&broker));
    let port = service::start(&server, &broker.pki("ca.pem"), move |request| answering.respond(&request));
    let url = format!("\"https://localhost:{port}/api\"");
    let usual = [
        ("registry", "source", r#""mpass""#),
        ("registry.mpass", "url", url.as_str()),
        ("registry.mpass", "certificate", r#""broker.pem""#),
        ("registry.mpass", "key", r#""broker.key""#),
        ("registry.mpass", "ca", r#"["pki/ca.pem"]"#),
    ];
    broker.configure(&[&usual, settings].concat());
    fs::remove_dir_all(broker.registry("clients")).unwrap();
    broker
}

fn trusted(broker: &Broker) -> Identity {
    Authority::of(broker).server(broker.dir(), "api")
}

/// A broker that runs and asks an API that knows the client `demo`.
fn start(settings: &[Setting<'_>]) -> (Broker, Api) {
    let api = Api::default();
    let mut broker = prepare(&api, trusted, settings);
    api.register(&broker, DEMO, "demo", &self::settings());
    broker.launch();
    (broker, api)
}

const REFRESHING: Setting<'static> = ("registry.mpass", "cache", r#""1s""#);
const FORGETTING: Setting<'static> = ("registry.mpass", "unknown_cache", r#""1s""#);
/// So short that a busy machine may not answer in time either: for an API that is silent, or after [`wait_until_known`].
const IMPATIENT: Setting<'static> = ("registry.mpass", "timeout", r#""300ms""#);

fn post(broker: &Broker, name: &str) -> Answer {
    post_event(&mut broker.connect(name), &record("1", 1))
}

fn wait_until_known(broker: &Broker, name: &str) {
    wait_for("the client to be known", || (post(broker, name).status == 202).then_some(()));
}

fn assert_unsaid(answer: &Answer, reason: &str) {
    let text = expect(answer, 503);
    assert!(text.contains(reason) && answer.header("retry-after").is_some(), "{text}");
}

#[test]
fn a_client_is_looked_up_once_by_its_serial_number_and_then_known() {
    let (broker, api) = start(&[]);
    for _ in 0..3 {
        expect(&post(&broker, "demo"), 202);
    }
    let mut session = broker.consume("demo", "g");
    assert_eq!(next_ids(&mut session, 3), ["1", "1", "1"]);
    let lines = api.book.0.lock().unwrap().requests.clone();
    let pem = fs::read_to_string(broker.pki("demo.pem")).unwrap();
    let serial = serial_of(&pem);
    assert_eq!(lines, [format!("GET /api?searchType=CertificateSerialNumber&searchValue={serial}")]);
    assert_eq!(broker.metric("registry_clients"), 1.0);
    assert_eq!(broker.metric("registry_requests_total"), 1.0);
}

#[test]
fn many_connections_wait_for_one_request_and_known_clients_for_none() {
    let (broker, api) = start(&[]);
    api.register(&broker, ASP, "asp", &settings());
    expect(&post(&broker, "asp"), 202);
    api.feels(Mood::Slow);
    std::thread::scope(|scope| {
        let posting: Vec<_> = (0..10).map(|_| scope.spawn(|| post(&broker, "demo"))).collect();
        wait_for("the request", || (api.requests("CertificateSerialNumber") == 2).then_some(()));
        expect(&post(&broker, "asp"), 202);
        api.feels(Mood::Fine);
        for answer in posting {
            expect(&answer.join().unwrap(), 202);
        }
    });
    assert_eq!(api.requests("CertificateSerialNumber"), 2);
}

#[test]
fn an_unknown_client_is_refused_without_asking_again_until_a_while_has_passed() {
    let (broker, api) = start(&[("registry.mpass", "unknown_cache", r#""1h""#)]);
    for _ in 0..3 {
        let text = expect(&post(&broker, "asp"), 401);
        assert!(text.contains("no client is registered"), "{text}");
    }
    assert_eq!(api.requests("CertificateSerialNumber"), 1);

    let (broker, api) = start(&[FORGETTING]);
    let mut connection = broker.connect("asp");
    expect(&post_event(&mut connection, &record("1", 1)), 401);
    api.register(&broker, ASP, "asp", &settings());
    wait_for("the client to be known", || {
        (post_event(&mut connection, &record("1", 1)).status == 202).then_some(())
    });
}

#[test]
fn a_new_client_is_told_when_nobody_can_say_whether_it_is_known() {
    let unreachable = "the client registry cannot be reached";
    let patient = ("registry.mpass", "timeout", r#""30s""#);
    for (mood, timeout, reason) in [
        (Mood::Broken, patient, unreachable),
        (Mood::Silent, IMPATIENT, unreachable),
        (Mood::Garbage, patient, "what the client registry says of this client cannot be used"),
    ] {
        let (broker, api) = start(&[timeout, FORGETTING]);
        api.feels(mood);
        assert_unsaid(&post(&broker, "demo"), reason);
        assert_eq!(broker.admin("/readyz").0, 200);
        api.feels(Mood::Fine);
        wait_until_known(&broker, "demo");
    }
}

#[test]
fn an_api_with_a_certificate_of_nobody_is_not_believed() {
    let api = Api::default();
    let stranger = |broker: &Broker| Authority::new("another CA").server(broker.dir(), "api");
    let mut broker = prepare(&api, stranger, &[]);
    api.register(&broker, DEMO, "demo", &settings());
    broker.launch();
    assert_unsaid(&post(&broker, "demo"), "cannot be reached");
    broker.wait_for_log("no TLS connection with the service");
    assert_eq!(api.requests("CertificateSerialNumber"), 0);
}

#[test]
fn a_new_certificate_of_the_broker_is_used_without_a_signal() {
    let api = Api::default();
    let watchful = ("tls", "watch_interval", r#""100ms""#);
    let mut broker = prepare(&api, trusted, &[watchful, FORGETTING]);
    api.register(&broker, DEMO, "demo", &settings());
    Authority::new("another CA").client(broker.dir(), "broker", 1, |_| {});
    broker.launch();
    assert_unsaid(&post(&broker, "demo"), "cannot be reached");
    Authority::of(&broker).client(broker.dir(), "broker", 1, |_| {});
    wait_until_known(&broker, "demo");
}

#[test]
fn known_clients_go_on_while_the_api_fails_and_operators_see_it() {
    let (broker, api) = start(&[REFRESHING]);
    let mut connection = broker.connect("demo");
    expect(&post_event(&mut connection, &record("1", 1)), 202);
    let mut session = broker.consume("demo", "g");
    wait_for("a repeated question", || (api.requests("ID") > 0).then_some(()));
    api.feels(Mood::Broken);
    broker.wait_for_log("the client registry fails");
    wait_for("the failures to be counted", || {
        (broker.metric("registry_requests_failed_total") > 1.0).then_some(())
    });
    expect(&post_event(&mut connection, &record("2", 2)), 202);
    expect(&post(&broker, "demo"), 202);
    assert_eq!(next_ids(&mut session, 3), ["1", "2", "1"]);
    assert_eq!(broker.admin("/readyz").0, 200);
    assert!(broker.metric("registry_oldest_answer_ms") > 0.0);
    assert_eq!(broker.log().matches("the client registry fails").count(), 1);
    api.feels(Mood::Fine);
    broker.wait_for_log("the client registry answers again");
}

#[test]
fn a_client_that_is_disabled_or_removed_there_loses_its_sessions_and_requests() {
    let (broker, api) = start(&[REFRESHING, FORGETTING]);
    let mut connection = broker.connect("demo");
    expect(&post_event(&mut connection, &record("1", 1)), 202);
    let mut session = broker.consume("demo", "g");
    let mut disabled = settings();
    disabled["enabled"] = false.into();
    api.register(&broker, DEMO, "demo", &disabled);
    let (code, reason) = closed(&mut session);
    assert!(code == 1008 && reason.contains("disabled"), "{code} {reason}");
    // Another core may hear of it a moment later.
    wait_for("the refusal", || (post_event(&mut connection, &record("2", 2)).status == 401).then_some(()));

    api.register(&broker, DEMO, "demo", &settings());
    wait_for("the client to be let in", || (post(&broker, "demo").status == 202).then_some(()));
    let mut session = broker.consume("demo", "h");
    api.forget(DEMO);
    let (code, reason) = closed(&mut session);
    assert!(code == 1008 && reason.contains("no client is registered"), "{code} {reason}");
    wait_for("the refusal", || (post(&broker, "demo").status == 401).then_some(()));
}

#[test]
fn new_rights_count_on_open_sessions_and_others_are_not_disturbed() {
    let (broker, api) = start(&[REFRESHING]);
    let mut narrow = settings();
    narrow["consumer"]["types"] = json!([TYPES[1]]);
    api.register(&broker, ASP, "asp", &narrow);
    let mut session = broker.consume("asp", "g");
    let mut other = broker.consume("demo", "g");
    expect(&post(&broker, "demo"), 202);
    assert_eq!(next_ids(&mut other, 1), ["1"]);
    assert!(session.next(std::time::Duration::from_millis(100)).unwrap().is_none());
    api.register(&broker, ASP, "asp", &settings());
    assert_eq!(next_ids(&mut session, 1), ["1"]);
    assert!(other.next(std::time::Duration::from_millis(100)).unwrap().is_none());
}

#[test]
fn an_answer_that_cannot_be_used_changes_nothing_for_a_known_client() {
    let (broker, api) = start(&[REFRESHING]);
    expect(&post(&broker, "demo"), 202);
    api.register(&broker, DEMO, "demo", &json!({"networks": ["everywhere"]}));
    broker.wait_for_log("Settings at /networks/0");
    expect(&post(&broker, "demo"), 202);
}

#[test]
fn rights_to_types_that_nobody_defines_are_of_no_effect_and_told() {
    let (broker, api) = start(&[]);
    let mut settings = settings();
    settings["consumer"]["types"] = json!([TYPES[0], "Nobody.Defines.This.Type"]);
    api.register(&broker, ASP, "asp", &settings);
    let mut session = broker.consume("asp", "g");
    broker.wait_for_log("Nobody.Defines.This.Type");
    expect(&post(&broker, "demo"), 202);
    assert_eq!(next_ids(&mut session, 1), ["1"]);
}

#[test]
fn the_issuer_of_a_certificate_must_be_the_registered_one() {
    let (broker, api) = start(&[]);
    let serial = serial_of(&fs::read_to_string(broker.pki("asp.pem")).unwrap());
    let certificates = json!([{"SerialNumber": serial, "Issuer": "CN=another CA"}]);
    api.register_with(ASP, "asp", certificates, &settings());
    expect(&post(&broker, "asp"), 401);
}

#[test]
fn known_clients_outlive_a_restart_while_the_api_is_down() {
    let (mut broker, api) = start(&[]);
    expect(&post(&broker, "demo"), 202);
    let file = broker.dir().join("data/mpass.clients");
    wait_for("the client to be written", || file.exists().then_some(()));
    api.feels(Mood::Broken);
    broker.kill();
    broker.launch();
    expect(&post(&broker, "demo"), 202);
    assert_unsaid(&post(&broker, "asp"), "cannot be reached");

    // A damaged file is a file less, not a broker less.
    broker.kill();
    fs::write(&file, "nonsense\n").unwrap();
    broker.launch();
    broker.wait_for_log("the file of known clients is damaged");
    assert_unsaid(&post(&broker, "demo"), "cannot be reached");
}

#[test]
fn types_and_schemas_are_reloaded_without_asking_for_clients_again() {
    let (broker, api) = start(&[]);
    expect(&post(&broker, "demo"), 202);
    let mut session = broker.consume("demo", "g");
    broker.reload_with("schemas/Demo.Load.Record.Created.json", |_| r#"{"required": ["colour"]}"#.into());
    expect(&post(&broker, "demo"), 422);
    assert_eq!(next_ids(&mut session, 1), ["1"]);
    assert_eq!(api.requests("CertificateSerialNumber") + api.requests("ID"), 1);
}

#[test]
fn a_flood_of_strangers_keeps_no_known_client_waiting() {
    let (broker, api) = start(&[("registry.mpass", "requests_max", "1"), IMPATIENT, FORGETTING]);
    wait_until_known(&broker, "demo");
    api.feels(Mood::Silent);
    let authority = Authority::of(&broker);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let stranger = authority.client(broker.dir(), &format!("stranger-{number}"), 50 + number, |_| {});
            let endpoint = stranger.endpoint(&broker);
            scope.spawn(move || {
                let answer = post_event(&mut Connection::open(&endpoint).unwrap(), &record("1", 1));
                assert_unsaid(&answer, "cannot be reached");
            });
        }
        for _ in 0..20 {
            expect(&post(&broker, "demo"), 202);
        }
    });
}

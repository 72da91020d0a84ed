//! The documentation that the broker serves of itself.

use crate::harness::{Broker, expect, post_batch, post_event, record};
use nistru::client::{Answer, Connection, Endpoint};
use serde_json::Value;
use std::io::Read;

const SPECIFICATION: &str = include_str!("../../openapi.yaml");

fn stranger(broker: &Broker) -> Connection {
    Connection::open(&Endpoint::new(&broker.url(), &broker.pki("ca.pem"), None).unwrap()).unwrap()
}

fn request(connection: &mut Connection, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    connection.request(method, path, headers).expect("an answer")
}

fn get(connection: &mut Connection, path: &str) -> Answer {
    request(connection, "GET", path, &[])
}

/// Everything that the broker sends in answer to a HEAD request.
fn head(broker: &Broker, path: &str) -> String {
    let mut connection = stranger(broker);
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.stream().unwrap().read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn openapi_is_served_as_json_and_yaml() {
    let broker = Broker::start();
    let mut client = broker.connect("demo");
    let yaml = get(&mut client, "/openapi.yaml");
    assert_eq!(expect(&yaml, 200), SPECIFICATION);
    assert_eq!(yaml.header("content-type"), Some("application/yaml"));
    let json = get(&mut client, "/openapi.json");
    assert_eq!(json.header("content-type"), Some("application/json"));
    let document: Value = serde_json::from_str(&expect(&json, 200)).unwrap();
    assert_eq!(document["openapi"], "3.0.3");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn swagger_ui_comes_from_the_broker_alone() {
    let broker = Broker::start();
    let mut client = broker.connect("demo");
    let page = get(&mut client, "/swagger");
    let text = expect(&page, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains('*'), "{policy}");
    let parts: Vec<_> = text.split('"').filter(|text| text.starts_with("/swagger/")).collect();
    assert!(parts.len() >= 4, "{text}");
    for path in parts {
        let part = get(&mut client, path);
        assert!(part.status == 200 && !part.body.is_empty(), "{path}");
        assert_eq!(part.header("x-content-type-options"), Some("nosniff"));
    }
    assert_eq!(get(&mut client, "/swagger/").body, page.body);
    assert_eq!(get(&mut client, "/swagger/other.js").status, 404);
}

#[test]
fn the_documentation_needs_no_certificate_and_everything_else_does() {
    let broker = Broker::start();
    let mut stranger = stranger(&broker);
    for path in ["/swagger", "/swagger/swagger-ui-bundle.js", "/openapi.json", "/openapi.yaml"] {
        expect(&get(&mut stranger, path), 200);
    }
    for path in ["/", "/swagger/other.js", "/ce/tools/my-settings"] {
        assert!(expect(&get(&mut stranger, path), 400).contains("certificate"), "{path}");
    }
    expect(&post_event(&mut stranger, &record("1", 1)), 400);
}

#[test]
fn web_pages_of_others_cannot_use_the_certificate_of_a_browser() {
    let broker = Broker::start();
    let mut client = broker.connect("demo");
    let mut get = |origin: &str| request(&mut client, "GET", "/ce/tools/my-settings", &[("Origin", origin)]);
    expect(&get(&broker.url()), 200);
    for origin in ["https://evil.example", "http://localhost", "null"] {
        assert!(expect(&get(origin), 401).contains("Origin"), "{origin}");
    }
}

#[test]
fn a_document_that_is_known_is_not_sent_again() {
    let broker = Broker::start();
    let mut client = stranger(&broker);
    let path = "/swagger/swagger-ui.css";
    let whole = get(&mut client, path);
    let tag = whole.header("etag").unwrap();
    let again = request(&mut client, "GET", path, &[("If-None-Match", tag)]);
    assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(tag)));
    // The connection goes on behind an answer without a body.
    expect(&request(&mut client, "GET", path, &[("If-None-Match", "\"other\"")]), 200);
}

#[test]
fn head_is_answered_like_get_without_the_body_and_nothing_else_is() {
    let broker = Broker::start();
    for path in ["/swagger", "/openapi.json"] {
        let whole = get(&mut stranger(&broker), path);
        let head = head(&broker, path);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for name in ["Content-Length", "Content-Type", "ETag", "Content-Security-Policy"] {
            assert!(head.contains(&format!("{name}: {}\r\n", whole.header(name).unwrap())), "{head}");
        }
        let answer = request(&mut broker.connect("demo"), "POST", path, &[]);
        expect(&answer, 405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
}

/// The texts that the specification gives as examples of an error.
fn examples(specification: &Value, response: &str) -> Vec<String> {
    let text = &specification["components"]["responses"][response]["content"]["text/plain"];
    let named = text["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
    let texts = named.chain(text.get("example")).map(|text| text.as_str().unwrap().to_owned());
    texts.collect()
}

#[test]
fn errors_are_as_the_examples_of_the_specification_show_them() {
    let broker = Broker::start();
    let mut demo = broker.connect("demo");
    let specification: Value = serde_json::from_slice(&get(&mut demo, "/openapi.json").body).unwrap();
    let is_shown = |response: &str, status: u16, answer: &Answer| {
        let text = expect(answer, status);
        let examples = examples(&specification, response);
        assert!(examples.contains(&text), "{response}: {text:?} is none of {examples:?}");
    };
    let source = record("1", 1).replace(r#""source":"urn:demo","#, "");
    is_shown("BadRequest", 400, &post_event(&mut demo, &source));
    is_shown("BadRequest", 400, &get(&mut demo, "/ce/tools/my-settings?colour=red"));
    is_shown("BadRequest", 400, &get(&mut stranger(&broker), "/ce/tools/my-settings"));
    is_shown("Unauthorized", 401, &post_event(&mut broker.connect("police"), "{}"));
    let kind = record("1", 1).replace("Demo.Load.Record.Created", "ASP.RST.VP.Invalidated");
    is_shown("Unauthorized", 401, &post_event(&mut demo, &kind));
    let instance = "/0/ce/consumers/~default/instances/0/event";
    is_shown("NotFound", 404, &get(&mut demo, instance));
    is_shown("MethodNotAllowed", 405, &get(&mut demo, "/ce/produce/event"));
    let invalid = record("1", 1).replace("\"number\":1", "\"number\":\"one\"");
    is_shown("UnprocessableContent", 422, &post_batch(&mut demo, &[invalid]));
    let large = vec![b' '; (1 << 20) + 1];
    let large = broker.connect("demo").post("/ce/produce/raw", "text/plain", &[], &large).unwrap();
    is_shown("ContentTooLarge", 413, &large);
    let expecting = request(&mut broker.connect("demo"), "GET", "/swagger", &[("Expect", "a miracle")]);
    is_shown("ExpectationFailed", 417, &expecting);
    let long = "x".repeat(20_000);
    let long = request(&mut broker.connect("demo"), "GET", "/swagger", &[("X-Long", long.as_str())]);
    is_shown("HeadersTooLarge", 431, &long);
    let upgrade = &specification["paths"]["/ce/consume/ws"]["get"]["responses"]["426"]["content"];
    assert_eq!(expect(&get(&mut demo, "/ce/consume/ws"), 426), upgrade["text/plain"]["example"]);
    broker.reload_with("clients/demo.toml", |text| text + "\n[limits]\nevents_per_second_max = 1000\n");
    let batch: Vec<_> = (0..1500).map(|n| record(&n.to_string(), n)).collect();
    let answers: Vec<_> = (0..4).map(|_| post_batch(&mut demo, &batch)).collect();
    is_shown("TooManyRequests", 429, answers.iter().find(|answer| answer.status == 429).unwrap());
}

#[test]
fn a_client_that_does_not_read_the_documents_costs_no_memory() {
    let broker = Broker::start();
    let anonymous = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let before = anonymous();
    let request = b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let connections: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = stranger(&broker);
            connection.send(&request.repeat(4)).unwrap();
            connection
        })
        .collect();
    // Answered behind all of these on either core, so they have had their turn.
    for _ in 0..4 {
        expect(&get(&mut stranger(&broker), "/openapi.json"), 200);
    }
    let grown = anonymous().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for {} connections", connections.len());
}

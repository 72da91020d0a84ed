//! The documentation that the broker serves of itself.

use crate::harness::{Broker, expect, post_event, record};
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

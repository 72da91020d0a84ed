//! The transport: TLS, HTTP/1.1 as sent by good and bad clients, limits.

use crate::harness::{Broker, expect, post_event, record, wait_for};
use nistru::client::{Connection, Stream};
use std::io::{Read, Write};
use std::process::Command;

/// Replaces the line that begins with `start`.
pub fn replace_line(text: &str, start: &str, line: &str) -> String {
    assert!(text.lines().any(|old| old.starts_with(start)), "no line {start} in:\n{text}");
    text.lines()
        .map(|old| if old.starts_with(start) { line } else { old })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn openssl_speaks_both_tls_versions_and_never_gets_a_ticket() {
    let broker = Broker::start();
    for version in ["-tls1_2", "-tls1_3"] {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", broker.port()), version, "-ign_eof"])
            .args(["-CAfile"])
            .arg(broker.pki("ca.pem"))
            .args(["-cert"])
            .arg(broker.pki("demo.pem"))
            .args(["-key"])
            .arg(broker.pki("demo.key"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                let request = "GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                child.stdin.take().unwrap().write_all(request.as_bytes())?;
                child.wait_with_output()
            })
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("404 Not Found") && text.contains("Verify return code: 0"),
            "{version}: {text}"
        );
        assert!(!text.contains("TLS session ticket:"), "{version}: {text}");
    }
}

/// Sends bytes as the client `demo` and gives everything that comes back until the broker closes.
fn raw(broker: &Broker, bytes: &[u8]) -> String {
    let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // The end of the connection may come with or without a farewell.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn ambiguous_requests_are_400_and_end_the_connection() {
    let broker = Broker::start();
    let head = "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\n";
    for (what, rest) in [
        ("a length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        ("a folded line", "X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
        ("a bare line feed", "X-A: b\nContent-Length: 0\r\n\r\n"),
        ("a bad chunk size", "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
        ("an unknown coding", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let answer =
            raw(&broker, format!("{head}{rest}GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: what followed was answered: {answer}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let broker = Broker::start();
    let post = |body: &str| {
        format!(
            "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let requests = post(&record("1", 1))
        + &post("{}")
        + &post(&record("2", 2))
        + "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = raw(&broker, requests.as_bytes());
    let statuses: Vec<_> =
        answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["202", "400", "202", "404"], "{answer}");
}

#[test]
fn a_chunked_body_is_accepted() {
    let broker = Broker::start();
    let event = record("1", 1);
    let (left, right) = event.split_at(20);
    let request = format!(
        "POST /ce/produce/event HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cloudevents+json; charset=UTF-8\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{left}\r\n{:X}\r\n{right}\r\n0\r\n\r\n",
        left.len(),
        right.len()
    );
    assert!(raw(&broker, request.as_bytes()).starts_with("HTTP/1.1 202 "));
}

#[test]
fn a_body_that_is_waited_for_is_asked_for_and_one_that_is_too_long_is_not() {
    let broker = Broker::start();
    let event = record("1", 1);
    let head = |length: usize| {
        format!(
            "POST /ce/produce/event HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents+json\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let mut stream = Stream::open(&broker.endpoint("demo")).unwrap();
    stream.write_all(head(event.len()).as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(event.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 202 "));
    assert!(raw(&broker, head(2 << 20).as_bytes()).starts_with("HTTP/1.1 413 "));
}

#[test]
fn unknown_paths_and_methods_are_named() {
    let broker = Broker::start();
    let mut connection = broker.connect("demo");
    expect(&connection.get("/ce/other", &[]).unwrap(), 404);
    let answer = connection.get("/ce/produce/event", &[]).unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = connection.get("/ce/consume/ws", &[]).unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")));
    expect(&connection.get("/ce/other", &[]).unwrap(), 404);
}

#[test]
fn problem_details_are_given_to_whoever_asks_for_them() {
    let broker = Broker::start();
    let event = record("1", 1).replace("\"number\":1", "\"number\":\"one\"");
    let headers = [("Accept", "application/problem+json")];
    let answer = broker
        .connect("demo")
        .post("/ce/produce/event", "application/cloudevents+json", &headers, event.as_bytes())
        .unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (422, Some("application/problem+json")));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/number");
    assert_eq!(problem["errors"][0]["id"], "1");
}

#[test]
fn a_request_that_takes_too_long_is_answered_408_and_an_idle_connection_is_closed() {
    let broker =
        Broker::with(&[("server", "request_timeout", "\"1s\""), ("server", "idle_timeout", "\"1s\"")]);
    assert!(raw(&broker, b"POST /ce/produce/event HTTP/1.1\r\nHost: lo").starts_with("HTTP/1.1 408 "));
    assert_eq!(raw(&broker, b""), "");
}

#[test]
fn a_request_that_begins_right_behind_another_may_take_no_longer() {
    let broker = Broker::with(&[("server", "request_timeout", "\"1s\"")]);
    let whole_and_a_part =
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /ce/produce/event HTTP/1.1\r\nHost: lo";
    let answers = raw(&broker, whole_and_a_part);
    assert!(answers.starts_with("HTTP/1.1 404 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 408 "), "{answers}");
}

#[test]
fn headers_without_end_are_refused() {
    let broker = Broker::start();
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {}", "a".repeat(20_000));
    assert!(raw(&broker, endless.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(raw(&broker, many.as_bytes()).starts_with("HTTP/1.1 431 "));
}

#[test]
fn an_address_gets_no_more_connections_than_it_may_have_and_more_when_it_closes_some() {
    let broker = Broker::with(&[("server", "max_connections_per_address", "3")]);
    let mut open: Vec<_> = (0..3).map(|_| broker.connect("demo")).collect();
    assert!(Connection::open(&broker.endpoint("demo")).is_err());
    expect(&post_event(&mut open[2], &record("1", 1)), 202);
    drop(open.pop());
    wait_for("a free place", || Connection::open(&broker.endpoint("demo")).ok());
}

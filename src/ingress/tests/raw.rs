//! Events in binary mode.

use super::*;

const HEADERS: [(&str, &[u8]); 4] =
    [("specversion", b"1.0"), ("id", b"1"), ("source", b"urn:a"), ("type", ANY.as_bytes())];

fn with<'a>(more: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
    HEADERS.iter().chain(more).copied().collect()
}

#[test]
fn headers_become_attributes_and_the_body_becomes_data_byte_for_byte() {
    let world = World::new();
    let headers = with(&[
        ("Subject", b"Chi%C8%99in%C4%83u"),
        ("PARTITIONKEY", b"\"k 1\""),
        ("myext", b"true"),
        ("time", b"2024-01-01T00:00:00Z"),
    ]);
    let block =
        world.raw("application/json; charset=utf-8", &headers, b"{\"a\" : [1.0 , \"\\u00e9\"]}\n").unwrap();
    let expected = format!(
        "{{\"specversion\":\"1.0\",\"source\":\"urn:a\",\"id\":\"1\",\"type\":\"{ANY}\",\"time\":\"2024-01-01T00:00:00Z\",\"datacontenttype\":\"application/json; charset=utf-8\",\"subject\":\"Chișinău\",\"partitionkey\":\"k 1\",\"myext\":\"true\",\"data\":{{\"a\" : [1.0 , \"\\u00e9\"]}}\n,\"offset\":\"1\"}}"
    );
    assert_eq!(delivered(&block), [expected]);
}

#[test]
fn text_and_bytes_are_wrapped_for_json() {
    let world = World::new();
    for (content_type, body, expected) in [
        ("text/plain", "a \"b\"\nș".as_bytes(), r#""datacontenttype":"text/plain","data":"a \"b\"\nș""#),
        ("text/plain", b"", r#""datacontenttype":"text/plain","data":"""#),
        (
            "application/octet-stream",
            b"\x00\xff",
            r#""datacontenttype":"application/octet-stream","data_base64":"AP8=""#,
        ),
        ("application/octet-stream", b"", r#""data_base64":"""#),
    ] {
        let block = world.raw(content_type, &HEADERS, body).unwrap();
        assert!(delivered(&block)[0].contains(expected), "{}", delivered(&block)[0]);
    }
}

#[test]
fn an_event_may_come_without_payload() {
    let world = World::new();
    let block = world.raw("", &HEADERS, b"").unwrap();
    assert!(!delivered(&block)[0].contains("data"));
}

#[test]
fn malformed_requests_are_400_and_named() {
    let world = World::new();
    let json = "application/json";
    type Headers = Vec<(&'static str, &'static [u8])>;
    let cases: [(&str, Headers, &[u8], &str); 18] = [
        ("", with(&[]), b"{}", "header Content-Type is missing, expected application/json, text/plain"),
        ("application/xml", with(&[]), b"<a/>", "header Content-Type must be"),
        ("json", with(&[]), b"{}", "header Content-Type must be"),
        ("text/plain; charset=latin1", with(&[]), b"a", "charset"),
        (json, with(&[]), b"", "the body is not valid JSON at byte 0"),
        (json, with(&[]), b"{} {}", "the body is not valid JSON at byte 3"),
        (json, with(&[]), b"\xef\xbb\xbf{}", "the body is not valid JSON at byte 0"),
        ("text/plain", with(&[]), b"ab\xff", "data is not UTF-8 at byte 2"),
        (json, with(&[("id", b"2")]), b"{}", r#"event id "1": attribute "id" is given twice"#),
        (json, with(&[("x", b"2"), ("X", b"2")]), b"{}", r#"attribute "x" is given twice"#),
        (json, with(&[("datacontenttype", b"text/plain")]), b"{}", "is given by the Content-Type header"),
        (json, with(&[("data", b"1")]), b"{}", "is given by the body"),
        (json, with(&[("my-ext", b"1")]), b"{}", r#"attribute "my-ext" is not an attribute name"#),
        (json, with(&[("offset", b"1")]), b"{}", "reserved"),
        (json, with(&[("subject", b"100%")]), b"{}", r#"attribute "subject" must be UTF-8, percent-encoded"#),
        (json, with(&[("subject", b"%0a")]), b"{}", "control characters"),
        (json, with(&[("subject", b"")]), b"{}", "must not be empty"),
        (json, HEADERS[1..].to_vec(), b"{}", r#"attribute "specversion" is missing"#),
    ];
    for (content_type, headers, body, expected) in cases {
        let (status, text) = refusal(world.raw(content_type, &headers, body));
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn the_schema_holds_for_raw_bodies_too() {
    let world = World::new();
    let mut headers = HEADERS;
    headers[3].1 = BORN.as_bytes();
    assert!(world.raw("application/json", &headers, br#"{"name":"n","age":1.0}"#).is_ok());
    let (status, text) = refusal(world.raw("application/json", &headers, br#"{"name":7}"#));
    assert_eq!(status, 422);
    assert!(text.starts_with(r#"event id "1": data at "/name": "#), "{text}");
    assert_eq!(refusal(world.raw("text/plain", &headers, b"{}")).0, 400);
    assert_eq!(refusal(world.raw("", &headers, b"")).0, 422);
}

#[test]
fn wrapping_counts_towards_the_size() {
    let world = World::new();
    assert_eq!(refusal(world.raw("application/octet-stream", &HEADERS, &[0; 49_000])).0, 413);
    assert!(world.raw("application/octet-stream", &HEADERS, &[0; 48_000]).is_ok());
    assert_eq!(refusal(world.raw("text/plain", &HEADERS, &[b'\n'; 33_000])).0, 413);
}

//! The parser as a connection uses it: requests that could be read in two ways, limits, pipelines, and any cut of the input.

use super::*;
use crate::http::{Method, Request, Version};
use proptest::prelude::*;

const BODY_BYTES_MAX: usize = 64;
const HEAD_MAX: usize = 400;

/// The requests read from a connection until it ends or goes wrong, the error, and what is left unread.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<(Request, Exchange)>,
    error: Option<Error>,
}

/// Feeds the pieces one after the other, as a connection would.
fn serve<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut parser = Parser::new(HEAD_MAX);
    let mut outcome = Outcome { requests: Vec::new(), error: None };
    for piece in pieces {
        if let Err(error) = serve_piece(&mut parser, piece, &mut outcome.requests) {
            outcome.error = Some(error);
            break;
        }
    }
    outcome
}

fn serve_piece(
    parser: &mut Parser,
    mut piece: &[u8],
    requests: &mut Vec<(Request, Exchange)>,
) -> Result<(), Error> {
    parser.take_body(&mut piece);
    loop {
        match parser.advance(&mut piece)? {
            Step::NeedMore => {
                assert!(piece.is_empty(), "a parser that needs more has used up what there was");
                return Ok(());
            }
            Step::Head => parser.keep_body(BODY_BYTES_MAX)?,
            Step::Complete(request, exchange) => requests.push((request, exchange)),
        }
    }
}

fn serve_text(input: &str) -> Outcome {
    serve([input.as_bytes()])
}

/// The outcome of a POST with these header lines and this body, followed by a request that must not be reached.
fn post(headers: &str, body: &str) -> Outcome {
    serve_text(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    ))
}

#[test]
fn whatever_could_be_framed_in_two_ways_ends_the_connection() {
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: \u{0665}\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "X: y\r\n Content-Length: 5\r\n",
        "X: y\r\n\tfolded\r\n",
        "X: y\nContent-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
        "X: y\r\r\nContent-Length: 5\r\n",
        "X: \0\r\n",
        "X\0: y\r\n",
        "X: y\u{7f}\r\n",
        "X\r\n",
        ": y\r\n",
        "X Y: z\r\n",
        "X\u{e9}: z\r\n",
        "Host: b\r\n",
        "Host: a\r\n",
    ] {
        let outcome = post(headers, "hello");
        assert_eq!(outcome.requests.len(), 0, "{headers:?}");
        assert!(matches!(outcome.error, Some(Error::Malformed(_))), "{headers:?}: {:?}", outcome.error);
    }
}

#[test]
fn request_lines_that_are_not_plain_end_the_connection() {
    for line in [
        "GET  / HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        " GET / HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\r\n",
        "GET /a b HTTP/1.1\r\n",
        "GET / HTTP/1.2\r\n",
        "GET / HTTP/2.0\r\n",
        "GET / HTTP/0.9\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/1.10\r\n",
        "GET /\r\n",
        "GET / \r\n",
        "G@T / HTTP/1.1\r\n",
        "GET /\0 HTTP/1.1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n",
    ] {
        let outcome = serve_text(&format!("{line}Host: a\r\n\r\n"));
        assert_eq!(outcome.requests.len(), 0, "{line:?}");
        assert!(matches!(outcome.error, Some(Error::Malformed(_))), "{line:?}: {:?}", outcome.error);
    }
}

#[test]
fn the_host_is_named_once_and_plainly() {
    let with = |version: &str, hosts: &str| serve_text(&format!("GET / HTTP/{version}\r\n{hosts}\r\n"));
    for host in ["", "a b", "a,b", "a/b", "u@a", "a?b", "a#b", "a\\b", "\u{e9}"] {
        assert!(with("1.1", &format!("Host: {host}\r\n")).error.is_some(), "{host:?}");
    }
    for host in ["a", "a.b:8443", "127.0.0.1", "[::1]:8443", "a_b"] {
        assert_eq!(with("1.1", &format!("Host: {host}\r\n")).requests.len(), 1, "{host:?}");
    }
    assert!(with("1.1", "").error.is_some());
    assert_eq!(with("1.0", "").requests.len(), 1);
    assert!(with("1.0", "Host: a\r\nHost: a\r\n").error.is_some());
}

#[test]
fn an_old_client_cannot_send_chunks() {
    let outcome = serve_text("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(matches!(outcome.error, Some(Error::Malformed(_))));
}

#[test]
fn pipelined_requests_are_read_one_after_the_other() {
    let outcome = serve_text(
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\
         \r\nPOST /b HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\nX: y\r\n\r\n\
         GET /c HTTP/1.0\r\n\r\nHEAD /d HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(outcome.error, None);
    let seen: Vec<_> =
        outcome.requests.iter().map(|(r, _)| (r.method, r.path.as_str(), &r.body[..], r.version)).collect();
    assert_eq!(
        seen,
        [
            (Method::Post, "/a", &b"abc"[..], Version::Http11),
            (Method::Post, "/b", b"def", Version::Http11),
            (Method::Get, "/c", b"", Version::Http10),
            (Method::Head, "/d", b"", Version::Http11),
        ]
    );
}

#[test]
fn what_follows_a_request_stays_with_the_caller() {
    let mut parser = Parser::new(HEAD_MAX);
    let mut input = &b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n\x81\x80frames"[..];
    assert_eq!(parser.advance(&mut input), Ok(Step::Head));
    parser.keep_body(0).unwrap();
    assert!(matches!(parser.advance(&mut input), Ok(Step::Complete(..))));
    assert_eq!(input, b"\x81\x80frames");
    assert!(parser.is_idle());
}

#[test]
fn a_declared_length_over_the_limit_fails_before_any_body_comes() {
    let outcome = post("Content-Length: 65\r\n", "");
    assert_eq!((outcome.requests.len(), outcome.error), (0, Some(Error::BodyTooLarge(BODY_BYTES_MAX))));
    assert_eq!(post("Content-Length: 64\r\n", &"x".repeat(64)).requests.len(), 2);
}

#[test]
fn a_dropped_body_is_counted_and_the_connection_goes_on() {
    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}");
        let mut parser = Parser::new(HEAD_MAX);
        let mut input = text.as_bytes();
        parser.advance(&mut input).unwrap();
        parser.drop_body(5).unwrap();
        let Ok(Step::Complete(request, _)) = parser.advance(&mut input) else { panic!("no request") };
        assert_eq!((request.body.len(), input.len(), parser.is_idle()), (0, 0, true));
    }
}

#[test]
fn the_head_is_limited_to_the_byte() {
    let head = |padding: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(padding));
    let fits = HEAD_MAX - head(0).len();
    assert_eq!(serve_text(&head(fits)).requests.len(), 1);
    assert_eq!(serve_text(&head(fits + 1)).error, Some(Error::HeadTooLarge(HEAD_MAX)));
    assert_eq!(serve_text(&"x".repeat(HEAD_MAX + 1)).error, Some(Error::HeadTooLarge(HEAD_MAX)));
}

#[test]
fn an_error_stays_and_swallows_nothing_more() {
    let mut parser = Parser::new(HEAD_MAX);
    let error = parser.advance(&mut &b"\n"[..]).unwrap_err();
    let mut good = &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..];
    assert_eq!(parser.advance(&mut good), Err(error));
    assert!(!parser.is_idle());
}

#[test]
fn each_error_has_its_status() {
    for (error, status) in [
        (Error::Malformed("x"), 400),
        (Error::HeadTooLarge(1), 431),
        (Error::TooManyHeaders, 431),
        (Error::BodyTooLarge(1), 413),
        (Error::Expectation, 417),
    ] {
        assert_eq!(error.status().0, status);
    }
}

/// Pieces of input that are sound, nearly sound, or not at all, so that random joins reach every state of the parser.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /?q HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n",
        b"POST /d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        b"5\r\nhello\r\n",
        b"a;x=y\r\n0123456789\r\n",
        b"0\r\n\r\n",
        b"0\r\nA: b\r\n\r\n",
        b"40\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"X: y\r\n",
    ];
    prop_oneof![
        8 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_outcome_does_not_depend_on_how_the_input_is_cut(
        fragments in prop::collection::vec(fragment(), 0..8),
        cuts in prop::collection::vec(1usize..60, 1..20),
    ) {
        let input = fragments.concat();
        let (mut rest, mut cut) = (&input[..], cuts.iter().cycle());
        let pieces = std::iter::from_fn(|| {
            let (piece, after) = rest.split_at(rest.len().min(*cut.next()?));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(serve(pieces), serve([&input[..]]));
    }

    #[test]
    fn a_sound_request_survives_one_changed_byte_without_a_panic(at in 0usize..200, byte in any::<u8>()) {
        let mut input = b"POST /ce/produce/raw?a=b HTTP/1.1\r\nHost: localhost:8443\r\nce-id: 1\r\n\
            Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n".to_vec();
        let at = at % input.len();
        input[at] = byte;
        let outcome = serve(input.chunks(7));
        prop_assert!(outcome.requests.len() <= 1);
    }

    #[test]
    fn a_request_that_was_written_is_read_back(
        path in "/[a-z/%.]{0,20}",
        query in prop::option::of("[a-z=&]{0,20}"),
        fields in prop::collection::vec(("[a-z-]{1,10}x", "[ -~]{0,20}"), 0..5),
        body in prop::collection::vec(any::<u8>(), 0..BODY_BYTES_MAX),
        chunk in prop::option::of(1usize..10),
    ) {
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut input = format!("POST {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in &fields {
            input.extend(format!("{name}: {value}\r\n").bytes());
        }
        write_body(&mut input, &body, chunk);
        let outcome = serve([&input[..]]);
        prop_assert_eq!(outcome.error, None);
        let (request, _) = &outcome.requests[0];
        prop_assert_eq!((&request.path, &request.query, &request.body), (&path, &query, &body));
        for (at, (name, value)) in fields.iter().enumerate() {
            let read = request.headers.iter().nth(at + 1).unwrap();
            prop_assert_eq!(read, (name.as_str(), value.trim_matches(' ').as_bytes()));
        }
    }
}

/// The end of a head and a body, in chunks of that size or with a length.
fn write_body(input: &mut Vec<u8>, body: &[u8], chunk: Option<usize>) {
    let Some(chunk) = chunk else {
        input.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        input.extend(body);
        return;
    };
    input.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(chunk) {
        input.extend(format!("{:X}\r\n", piece.len()).bytes());
        input.extend(piece);
        input.extend(b"\r\n");
    }
    input.extend(b"0\r\n\r\n");
}

#[test]
fn a_request_whose_body_goes_wrong_still_says_what_it_was() {
    let mut parser = Parser::new(HEAD_MAX);
    assert!(parser.request().is_none());
    let mut input = &b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"[..];
    assert_eq!(parser.advance(&mut input), Ok(Step::Head));
    assert_eq!(parser.request().unwrap().path, "/a");
    parser.keep_body(BODY_BYTES_MAX).unwrap();
    for _ in 0..2 {
        assert!(parser.advance(&mut input).is_err());
        assert_eq!(parser.request().unwrap().path, "/a");
    }
}

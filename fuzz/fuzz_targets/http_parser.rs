//! A connection's bytes give the same requests, or the same error, however they are cut, and whatever a request says is read
//! without a panic. The first byte of the input is the size of the pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nistru::http::date::HttpDate;
use nistru::http::h1::{Error, Exchange, Parser, Step};
use nistru::http::media::MediaType;
use nistru::http::query::Query;
use nistru::http::{Problem, Request, Status};
use nistru::ws::handshake;

const HEAD_BYTES_MAX: usize = 2048;
const BODY_BYTES_MAX: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&size, input)) = data.split_first() else { return };
    let whole = serve([input]);
    let pieces = serve(input.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces);
    whole.0.iter().for_each(|(request, exchange)| answer(request, *exchange));
});

type Served = (Vec<(Request, Exchange)>, Option<Error>);

fn serve<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Served {
    let mut parser = Parser::new(HEAD_BYTES_MAX);
    let mut requests = Vec::new();
    for piece in pieces {
        if let Err(error) = serve_piece(&mut parser, piece, &mut requests) {
            return (requests, Some(error));
        }
    }
    (requests, None)
}

fn serve_piece(
    parser: &mut Parser,
    mut piece: &[u8],
    requests: &mut Vec<(Request, Exchange)>,
) -> Result<(), Error> {
    loop {
        match parser.advance(&mut piece)? {
            Step::NeedMore => {
                assert!(piece.is_empty());
                return Ok(());
            }
            Step::Head => parser.keep_body(BODY_BYTES_MAX)?,
            Step::Complete(request, exchange) => requests.push((request, exchange)),
        }
    }
}

/// Reads what an endpoint would read and encodes an answer, which must be one response and nothing more.
fn answer(request: &Request, exchange: Exchange) {
    assert!(request.body.len() <= BODY_BYTES_MAX);
    let query = request.query.as_deref().map(Query::parse);
    let media = request.headers.get_str("content-type").map(MediaType::parse);
    let mut problem = Problem::new(Status::BAD_REQUEST, format!("{query:?} {media:?}"));
    if let Err(refusal) = handshake::accept(request, "cloudevents.json") {
        problem.detail = refusal.to_string();
    }
    let response = problem.respond_to(&request.headers).with_header("X-Echo", &request.path);
    let mut out = Vec::new();
    exchange.encode(&response, &mut HttpDate::default(), 0, &mut out);
    let ends = out.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head ends");
    assert!(out.len() - (ends + 4) <= response.body.len());
}

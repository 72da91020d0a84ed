//! Reading a request from bytes that have come.

use crate::{HotPath, sample};
use nistru::http::Request;
use nistru::http::h1::{HEAD_BYTES_MAX, Parser, Step};

/// A connection that is sent the same request again and again.
struct Parsing {
    parser: Parser,
    sent: Vec<u8>,
    request: Option<Request>,
}

/// Head and body of a POST of so many events.
pub fn parsed(events: usize) -> Box<dyn HotPath> {
    Box::new(Parsing { parser: Parser::new(HEAD_BYTES_MAX), sent: sample::post(events), request: None })
}

impl HotPath for Parsing {
    fn run(&mut self) {
        let mut bytes = &self.sent[..];
        loop {
            match self.parser.advance(&mut bytes).expect("a good request") {
                Step::Head => self.parser.keep_body(1 << 20).expect("a small body"),
                Step::Complete(request, _) => {
                    self.request = Some(request);
                    return;
                }
                Step::NeedMore => unreachable!("the request is whole"),
            }
        }
    }

    fn outcome(&mut self) -> Vec<u8> {
        let request = self.request.take().expect("a request was read");
        let mut made = format!("{request:?}").into_bytes();
        made.extend_from_slice(&request.body);
        made
    }
}

//! Answers to requests. Nearly all of a run are the same accepting bytes, so those are compared and not parsed.

use nistru::client::{Answer, Body, Error, Head};

/// The answers on one connection.
#[derive(Default)]
pub struct Answers {
    /// An answer whose end has not come.
    begun: Vec<u8>,
    /// The last accepting answer.
    accepted: Vec<u8>,
}

/// One answer: nothing but acceptance, or what the broker said.
pub type Refusal = Option<Box<Answer>>;

impl Answers {
    /// Takes bytes that came; `Some` when they complete the answer.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Refusal>, Error> {
        if self.begun.is_empty() && bytes == self.accepted {
            return Ok(Some(None));
        }
        self.begun.extend_from_slice(bytes);
        let Some(head) = Head::parse(&self.begun)? else { return Ok(None) };
        if (200..300).contains(&head.status) && head.body == Body::Length(0) {
            self.accepted = self.begun.drain(..head.bytes).collect();
            return self.end(None);
        }
        let Some((answer, taken, _)) = Answer::parse(&self.begun, false)? else { return Ok(None) };
        self.begun.drain(..taken);
        self.end(Some(Box::new(answer)))
    }

    fn end(&self, refusal: Refusal) -> Result<Option<Refusal>, Error> {
        match self.begun.is_empty() {
            true => Ok(Some(refusal)),
            false => Err(Error::Protocol("an answer without a request".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy";

    #[test]
    fn answers_come_whole_or_in_pieces() {
        for pieces in [1, 7, 1000] {
            let mut answers = Answers::default();
            for (bytes, status) in [(ACCEPTED, None), (ACCEPTED, None), (BUSY, Some(503)), (ACCEPTED, None)] {
                let mut taken: Vec<_> =
                    bytes.chunks(pieces).map(|piece| answers.take(piece).unwrap()).collect();
                let last = taken.pop().unwrap().expect("a complete answer");
                assert_eq!(last.map(|answer| answer.status), status);
                assert!(taken.iter().all(Option::is_none));
            }
        }
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_an_error() {
        assert!(Answers::default().take(&[ACCEPTED, b"HTTP"].concat()).is_err());
        assert!(Answers::default().take(b"SSH-2.0\r\n").is_err());
    }
}

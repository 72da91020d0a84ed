//! Error answers: plain text for people, RFC 9457 problem details for programs that ask for them.

use super::{Headers, Response, Status, accept};
use serde::Serialize;
use std::fmt::Write;

/// Why a request failed, for the developer of the client that sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub status: Status,
    /// What was wrong and what was expected, without a full stop at the end.
    pub detail: String,
    /// The events that failed, when the request was about events.
    pub errors: Vec<ProblemError>,
    /// Failing events that are not in `errors`.
    pub errors_left_out: usize,
    /// Header fields that the status asks for: `Retry-After`, `Allow`, `Upgrade`.
    pub headers: Vec<(&'static str, String)>,
    /// End the connection after the answer.
    pub close: bool,
}

/// One failing event, or one failing part of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ProblemError {
    /// Place in the batch, from 0; none for a single event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<usize>,
    /// The event's `id`, as far as it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The attribute that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// The place in `data` that is wrong, as a JSON Pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The status this error alone would have had.
    pub status: u16,
    /// What was wrong and what was expected.
    pub detail: String,
}

/// The members of `application/problem+json` (RFC 9457, 3.1), `type` being `about:blank` and so left out.
#[derive(Serialize)]
struct Details<'a> {
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ProblemError],
    #[serde(skip_serializing_if = "Option::is_none")]
    errors_left_out: Option<usize>,
}

impl Problem {
    /// A problem that is about no event in particular.
    pub fn new(status: Status, detail: impl Into<String>) -> Self {
        let (errors, headers) = (Vec::new(), Vec::new());
        Self { status, detail: detail.into(), errors, errors_left_out: 0, headers, close: false }
    }

    /// Ends the connection after the answer.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds a header field to the answer.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says in how many seconds trying again makes sense (429 and 503).
    pub fn retry_after(self, seconds: u32) -> Self {
        self.with_header("Retry-After", seconds.to_string())
    }

    /// The answer in the form that the request's `Accept` asks for.
    pub fn respond_to(&self, request: &Headers) -> Response {
        let mut response = match accept::prefers_problem_json(request) {
            true => Response::new(self.status).with_body("application/problem+json", self.to_json()),
            false => Response::text(self.status, self.to_text()),
        };
        response.close = self.close;
        self.headers.iter().fold(response, |response, (name, value)| response.with_header(name, value))
    }

    /// The detail, then one line for each failing event.
    pub fn to_text(&self) -> String {
        let mut text = self.detail.clone();
        for error in &self.errors {
            text.push('\n');
            error.write_line(&mut text);
        }
        if let Some(left_out) = self.left_out() {
            let _ = write!(text, "\nand {left_out} more");
        }
        text
    }

    fn to_json(&self) -> Vec<u8> {
        let details = Details {
            title: self.status.reason(),
            status: self.status.0,
            detail: &self.detail,
            errors: &self.errors,
            errors_left_out: self.left_out(),
        };
        serde_json::to_vec(&details).expect("strings and numbers are always JSON")
    }

    fn left_out(&self) -> Option<usize> {
        Some(self.errors_left_out).filter(|&count| count > 0)
    }
}

impl ProblemError {
    /// `event 3, id "…": attribute "type": …`, of which only the last part always stands.
    fn write_line(&self, line: &mut String) {
        let mut parts = Vec::with_capacity(2);
        parts.extend(self.event.map(|event| format!("event {event}")));
        parts.extend(self.id.as_ref().map(|id| format!("id {id:?}")));
        if !parts.is_empty() {
            let _ = write!(line, "{}: ", parts.join(", "));
        }
        if let Some(attribute) = &self.attribute {
            let _ = write!(line, "attribute {attribute:?}: ");
        }
        match self.pointer.as_deref() {
            Some("") => line.push_str("data: "),
            Some(pointer) => drop(write!(line, "data at {pointer:?}: ")),
            None => {}
        }
        line.push_str(&self.detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(errors: usize) -> Problem {
        let error = |event| ProblemError {
            event: Some(event),
            id: Some("a\"b".into()),
            pointer: Some("/person/idnp".into()),
            status: 422,
            detail: "expected a string of 13 digits".into(),
            ..ProblemError::default()
        };
        Problem {
            errors: (0..errors).map(error).collect(),
            ..Problem::new(Status::UNPROCESSABLE_CONTENT, "no event of the batch was taken")
        }
    }

    fn asking_for(accept: &str) -> Headers {
        let mut headers = Headers::new();
        headers.push("Accept", accept);
        headers
    }

    #[test]
    fn text_names_event_id_and_place() {
        let response = batch(1).respond_to(&Headers::new());
        assert_eq!(response.headers.get_str("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(
            std::str::from_utf8(&response.body).unwrap(),
            "no event of the batch was taken\n\
             event 0, id \"a\\\"b\": data at \"/person/idnp\": expected a string of 13 digits"
        );
    }

    #[test]
    fn problem_json_carries_the_same() {
        let response = batch(2).respond_to(&asking_for("application/problem+json"));
        assert_eq!(response.headers.get_str("content-type"), Some("application/problem+json"));
        let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((&json["status"], &json["title"]), (&422.into(), &"Unprocessable Content".into()));
        assert_eq!(json["errors"][1]["event"], 1);
        assert_eq!(json["errors"][1]["pointer"], "/person/idnp");
        assert!(json["errors"][1].get("attribute").is_none() && json.get("errors_left_out").is_none());
    }

    #[test]
    fn a_list_that_was_cut_says_so() {
        let problem = Problem { errors_left_out: 3, ..batch(5) };
        assert!(problem.to_text().ends_with("\nand 3 more"));
        assert_eq!(problem.to_text().lines().count(), 5 + 2);
        let json: serde_json::Value = serde_json::from_slice(&problem.to_json()).unwrap();
        assert_eq!((json["errors"].as_array().unwrap().len(), &json["errors_left_out"]), (5, &3.into()));
        assert!(!batch(5).to_text().contains("more"));
    }

    #[test]
    fn a_retry_hint_becomes_a_header() {
        let problem = Problem::new(Status::SERVICE_UNAVAILABLE, "the disk is full").retry_after(5);
        assert_eq!(problem.respond_to(&Headers::new()).headers.get_str("Retry-After"), Some("5"));
    }
}

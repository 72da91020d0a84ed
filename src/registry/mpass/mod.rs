//! Clients from the client API of MPass.
//!
//! `GET {url}?searchType=CertificateSerialNumber&searchValue={serial}` answers who holds a certificate, `searchType=ID` what a
//! client is like now, each as JSON `{ID, Name, OwnerID, Certificates, Settings}`; 404 means that there is none. [`answer`]
//! reads that, with [`certificates`] and [`settings`] for its harder parts; [`directory`] decides what to ask when and knows who
//! waits; [`cache_file`] keeps what is known over a restart. Event types and schemas still come from files.

mod answer;
mod cache_file;
mod certificates;
mod directory;
#[cfg(test)]
mod directory_tests;
mod settings;

pub use cache_file::{FILE, Remembered, read as read_remembered, write as write_remembered};
pub use directory::{Directory, Question, Reply, Rules, Verdict};
pub use settings::{Bounds, SCHEMA};

use crate::outgoing::{Client, Failure};
use certificates::searched_serial;

/// Largest answer taken.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A reply, and why it is one of those that are of no use.
pub struct Asked {
    pub reply: Reply,
    pub reason: Option<String>,
}

/// Asks the API. Blocks, for as long as its timeout allows. `note` hears of mistakes in the answer that do not matter.
pub fn ask(api: &Client, question: &Question, bounds: &Bounds, note: impl FnMut(String)) -> Asked {
    let because = |reply, reason| Asked { reply, reason: Some(reason) };
    match api.get(&query(question)) {
        Ok(answer) => match answer::read(&answer.body, bounds, note) {
            Ok(found) => Asked { reply: Reply::Found(found), reason: None },
            Err(problems) => because(Reply::Unusable, problems.join("; ")),
        },
        Err(Failure::Status { status: 404, .. }) => Asked { reply: Reply::NotFound, reason: None },
        // Of this question alone: an API that fails says 401, 403, 429 or 5xx.
        Err(failure @ (Failure::TooLarge(_) | Failure::Status { status: 400 | 422, .. })) => {
            because(Reply::Unusable, failure.to_string())
        }
        Err(failure) => because(Reply::Failed, failure.to_string()),
    }
}

fn query(question: &Question) -> String {
    match question {
        Question::Certificate(key) => {
            format!("?searchType=CertificateSerialNumber&searchValue={}", searched_serial(key))
        }
        Question::Client(id) => format!("?searchType=ID&searchValue={id}"),
    }
}

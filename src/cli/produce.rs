//! `nistru produce`: events in as JSON lines, or payloads to be dressed as events.

mod batch;
mod envelope;
mod lines;
mod sender;

use super::outcome::{EXIT_CODES, Outcome};
use super::progress;
use super::stop::Stop;
use super::target::Target;
use clap::{Args, builder::RangedU64ValueParser};
use envelope::Envelope;
use lines::{InputError, Line, read_ahead};
use sender::{Failure, Sender, Tally};
use serde_json::value::RawValue;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

/// Sends events, one CloudEvent in the JSON format per line, and ends when the broker has accepted them all.
///
/// With --raw the lines are payloads, and the attributes are given as options. Blank lines are skipped. What was
/// accepted is durable: it will be delivered even if the broker is killed the moment after.
#[derive(Args, Debug, Clone)]
#[command(after_help = EXIT_CODES)]
pub struct Produce {
    #[command(flatten)]
    pub target: Target,
    /// The input [default: standard input]
    pub file: Option<PathBuf>,
    /// Send up to N events in one request, which the broker takes wholly or not at all
    #[arg(long, short, value_name = "N", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub batch: usize,
    /// Largest request body in bytes; a batch that would be longer is sent in parts
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    pub request_bytes: usize,
    /// Try a request again, up to N times, when the connection breaks or the broker is overloaded. A request whose
    /// answer was lost may be stored twice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retry: u32,
    /// Go on with the next request after one was refused
    #[arg(long)]
    pub keep_going: bool,
    #[command(flatten)]
    pub payload: Payload,
}

/// Options for payloads that are not events yet.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Payloads")]
pub struct Payload {
    /// Every line is a payload: a JSON value, a text, or bytes, as --content-type says
    #[arg(long, requires = "event_type", requires = "source")]
    pub raw: bool,
    /// The whole input is one payload
    #[arg(long, requires = "raw")]
    pub whole: bool,
    /// The event type, such as Demo.Load.Record.Created
    #[arg(long = "type", value_name = "TYPE", requires = "raw")]
    pub event_type: Option<String>,
    /// The source, such as urn:demo
    #[arg(long, value_name = "URI", requires = "raw")]
    pub source: Option<String>,
    /// The subject
    #[arg(long, value_name = "TEXT", requires = "raw")]
    pub subject: Option<String>,
    /// The partition key: events with the same key are delivered in order
    #[arg(long, value_name = "TEXT", requires = "raw")]
    pub partition_key: Option<String>,
    /// The media type of the payloads
    #[arg(long, value_name = "MEDIA", requires = "raw", default_value = "application/json")]
    pub content_type: String,
    /// Another attribute, may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", requires = "raw", value_parser = attribute)]
    pub attributes: Vec<(String, String)>,
}

impl Produce {
    /// Does it all: signals, input, messages on stderr.
    pub fn run(&self) -> Outcome {
        let (result, tally) = match Stop::on_signal() {
            Ok(stop) => self.send_input(stop),
            Err(error) => (Err(Failure::Local(format!("cannot handle signals: {error}"))), Tally::default()),
        };
        if let Err(failure) = &result {
            eprintln!("nistru produce: {failure}{}", tally.after_failure());
        }
        outcome(&result, &tally)
    }

    fn send_input(&self, stop: Stop) -> (Result<(), Failure>, Tally) {
        match self.prepare(stop) {
            Ok((mut sender, lines)) => {
                let result = self.send_lines(&mut sender, &lines);
                (result, sender.finish())
            }
            Err(failure) => (Err(failure), Tally::default()),
        }
    }

    fn prepare(&self, stop: Stop) -> Result<(Sender, Receiver<Result<Line, InputError>>), Failure> {
        let endpoint = self.target.endpoint()?;
        let lines = self.read_input()?;
        let sender = Sender::open(&endpoint, self, stop, progress::counter(&io::stdin()))?;
        Ok((sender, lines))
    }

    fn read_input(&self) -> Result<Receiver<Result<Line, InputError>>, Failure> {
        let read = |input: Box<dyn BufRead + Send>| read_ahead(input, self.request_bytes, self.payload.whole);
        match &self.file {
            None => Ok(read(Box::new(BufReader::new(io::stdin())))),
            Some(path) => {
                let file = File::open(path)
                    .map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
                Ok(read(Box::new(BufReader::with_capacity(1 << 16, file))))
            }
        }
    }

    fn send_lines(
        &self,
        sender: &mut Sender,
        lines: &Receiver<Result<Line, InputError>>,
    ) -> Result<(), Failure> {
        let envelope = self.payload.envelope();
        loop {
            match sender.next_line(lines)? {
                None => return Ok(()),
                Some(Err(error)) => {
                    sender.send()?;
                    return Err(Failure::Local(error.to_string()));
                }
                Some(Ok(line)) => match event_of(&line, envelope.as_ref()) {
                    Ok(event) => sender.add(line.number, &event)?,
                    Err(why) => sender.bad_line(line.number, &why)?,
                },
            }
        }
    }
}

impl Payload {
    /// `None` when the lines are events already.
    fn envelope(&self) -> Option<Envelope> {
        self.raw.then(|| Envelope {
            source: self.source.clone().unwrap_or_default(),
            event_type: self.event_type.clone().unwrap_or_default(),
            subject: self.subject.clone(),
            partition_key: self.partition_key.clone(),
            content_type: self.content_type.clone(),
            extensions: self.attributes.iter().cloned().collect(),
        })
    }
}

/// The event to send. A line that is an event already must at least be one JSON object, or it would shift the
/// meaning of its neighbours in a batch; everything else is for the broker to judge.
fn event_of(line: &Line, envelope: Option<&Envelope>) -> Result<Vec<u8>, String> {
    if let Some(envelope) = envelope {
        let id = uuid::Uuid::new_v4().to_string();
        return envelope.wrap(&id, &line.bytes);
    }
    match serde_json::from_slice::<&RawValue>(&line.bytes) {
        Ok(value) if value.get().starts_with('{') => Ok(line.bytes.trim_ascii().to_vec()),
        Ok(_) => Err("not a JSON object; for payloads use --raw".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn outcome(result: &Result<(), Failure>, tally: &Tally) -> Outcome {
    let all_or_part = |all| if tally.accepted > 0 { Outcome::Partial } else { all };
    match result {
        Ok(()) if tally.refused == 0 => Outcome::Done,
        Ok(()) | Err(Failure::Refused(_)) => all_or_part(Outcome::Rejected),
        Err(Failure::Local(_)) => all_or_part(Outcome::Local),
        Err(Failure::Stopped) => Outcome::Partial,
        Err(Failure::Broker(error)) => Outcome::from(error),
    }
}

#[cfg(test)]
mod tests;

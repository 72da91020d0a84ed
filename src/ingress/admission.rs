//! Going through a produce request, a bounded piece of work at a time.

use super::binary;
use super::block::{Block, Builder};
use super::rejection::{Fault, Faults, Place, Rejection, Status};
use super::request::{Form, Produced};
use super::rules::Event;
use super::structured;
use crate::event::json::{self, Document, JsonError, Problem, Tape};
use crate::event::media_type::MediaType;
use crate::id::{Partition, TypeId};
use crate::registry::model::{Client, Consumer, EventType, Producer, Registry};
use crate::schema::SchemaSet;
use std::borrow::Cow;
use std::num::NonZeroU8;

/// Bytes of a request that one step looks at, rounded up to whole events: well under a millisecond of work.
pub const STEP_BYTES: usize = 64 << 10;

/// An escape of a surrogate pair, the longest thing of which a part is not merely unfinished but wrong.
const ESCAPE_BYTES_MAX: usize = 12;

/// What an event costs at least, as bytes: small ones are not cheaper to check.
const EVENT_BYTES_MIN: usize = 512;

/// What the broker's settings and clock say about every event.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// How far in the future the `time` of an event may lie.
    pub skew_ms: u64,
    /// Partitions of the data directory, 64 at most.
    pub partitions: NonZeroU8,
    /// Largest event as delivered, where neither client nor event type says otherwise.
    pub event_bytes_max: usize,
}

/// Who produces, and under which rules.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    pub client: &'a Client,
    pub rights: Rights<'a>,
    pub registry: &'a Registry,
    /// The compiled schemas of `registry`.
    pub schemas: &'a SchemaSet,
    pub settings: &'a Settings,
}

/// Which events a client may send, and where they go.
#[derive(Clone, Copy)]
pub enum Rights<'a> {
    /// What it produces goes to everybody who consumes the type.
    Produce(&'a Producer),
    /// What it tries its own consumers with goes to its test log, which is this partition, under the client's number there. The
    /// types are those it consumes; the sources are anybody's.
    Test { consumer: &'a Consumer, partition: Partition, type_id: TypeId },
}

/// A produce request being read.
pub struct Admission<'a> {
    authority: Authority<'a>,
    produced: Produced<'a>,
    /// Bytes that an event may take as sent; see [`Authority::event_text_max`].
    event_text_max: usize,
    tape: Tape,
    builder: Builder,
    faults: Faults,
    progress: Progress,
}

enum Progress {
    /// Nothing was looked at.
    New,
    /// In an array of events, behind the opening bracket or a comma; the position and the next event's index.
    Batch(usize, u32),
    Finished,
}

impl Authority<'_> {
    /// The stricter of what client and type say, or the broker's limit when neither says anything.
    pub(super) fn event_bytes_max(&self, event_type: &EventType) -> usize {
        match (self.client.limits.event_bytes_max, event_type.event_bytes_max) {
            (Some(client), Some(event_type)) => client.min(event_type),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) => self.settings.event_bytes_max,
        }
    }

    /// How many bytes of text to read as one event before calling it too large, whatever its type: twice the largest
    /// limit there is, as escapes and spaces between attributes may vanish, but data does not. It bounds a step.
    fn event_text_max(&self) -> usize {
        let client = self.client.limits.event_bytes_max.unwrap_or(self.settings.event_bytes_max);
        client.max(self.registry.event_bytes_max.unwrap_or(0)).saturating_mul(2)
    }
}

impl<'a> Admission<'a> {
    /// A request to be read with [`Admission::step`].
    pub fn new(authority: Authority<'a>, produced: Produced<'a>) -> Self {
        assert!(authority.settings.partitions.get() <= 64, "a block's mask has 64 bits");
        let body = produced.body.len();
        Self {
            authority,
            produced,
            event_text_max: authority.event_text_max(),
            tape: Tape::for_text(body),
            builder: Builder::new(body + body / 8 + 256),
            faults: Faults::default(),
            progress: Progress::New,
        }
    }

    /// Looks at about `bytes` more of the request. Returns its outcome when all of it was looked at; must not be
    /// called again after that.
    pub fn step(&mut self, bytes: usize) -> Option<Result<Block, Rejection>> {
        match self.advance(bytes) {
            Ok(()) => {}
            Err((index, fault)) => {
                self.faults.add(index, None, fault);
                self.progress = Progress::Finished;
            }
        }
        match self.progress {
            Progress::Finished => Some(self.outcome()),
            _ => None,
        }
    }

    /// Reads the whole request at once: for callers that have no one to wait for them.
    pub fn run(mut self) -> Result<Block, Rejection> {
        loop {
            if let Some(outcome) = self.step(STEP_BYTES) {
                return outcome;
            }
        }
    }

    fn outcome(&mut self) -> Result<Block, Rejection> {
        match std::mem::take(&mut self.faults).rejection() {
            Some(rejection) => Err(rejection),
            None => Ok(std::mem::replace(&mut self.builder, Builder::new(0)).finish()),
        }
    }

    /// Fails when the rest of the request cannot be read; the number is that of the event it stopped at.
    fn advance(&mut self, bytes: usize) -> Result<(), (Option<u32>, Fault)> {
        match (&self.progress, self.produced.form) {
            (Progress::New, Form::Raw) => self.raw().map_err(|fault| (None, fault)),
            (Progress::New, Form::Event) => self.single().map_err(|fault| (None, fault)),
            (Progress::New, Form::Batch) => self.open_batch().map_err(|fault| (None, fault)),
            (Progress::Batch(at, index), _) => self.batch(*at, *index, bytes),
            (Progress::Finished, _) => panic!("an admission was stepped after its outcome"),
        }
    }

    fn raw(&mut self) -> Result<(), Fault> {
        let Self { authority, produced, event_text_max, tape, builder, faults, progress } = self;
        *progress = Progress::Finished;
        let content = binary::content(produced)?;
        if produced.body.len() > *event_text_max {
            return Err(too_large(*event_text_max));
        }
        let document = match content {
            Some(binary::Content::Json) => {
                Some(tape.read_all(produced.body).map_err(|error| malformed(0, error))?)
            }
            _ => None,
        };
        let event = binary::read(produced, content, document.as_ref());
        let mut taker = Taker { authority, builder, faults };
        taker.take(None, || binary::id(produced), event);
        Ok(())
    }

    fn single(&mut self) -> Result<(), Fault> {
        let Self { authority, produced, event_text_max, tape, builder, faults, progress } = self;
        *progress = Progress::Finished;
        check_content_type(produced)?;
        let (document, end) = read_event(tape, produced.body, 0, *event_text_max)?;
        check_end(produced.body, end)?;
        let root = document.root();
        let mut taker = Taker { authority, builder, faults };
        taker.take(None, || structured::id(root), structured::read(root));
        Ok(())
    }

    fn open_batch(&mut self) -> Result<(), Fault> {
        check_content_type(&self.produced)?;
        let body = self.produced.body;
        let open = json::whitespace(body);
        if body.get(open) != Some(&b'[') {
            return Err(Fault::malformed("the body must be a JSON array of events"));
        }
        let first = open + 1 + json::whitespace(&body[open + 1..]);
        if body.get(first) == Some(&b']') {
            return self.close_batch(first + 1);
        }
        self.progress = Progress::Batch(first, 0);
        Ok(())
    }

    fn batch(&mut self, mut at: usize, mut index: u32, bytes: usize) -> Result<(), (Option<u32>, Fault)> {
        let body = self.produced.body;
        let mut spent = 0;
        while spent < bytes {
            let start = at;
            at = self.batched_event(at, index).map_err(|fault| (Some(index), fault))?;
            at += json::whitespace(&body[at..]);
            spent += (at - start).max(EVENT_BYTES_MIN);
            match body.get(at) {
                Some(b',') => (at, index) = (at + 1, index + 1),
                Some(b']') => return self.close_batch(at + 1).map_err(|fault| (None, fault)),
                found => return Err((None, malformed(at, no_comma(found)))),
            }
        }
        self.progress = Progress::Batch(at, index);
        Ok(())
    }

    /// Takes the event at `at` and tells where it ends.
    fn batched_event(&mut self, at: usize, index: u32) -> Result<usize, Fault> {
        let Self { authority, produced, event_text_max, tape, builder, faults, .. } = self;
        let (document, end) = read_event(tape, produced.body, at, *event_text_max)?;
        let root = document.root();
        let mut taker = Taker { authority, builder, faults };
        if taker.take(Some(index), || structured::id(root), structured::read(root)) {
            taker.refuse_repeated(index, root);
        }
        Ok(end)
    }

    /// Nothing but whitespace may follow the array, which ends at `end`.
    fn close_batch(&mut self, end: usize) -> Result<(), Fault> {
        self.progress = Progress::Finished;
        check_end(self.produced.body, end)
    }
}

/// Puts events into the block, or what is wrong with them to the faults.
struct Taker<'t, 'a> {
    authority: &'t Authority<'a>,
    builder: &'t mut Builder,
    faults: &'t mut Faults,
}

impl Taker<'_, '_> {
    /// Takes one event that was read, or its fault. Tells whether it is in the block now.
    fn take<'e>(
        &mut self,
        index: Option<u32>,
        id: impl Fn() -> Option<Cow<'e, str>>,
        event: Result<Event<'_>, Fault>,
    ) -> bool {
        match event.and_then(|event| self.append(&event)) {
            Ok(faults) => {
                for fault in faults {
                    self.faults.add(index, id().as_deref(), fault);
                }
                true
            }
            Err(fault) => {
                self.faults.add(index, id().as_deref(), fault);
                false
            }
        }
    }

    /// Appends the event, then holds it against its schema: by then its size is known to be bounded.
    fn append(&mut self, event: &Event<'_>) -> Result<Vec<Fault>, Fault> {
        let event_type = event.judge(self.authority)?;
        self.builder.append(|out| event.encode(event_type, self.authority, out))?;
        Ok(event.schema_faults(event_type, self.authority))
    }

    fn refuse_repeated(&mut self, index: u32, event: json::Value<'_>) {
        if self.builder.is_repeated() {
            let fault = Fault::malformed("an earlier event of this batch has the same source and id");
            self.faults.add(Some(index), structured::id(event).as_deref(), fault);
        }
    }
}

fn check_content_type(produced: &Produced<'_>) -> Result<(), Fault> {
    let expected = produced.form.expected_content_type();
    let Some(header) = produced.content_type else {
        return Err(Fault::content_type(format!("is missing, expected {expected}")));
    };
    // Nearly all requests name it without parameters: reading it as a media type took 1,200 instructions of each.
    if header.eq_ignore_ascii_case(expected.as_bytes()) {
        return Ok(());
    }
    let given = std::str::from_utf8(header).ok().and_then(MediaType::read).filter(|given| given.is(expected));
    match given {
        Some(media_type) if media_type.is_utf8() => Ok(()),
        Some(_) => Err(Fault::content_type("must not name a charset other than utf-8")),
        None => Err(Fault::content_type(format!("must be {expected}"))),
    }
}

/// Reads the value at `at` of `body`, which may take `max` bytes, and tells where it ends.
fn read_event<'t>(
    tape: &'t mut Tape,
    body: &'t [u8],
    at: usize,
    max: usize,
) -> Result<(Document<'t>, usize), Fault> {
    let text = &body[at..body.len().min(at.saturating_add(max))];
    let cut = at + text.len() < body.len();
    match tape.read(text) {
        Ok((document, length)) => Ok((document, at + length)),
        Err(error) if cut && error.at + ESCAPE_BYTES_MAX > text.len() => Err(too_large(max)),
        Err(error) => Err(malformed(at, error)),
    }
}

/// What is wrong when `found` follows an event of a batch.
fn no_comma(found: Option<&u8>) -> JsonError {
    let problem = match found {
        Some(_) => Problem::Expected("\",\" or \"]\" after an event"),
        None => Problem::Ended,
    };
    JsonError { at: 0, problem }
}

/// Refuses anything but whitespace after what ends at `end`.
fn check_end(body: &[u8], end: usize) -> Result<(), Fault> {
    match end + json::whitespace(&body[end..]) {
        at if at == body.len() => Ok(()),
        at => Err(malformed(at, JsonError { at: 0, problem: Problem::Expected("the end of the text") })),
    }
}

/// `error` was met in what starts at byte `start` of the body.
fn malformed(start: usize, error: JsonError) -> Fault {
    let error = JsonError { at: start + error.at, ..error };
    Fault::malformed(format!("the body is {error}"))
}

fn too_large(max: usize) -> Fault {
    let reason = format!("the event takes more than {max} bytes as sent, and is too large whatever its type");
    Fault { status: Status::TooLarge, place: Place::Whole, reason }
}

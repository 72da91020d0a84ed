//! Long polling: consumers that ask again and again instead of keeping a WebSocket open.
//!
//! An [`instance`] is a task on the core that made it. Its [`address`] leads there from every connection on every core: requests
//! ask it by message ([`crate::broker::instances`]), and the one that waits for events is a [`WaitingRead`], which the connection
//! drops when its client goes away.

mod address;
mod instance;

pub use address::Call;

use super::feed::Feed;
use super::subscription::Subscription;
use super::{Outcome, not_a, produce, too_many};
use crate::auth::Peer;
use crate::broker::instances::{Question, Reading, Receipt, Told, What};
use crate::broker::places::Kind;
use crate::broker::{Core, Slice};
use crate::event::{batch, binary::Binary};
use crate::http::query::{Query, QueryError};
use crate::http::{Problem, Request, Response, Status};
use crate::id::ClientId;
use crate::ingress::report::Report;
use crate::ingress::{Form, Produced};
use crate::registry::model::Client;
use crate::rt;
use address::Address;
use instance::Instance;
use std::rc::Rc;

/// Seconds after which a client whose broker stops, or has no room for its instance, may come again.
const RETRY_AFTER_S: u32 = 5;

/// A request that is answered when there are events, or when the time for that is over.
pub struct WaitingRead {
    core: Rc<Core>,
    client: ClientId,
    /// Whose answer it is, without a body.
    request: Request,
    address: Address,
    call: Call,
    question: Question,
}

/// Answers a request about an instance, or starts to.
pub(super) async fn handle(
    core: &Rc<Core>,
    peer: &Rc<Peer>,
    client: &Client,
    call: Call,
    request: &Request,
) -> Result<Outcome, Problem> {
    if client.consumer.is_none() {
        return Err(not_a("consumer"));
    }
    let response = match call {
        Call::Open => open(core, peer, client, request).await,
        Call::Confirm => confirm(core, client, request).await,
        Call::ReportDead => report(core, client, request).await,
        Call::Delete => delete(core, client, request).await,
        Call::ReadRaw | Call::ReadEvent | Call::ReadEvents => {
            return read(core, client, call, request).map(|read| Outcome::Read(Box::new(read)));
        }
    };
    response.map(Outcome::Response)
}

/// Makes an instance.
async fn open(
    core: &Rc<Core>,
    peer: &Rc<Peer>,
    client: &Client,
    request: &Request,
) -> Result<Response, Problem> {
    let subscription = Subscription::read(client.id, request.query.as_deref().unwrap_or_default())?;
    if core.is_stopping() {
        return Err(stopping());
    }
    if core.instances_at_home() >= core.config.polling.max_instances.div_ceil(core.cores()) {
        let text = "the broker has all the long-polling instances it may have at a time";
        return Err(Problem::new(Status::SERVICE_UNAVAILABLE, text).retry_after(RETRY_AFTER_S));
    }
    let places = [core.place(Kind::Instance), core.place(Kind::PollingInstance)];
    places[0].take(client.id, client.limits.instances_max).await.map_err(too_many)?;
    places[1].take(client.id, Some(core.config.polling.max_instances_per_client)).await.map_err(too_many)?;
    let feed = Feed::open(core, peer.clone(), &subscription)
        .map_err(|reason| Problem::new(Status::UNAUTHORIZED, reason))?;
    let listed = core.list_instance(client.id, subscription.group.clone());
    let address = Address { group: subscription.group, instance: listed.id };
    rt::spawn(Instance::new(core.clone(), client.id, feed, listed, places).run());
    let location = address.location(core.config.server.public_url.as_deref(), request, core.bridge);
    Ok(Response::new(Status::CREATED).with_header("Location", location))
}

/// Starts reading from an instance.
fn read(core: &Rc<Core>, client: &Client, call: Call, request: &Request) -> Result<WaitingRead, Problem> {
    let query = query(request, "confirm")?;
    let confirm = query.flag("confirm", false).map_err(bad_query)?;
    let reading = if call == Call::ReadEvents { Reading::Batch } else { Reading::One };
    let address = address(core, request)?;
    let what = What::Read { reading, confirm };
    let question = core.ask(address.instance, client.id, address.group.clone(), what);
    let request = request.clone();
    Ok(WaitingRead { core: core.clone(), client: client.id, request, address, call, question })
}

/// Confirms what was read, up to the offset that the query names or all.
async fn confirm(core: &Rc<Core>, client: &Client, request: &Request) -> Result<Response, Problem> {
    let query = query(request, "offset")?;
    let upto = query.get("offset").map(offset).transpose()?;
    ask(core, client, request, What::Confirm { upto }).await.map(|()| Response::new(Status::NO_CONTENT))
}

/// Deletes an instance.
async fn delete(core: &Rc<Core>, client: &Client, request: &Request) -> Result<Response, Problem> {
    query(request, "")?;
    ask(core, client, request, What::Delete).await.map(|()| Response::new(Status::NO_CONTENT))
}

/// Stores a dead event that comes as a raw one.
async fn report(core: &Rc<Core>, client: &Client, request: &Request) -> Result<Response, Problem> {
    query(request, "")?;
    let content_type = produce::content_type(request)?;
    let attributes = produce::attributes(request, Form::Raw);
    let produced = Produced { form: Form::Raw, content_type, attributes: &attributes, body: &request.body };
    let report =
        Report::of_request(&produced, core.now_ms()).map_err(|rejection| produce::problem(&rejection))?;
    let (bytes, bytes_max) = (report.event.delivered_bytes(), core.config.storage.event_bytes_bound());
    if bytes as u64 > bytes_max {
        let text = format!("the event takes up to {bytes} bytes as stored, the limit is {bytes_max}");
        return Err(Problem::new(Status::CONTENT_TOO_LARGE, text));
    }
    ask(core, client, request, What::Report(Box::new(report))).await.map(|()| Response::new(Status::ACCEPTED))
}

impl WaitingRead {
    /// Waits for the answer. Dropped before, it takes no event.
    pub async fn answer(self) -> (Request, Result<(Response, Option<Receipt>), Problem>) {
        let Self { core, client, request, address, call, question } = self;
        let answered = match question.answer().await {
            Told::Events { answer, events } => {
                let receipt = Receipt::new(&core, address.instance, client, answer);
                response(call, &events).map(|response| (response, Some(receipt)))
            }
            Told::Nothing => Ok((Response::new(Status::NO_CONTENT), None)),
            told => done(&core, told).map(|()| (Response::new(Status::NO_CONTENT), None)),
        };
        (request, answered)
    }
}

/// Asks the instance that the path of the request names, and waits until it is done.
async fn ask(core: &Rc<Core>, client: &Client, request: &Request, what: What) -> Result<(), Problem> {
    let Address { group, instance } = address(core, request)?;
    done(core, core.ask(instance, client.id, group, what).answer().await)
}

fn done(core: &Core, told: Told) -> Result<(), Problem> {
    match told {
        Told::Done | Told::Nothing | Told::Events { .. } => Ok(()),
        Told::NotFound if core.is_stopping() => Err(stopping()),
        Told::NotFound => Err(not_found()),
        Told::Ended(reason) => {
            Err(Problem::new(Status::NOT_FOUND, format!("the instance has ended: {reason}")))
        }
        Told::UnknownOffset(offset) => {
            let text = format!("offset {offset} is of no event that this instance has read");
            Err(Problem::new(Status::BAD_REQUEST, text))
        }
        Told::NotStored(refusal) => Err(produce::refused(core, refusal)),
        Told::Stopping => Err(stopping()),
    }
}

fn response(call: Call, events: &[(u64, Slice)]) -> Result<Response, Problem> {
    let response = Response::new(Status::OK).with_header("Cache-Control", "no-store");
    match (call, events) {
        (Call::ReadRaw, [(offset, event)]) => raw(response, *offset, event),
        (Call::ReadEvent, [(offset, event)]) => {
            let mut body = Vec::with_capacity(batch::bytes_in_batch(event));
            batch::write_event(&mut body, event, *offset);
            Ok(response.with_body("application/cloudevents+json", body))
        }
        _ => {
            let bytes: usize = events.iter().map(|(_, event)| batch::bytes_in_batch(event)).sum();
            let mut body = Vec::with_capacity(bytes + 1);
            batch::write_batch(&mut body, events.iter().map(|(offset, event)| (*offset, &**event)));
            Ok(response.with_body("application/cloudevents-batch+json", body))
        }
    }
}

fn raw(mut response: Response, offset: u64, event: &[u8]) -> Result<Response, Problem> {
    let Some(Binary { content_type, attributes, payload }) = Binary::read(event) else {
        tracing::error!(offset, "a stored event is not as events are stored");
        return Err(Problem::new(
            Status::INTERNAL_SERVER_ERROR,
            "the event cannot be taken apart; read it as /event",
        ));
    };
    for (name, value) in &attributes {
        response.headers.push(&format!("ce-{name}"), value);
    }
    response.headers.push("ce-offset", offset.to_string());
    if let Some(content_type) = content_type {
        response.headers.push("Content-Type", content_type);
    }
    response.body = payload.into_owned().into();
    Ok(response)
}

/// The address that the request names. A home that is no core of this broker can only be made up.
fn address(core: &Core, request: &Request) -> Result<Address, Problem> {
    Address::of(&request.path, core.bridge)
        .filter(|address| usize::from(address.instance.home.0) < core.cores())
        .ok_or_else(not_found)
}

/// The query, in which at most one parameter may stand.
fn query(request: &Request, only: &'static str) -> Result<Query, Problem> {
    let query = Query::parse(request.query.as_deref().unwrap_or_default()).map_err(bad_query)?;
    query.only(&[only]).map_err(bad_query)?;
    Ok(query)
}

fn offset(text: &str) -> Result<u64, Problem> {
    let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        Problem::new(
            Status::BAD_REQUEST,
            "query parameter \"offset\" must be the offset of an event, a whole number",
        )
    })
}

fn bad_query(error: QueryError) -> Problem {
    Problem::new(Status::BAD_REQUEST, error.to_string())
}

fn not_found() -> Problem {
    let text = "the client has no such consumer instance here: it was never made, was deleted, was not polled for too long, \
                or the broker was started anew";
    Problem::new(Status::NOT_FOUND, text)
}

fn stopping() -> Problem {
    Problem::new(Status::SERVICE_UNAVAILABLE, "the broker is stopping").retry_after(RETRY_AFTER_S)
}

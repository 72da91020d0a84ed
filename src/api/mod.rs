//! The public interface: which endpoint a request is for, whether its client may use it, and the answer.
//!
//! Requests and responses know no HTTP version and no socket. What a request needs of the broker it asks of its core.

pub mod consume;
pub mod documentation;
mod feed;
mod my_settings;
mod origin;
mod personal_data;
pub mod polling;
mod produce;
mod subscription;
mod test_events;
mod trace;
mod upgrade;

pub use polling::WaitingRead;
pub use upgrade::Upgrade;

use crate::auth::{AuthProblem, CertificateProblem, Peer};
use crate::broker::Core;
use crate::broker::instances::Receipt;
use crate::broker::live::Live;
use crate::broker::lookups::Unsaid;
use crate::broker::places::{Full, Kind};
use crate::http::query::Query;
use crate::http::{Method, Problem, Request, Response, Status, Version};
use crate::id::ClientId;
use crate::ingress::Form;
use crate::registry::model::Client;
use polling::Call;
use std::rc::Rc;
use std::sync::Arc;

/// What to do with a request whose head has come.
pub enum Verdict {
    /// Read its body, of this many bytes at most. Its client is unknown where everybody may read.
    Read { bytes_max: usize, client: Option<ClientId> },
    /// Answer at once.
    Refuse(Problem),
}

/// The answer to a request.
pub enum Outcome {
    Response(Response),
    /// The response switches to WebSocket.
    Upgrade(Response, Box<Upgrade>),
    /// The answer comes when there are events to read, see [`answer_read`].
    Read(Box<WaitingRead>),
}

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Produce(Form),
    ProduceTest,
    ConsumeByWebSocket,
    MySettings,
    Poll(Call),
}

/// Counts a connection for its client as soon as it is open. One too many hears of it with its first request.
pub async fn greet(core: &Core, peer: &Peer) {
    let live = core.live();
    if let Ok(client) = client_of(&live, peer) {
        let _ = count_connection(core, peer, client).await;
    }
}

async fn count_connection(core: &Core, peer: &Peer, client: &Client) -> Result<(), Problem> {
    let max = client.limits.connections_max;
    let taken = core.take_place(Kind::Connection, peer.connection, client.id, max).await;
    // The next request on it would fare no better.
    taken.map_err(|full| too_many(full).closing())
}

/// Judges a request by its head: an answer that needs no body is given before the body is sent.
pub async fn verdict(core: &Core, peer: &Peer, request: &Request) -> Verdict {
    if let Some(Ok(_)) = documentation::find(request) {
        return Verdict::Read { bytes_max: 0, client: None };
    }
    let looked_up = core.look_up(peer).await.map_err(nobody_says);
    let live = core.live();
    let judged = match looked_up.and_then(|()| judge(&live, peer, request)) {
        Ok((client, endpoint)) => count_connection(core, peer, client).await.map(|()| (client, endpoint)),
        Err(problem) => Err(problem),
    };
    let problem = match judged {
        Ok((client, Endpoint::Produce(_))) if client.producer.is_none() => not_a("producer"),
        Ok((client, Endpoint::ProduceTest)) if client.consumer.is_none() => not_a("consumer"),
        Ok((client, Endpoint::Poll(_))) if client.consumer.is_none() => not_a("consumer"),
        Ok((client, Endpoint::Produce(_) | Endpoint::ProduceTest | Endpoint::Poll(Call::ReportDead))) => {
            let bytes_max = client.limits.request_bytes_max.unwrap_or(core.config.server.request_bytes_max);
            return Verdict::Read { bytes_max, client: Some(client.id) };
        }
        Ok((client, Endpoint::ConsumeByWebSocket | Endpoint::MySettings | Endpoint::Poll(_))) => {
            return Verdict::Read { bytes_max: 0, client: Some(client.id) };
        }
        Err(problem) => problem,
    };
    log_refusal(core, peer, request, &problem);
    Verdict::Refuse(problem)
}

/// Writes the line of a request that is refused by its head.
pub fn log_refusal(core: &Core, peer: &Peer, request: &Request, problem: &Problem) {
    log(core, &core.live(), peer, request, problem.status, Some(problem));
}

/// Answers a complete request.
pub async fn handle(core: &Rc<Core>, peer: &Rc<Peer>, request: &Request) -> Outcome {
    let live = core.live();
    if let Some(Ok(document)) = documentation::find(request) {
        let response = document.respond_to(&request.headers);
        log(core, &live, peer, request, response.status, None);
        return Outcome::Response(response);
    }
    // The registry may have changed since the head was judged.
    let answered = match judge(&live, peer, request) {
        Ok((client, Endpoint::Produce(form))) => {
            produce::produce(core, &live, client, form, request).await.map(Outcome::Response)
        }
        Ok((client, Endpoint::ProduceTest)) => {
            test_events::produce_test(core, &live, client, request).await.map(Outcome::Response)
        }
        Ok((client, Endpoint::MySettings)) => {
            my_settings::my_settings(core, peer, client, request).await.map(Outcome::Response)
        }
        Ok((client, Endpoint::ConsumeByWebSocket)) => upgrade::upgrade(core, client, request)
            .await
            .map(|(response, upgrade)| Outcome::Upgrade(response, Box::new(upgrade))),
        Ok((client, Endpoint::Poll(call))) => polling::handle(core, peer, client, call, request).await,
        Err(problem) => Err(problem),
    };
    let status = match &answered {
        Ok(Outcome::Response(response) | Outcome::Upgrade(response, _)) => Some(response.status),
        Ok(Outcome::Read(_)) => None,
        Err(problem) => Some(problem.status),
    };
    if let Some(status) = status {
        log(core, &live, peer, request, status, answered.as_ref().err());
    }
    answered.unwrap_or_else(|problem| Outcome::Response(problem.respond_to(&request.headers)))
}

/// Waits for the answer to a request that reads events. Dropped before it is there, it takes no event.
pub async fn answer_read(core: &Core, peer: &Peer, read: WaitingRead) -> (Response, Option<Receipt>) {
    let (request, answered) = read.answer().await;
    let status = match &answered {
        Ok((response, _)) => response.status,
        Err(problem) => problem.status,
    };
    log(core, &core.live(), peer, &request, status, answered.as_ref().err());
    answered.unwrap_or_else(|problem| (problem.respond_to(&request.headers), None))
}

/// Whose request it is and for which endpoint.
fn judge<'l>(live: &'l Live, peer: &Peer, request: &Request) -> Result<(&'l Arc<Client>, Endpoint), Problem> {
    if let Some(Err(problem)) = documentation::find(request) {
        return Err(problem);
    }
    let client = client_of(live, peer)?;
    origin::check(&request.headers)?;
    Ok((client, endpoint_of(request)?))
}

fn log(core: &Core, live: &Live, peer: &Peer, request: &Request, status: Status, problem: Option<&Problem>) {
    if !trace::has_line(core, status) {
        return;
    }
    let client = client_of(live, peer).ok();
    let stranger = problem.filter(|_| client.is_none()).map(|problem| problem.detail.as_str());
    let (client, endpoint) = (client.map(Arc::as_ref), endpoint_of(request).ok());
    trace::Answered { peer, request, client, endpoint }.log(status, stranger);
}

/// The client at the other end, if it may come in.
fn client_of<'l>(live: &'l Live, peer: &Peer) -> Result<&'l Arc<Client>, Problem> {
    live.client_of(peer).map_err(|problem| Problem::new(status_of(&problem), problem.to_string()))
}

fn nobody_says(unsaid: Unsaid) -> Problem {
    Problem::new(Status::SERVICE_UNAVAILABLE, unsaid.to_string()).retry_after(unsaid.retry_after_s())
}

fn status_of(problem: &AuthProblem) -> Status {
    match problem {
        AuthProblem::Certificate(
            CertificateProblem::Missing
            | CertificateProblem::UnknownIssuer(_)
            | CertificateProblem::Unusable(_),
        ) => Status::BAD_REQUEST,
        _ => Status::UNAUTHORIZED,
    }
}

/// Fails when the query has other parameters than these.
fn check_query(request: &Request, names: &[&str]) -> Result<(), Problem> {
    let query = Query::parse(request.query.as_deref().unwrap_or_default());
    query.and_then(|query| query.only(names)).map_err(|e| Problem::new(Status::BAD_REQUEST, e.to_string()))
}

fn too_many(full: Full) -> Problem {
    Problem::new(Status::TOO_MANY_REQUESTS, full.to_string()).retry_after(full.retry_after_s())
}

fn not_a(role: &str) -> Problem {
    Problem::new(Status::UNAUTHORIZED, format!("the client is not registered as a {role}"))
}

fn endpoint_of(request: &Request) -> Result<Endpoint, Problem> {
    let (endpoint, method) = match request.path.as_str() {
        "/ce/produce/raw" => (Endpoint::Produce(Form::Raw), Method::Post),
        "/ce/produce/event" => (Endpoint::Produce(Form::Event), Method::Post),
        "/ce/produce/events" => (Endpoint::Produce(Form::Batch), Method::Post),
        "/ce/tools/consumer/test" => (Endpoint::ProduceTest, Method::Post),
        "/ce/tools/my-settings" => (Endpoint::MySettings, Method::Get),
        "/ce/consume/ws" if request.version == Version::Http2 => {
            (Endpoint::ConsumeByWebSocket, Method::Connect)
        }
        "/ce/consume/ws" => (Endpoint::ConsumeByWebSocket, Method::Get),
        path => match Call::of(path) {
            Some((call, method)) => (Endpoint::Poll(call), method),
            None => return Err(Problem::new(Status::NOT_FOUND, "there is no such endpoint")),
        },
    };
    if request.method == method {
        return Ok(endpoint);
    }
    Err(wrong_method(method.name()))
}

/// `allowed` is the value of an `Allow` header.
fn wrong_method(allowed: &str) -> Problem {
    Problem::new(Status::METHOD_NOT_ALLOWED, format!("this endpoint takes {allowed} requests only"))
        .with_header("Allow", allowed)
}

//! The three produce endpoints: authorise, validate, store, answer 202. With `?validate=only` nothing is stored and the answer
//! to what could be is 204.

use super::not_a;
use crate::broker::Core;
use crate::broker::live::Live;
use crate::broker::message::Charge;
use crate::broker::refusal::Refusal;
use crate::http::query::Query;
use crate::http::{Problem, ProblemError, Request, Response, Status};
use crate::ingress::{
    Admission, Authority, Block, EventError, Form, Place, Produced, Rejection, Rights, STEP_BYTES, Settings,
};
use crate::metrics;
use crate::registry::model::Client;
use crate::rt;
use std::time::Instant;

/// What a produce request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Store,
    /// A dry run: tell what would come of storing.
    Check,
}

/// Stores the events of `request`, all or nothing.
pub(super) async fn produce(
    core: &Core,
    live: &Live,
    client: &Client,
    form: Form,
    request: &Request,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let purpose = purpose(request.query.as_deref().unwrap_or_default())?;
    let Some(producer) = &client.producer else { return Err(not_a("producer")) };
    let block = admit(core, live, client, Rights::Produce(producer), form, request).await?;
    if purpose == Purpose::Check {
        return Ok(Response::new(Status::NO_CONTENT));
    }
    let (events, bytes) = (u64::from(block.count), block.bytes.len() as u64);
    if events > 0 {
        let charge = Charge { client: client.id, rates: client.limits.rates };
        let stored = core.store(block, Some(charge)).await;
        let receipt = stored.map_err(|refusal| refused(core, refusal))?;
        let numbers = &core.metrics.numbers;
        numbers.events_produced.add(events);
        numbers.bytes_produced.add(bytes);
        numbers.events_deduplicated.add(u64::from(receipt.repeats));
    }
    metrics::record(&core.metrics.distributions.produce_ns, started.elapsed());
    Ok(Response::new(Status::ACCEPTED))
}

fn purpose(query: &str) -> Result<Purpose, Problem> {
    let bad = |text: String| Problem::new(Status::BAD_REQUEST, text);
    let query = Query::parse(query).map_err(|e| bad(e.to_string()))?;
    query.only(&["validate"]).map_err(|e| bad(e.to_string()))?;
    match query.get("validate") {
        None => Ok(Purpose::Store),
        Some("only") => Ok(Purpose::Check),
        Some(_) => Err(bad("query parameter \"validate\" must be only".into())),
    }
}

/// Turns the request into records, or tells everything that is wrong with it.
pub(super) async fn admit(
    core: &Core,
    live: &Live,
    client: &Client,
    rights: Rights<'_>,
    form: Form,
    request: &Request,
) -> Result<Block, Problem> {
    let settings = Settings {
        now_ms: core.now_ms(),
        skew_ms: core.config.server.time_skew.as_millis() as u64,
        partitions: core.partitions,
        event_bytes_max: core.config.server.event_bytes_max,
    };
    let authority =
        Authority { client, rights, registry: &live.registry, schemas: &live.schemas, settings: &settings };
    let content_type = content_type(request)?;
    let attributes = attributes(request, form);
    let produced = Produced { form, content_type, attributes: &attributes, body: &request.body };
    let mut admission = Admission::new(authority, produced);
    loop {
        match admission.step(STEP_BYTES) {
            Some(Ok(block)) => return Ok(block),
            Some(Err(rejection)) => {
                core.metrics.numbers.events_rejected.add((rejection.errors.len() + rejection.more) as u64);
                return Err(problem(&rejection));
            }
            None => rt::breathe().await,
        }
    }
}

/// The `Content-Type` header, which must not stand twice.
pub(super) fn content_type(request: &Request) -> Result<Option<&[u8]>, Problem> {
    let once = request.headers.get_once("content-type");
    once.map_err(|_| Problem::new(Status::BAD_REQUEST, "more than one Content-Type header"))
}

/// The `ce-` headers, without the prefix.
pub(super) fn attributes(request: &Request, form: Form) -> Vec<(&str, &[u8])> {
    if form != Form::Raw {
        return Vec::new();
    }
    let of_event = |name: &str| name.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ce-"));
    request
        .headers
        .iter()
        .filter(|(name, _)| of_event(name))
        .map(|(name, value)| (&name[3..], value))
        .collect()
}

pub(super) fn refused(core: &Core, refusal: Refusal) -> Problem {
    let numbers = &core.metrics.numbers;
    let status = match refusal {
        Refusal::RateLimited { .. } => {
            numbers.requests_over_rate.add(1);
            Status::TOO_MANY_REQUESTS
        }
        Refusal::DiskFull | Refusal::Overloaded | Refusal::Stopping => {
            numbers.intake_refused.add(1);
            Status::SERVICE_UNAVAILABLE
        }
    };
    Problem::new(status, refusal.to_string()).retry_after(refusal.retry_after_s())
}

pub(super) fn problem(rejection: &Rejection) -> Problem {
    let detail = match rejection.errors.len() + rejection.more {
        1 => "nothing was stored because of one error".to_owned(),
        errors => format!("nothing was stored because of {errors} errors"),
    };
    let mut problem = Problem::new(Status(rejection.status.code()), detail);
    problem.errors = rejection.errors.iter().map(error).collect();
    problem.errors_left_out = rejection.more;
    problem
}

fn error(error: &EventError) -> ProblemError {
    let fault = &error.fault;
    let reason = fault.reason.clone();
    let (attribute, pointer, detail) = match &fault.place {
        Place::Whole => (None, None, reason),
        Place::Attribute(name) => (Some(name.clone()), None, reason),
        Place::Header(name) => (None, None, format!("header {name} {reason}")),
        Place::Data(pointer) => (None, Some(pointer.clone()), reason),
    };
    ProblemError {
        event: error.index.map(|index| index as usize),
        id: error.id.clone(),
        attribute,
        pointer,
        status: fault.status.code(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_only_makes_a_dry_run() {
        assert_eq!(purpose(""), Ok(Purpose::Store));
        assert_eq!(purpose("validate=only"), Ok(Purpose::Check));
        for query in
            ["validate=", "validate", "validate=Only", "validate=true", "validate=only&validate=only"]
        {
            assert_eq!(purpose(query).map_err(|p| p.status), Err(Status::BAD_REQUEST), "{query}");
        }
        let unknown = purpose("validat=only").unwrap_err();
        assert!(unknown.detail.contains("validat"), "{}", unknown.detail);
    }
}

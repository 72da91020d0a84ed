//! The handshake of a WebSocket consumer.

use super::not_a;
use super::subscription::Subscription;
use crate::http::{Problem, Request, Response};
use crate::registry::model::Client;
use crate::ws::handshake::{self, Refusal};

/// The sub-protocol of the CloudEvents WebSocket binding with the JSON format.
const SUB_PROTOCOL: &str = "cloudevents.json";

/// Checks the request and answers the handshake.
pub(super) fn upgrade(client: &Client, request: &Request) -> Result<(Response, Subscription), Problem> {
    let response = handshake::accept(request, SUB_PROTOCOL).map_err(refused)?;
    if client.consumer.is_none() {
        return Err(not_a("consumer"));
    }
    let wanted = Subscription::read(client.id, request.query.as_deref().unwrap_or_default())?;
    Ok((response, wanted))
}

fn refused(refusal: Refusal) -> Problem {
    let problem = Problem::new(refusal.status(), refusal.to_string());
    refusal.headers().iter().fold(problem, |problem, (name, value)| problem.with_header(name, *value))
}

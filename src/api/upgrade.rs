//! The handshake of a WebSocket consumer.

use super::subscription::Subscription;
use super::{not_a, too_many};
use crate::broker::Core;
use crate::broker::places::{Kind, Place};
use crate::http::{Problem, Request, Response};
use crate::registry::model::Client;
use crate::ws::handshake::{self, Refusal};
use std::rc::Rc;

/// The sub-protocol of the CloudEvents WebSocket binding with the JSON format.
const SUB_PROTOCOL: &str = "cloudevents.json";

/// A consumer whose connection becomes a WebSocket.
pub struct Upgrade {
    pub(super) subscription: Subscription,
    /// What it takes up of its client's instances.
    pub(super) place: Place,
}

/// Checks the request and answers the handshake.
pub(super) async fn upgrade(
    core: &Rc<Core>,
    client: &Client,
    request: &Request,
) -> Result<(Response, Upgrade), Problem> {
    let response = handshake::accept(request, SUB_PROTOCOL).map_err(refused)?;
    if client.consumer.is_none() {
        return Err(not_a("consumer"));
    }
    let subscription = Subscription::read(client.id, request.query.as_deref().unwrap_or_default())?;
    let place = core.place(Kind::Instance);
    place.take(client.id, client.limits.instances_max).await.map_err(too_many)?;
    Ok((response, Upgrade { subscription, place }))
}

fn refused(refusal: Refusal) -> Problem {
    let problem = Problem::new(refusal.status(), refusal.to_string());
    refusal.headers().iter().fold(problem, |problem, (name, value)| problem.with_header(name, *value))
}

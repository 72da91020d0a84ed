//! `POST /ce/tools/consumer/test`: an event by which a client tries out its own consumers, and which nobody else ever sees.

use super::{check_query, not_a, produce};
use crate::broker::Core;
use crate::broker::live::Live;
use crate::broker::message::Charge;
use crate::http::{Problem, Request, Response, Status};
use crate::id::PrivateLog;
use crate::ingress::{Form, Rights};
use crate::registry::model::Client;

/// Stores the event in the client's test log. It must be one that the client could consume, from whatever source.
pub(super) async fn produce_test(
    core: &Core,
    live: &Live,
    client: &Client,
    request: &Request,
) -> Result<Response, Problem> {
    check_query(request, &[])?;
    let Some(consumer) = &client.consumer else { return Err(not_a("consumer")) };
    let partition = PrivateLog::Test.partition(core.partitions);
    let type_id = core.private_types(client.id).await.test;
    let rights = Rights::Test { consumer, partition, type_id };
    let block = produce::admit(core, live, client, rights, Form::Raw, request).await?;
    let charge = Charge { client: client.id, rates: client.limits.rates };
    core.store(block, Some(charge)).await.map_err(|refusal| produce::refused(core, refusal))?;
    Ok(Response::new(Status::ACCEPTED))
}

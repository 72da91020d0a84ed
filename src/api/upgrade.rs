//! From the request for a WebSocket to what its session is to read.

use super::not_a;
use crate::http::query::Query;
use crate::http::{Problem, Request, Response, Status};
use crate::id::ClientId;
use crate::registry::model::Client;
use crate::ws::handshake::{self, Refusal};

/// The sub-protocol of the CloudEvents WebSocket binding with the JSON format.
const SUB_PROTOCOL: &str = "cloudevents.json";
/// The group of a consumer that names none.
const DEFAULT_GROUP: &str = "~default";
/// Longest name of a group, in bytes.
const GROUP_BYTES_MAX: usize = 200;

/// What a WebSocket consumer asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub client: ClientId,
    pub group: String,
    /// Ordinary events of the client's types.
    pub events: bool,
}

/// Checks the request and answers the handshake.
pub(super) fn upgrade(client: &Client, request: &Request) -> Result<(Response, Upgrade), Problem> {
    let response = handshake::accept(request, SUB_PROTOCOL).map_err(refused)?;
    if client.consumer.is_none() {
        return Err(not_a("consumer"));
    }
    let wanted = read_query(client.id, request.query.as_deref().unwrap_or_default())?;
    Ok((response, wanted))
}

fn refused(refusal: Refusal) -> Problem {
    let problem = Problem::new(refusal.status(), refusal.to_string());
    refusal.headers().iter().fold(problem, |problem, (name, value)| problem.with_header(name, *value))
}

fn read_query(client: ClientId, raw: &str) -> Result<Upgrade, Problem> {
    let bad = |text: String| Problem::new(Status::BAD_REQUEST, text);
    let query = Query::parse(raw).map_err(|e| bad(e.to_string()))?;
    query.only(&["events", "test", "dead", "group"]).map_err(|e| bad(e.to_string()))?;
    let events = query.flag("events", true).map_err(|e| bad(e.to_string()))?;
    for other in ["test", "dead"] {
        query.flag(other, false).map_err(|e| bad(e.to_string()))?;
    }
    let group = query.get("group").unwrap_or(DEFAULT_GROUP);
    if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.chars().any(char::is_control) {
        return Err(bad(format!("group must be 1 to {GROUP_BYTES_MAX} bytes without control characters")));
    }
    Ok(Upgrade { client, group: group.to_owned(), events })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId([7; 16]);

    #[test]
    fn without_a_query_the_default_group_gets_ordinary_events() {
        let expected = Upgrade { client: CLIENT, group: "~default".into(), events: true };
        assert_eq!(read_query(CLIENT, ""), Ok(expected));
    }

    #[test]
    fn what_the_query_cannot_mean_is_refused() {
        for query in ["group=", "events=maybe", "colour=red", "group=a&group=b", "group=%0A", "test=2"] {
            assert_eq!(read_query(CLIENT, query).map_err(|p| p.status), Err(Status::BAD_REQUEST), "{query}");
        }
    }
}

//! What a consumer asks for when it connects, by WebSocket or for long polling.

use crate::delivery::Wanted;
use crate::http::query::{Query, QueryError};
use crate::http::{Problem, Status};
use crate::id::ClientId;

/// The group of a consumer that names none.
const DEFAULT_GROUP: &str = "~default";
/// Longest name of a group, in bytes.
const GROUP_BYTES_MAX: usize = 200;

/// Who reads what, and for which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub client: ClientId,
    pub group: String,
    pub wanted: Wanted,
}

impl Subscription {
    /// Reads the query `events=&test=&dead=&group=`, each of which may be left out.
    pub fn read(client: ClientId, raw: &str) -> Result<Self, Problem> {
        let bad = |error: QueryError| Problem::new(Status::BAD_REQUEST, error.to_string());
        let query = Query::parse(raw).map_err(bad)?;
        query.only(&["events", "test", "dead", "group"]).map_err(bad)?;
        let wanted = Wanted {
            events: query.flag("events", true).map_err(bad)?,
            test: query.flag("test", true).map_err(bad)?,
            dead: query.flag("dead", false).map_err(bad)?,
        };
        let group = query.get("group").unwrap_or(DEFAULT_GROUP);
        if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.chars().any(char::is_control) {
            let text = format!("group must be 1 to {GROUP_BYTES_MAX} bytes without control characters");
            return Err(Problem::new(Status::BAD_REQUEST, text));
        }
        Ok(Self { client, group: group.to_owned(), wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId([7; 16]);

    #[test]
    fn without_a_query_the_default_group_gets_ordinary_and_test_events() {
        let wanted = Wanted { events: true, test: true, dead: false };
        let expected = Subscription { client: CLIENT, group: "~default".into(), wanted };
        assert_eq!(Subscription::read(CLIENT, ""), Ok(expected));
    }

    #[test]
    fn each_kind_of_events_can_be_switched_on_and_off() {
        let read = |query| Subscription::read(CLIENT, query).unwrap();
        let wanted = Wanted { events: false, test: false, dead: true };
        assert_eq!(read("events=False&test=false&dead=True&group=g").wanted, wanted);
        assert_eq!(read("group=a%2Fb").group, "a/b");
    }

    #[test]
    fn what_the_query_cannot_mean_is_refused() {
        for query in ["group=", "events=maybe", "colour=red", "group=a&group=b", "group=%0A", "test=2"] {
            let read = Subscription::read(CLIENT, query);
            assert_eq!(read.map_err(|p| p.status), Err(Status::BAD_REQUEST), "{query}");
        }
    }
}

//! `GET /ce/tools/my-settings`: what the broker knows of the caller, and how far its groups are behind. `openapi.yaml` documents
//! the form, whose members keep their names and meaning.

use crate::audit::rule::{Missing, Origin, Rule};
use crate::auth::Peer;
use crate::broker::Core;
use crate::broker::survey::{GroupSurvey, Survey};
use crate::config::Config;
use crate::http::{Problem, Request, Response, Status};
use crate::registry::model::{Client, Consumer, Producer};
use serde::Serialize;
use std::collections::BTreeSet;
use std::rc::Rc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Serialize)]
struct Settings<'a> {
    id: String,
    name: &'a str,
    owner_idno: &'a str,
    enabled: bool,
    networks: Vec<String>,
    certificate: Option<Certificate>,
    producer: Option<Produces<'a>>,
    consumer: Option<Consumes<'a>>,
    limits: Limits,
    groups: Vec<Group<'a>>,
    dead_events: u64,
}

#[derive(Serialize)]
struct Certificate {
    issuer: String,
    serial: String,
    expires: String,
}

#[derive(Serialize)]
struct Produces<'a> {
    sources: &'a BTreeSet<String>,
    types: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct Consumes<'a> {
    types: &'a BTreeSet<String>,
    personal_data: Vec<PersonalData<'a>>,
}

/// A rule as its operator wrote it, completed by the broker's defaults.
#[derive(Serialize)]
struct PersonalData<'a> {
    types: &'a BTreeSet<String>,
    sources: &'a BTreeSet<String>,
    legal_basis: String,
    legal_reason: String,
    subject: String,
    subject_type: String,
    missing: &'static str,
}

/// What holds for the client; `null` is no limit.
#[derive(Serialize)]
struct Limits {
    request_bytes: usize,
    event_bytes: usize,
    events_per_second: Option<u64>,
    bytes_per_second: Option<u64>,
    connections: Option<usize>,
    instances: Option<usize>,
    polling_instances: usize,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    members: usize,
    lag_events: u64,
    lag_seconds: Option<f64>,
}

/// Answers with the settings of `client`.
pub(super) async fn my_settings(
    core: &Rc<Core>,
    peer: &Peer,
    client: &Client,
    request: &Request,
) -> Result<Response, Problem> {
    super::check_query(request, &[])?;
    let survey = core.survey(client.id).await;
    let settings = Settings {
        id: client.id.to_string(),
        name: &client.name,
        owner_idno: &client.owner_idno,
        enabled: client.enabled,
        networks: client.networks.iter().map(|network| network.to_string()).collect(),
        certificate: certificate(peer),
        producer: client.producer.as_ref().map(produces),
        consumer: client.consumer.as_ref().map(consumes),
        limits: limits(client, &core.config),
        groups: groups(&survey, core.now_ms()),
        dead_events: survey.dead_events,
    };
    let json = serde_json::to_vec(&settings).expect("texts and numbers are always JSON");
    Ok(Response::new(Status::OK).with_body("application/json", json).with_header("Cache-Control", "no-store"))
}

fn certificate(peer: &Peer) -> Option<Certificate> {
    let (key, expires) = peer.certificate()?;
    let expires = OffsetDateTime::from_unix_timestamp(expires).ok()?.format(&Rfc3339).ok()?;
    Some(Certificate { issuer: key.issuer, serial: key.serial, expires })
}

fn produces(producer: &Producer) -> Produces<'_> {
    Produces { sources: &producer.sources, types: &producer.types }
}

fn consumes(consumer: &Consumer) -> Consumes<'_> {
    let rules = consumer.personal_data.iter().map(|rule| personal_data(rule));
    Consumes { types: &consumer.types, personal_data: rules.collect() }
}

fn personal_data(rule: &Rule) -> PersonalData<'_> {
    PersonalData {
        types: &rule.types,
        sources: &rule.sources,
        legal_basis: written(&rule.legal_basis),
        legal_reason: written(&rule.legal_reason),
        subject: rule.subject.to_string(),
        subject_type: written(&rule.subject_type),
        missing: match rule.missing {
            Missing::Deliver => "deliver",
            Missing::Withhold => "withhold",
        },
    }
}

fn written(origin: &Origin) -> String {
    match origin {
        Origin::Constant(text) => text.clone(),
        Origin::Path(path) => path.to_string(),
    }
}

fn limits(client: &Client, config: &Config) -> Limits {
    let own = &client.limits;
    Limits {
        request_bytes: own.request_bytes_max.unwrap_or(config.server.request_bytes_max),
        event_bytes: own.event_bytes_max.unwrap_or(config.server.event_bytes_max),
        events_per_second: own.rates.events_per_second_max,
        bytes_per_second: own.rates.bytes_per_second_max,
        connections: own.connections_max,
        instances: own.instances_max,
        polling_instances: config.polling.max_instances_per_client,
    }
}

fn groups(survey: &Survey, now_ms: u64) -> Vec<Group<'_>> {
    survey.groups.iter().map(|group| self::group(group, now_ms)).collect()
}

fn group(group: &GroupSurvey, now_ms: u64) -> Group<'_> {
    let backlog = group.backlog;
    let lag_seconds = match (backlog.events, backlog.oldest_ms) {
        (0, _) => Some(0.0),
        (_, oldest_ms) => oldest_ms.map(|oldest_ms| now_ms.saturating_sub(oldest_ms) as f64 / 1000.0),
    };
    Group { name: &group.name, members: group.members, lag_events: backlog.events, lag_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::survey::Backlog;

    fn lag(events: u64, oldest_ms: Option<u64>) -> Option<f64> {
        let survey = GroupSurvey { name: "g".into(), members: 1, backlog: Backlog { events, oldest_ms } };
        group(&survey, 10_000).lag_seconds
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_event_and_null_when_that_is_not_known() {
        assert_eq!(lag(0, None), Some(0.0));
        assert_eq!(lag(3, Some(7_500)), Some(2.5));
        assert_eq!(lag(3, None), None);
        // The clock may have been set back.
        assert_eq!(lag(3, Some(20_000)), Some(0.0));
    }
}

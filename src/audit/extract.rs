//! From an event and its rule to what the records of its delivery say.
//!
//! One record for each person that the rule finds, each person once. The other values speak of the event as a whole.

use super::path::VALUE_BYTES_MAX;
use super::rule::{Missing, Rule};
use crate::event::json::{Tape, Value};
use crate::event::string;
use std::collections::HashSet;
use std::net::IpAddr;

/// Most persons of one event. One that tells of more is taken for one whose persons cannot be found.
const SUBJECTS_MAX: usize = 1000;

/// Who receives.
#[derive(Clone, Debug)]
pub struct Recipient {
    /// IDNO of the organisation.
    pub owner_idno: String,
    /// GUID of the client system, and its name.
    pub client: String,
    pub name: String,
    pub address: IpAddr,
    pub group: String,
}

/// Where an event is from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'e> {
    pub partition: u8,
    pub offset: u64,
    /// The event as delivered, without its closing brace.
    pub event: &'e [u8],
}

/// What is to be recorded of one event.
#[derive(Debug, Default)]
pub struct Extract {
    /// Members of one JSON object for each person, without braces.
    pub records: Vec<Vec<u8>>,
    /// Values are missing, and the rule says that such an event is not delivered.
    pub is_withheld: bool,
}

/// The values that are the same for all persons of an event.
struct Common {
    legal_basis: Option<String>,
    legal_reason: Option<String>,
    subject_type: Option<String>,
    source: String,
    id: String,
    event_type: String,
}

/// Most records that `rule` can make of an event of so many bytes. Places in it are at least two bytes from each other.
pub fn records_max(rule: &Rule, event_bytes: usize) -> usize {
    if rule.subject.is_query() { (event_bytes / 2).clamp(1, SUBJECTS_MAX + 1) } else { 1 }
}

/// Finds the values that `rule` asks for.
pub fn extract(rule: &Rule, recipient: &Recipient, origin: Origin<'_>) -> Extract {
    let text = [origin.event, b"}"].concat();
    let mut tape = Tape::for_text(text.len());
    let document = tape.read_all(&text);
    // Stored events are JSON. If one were not, its record would say that everything is missing.
    let event = document.as_ref().ok().map(|document| document.root());
    let data = event.and_then(|event| event.member("data"));
    let mut decoded = None;
    let attribute = |name: &str| {
        let text = event.and_then(|event| event.member(name)?.string()).unwrap_or_default();
        cut(&text).to_owned()
    };
    let common = Common {
        legal_basis: rule.legal_basis.value(data, &mut decoded),
        legal_reason: rule.legal_reason.value(data, &mut decoded),
        subject_type: rule.subject_type.value(data, &mut decoded),
        source: attribute("source"),
        id: attribute("id"),
        event_type: attribute("type"),
    };
    let subjects = subjects(rule, data, &mut decoded);
    let is_incomplete = subjects.contains(&None) || !common.missing().is_empty();
    if is_incomplete && rule.missing == Missing::Withhold {
        return Extract { records: Vec::new(), is_withheld: true };
    }
    let record = |subject: Option<String>| common.record(subject.as_deref(), recipient, origin);
    Extract { records: subjects.into_iter().map(record).collect(), is_withheld: false }
}

/// The persons, each once; `None` stands for those that should be there and are not.
fn subjects(
    rule: &Rule,
    data: Option<Value<'_>>,
    decoded: &mut Option<serde_json::Value>,
) -> Vec<Option<String>> {
    let found = data.map(|data| rule.subject.find(data, decoded)).unwrap_or_default();
    let mut seen = HashSet::new();
    let mut subjects: Vec<_> =
        found.values.into_iter().filter(|subject| seen.insert(subject.clone())).map(Some).collect();
    let is_incomplete = subjects.is_empty() || found.unusable > 0 || subjects.len() > SUBJECTS_MAX;
    subjects.truncate(SUBJECTS_MAX);
    subjects.extend(is_incomplete.then_some(None));
    subjects
}

impl Common {
    fn missing(&self) -> Vec<&'static str> {
        let values = [
            ("legal_basis", &self.legal_basis),
            ("legal_reason", &self.legal_reason),
            ("subject_type", &self.subject_type),
        ];
        values.into_iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect()
    }

    fn record(&self, subject: Option<&str>, recipient: &Recipient, origin: Origin<'_>) -> Vec<u8> {
        let mut missing = self.missing();
        missing.extend(subject.is_none().then_some("subject"));
        let mut members = Members(Vec::with_capacity(512));
        members.text("legal_entity", Some(&recipient.owner_idno));
        members.text("legal_basis", self.legal_basis.as_deref());
        members.text("legal_reason", self.legal_reason.as_deref());
        members.text("subject", subject);
        members.text("subject_type", self.subject_type.as_deref());
        members.text("user", Some(&recipient.client));
        members.text("user_name", Some(cut(&recipient.name)));
        members.text("user_address", Some(&recipient.address.to_string()));
        members.text("group", Some(&recipient.group));
        members.plain("partition", origin.partition);
        members.plain("offset", origin.offset);
        members.text("source", Some(&self.source));
        members.text("id", Some(&self.id));
        members.text("type", Some(&self.event_type));
        let missing: Vec<_> = missing.iter().map(|name| format!("\"{name}\"")).collect();
        members.plain("missing", format_args!("[{}]", missing.join(",")));
        members.0
    }
}

/// Members of a JSON object under writing.
struct Members(Vec<u8>);

impl Members {
    fn text(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => {
                self.plain(name, "\"");
                string::write(&mut self.0, value);
                self.0.push(b'"');
            }
            None => self.plain(name, "null"),
        }
    }

    fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.extend_from_slice(format!("{comma}\"{name}\":{value}").as_bytes());
    }
}

/// At most [`VALUE_BYTES_MAX`] bytes of a text, the end of a longer one left out.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::rule::Written;
    use serde_json::json;

    fn rule(written: serde_json::Value) -> Rule {
        let defaults: Written = serde_json::from_value(json!({
            "legal_basis": "Law 133/2011", "legal_reason": "$.reason", "subject_type": "person", "subject": "$.idnp"
        }))
        .unwrap();
        let mut written: Written = serde_json::from_value(written).unwrap();
        written.types = vec!["A.B.C.D".into()];
        written.compile(&defaults).unwrap()
    }

    fn event(rest: &str) -> String {
        format!(r#"{{"specversion":"1.0","source":"urn:a\"","id":"7","type":"A.B.C.D"{rest}"#)
    }

    fn records(written: serde_json::Value, event: &str) -> Option<Vec<serde_json::Value>> {
        let recipient = Recipient {
            owner_idno: "1002600024700".into(),
            client: "dc4dd888-e0a8-428e-a6be-82828800b1f5".into(),
            name: "Register".into(),
            address: [10, 0, 0, 7].into(),
            group: "~default".into(),
        };
        let origin = Origin { partition: 3, offset: 17, event: event.as_bytes() };
        let rule = rule(written);
        let extract = extract(&rule, &recipient, origin);
        assert!(extract.records.len() <= records_max(&rule, event.len()));
        let read = |members: &Vec<u8>| {
            serde_json::from_slice(&[b"{", &members[..], b"}"].concat()).expect("a record is JSON")
        };
        (!extract.is_withheld).then(|| extract.records.iter().map(read).collect())
    }

    #[test]
    fn a_record_says_who_received_whose_data_from_which_event() {
        let event = event(r#","data":{"idnp":"2000000000001","reason":"birth"}"#);
        let found = records(json!({}), &event).unwrap();
        let expected = json!({
            "legal_entity": "1002600024700", "legal_basis": "Law 133/2011", "legal_reason": "birth",
            "subject": "2000000000001", "subject_type": "person",
            "user": "dc4dd888-e0a8-428e-a6be-82828800b1f5", "user_name": "Register", "user_address": "10.0.0.7",
            "group": "~default", "partition": 3, "offset": 17,
            "source": "urn:a\"", "id": "7", "type": "A.B.C.D", "missing": []
        });
        assert_eq!(found, [expected]);
    }

    #[test]
    fn each_person_has_a_record_and_one_named_twice_has_one() {
        let data = r#","data":{"reason":"r","p":[{"i":"1"},{"i":2},{"i":"1"},{"i":null}]}"#;
        let found = records(json!({"subject": "$.p[*].i"}), &event(data)).unwrap();
        let told: Vec<_> = found.iter().map(|record| (&record["subject"], &record["missing"])).collect();
        assert_eq!(
            told,
            [(&json!("1"), &json!([])), (&json!("2"), &json!([])), (&json!(null), &json!(["subject"]))]
        );
    }

    #[test]
    fn missing_values_are_flagged_or_withhold_the_event() {
        for data in
            ["", r#","data":"text""#, r#","data_base64":"AA==""#, r#","data":{"idnp":{},"reason":""}"#]
        {
            let found = records(json!({}), &event(data)).unwrap();
            assert_eq!(found[0]["missing"], json!(["legal_reason", "subject"]), "{data}");
            assert_eq!(records(json!({"missing": "withhold"}), &event(data)), None);
        }
        let whole = event(r#","data":{"idnp":"1","reason":"r"}"#);
        assert!(records(json!({"missing": "withhold"}), &whole).is_some());
    }

    #[test]
    fn several_reasons_for_one_event_are_none() {
        let data = event(r#","data":{"idnp":"1","r":["a","b"]}"#);
        assert_eq!(
            records(json!({"legal_reason": "$.r[*]"}), &data).unwrap()[0]["legal_reason"],
            json!(null)
        );
        let data = event(r#","data":{"idnp":"1","r":["a","a"]}"#);
        assert_eq!(records(json!({"legal_reason": "$.r[*]"}), &data).unwrap()[0]["legal_reason"], "a");
    }

    #[test]
    fn what_an_event_can_make_of_a_record_is_bounded() {
        let persons: Vec<_> = (0..SUBJECTS_MAX + 5).map(|n| n.to_string()).collect();
        let data = event(&format!(r#","data":{{"reason":"r","p":[{}]}}"#, persons.join(",")));
        let found = records(json!({"subject": "$.p[*]"}), &data).unwrap();
        assert_eq!((found.len(), &found[SUBJECTS_MAX]["missing"]), (SUBJECTS_MAX + 1, &json!(["subject"])));
        let long = "\u{1}".repeat(20_000).replace('\u{1}', "\\u0001");
        let data =
            format!(r#"{{"source":"{long}","id":"{long}","type":"A.B.C.D","data":{{"idnp":"{long}"}}"#);
        let found = records(json!({"legal_reason": "r"}), &data).unwrap();
        assert_eq!(found[0]["missing"], json!(["subject"]));
        assert!(found[0].to_string().len() < crate::audit::line::LINE_BYTES_MAX);
    }
}

//! An answer of the client API, read with care: it is written by another system, and one client's mistakes must not
//! disturb others.

use super::certificates::{keys, member};
use super::settings::{self, Bounds};
use crate::id::ClientId;
use crate::registry::client_file::{IDNO_DIGITS, is_idno};
use crate::registry::model::Client;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A client as the API tells it.
#[derive(Debug, Clone)]
pub struct Found {
    pub client: Arc<Client>,
    /// The answer as it came: the same text means the same client.
    pub answer: Arc<str>,
}

/// Reads an answer; the error lists everything that is wrong with it. `note` hears of mistakes that do not matter.
pub fn read(answer: &[u8], bounds: &Bounds, mut note: impl FnMut(String)) -> Result<Found, Vec<String>> {
    let text = std::str::from_utf8(answer).map_err(|_| vec!["the answer is not UTF-8".to_owned()])?;
    let json: Value = serde_json::from_str(text).map_err(|error| vec![format!("expected JSON: {error}")])?;
    let object = json.as_object().ok_or_else(|| vec!["expected a JSON object".to_owned()])?;
    let mut problems = Vec::new();
    let id = required(object, "ID", read_id, &mut problems);
    let name = required(object, "Name", read_name, &mut problems);
    let owner_idno = required(object, "OwnerID", read_owner, &mut problems);
    let certificates =
        required(object, "Certificates", |list| read_certificates(list, &mut note), &mut problems);
    let rights = required(
        object,
        "Settings",
        |value| value.as_str().ok_or("a string that holds JSON".into()),
        &mut problems,
    );
    let rights =
        rights.and_then(|text| settings::read(text, bounds).map_err(|found| problems.extend(found)).ok());
    let client = || {
        let rights = rights?;
        Some(Client {
            id: id?,
            name: name?,
            owner_idno: owner_idno?,
            enabled: rights.enabled,
            certificates: certificates?,
            networks: rights.networks,
            producer: rights.producer,
            consumer: rights.consumer,
            limits: rights.limits,
        })
    };
    match client() {
        Some(client) => Ok(Found { client: Arc::new(client), answer: text.into() }),
        None => Err(problems),
    }
}

/// What `read` makes of the member; its error completes "expected …".
fn required<'j, T>(
    object: &'j Map<String, Value>,
    name: &str,
    read: impl FnOnce(&'j Value) -> Result<T, String>,
    problems: &mut Vec<String>,
) -> Option<T> {
    let read = match member(object, name) {
        Some(value) => read(value).map_err(|expected| format!("{name}: expected {expected}")),
        None => Err(format!("the member {name} is missing")),
    };
    read.map_err(|problem| problems.push(problem)).ok()
}

fn read_id(value: &Value) -> Result<ClientId, String> {
    let id = value.as_str().and_then(|text| uuid::Uuid::try_parse(text.trim()).ok());
    id.map(|id| ClientId(id.into_bytes())).ok_or_else(|| "a GUID".into())
}

fn read_name(value: &Value) -> Result<String, String> {
    value.as_str().filter(|name| !name.is_empty()).map(str::to_owned).ok_or_else(|| "a name".into())
}

fn read_owner(value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    if is_idno(&text) { Ok(text) } else { Err(format!("an IDNO, {IDNO_DIGITS} digits")) }
}

/// A client without any certificate that can be read could not be told from others.
fn read_certificates(
    value: &Value,
    note: impl FnMut(String),
) -> Result<Vec<crate::registry::model::CertificateKey>, String> {
    let list = value.as_array().ok_or("a list of certificates")?;
    let (keys, problems) = keys(list);
    if keys.is_empty() {
        let reasons = if problems.is_empty() { "the list is empty".into() } else { problems.join("; ") };
        return Err(format!("at least one certificate that can be read: {reasons}"));
    }
    problems.into_iter().for_each(note);
    Ok(keys)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::settings::tests::bounds;
    use super::*;
    use serde_json::json;

    const ID: &str = "dc4dd888-e0a8-428e-a6be-82828800b1f5";

    /// An answer for the client whose GUID ends in `n`, with these certificates of one authority.
    pub fn answer(n: u8, serials: &[&str]) -> Value {
        let certificates: Vec<_> =
            serials.iter().map(|serial| json!({"SerialNumber": serial, "Issuer": "CN=ca"})).collect();
        json!({
            "ID": format!("dc4dd888-e0a8-428e-a6be-8282880000{n:02x}"),
            "Name": format!("client {n}"),
            "OwnerID": "1002600024700",
            "Certificates": certificates,
            "Settings": r#"{"networks": ["127.0.0.0/8"]}"#,
        })
    }

    fn problems(answer: &Value) -> Vec<String> {
        read(answer.to_string().as_bytes(), &bounds(), |_| ()).unwrap_err()
    }

    #[test]
    fn an_answer_becomes_a_client() {
        let mut json = answer(7, &["0A", "0b"]);
        json["id"] = ID.into();
        json["ID"] = ID.to_uppercase().into();
        json["OwnerID"] = 1_002_600_024_700_u64.into();
        json["Certificates"].as_array_mut().unwrap().push("nonsense".into());
        let mut notes = Vec::new();
        let found = read(json.to_string().as_bytes(), &bounds(), |text| notes.push(text)).unwrap();
        assert_eq!(found.client.id.to_string(), ID);
        assert_eq!(found.client.owner_idno, "1002600024700");
        assert_eq!(found.client.certificates.len(), 2);
        assert_eq!(&*found.answer, json.to_string());
        assert!(notes.len() == 1 && notes[0].starts_with("Certificates at /2: "), "{notes:?}");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let found =
            problems(&json!({"ID": "7", "Name": "", "OwnerID": "12", "Certificates": [], "Settings": {}}));
        for part in [
            "ID: expected a GUID",
            "Name: expected",
            "OwnerID: expected an IDNO",
            "Certificates: expected",
            "Settings: expected a string",
        ] {
            assert!(found.iter().any(|problem| problem.starts_with(part)), "{part}: {found:?}");
        }
        let mut settings = answer(1, &["1"]);
        settings["Settings"] = "{}".into();
        assert!(problems(&settings)[0].starts_with("Settings: "));
        assert_eq!(problems(&json!({})).len(), 5);
    }

    #[test]
    fn bytes_that_are_no_answer_are_refused() {
        for bytes in [&b""[..], b"<html>", b"[]", b"\xff"] {
            assert_eq!(read(bytes, &bounds(), |_| ()).unwrap_err().len(), 1);
        }
    }
    proptest::proptest! {
        #[test]
        fn any_answer_is_read_without_panic(text in ".*", serial in "\\PC*", issuer in "\\PC*", settings in "\\PC*") {
            let mut json = answer(1, &["1"]);
            json["Settings"] = settings.into();
            json["Certificates"] = json!([{"SerialNumber": serial, "Issuer": issuer}, text.clone()]);
            let _ = read(json.to_string().as_bytes(), &bounds(), |_| ());
            let _ = read(text.as_bytes(), &bounds(), |_| ());
        }
    }
}

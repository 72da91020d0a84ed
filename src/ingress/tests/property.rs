//! What holds for any event and any bytes.

use super::*;
use crate::event::binary::Binary;
use base64::Engine;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

static WORLD: LazyLock<World> = LazyLock::new(World::new);

/// Text that CloudEvents allows in attributes.
fn attribute() -> impl Strategy<Value = String> {
    "[ -~ăîșțâЖ€😀\"\\\\%/]{1,20}"
}

/// Any text that CloudEvents allows in attributes (1.0.2, 3.1): no control characters, no noncharacters.
fn any_attribute() -> impl Strategy<Value = String> {
    let allowed = |character: &char| {
        let code = *character as u32;
        !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
    };
    prop::collection::vec(any::<char>().prop_filter("a character for attributes", allowed), 1..20)
        .prop_map(|characters| characters.into_iter().collect())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// As CloudEvents HTTP binding 3.1.3.2 has producers write it.
fn percent_encoded(text: &str) -> Vec<u8> {
    let encode = |byte: u8| match byte {
        b'"' | b'%' | 0..=0x20 | 0x7f.. => format!("%{byte:02X}"),
        _ => char::from(byte).to_string(),
    };
    text.bytes().map(encode).collect::<String>().into_bytes()
}

/// The block of what a consumer reads of `block` in binary mode, produced again.
fn produced_again(block: &Block, expected_payload: &[u8]) -> Block {
    let record = Record::read(block.record(block.spans[0])).unwrap();
    let Binary { content_type, attributes, payload } = Binary::read(record.event()).unwrap();
    assert_eq!(&*payload, expected_payload);
    let sound = |value: &[u8]| value.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    assert!(attributes.iter().all(|(_, value)| sound(value)));
    let headers: Vec<_> = attributes.iter().map(|(name, value)| (*name, &**value)).collect();
    WORLD.raw(std::str::from_utf8(&content_type.unwrap()).unwrap(), &headers, &payload).unwrap()
}

fn one(block: &Block) -> Value {
    serde_json::from_str(&delivered(block)[0]).unwrap()
}

proptest! {
    #[test]
    fn what_was_produced_structured_is_what_is_delivered(
        id in attribute(), subject in attribute(), key in attribute(), extension in "[a-z0-9]{1,20}x",
        value in attribute(), number: i32, flag: bool, data in json(), pretty: bool,
    ) {
        let data = if pretty { serde_json::to_string_pretty(&data) } else { serde_json::to_string(&data) }.unwrap();
        let mut event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "urn:a", "type": ANY, "subject": subject, "partitionkey": key,
            "time": "2020-02-02T02:02:02Z", "intx": number, "flagx": flag, "datacontenttype": "application/json",
        });
        event[extension.as_str()] = value.into();
        let attributes = serde_json::to_string(&event).unwrap();
        let produced = format!("{{\"data\" : {data} ,{}", &attributes[1..]);
        let block = WORLD.event(&produced).unwrap();
        let text = &delivered(&block)[0];
        let end = format!(",\"data\":{data},\"offset\":\"1\"}}");
        prop_assert!(text.ends_with(&end));
        event["data"] = serde_json::from_str(&data).unwrap();
        event["offset"] = "1".into();
        prop_assert_eq!(serde_json::from_str::<Value>(text).unwrap(), event);
    }

    #[test]
    fn what_was_produced_raw_is_what_is_delivered(
        id in attribute(), subject in attribute(), data in json(), text: String, bytes: Vec<u8>,
    ) {
        let (id_header, subject_header) = (percent_encoded(&id), percent_encoded(&subject));
        let headers = [
            ("specversion", &b"1.0"[..]), ("type", ANY.as_bytes()), ("source", b"urn%3Aa"),
            ("id", &id_header), ("subject", &subject_header),
        ];
        let body = serde_json::to_string_pretty(&data).unwrap();
        let block = WORLD.raw("application/json", &headers, body.as_bytes()).unwrap();
        let end = format!(",\"data\":{body},\"offset\":\"1\"}}");
        prop_assert!(delivered(&block)[0].ends_with(&end));
        let event = one(&block);
        prop_assert_eq!((event["id"].as_str(), event["subject"].as_str()), (Some(&*id), Some(&*subject)));
        let event = one(&WORLD.raw("text/plain", &headers, text.as_bytes()).unwrap());
        prop_assert_eq!(event["data"].as_str(), Some(&*text));
        let event = one(&WORLD.raw("application/octet-stream", &headers, &bytes).unwrap());
        let decoded = base64::engine::general_purpose::STANDARD.decode(event["data_base64"].as_str().unwrap());
        prop_assert_eq!(decoded.unwrap(), bytes);
    }

    #[test]
    fn what_is_consumed_raw_is_what_was_produced(
        id in any_attribute(), subject in any_attribute(), key in any_attribute(), value in any_attribute(),
        number: i32, flag: bool, data in json(), text: String, bytes: Vec<u8>,
    ) {
        let attributes = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "urn:a", "type": ANY, "time": "2020-02-02T02:02:02Z",
            "subject": subject, "partitionkey": key, "x": value,
        }).to_string();
        let event = |rest: &str| WORLD.event(format!("{}{rest}}}", &attributes[..attributes.len() - 1])).unwrap();
        let data = serde_json::to_string_pretty(&data).unwrap();
        let json = event(&format!(",\"data\":{data}"));
        prop_assert_eq!(produced_again(&json, data.as_bytes()), json);
        let quoted = serde_json::to_string(&text).unwrap();
        let plain = event(&format!(",\"datacontenttype\":\"text/plain; charset=utf-8\",\"data\":{quoted}"));
        prop_assert_eq!(one(&produced_again(&plain, text.as_bytes())), one(&plain));
        let base64 = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let binary = event(&format!(",\"data_base64\":\"{base64}\""));
        prop_assert_eq!(produced_again(&binary, &bytes), binary);
        let scalars = event(&format!(",\"n\":{number},\"flag\":{flag},\"data\":0"));
        let mut expected = one(&scalars);
        (expected["n"], expected["flag"]) = (number.to_string().into(), flag.to_string().into());
        prop_assert_eq!(one(&produced_again(&scalars, b"0")), expected);
    }

    #[test]
    fn single_batched_and_raw_events_are_stored_alike(id in attribute(), key in attribute(), data in json()) {
        let data = data.to_string();
        let event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "urn:a", "type": ANY, "partitionkey": key,
            "datacontenttype": "application/json",
        }).to_string();
        let event = format!("{},\"data\":{data}}}", &event[..event.len() - 1]);
        let (id, key) = (percent_encoded(&id), percent_encoded(&key));
        let headers = [
            ("specversion", &b"1.0"[..]), ("type", ANY.as_bytes()), ("source", b"urn:a"), ("id", &id),
            ("partitionkey", &key),
        ];
        let raw = WORLD.raw("application/json", &headers, data.as_bytes()).unwrap();
        prop_assert_eq!(&WORLD.event(&event).unwrap(), &raw);
        prop_assert_eq!(&WORLD.batch(format!("[{event}]")).unwrap(), &raw);
    }

    #[test]
    fn no_request_makes_it_panic(
        bytes: Vec<u8>, content in "[ -~]{0,30}", header in "[ -~]{0,10}", value: Vec<u8>, at: usize, byte: u8,
    ) {
        for form in [Form::Raw, Form::Event, Form::Batch] {
            let content_types = [&content, form.expected_content_type(), "application/json", "text/plain"];
            let sound = format!("[{}]", any_event("1", r#","data":{"a":["é",1e3]}"#)).into_bytes();
            let mut bent = sound.clone();
            bent[at % sound.len()] = byte;
            for content_type in content_types {
                for body in [&bytes[..], &bent, &bent[1..], &sound[..at % sound.len()]] {
                    let attributes = [("id", &b"1"[..]), (&*header, &*value)];
                    let content_type = Some(content_type.as_bytes());
                    let _ = WORLD.admit(Produced { form, content_type, attributes: &attributes, body });
                }
            }
        }
    }
}

//! Single events in structured mode.

use super::*;

#[test]
fn an_event_is_delivered_with_canonical_attributes_and_its_data_untouched() {
    let world = World::new();
    let body = format!(
        r#" {{ "data" : {{"b" : 1.0e2, "a":"\u0041\/"}} , "subject":"s\u0061", "id":"\u0031", "source":"urn:\u0061",
             "x":true, "y":-7, "type":"{ANY}", "time":"2024-01-01t01:02:03.5+02:00", "specversion":"1.0" }} "#
    );
    let block = world.event(body).unwrap();
    let expected = format!(
        r#"{{"specversion":"1.0","source":"urn:a","id":"1","type":"{ANY}","time":"2024-01-01T01:02:03.5+02:00","datacontenttype":"application/json","subject":"sa","x":true,"y":-7,"data":{{"b" : 1.0e2, "a":"\u0041\/"}},"offset":"1"}}"#
    );
    assert_eq!(delivered(&block), [expected]);
}

#[test]
fn the_record_says_what_the_broker_needs_to_know() {
    let world = World::new();
    let body = format!(
        r#"{{"specversion":"1.0","id":"i","source":"urn:b","type":"{BORN}","partitionkey":"21","data":{{"name":"n"}}}}"#
    );
    let block = world.event(body).unwrap();
    let record = Record::read(&block.bytes).unwrap();
    let header = record.header();
    assert_eq!((record.source(), record.id()), (&b"urn:b"[..], &b"i"[..]));
    assert_eq!((header.type_id, header.dedup_window_s, header.time_ms), (TypeId(102), 60, NOW_MS));
    // Kafka's murmur2("21") is -973932308.
    assert_eq!(header.key_hash, (-973_932_308_i32 & 0x7fff_ffff) as u32);
    assert_eq!(u32::from(header.partition.0), header.key_hash % 12);
    assert_eq!((block.count, block.partitions), (1, 1 << header.partition.0));
}

#[test]
fn without_a_key_source_and_id_choose_the_partition() {
    let world = World::new();
    let mask = |ids: std::ops::Range<u32>| {
        ids.map(|id| world.event(any_event(&id.to_string(), "")).unwrap().partitions)
            .fold(0, |all, one| all | one)
    };
    assert_eq!(mask(0..200), (1 << 12) - 1, "identities spread over all partitions");
    assert_eq!(mask(5..6), mask(5..6), "a repeat goes to the same partition");
}

#[test]
fn time_is_the_servers_when_the_producer_gives_none() {
    let world = World::new();
    for more in ["", r#","time":null"#] {
        let block = world.event(any_event("1", more)).unwrap();
        assert!(delivered(&block)[0].contains(&format!(r#""time":"{NOW}""#)));
    }
}

#[test]
fn time_may_run_ahead_by_the_skew_and_no_more() {
    let world = World::new();
    let at = |time: &str| world.event(any_event("1", &format!(r#","time":"{time}""#)));
    assert!(at("2024-02-29T12:35:01.789Z").is_ok());
    assert!(at("2024-02-29T14:35:01.7899+02:00").is_ok());
    assert!(at("0001-01-01T00:00:00Z").is_ok());
    let (status, text) = refusal(at("2024-02-29T12:35:01.790Z"));
    assert_eq!(status, 400);
    assert!(text.contains(r#"attribute "time""#) && text.contains("future"), "{text}");
}

#[test]
fn every_payload_is_delivered_with_its_content_type() {
    let world = World::new();
    for (more, expected) in [
        ("", r#""offset""#),
        (r#","data":null"#, r#""datacontenttype":"application/json","data":null"#),
        (r#","data":"t""#, r#""datacontenttype":"application/json","data":"t""#),
        (r#","data":0.10"#, r#""datacontenttype":"application/json","data":0.10"#),
        (
            r#","datacontenttype":"application/fhir+json","data":{}"#,
            r#""datacontenttype":"application/fhir+json","data":{}"#,
        ),
        (
            r#","datacontenttype":"text/plain","data":"a\u0062\n""#,
            r#""datacontenttype":"text/plain","data":"a\u0062\n""#,
        ),
        (r#","datacontenttype":"text/xml","data":"<a/>""#, r#""datacontenttype":"text/xml","data":"<a/>""#),
        (r#","data_base64":"AAE=""#, r#""datacontenttype":"application/octet-stream","data_base64":"AAE=""#),
        (r#","data_base64":"\/\/8=""#, r#""data_base64":"//8=""#),
        (
            r#","datacontenttype":"image/png","data_base64":"""#,
            r#""datacontenttype":"image/png","data_base64":"""#,
        ),
        (r#","data":1,"data_base64":null"#, r#""data":1,"offset""#),
    ] {
        let block = world.event(any_event("1", more)).unwrap();
        assert!(delivered(&block)[0].contains(expected), "{more} gave {}", delivered(&block)[0]);
    }
}

#[test]
fn malformed_events_are_400_and_named() {
    let world = World::new();
    for (body, expected) in [
        ("".to_owned(), "not valid JSON at byte 0"),
        ("[]".to_owned(), "must be a JSON object"),
        ("\u{feff}{}".to_owned(), "not valid JSON at byte 0"),
        (any_event("1", "") + "x", "expected the end of the text"),
        (any_event("1", r#","id":"2""#), "appears twice"),
        (any_event("1", r#","\u0069d":"2""#), "appears twice"),
        (any_event("1", r#","data":{"a":1,"a":2}"#), "appears twice"),
        (any_event("1", r#","data":"\ud800""#), "surrogate"),
        (any_event("1", &format!(",\"data\":{}{}", "[".repeat(64), "]".repeat(64))), "deeper than 64"),
        (any_event("", ""), r#"attribute "id" must not be empty"#),
        (any_event("1", r#","offset":"5""#), r#"event id "1": attribute "offset" is reserved"#),
        (any_event("1", r#","Upper":"5""#), r#"attribute "Upper" is not an attribute name"#),
        (any_event("1", r#","x":1.5"#), r#"attribute "x" must be a string, a boolean or an integer"#),
        (any_event("1", r#","x":2147483648"#), r#"attribute "x" must be"#),
        (any_event("1", r#","x":{}"#), r#"attribute "x" must be"#),
        (any_event("1", r#","x":[]"#), r#"attribute "x" must be"#),
        (any_event("1", r#","time":"2024-02-30T00:00:00Z""#), r#"attribute "time" must be an RFC 3339"#),
        (any_event("1", r#","dataschema":"a""#), r#"attribute "dataschema" must be an absolute URI"#),
        (any_event("1", r#","datacontenttype":"x""#), r#"attribute "datacontenttype" must be a media type"#),
        (any_event("1", r#","datacontenttype":"text/plain","data":{}"#), "data must be a JSON string"),
        (any_event("1", r#","data":1,"data_base64":"AA==""#), "either data or data_base64"),
        (any_event("1", r#","data_base64":"AA""#), r#"attribute "data_base64" must be a string of base64"#),
        (any_event("1", r#","data_base64":"A===""#), "base64"),
        (any_event("1", r#","data_base64":"AB==""#), "base64"),
        (any_event("1", r#","data_base64":"_-8=""#), "base64"),
        (any_event("1", r#","data_base64":7"#), "base64"),
        (any_event("1", "").replace("urn:a", "a b"), r#"attribute "source" must be a URI-reference"#),
        (any_event("1", "").replace(r#""1.0""#, "1.0"), r#"attribute "specversion" must be"#),
        (any_event("1", "").replace(r#""1.0""#, r#""0.3""#), r#"attribute "specversion" must be "1.0""#),
        (any_event("1", "").replace(r#""1.0""#, "null"), r#"attribute "specversion" is missing"#),
    ] {
        let (status, text) = refusal(world.event(&body));
        assert_eq!(status, 400, "{body} gave {text}");
        assert!(text.contains(expected), "{body} gave {text}");
    }
}

#[test]
fn sources_and_types_that_are_not_the_clients_are_401() {
    let world = World::new();
    for (from, to, expected) in [
        ("urn:a", "urn:c", r#"attribute "source" "urn:c" is not among the sources of this client"#),
        ("urn:a", "URN:a", r#"attribute "source""#),
        (ANY, OTHERS, r#"attribute "type" "Org.Sys.Others.Happened" is not among"#),
        (ANY, "No.Such.Type.Known", r#"attribute "type""#),
    ] {
        let (status, text) = refusal(world.event(any_event("1", "").replace(from, to)));
        assert_eq!(status, 401, "{text}");
        assert!(text.contains(expected) && text.starts_with(r#"event id "1": "#), "{text}");
    }
}

#[test]
fn a_payload_of_a_kind_that_the_type_does_not_take_is_400() {
    let world = World::new();
    for (name, more) in [
        (SMALL, r#","datacontenttype":"text/plain","data":"t""#),
        (SMALL, r#","data_base64":"AA==""#),
        (BORN, r#","datacontenttype":"text/plain","data":"t""#),
        (BORN, r#","data_base64":"AA==""#),
    ] {
        let (status, text) = refusal(world.event(any_event("1", more).replace(ANY, name)));
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("takes JSON payloads"), "{text}");
    }
}

#[test]
fn data_that_does_not_fit_the_schema_is_422_with_every_pointer() {
    let world = World::new();
    let data = r#","data":{"age":-1,"extra":"secret"}"#;
    let rejection = world.event(any_event("1", data).replace(ANY, BORN)).unwrap_err();
    assert_eq!(rejection.status.code(), 422);
    let mut places: Vec<_> = rejection
        .errors
        .iter()
        .map(|error| match &error.fault.place {
            Place::Data(pointer) => pointer.as_str(),
            place => panic!("{place:?}"),
        })
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["", "", "/age"]);
    let text = rejection.to_string();
    assert!(
        text.contains("name") && text.contains(r#"data at "/age":"#) && !text.contains("secret"),
        "{text}"
    );
}

#[test]
fn a_type_with_a_schema_needs_data() {
    let world = World::new();
    let (status, text) = refusal(world.event(any_event("1", "").replace(ANY, BORN)));
    assert_eq!(
        (status, text.as_str()),
        (422, r#"event id "1": data is missing, but the event type has a schema"#)
    );
}

/// The event with `data` of so many letters that it takes `bytes` when delivered with the longest offset.
fn event_of(bytes: usize, name: &str) -> String {
    let start = r#"{"specversion":"1.0","source":"urn:a","id":"1","type":"","time":"","datacontenttype":"application/json","data":"","offset":"18446744073709551615"}"#;
    let letters = bytes - start.len() - name.len() - NOW.len();
    any_event("1", &format!(r#","data":"{}""#, "x".repeat(letters))).replace(ANY, name)
}

#[test]
fn the_size_limit_counts_the_longest_offset() {
    let world = World::new();
    let block = world.event(event_of(64 << 10, ANY)).unwrap();
    let longest = delivered(&block)[0].replace(r#""offset":"1""#, r#""offset":"18446744073709551615""#);
    assert_eq!(longest.len(), 64 << 10);
    let (status, text) = refusal(world.event(event_of((64 << 10) + 1, ANY)));
    assert_eq!(status, 413);
    assert!(text.contains("65537 bytes") && text.contains("the limit is 65536"), "{text}");
}

#[test]
fn limits_of_type_and_client_replace_the_default_and_the_stricter_counts() {
    let mut world = World::new();
    assert!(world.event(event_of(300, SMALL)).is_ok());
    assert_eq!(refusal(world.event(event_of(301, SMALL))).0, 413);
    world.client.limits.event_bytes_max = Some(100_000);
    assert!(world.event(event_of(100_000, ANY)).is_ok());
    assert_eq!(refusal(world.event(event_of(100_001, ANY))).0, 413);
    assert_eq!(refusal(world.event(event_of(301, SMALL))).0, 413);
    world.client.limits.event_bytes_max = Some(250);
    assert_eq!(refusal(world.event(event_of(251, SMALL))).0, 413);
}

#[test]
fn an_event_too_large_is_not_held_against_its_schema() {
    let world = World::new();
    let mut small = World::new();
    small.client.limits.event_bytes_max = Some(200);
    let body = any_event("1", &format!(r#","data":{{"age":"{}"}}"#, "x".repeat(200))).replace(ANY, BORN);
    assert_eq!(refusal(world.event(&body)).0, 422);
    assert_eq!(refusal(small.event(&body)).0, 413);
}

#[test]
fn the_content_type_must_be_that_of_the_form() {
    let world = World::new();
    let body = any_event("1", "");
    let with = |content_type: Option<&str>| {
        let content_type = content_type.map(str::as_bytes);
        world.admit(Produced { form: Form::Event, content_type, attributes: &[], body: body.as_bytes() })
    };
    assert!(with(Some("application/cloudevents+json")).is_ok());
    assert!(with(Some("Application/CloudEvents+JSON; charset=UTF-8")).is_ok());
    for given in [
        None,
        Some("application/json"),
        Some("application/cloudevents-batch+json"),
        Some("application/cloudevents+json; charset=utf-16"),
        Some("application/cloudevents+json, text/plain"),
        Some(""),
    ] {
        let (status, text) = refusal(with(given));
        assert_eq!(status, 400);
        assert!(text.starts_with("header Content-Type "), "{text}");
    }
}

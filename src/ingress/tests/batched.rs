//! Batches.

use super::*;

fn array(events: &[String]) -> String {
    format!("[{}]", events.join(","))
}

#[test]
fn events_keep_the_order_of_the_array() {
    let world = World::new();
    let events: Vec<_> = (0..50).map(|id| any_event(&id.to_string(), "")).collect();
    let block = world.batch(array(&events)).unwrap();
    assert_eq!(block.count, 50);
    for (id, text) in delivered(&block).iter().enumerate() {
        assert!(text.contains(&format!(r#""id":"{id}""#)), "{text}");
    }
}

#[test]
fn an_empty_array_is_a_block_of_nothing() {
    let world = World::new();
    for body in ["[]", " [ \n ] "] {
        assert_eq!(world.batch(body).unwrap(), Block::default());
    }
}

#[test]
fn what_is_no_array_of_events_is_400() {
    let world = World::new();
    let event = any_event("1", "");
    for (body, expected) in [
        ("".to_owned(), "must be a JSON array"),
        (event.clone(), "must be a JSON array"),
        ("[".to_owned(), "event 0: the body is not valid JSON at byte 1"),
        ("[] []".to_owned(), "at byte 3: expected the end of the text"),
        ("[]]".to_owned(), "at byte 2: expected the end"),
        (format!("[{event}"), "the text ends inside a value"),
        (format!("[{event},]"), "event 1: the body is not valid JSON at byte"),
        (format!("[{event}]x"), "expected the end"),
        (format!("[{event} {event}]"), "expected \",\""),
        ("[1]".to_owned(), "event 0: an event must be a JSON object"),
        ("[null]".to_owned(), "event 0: an event must be"),
        (format!("[[{event}]]"), "event 0: an event must be"),
    ] {
        let (status, text) = refusal(world.batch(&body));
        assert_eq!(status, 400, "{body}");
        assert!(text.contains(expected), "{body} gave {text}");
    }
}

#[test]
fn errors_in_the_text_are_placed_in_the_whole_body() {
    let world = World::new();
    let event = any_event("1", "");
    let body = format!("[{event}, {{x}}]");
    let (_, text) = refusal(world.batch(&body));
    assert!(text.contains(&format!("at byte {}:", body.find('x').unwrap())), "{text}");
}

#[test]
fn every_failing_event_is_reported_and_the_gravest_status_counts() {
    let world = World::new();
    let fine = any_event("0", "");
    let unfit = any_event("1", r#","data":{"name":1}"#).replace(ANY, BORN);
    let large = any_event("2", &format!(r#","data":"{}""#, "x".repeat(66_000)));
    let foreign = any_event("3", "").replace("urn:a", "urn:x");
    let malformed = any_event("4", r#","time":"x""#);
    let events = [fine, unfit, large, foreign, malformed, "7".to_owned()];
    for (count, expected) in [(2, 422), (3, 413), (4, 401), (5, 400), (6, 400)] {
        let rejection = world.batch(array(&events[..count])).unwrap_err();
        assert_eq!(rejection.status.code(), expected);
        let indices: Vec<_> = rejection.errors.iter().map(|error| error.index.unwrap()).collect();
        assert_eq!(indices, (1..count as u32).collect::<Vec<_>>());
    }
    let rejection = world.batch(array(&events)).unwrap_err();
    let codes: Vec<_> = rejection.errors.iter().map(|error| error.fault.status.code()).collect();
    assert_eq!(codes, [422, 413, 401, 400, 400]);
    let ids: Vec<_> = rejection.errors.iter().map(|error| error.id.as_deref()).collect();
    assert_eq!(ids, [Some("1"), Some("2"), Some("3"), Some("4"), None]);
    assert!(rejection.to_string().contains("\nevent 3, id \"3\": attribute \"source\""));
}

#[test]
fn two_events_with_the_same_source_and_id_are_400() {
    let world = World::new();
    let other_source = any_event("1", "").replace("urn:a", "urn:b");
    assert!(world.batch(array(&[any_event("1", ""), other_source.clone()])).is_ok());
    let escaped = any_event(r"\u0031", r#","data":1"#);
    let (status, text) = refusal(world.batch(array(&[any_event("1", ""), other_source, escaped])));
    assert_eq!(status, 400);
    assert_eq!(text, r#"event 2, id "1": an earlier event of this batch has the same source and id"#);
}

#[test]
fn a_megabyte_of_nonsense_is_counted_but_not_spelt_out() {
    let world = World::new();
    let rejection = world.batch(format!("[{}]", vec!["{}"; 300_000].join(","))).unwrap_err();
    assert_eq!(
        (rejection.errors.len(), rejection.more),
        (rejection::ERRORS_MAX, 300_000 - rejection::ERRORS_MAX)
    );
    assert!(rejection.to_string().ends_with("and 283616 more errors"));
    let long = any_event(&"x".repeat(60_000), r#","time":"x""#);
    assert!(world.batch(array(&[long])).unwrap_err().to_string().len() < 1000);
}

#[test]
fn an_event_is_read_to_twice_the_limit_and_ends_the_request_beyond() {
    let world = World::new();
    let of_text = |bytes: usize| any_event(&" ".repeat(bytes - any_event("", "").len()), "");
    let spaced = |bytes: usize| any_event("1", &" ".repeat(bytes - any_event("1", "").len()));
    let max = 128 << 10;
    assert!(world.event(spaced(max)).is_ok());
    assert!(world.batch(array(&[spaced(max), any_event("2", "")])).is_ok());
    let (status, text) = refusal(world.batch(array(&[of_text(max), any_event("2", "{")])));
    assert_eq!((status, text.lines().count()), (400, 2), "{text}");
    for body in [array(&[any_event("1", ""), spaced(max + 1), "{".to_owned()]), array(&[of_text(max + 1)])] {
        let (status, text) = refusal(world.batch(body));
        assert_eq!(status, 413);
        assert!(text.contains("more than 131072 bytes as sent") && text.starts_with("event "), "{text}");
    }
    for cut in 0..14 {
        let event =
            any_event(&format!("{}{}", "x".repeat(max - 12 - cut - 28), r"\ud83d\ude00".repeat(20)), "");
        assert_eq!(refusal(world.event(&event)).0, 413, "{cut}");
    }
    assert_eq!(refusal(world.raw("application/json", &[], &vec![b'['; max + 1])).0, 413);
}

#[test]
fn any_size_of_step_gives_the_same_outcome() {
    let world = World::new();
    let good: Vec<_> = (0..20).map(|id| any_event(&id.to_string(), "")).collect();
    let mut bad = good.clone();
    bad[7] = "{}".to_owned();
    bad[19] = "{".to_owned();
    for body in [array(&good), array(&bad)] {
        let whole = world.batch(&body);
        let content_type = Some(&b"application/cloudevents-batch+json"[..]);
        for bytes in [1, 600, 5000] {
            let produced =
                Produced { form: Form::Batch, content_type, attributes: &[], body: body.as_bytes() };
            let mut admission = Admission::new(world.authority(), produced);
            let mut steps = 0;
            let outcome = loop {
                steps += 1;
                if let Some(outcome) = admission.step(bytes) {
                    break outcome;
                }
            };
            assert_eq!(outcome, whole);
            assert!(steps > 20 * 512 / bytes.max(512) / 2, "{steps} steps of {bytes}");
        }
    }
}

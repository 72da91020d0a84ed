//! Dead events: what a consumer reports as an event that it cannot consume, possibly changed by it.
//!
//! A report is never refused for what it says. What is a CloudEvent is stored as one, without the `offset` that delivery had added;
//! anything else is stored word for word inside an event of the broker's own, since a message that could not be parsed is
//! just what its reporter wants somebody to look at.

use super::binary;
use super::block::{Block, Builder};
use super::rejection::{Fault, Faults, Rejection, Status};
use super::request::Produced;
use super::rules::{self, Event};
use super::structured;
use crate::event::attributes::{Attributes, Scalar};
use crate::event::encode;
use crate::event::json::{Kind, Tape, Value};
use crate::event::payload::Payload;
use crate::event::record::{Record, RecordHeader};
use crate::id::{ClientId, Partition, TypeId};

/// The `type` of an event that holds what was reported and is no CloudEvent.
const ENVELOPE_TYPE: &str = "Nistru.Consumer.Report.Received";

/// A report.
#[derive(Debug)]
pub struct Report {
    pub event: DeadEvent,
    /// The session offset of the delivered event that is reported, if it says so.
    pub offset: Option<u64>,
}

/// A dead event as it will be delivered, without the closing brace.
#[derive(Debug, PartialEq, Eq)]
pub struct DeadEvent {
    bytes: Vec<u8>,
    positions: encode::Positions,
    key_hash: u32,
}

impl Report {
    /// What `text`, which `client` sent, reports. `number` is unique among the client's reports.
    pub fn of_text(text: &str, client: ClientId, number: uuid::Uuid, now_ms: u64) -> Self {
        let mut tape = Tape::for_text(text.len());
        let document = tape.read_all(text.as_bytes());
        let root = document.as_ref().ok().map(|document| document.root());
        let event = match root.map(structured::read_delivered) {
            Some(Ok(event)) => DeadEvent::of(&event, now_ms),
            Some(Err(_)) | None => DeadEvent::enveloping(text, client, number, now_ms),
        };
        Self { event, offset: root.and_then(offset) }
    }

    /// What a request in binary mode reports. Its `ce-offset`, which must stand once, is not part of the event.
    pub fn of_request(produced: &Produced<'_>, now_ms: u64) -> Result<Self, Rejection> {
        let refuse = |fault| {
            let mut faults = Faults::default();
            faults.add(None, binary::id(produced).as_deref(), fault);
            faults.rejection().expect("a fault was added")
        };
        let (offsets, own): (Vec<_>, Vec<_>) =
            produced.attributes.iter().partition(|(name, _)| name.eq_ignore_ascii_case("offset"));
        let offset = delivered_offset(&offsets).map_err(refuse)?;
        let event = event_of_request(&Produced { attributes: &own, ..*produced }, now_ms).map_err(refuse)?;
        Ok(Self { event, offset })
    }
}

fn delivered_offset(given: &[(&str, &[u8])]) -> Result<Option<u64>, Fault> {
    let number = |value: &[u8]| str::from_utf8(value).ok()?.parse().ok();
    match given {
        [] => Ok(None),
        [(_, value)] if value.iter().all(u8::is_ascii_digit) && number(value).is_some() => Ok(number(value)),
        _ => {
            let reason = "must be the offset under which the event was delivered, a whole number";
            Err(Fault::attribute(Status::Malformed, "offset", reason))
        }
    }
}

fn event_of_request(produced: &Produced<'_>, now_ms: u64) -> Result<DeadEvent, Fault> {
    let mut tape = Tape::for_text(produced.body.len());
    let content = binary::content(produced)?;
    let document = match content {
        Some(binary::Content::Json) => Some(
            tape.read_all(produced.body).map_err(|error| Fault::malformed(format!("the body is {error}")))?,
        ),
        _ => None,
    };
    Ok(DeadEvent::of(&binary::read(produced, content, document.as_ref())?, now_ms))
}

/// The `offset` that delivery added: a string of digits, or a number in what a consumer wrote anew.
fn offset(report: Value<'_>) -> Option<u64> {
    if report.kind() != Kind::Object {
        return None;
    }
    let offset = report.member("offset")?;
    match offset.kind() {
        Kind::Integer => offset.raw().parse().ok(),
        _ => offset.string()?.parse().ok(),
    }
}

impl DeadEvent {
    pub(super) fn of(event: &Event<'_>, now_ms: u64) -> Self {
        let mut bytes = Vec::with_capacity(encode::estimated_bytes(&event.attributes, &event.payload));
        let positions = encode::write(&mut bytes, &event.attributes, &event.payload, now_ms);
        Self { bytes, positions, key_hash: rules::key_hash(&event.attributes) }
    }

    fn enveloping(text: &str, client: ClientId, number: uuid::Uuid, now_ms: u64) -> Self {
        let mut attributes = Attributes::default();
        let own = [
            ("specversion", "1.0".to_owned()),
            ("id", number.hyphenated().to_string()),
            ("source", format!("urn:uuid:{client}")),
            ("type", ENVELOPE_TYPE.to_owned()),
        ];
        for (name, value) in own {
            attributes.set(name.into(), Scalar::Text(value.into())).expect("these attributes are sound");
        }
        Self::of(&Event { attributes, payload: Payload::Text(text) }, now_ms)
    }

    /// Bytes that the event takes when it is delivered, at most.
    pub fn delivered_bytes(&self) -> usize {
        self.bytes.len() + encode::OFFSET_BYTES_MAX
    }

    /// The one record that stores the event.
    pub fn block(self, partition: Partition, type_id: TypeId, now_ms: u64) -> Block {
        let place = |range: &std::ops::Range<usize>| (range.start as u32, range.end as u32);
        let header = RecordHeader {
            type_id,
            partition,
            key_hash: self.key_hash,
            dedup_window_s: 0,
            time_ms: now_ms,
            source: place(&self.positions.source),
            id: place(&self.positions.id),
        };
        let mut builder = Builder::new(self.bytes.len() + 64);
        let appended = builder.append(|out| {
            out.extend_from_slice(&self.bytes);
            Ok::<_, Fault>(header)
        });
        appended.expect("writing to memory does not fail");
        builder.finish()
    }
}

/// Stored events as they are, as dead ones. There is at least one.
pub fn withheld<'r>(
    events: impl Iterator<Item = Record<'r>>,
    partition: Partition,
    type_id: TypeId,
    now_ms: u64,
) -> Block {
    let mut builder = Builder::new(1024);
    for record in events {
        let header =
            RecordHeader { type_id, partition, dedup_window_s: 0, time_ms: now_ms, ..record.header() };
        let appended = builder.append(|out| {
            out.extend_from_slice(record.event());
            Ok::<_, Fault>(header)
        });
        appended.expect("writing to memory does not fail");
    }
    builder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::record::records;
    use crate::ingress::Form;

    const CLIENT: ClientId = ClientId([7; 16]);
    const NOW_MS: u64 = 1_709_210_096_789;

    fn report(text: &str) -> (String, Option<u64>) {
        let report = Report::of_text(text, CLIENT, uuid::Uuid::from_bytes([9; 16]), NOW_MS);
        let block = report.event.block(Partition(12), TypeId(5), NOW_MS);
        let (_, record) = records(&block.bytes).next().unwrap().unwrap();
        assert_eq!(
            (block.count, record.header().partition, record.header().type_id),
            (1, Partition(12), TypeId(5))
        );
        let whole = [record.event(), b",\"offset\":\"1\"}"].concat();
        serde_json::from_slice::<serde_json::Value>(&whole).unwrap();
        (String::from_utf8(record.event().to_vec()).unwrap(), report.offset)
    }

    #[test]
    fn a_delivered_event_is_stored_without_its_offset() {
        let (stored, offset) = report(
            r#"{"specversion":"1.0","source":"urn:a","id":"1","type":"A.B.C.D","time":"2024-01-01T00:00:00Z","datacontenttype":"application/json","why":"broken","data":{"a": 1.0},"offset":"17"}"#,
        );
        assert_eq!(
            stored,
            r#"{"specversion":"1.0","source":"urn:a","id":"1","type":"A.B.C.D","time":"2024-01-01T00:00:00Z","datacontenttype":"application/json","why":"broken","data":{"a": 1.0}"#
        );
        assert_eq!(offset, Some(17));
        assert_eq!(report(r#"{"specversion":"1.0","source":"a","id":"1","type":"T","offset":3}"#).1, Some(3));
    }

    #[test]
    fn what_is_no_cloud_event_is_kept_word_for_word() {
        for text in [
            "",
            "not json \u{1} ă",
            r#"{"id":"1"}"#,
            "[1,2]",
            "{\"specversion\":\"1.0\",\"id\":\"\"",
            "\"x\"",
        ] {
            let (stored, offset) = report(text);
            let event: serde_json::Value = serde_json::from_str(&format!("{stored}}}")).unwrap();
            assert_eq!(event["data"], text);
            assert_eq!(
                (&event["type"], &event["datacontenttype"]),
                (&ENVELOPE_TYPE.into(), &"text/plain".into())
            );
            assert_eq!(offset, None);
        }
    }

    fn requested(attributes: &[(&str, &[u8])], body: &[u8]) -> Result<(String, Option<u64>), String> {
        let content_type = Some(&b"text/plain"[..]);
        let produced = Produced { form: Form::Raw, content_type, attributes, body };
        let report = Report::of_request(&produced, NOW_MS).map_err(|rejection| rejection.to_string())?;
        Ok((String::from_utf8(report.event.bytes).unwrap(), report.offset))
    }

    #[test]
    fn a_request_in_binary_mode_reports_its_event_without_the_offset() {
        let own: [(&str, &[u8]); 4] =
            [("specversion", b"1.0"), ("id", b"1"), ("source", b"urn:a"), ("type", b"A.B.C.D")];
        let with =
            |offsets: &[(&'static str, &'static [u8])]| requested(&[&own[..], offsets].concat(), b"why");
        let (stored, offset) = with(&[("Offset", b"17")]).unwrap();
        assert!(stored.ends_with(r#""datacontenttype":"text/plain","data":"why""#), "{stored}");
        assert_eq!((offset, with(&[]).unwrap().1), (Some(17), None));
        for offsets in
            [&[("offset", &b"-1"[..])][..], &[("offset", b"1"), ("offset", b"1")], &[("offset", b"")]]
        {
            assert!(with(offsets).unwrap_err().contains("offset"));
        }
        assert!(requested(&own[1..], b"why").unwrap_err().contains("specversion"));
    }

    #[test]
    fn the_offset_counts_even_when_the_rest_is_no_event() {
        assert_eq!(report(r#"{"data":null,"offset":"5"}"#).1, Some(5));
        assert_eq!(report(r#"{"data":null,"offset":"-5"}"#).1, None);
        assert_eq!(report(r#"{"data":null,"offset":[5]}"#).1, None);
    }
}

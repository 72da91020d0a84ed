//! One event against what its producer may do and what its type asks for.

use super::admission::{Authority, Rights};
use super::rejection::{Fault, Place, Status};
use crate::event::attributes::Attributes;
use crate::event::encode::{self, OFFSET_BYTES_MAX};
use crate::event::key;
use crate::event::payload::Payload;
use crate::event::record::RecordHeader;
use crate::registry::model::{EventType, PayloadKinds, Producer};
use smallvec::SmallVec;
use std::sync::Arc;

/// An event that is well formed.
pub(super) struct Event<'a> {
    pub attributes: Attributes<'a>,
    pub payload: Payload<'a>,
}

impl Event<'_> {
    /// The event's type, once source, type, time and kind of payload have been found in order.
    pub fn judge<'a>(&self, authority: &Authority<'a>) -> Result<&'a Arc<EventType>, Fault> {
        let event_type = self.authorise(authority)?;
        self.check_time(authority)?;
        self.check_payload(event_type)?;
        Ok(event_type)
    }

    fn authorise<'a>(&self, authority: &Authority<'a>) -> Result<&'a Arc<EventType>, Fault> {
        let kind = &*self.attributes.kind;
        let (types, verb) = match authority.rights {
            Rights::Produce(producer) => {
                self.authorise_source(producer)?;
                (&producer.types, "produce")
            }
            Rights::Test { consumer, .. } => {
                self.check_source()?;
                (&consumer.types, "consume")
            }
        };
        let registered = authority.registry.type_by_name.get(kind);
        registered.filter(|_| types.contains(kind)).ok_or_else(|| {
            let reason = format!("{kind:?} is not among the event types that this client may {verb}");
            Fault::attribute(Status::NotAllowed, "type", shorten(reason))
        })
    }

    /// An allowed source is a URI-reference by the registry's own rules, so only others need to be looked at.
    fn authorise_source(&self, producer: &Producer) -> Result<(), Fault> {
        let source = &*self.attributes.source;
        if producer.sources.contains(source) {
            return Ok(());
        }
        self.check_source()?;
        let mut reason = format!("{source:?} is not among the sources of this client");
        if let Some(source) = producer.sources.first() {
            reason += &format!("; one that is: {source:?}");
        }
        Err(Fault::attribute(Status::NotAllowed, "source", shorten(reason)))
    }

    fn check_source(&self) -> Result<(), Fault> {
        match self.attributes.source_is_uri_reference() {
            true => Ok(()),
            false => {
                Err(Fault::attribute(Status::Malformed, "source", "must be a URI-reference (RFC 3986, 4.1)"))
            }
        }
    }

    fn check_time(&self, authority: &Authority<'_>) -> Result<(), Fault> {
        let settings = authority.settings;
        let latest = settings.now_ms.saturating_add(settings.skew_ms);
        match &self.attributes.time {
            Some(time) if u64::try_from(time.ms).is_ok_and(|ms| ms > latest) => {
                let reason = format!("{} lies in the future of this server's clock", time.text);
                Err(Fault::attribute(Status::Malformed, "time", reason))
            }
            _ => Ok(()),
        }
    }

    fn check_payload(&self, event_type: &EventType) -> Result<(), Fault> {
        let PayloadKinds { json, text, binary } = event_type.payloads;
        let schema = event_type.schema.is_some();
        let allowed = match self.payload {
            Payload::None if schema => {
                return Err(Fault::data(Status::Invalid, "is missing, but the event type has a schema"));
            }
            Payload::None => true,
            Payload::Json(..) => json,
            Payload::QuotedText(_) | Payload::Text(_) => text && !schema,
            Payload::Base64(_) | Payload::Bytes(_) => binary && !schema,
        };
        if allowed {
            return Ok(());
        }
        let kinds = [("JSON", json), ("text", text && !schema), ("binary", binary && !schema)];
        let names: Vec<_> = kinds.iter().filter(|(_, allowed)| *allowed).map(|(name, _)| *name).collect();
        let reason =
            format!("does not fit: type {:?} takes {} payloads", event_type.name, names.join(" or "));
        Err(Fault::attribute(Status::Malformed, "datacontenttype", reason))
    }

    /// Appends the event as delivered to `out` and says the rest of its record.
    pub fn encode(
        &self,
        event_type: &EventType,
        authority: &Authority<'_>,
        out: &mut Vec<u8>,
    ) -> Result<RecordHeader, Fault> {
        let start = out.len();
        out.reserve(encode::estimated_bytes(&self.attributes, &self.payload));
        let positions = encode::write(out, &self.attributes, &self.payload, authority.settings.now_ms);
        let (delivered, limit) =
            (out.len() - start + OFFSET_BYTES_MAX, authority.event_bytes_max(event_type));
        if delivered > limit {
            let reason =
                format!("the event takes up to {delivered} bytes when delivered, the limit is {limit}");
            return Err(Fault { status: Status::TooLarge, place: Place::Whole, reason });
        }
        let key_hash = key_hash(&self.attributes);
        let (partition, type_id, dedup_window_s) = match authority.rights {
            Rights::Produce(_) => {
                let partition = key::partition(key_hash, authority.settings.partitions);
                (partition, event_type.id, event_type.dedup_window_s)
            }
            Rights::Test { partition, type_id, .. } => (partition, type_id, 0),
        };
        Ok(RecordHeader {
            type_id,
            partition,
            key_hash,
            dedup_window_s,
            time_ms: authority.settings.now_ms,
            source: (positions.source.start as u32, positions.source.end as u32),
            id: (positions.id.start as u32, positions.id.end as u32),
        })
    }

    /// Every reason why the payload does not fit the schema of its type.
    pub fn schema_faults(&self, event_type: &EventType, authority: &Authority<'_>) -> Vec<Fault> {
        let Payload::Json(_, value) = self.payload else {
            return Vec::new();
        };
        let faults = authority.schemas.check(event_type.slot, value);
        let fault = |found: crate::schema::Mismatch| Fault {
            status: Status::Invalid,
            place: Place::Data(found.pointer),
            reason: found.reason,
        };
        faults.into_iter().map(fault).collect()
    }
}

/// Without a key, an event goes where its identity sends it: evenly, and a repeat to the same partition.
pub(super) fn key_hash(attributes: &Attributes<'_>) -> u32 {
    let Attributes { source, id, partition_key, .. } = attributes;
    if !partition_key.is_empty() {
        return key::hash(partition_key.as_bytes());
    }
    let mut identity = SmallVec::<[u8; 128]>::new();
    for part in [source.as_bytes(), b"\0", id.as_bytes()] {
        identity.extend_from_slice(part);
    }
    key::hash(&identity)
}

/// Cuts what quotes a client's own text back to it.
fn shorten(text: String) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

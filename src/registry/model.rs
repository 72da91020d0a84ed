//! What the broker knows of clients and event types: plain data, immutable, shared by all cores behind one `Arc`.

use crate::audit::rule::Rule;
use crate::id::{ClientId, TypeId};
use ahash::RandomState;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// One whole, checked registry. A reload makes a new one; nobody changes one.
#[derive(Debug, Default)]
pub struct Registry {
    /// Event types in the order of their names; `EventType::slot` indexes this list.
    pub types: Vec<Arc<EventType>>,
    /// Registered clients by GUID.
    pub clients: BTreeMap<ClientId, Arc<Client>>,
    /// The type of a name.
    pub type_by_name: HashMap<String, Arc<EventType>, RandomState>,
    /// The client that holds a certificate.
    pub client_by_certificate: HashMap<CertificateKey, ClientId, RandomState>,
    /// The largest [`EventType::event_bytes_max`] of all types, if any has one: asked for with every request.
    pub event_bytes_max: Option<usize>,
}

/// What identifies a client certificate: who issued it and its number there (RFC 5280, 4.1.2.2).
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct CertificateKey {
    /// Issuer distinguished name as an RFC 4514 string, as `auth` writes it for any certificate.
    pub issuer: String,
    /// Serial number, lower-case hexadecimal without leading zeros.
    pub serial: String,
}

/// A registered client system.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    pub name: String,
    /// IDNO of the owning organisation.
    pub owner_idno: String,
    pub enabled: bool,
    pub certificates: Vec<CertificateKey>,
    /// Networks the client may connect from. Never empty.
    pub networks: Vec<IpNet>,
    pub producer: Option<Producer>,
    pub consumer: Option<Consumer>,
    pub limits: ClientLimits,
}

/// What a client may produce.
#[derive(Debug, Default)]
pub struct Producer {
    /// Allowed `source` attributes, compared byte for byte.
    pub sources: BTreeSet<String>,
    /// Allowed event types by name.
    pub types: BTreeSet<String>,
}

/// What a client may consume.
#[derive(Debug, Default)]
pub struct Consumer {
    /// Allowed event types by name.
    pub types: BTreeSet<String>,
    /// Which of these events are recorded as transfers of personal data, and how. The first rule that fits decides.
    pub personal_data: Vec<Arc<Rule>>,
}

/// Limits of one client. Of the sizes, `None` means the broker's default; of the others, no limit.
#[derive(Debug, Default, Clone, Copy)]
pub struct ClientLimits {
    /// Largest event as delivered, in bytes.
    pub event_bytes_max: Option<usize>,
    /// Largest HTTP request body, in bytes.
    pub request_bytes_max: Option<usize>,
    pub rates: Rates,
    /// Connections open at a time, over all cores.
    pub connections_max: Option<usize>,
    /// Consumer instances at a time, over all cores: WebSocket sessions and long-polling instances together.
    pub instances_max: Option<usize>,
}

/// How much a client may produce in a second, over all its connections.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub events_per_second_max: Option<u64>,
    /// Bytes of events as stored.
    pub bytes_per_second_max: Option<u64>,
}

/// An event type.
#[derive(Debug, Clone)]
pub struct EventType {
    /// Index in `Registry::types`.
    pub slot: usize,
    /// `Organization.System.Entity.Action`.
    pub name: String,
    /// The number under which records carry the type. Given by the journal before the registry goes live.
    pub id: TypeId,
    /// The JSON Schema of `data`, as text, with the draft it is to be read as.
    pub schema: Option<SchemaSource>,
    pub payloads: PayloadKinds,
    /// Largest event of the type as delivered, in bytes; `None` means the broker's default.
    pub event_bytes_max: Option<usize>,
    /// Repeats of `source` + `id` within this many seconds are answered 202 and not stored again. 0 means off.
    pub dedup_window_s: u32,
}

/// A schema as read, before any core compiles it.
#[derive(Debug, Clone)]
pub struct SchemaSource {
    /// The schema itself.
    pub json: serde_json::Value,
}

/// Which payloads a type takes. Types with a schema take JSON only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadKinds {
    pub json: bool,
    pub text: bool,
    pub binary: bool,
}

impl Registry {
    /// A registry of `types` and `clients`, whose names, GUIDs and certificates differ. Gives the types their
    /// slots; their ids stay as they are.
    pub fn new(mut types: Vec<EventType>, clients: Vec<Client>) -> Self {
        types.sort_by(|a, b| a.name.cmp(&b.name));
        let number = |(slot, event_type)| Arc::new(EventType { slot, ..event_type });
        let types: Vec<_> = types.into_iter().enumerate().map(number).collect();
        let clients: Vec<_> = clients.into_iter().map(Arc::new).collect();
        let event_bytes_max = types.iter().filter_map(|event_type| event_type.event_bytes_max).max();
        Self { type_by_name: by_name(&types), types, event_bytes_max, ..Self::default() }
            .with_clients(clients)
    }

    /// The same registry with the numbers that the journal gave to the types.
    pub fn with_type_ids(mut self, id_of: impl Fn(&str) -> TypeId) -> Self {
        // The map shares the types; without it they can be changed where they are.
        self.type_by_name.clear();
        for event_type in &mut self.types {
            let id = id_of(&event_type.name);
            Arc::make_mut(event_type).id = id;
        }
        self.type_by_name = by_name(&self.types);
        self
    }

    /// The same types with other clients. Of two that hold the same certificate, the later counts.
    pub fn with_clients(&self, clients: Vec<Arc<Client>>) -> Self {
        Self {
            types: self.types.clone(),
            type_by_name: self.type_by_name.clone(),
            client_by_certificate: holders(&clients),
            clients: clients.into_iter().map(|client| (client.id, client)).collect(),
            event_bytes_max: self.event_bytes_max,
        }
    }

    /// The enabled or disabled client that holds `certificate`.
    pub fn client_of(&self, certificate: &CertificateKey) -> Option<&Arc<Client>> {
        self.clients.get(self.client_by_certificate.get(certificate)?)
    }

    /// Types that the client has rights to and that there are not.
    pub fn unknown_types<'c>(&self, client: &'c Client) -> Vec<&'c str> {
        let produced = client.producer.iter().flat_map(|producer| &producer.types);
        let consumed = client.consumer.iter().flat_map(|consumer| &consumer.types);
        let unknown = produced.chain(consumed).filter(|name| !self.type_by_name.contains_key(*name));
        unknown.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Numbers of the types that `consumer` may receive.
    pub fn type_ids(&self, consumer: &Consumer) -> BTreeSet<TypeId> {
        consumer.types.iter().filter_map(|name| Some(self.type_by_name.get(name)?.id)).collect()
    }
}

fn holders(clients: &[Arc<Client>]) -> HashMap<CertificateKey, ClientId, RandomState> {
    let held = |client: &Arc<Client>| {
        let id = client.id;
        client.certificates.iter().cloned().map(move |key| (key, id)).collect::<Vec<_>>()
    };
    clients.iter().flat_map(held).collect()
}

fn by_name(types: &[Arc<EventType>]) -> HashMap<String, Arc<EventType>, RandomState> {
    types.iter().map(|event_type| (event_type.name.clone(), event_type.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_type(name: &str) -> EventType {
        EventType {
            slot: 99,
            name: name.into(),
            id: TypeId(0),
            schema: None,
            payloads: PayloadKinds { json: true, text: true, binary: true },
            event_bytes_max: None,
            dedup_window_s: 0,
        }
    }

    #[test]
    fn the_largest_limit_of_a_type_is_known_also_with_other_clients() {
        let limited = |name, limit| EventType { event_bytes_max: limit, ..event_type(name) };
        let types = vec![limited("a", Some(7)), limited("b", None), limited("c", Some(9))];
        let registry = Registry::new(types, Vec::new());
        assert_eq!(registry.with_clients(Vec::new()).event_bytes_max, Some(9));
        assert_eq!(Registry::new(vec![event_type("a")], Vec::new()).event_bytes_max, None);
    }

    #[test]
    fn slots_follow_the_names_and_ids_follow_the_journal() {
        let registry = Registry::new(vec![event_type("b"), event_type("a")], Vec::new());
        let registry = registry.with_type_ids(|name| TypeId(if name == "a" { 7 } else { 3 }));
        let listed: Vec<_> = registry.types.iter().map(|t| (t.name.as_str(), t.slot, t.id)).collect();
        assert_eq!(listed, [("a", 0, TypeId(7)), ("b", 1, TypeId(3))]);
        assert!(Arc::ptr_eq(&registry.type_by_name["b"], &registry.types[1]));
        let types = ["a".to_owned(), "gone".to_owned()].into();
        let consumer = Consumer { types, ..Consumer::default() };
        assert_eq!(registry.type_ids(&consumer), [TypeId(7)].into());
    }
}

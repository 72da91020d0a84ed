//! What a reload replaces: the registry, the compiled schemas and the certificates.

use crate::auth::{AuthProblem, Peer, ServerTls};
use crate::id::ClientId;
use crate::partition::TypeFilter;
use crate::registry::model::{Client, Registry};
use crate::schema::SchemaSet;
use rustls::pki_types::UnixTime;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// The settings that one core works by until the next change.
pub struct Live {
    /// The same for all cores.
    pub registry: Arc<Registry>,
    /// Compiled for this core alone, because regular expressions keep scratch space behind a lock.
    pub schemas: Rc<SchemaSet>,
    pub tls: ServerTls,
    /// What clients may consume, as far as somebody asked: all sessions of a client share one.
    filters: RefCell<HashMap<ClientId, TypeFilter>>,
}

/// What is new; the rest stays. Schemas are by the slots of the event types and change only together with those.
#[derive(Default)]
pub struct Change {
    pub registry: Option<Arc<Registry>>,
    pub schemas: Option<SchemaSet>,
    pub tls: Option<ServerTls>,
}

impl Live {
    /// The client at the other end, if it may be here now.
    pub fn client_of(&self, peer: &Peer) -> Result<&Arc<Client>, AuthProblem> {
        peer.client(&self.tls.verifier, &self.registry, UnixTime::now())
    }

    /// The types that a client may consume; none when it is not a consumer.
    pub fn types_of(&self, client: ClientId) -> TypeFilter {
        self.filters.borrow_mut().entry(client).or_insert_with(|| self.look_up_types(client)).clone()
    }

    fn look_up_types(&self, client: ClientId) -> TypeFilter {
        let consumer = self.registry.clients.get(&client).and_then(|client| client.consumer.as_ref());
        consumer.map(|consumer| self.registry.type_ids(consumer).into_iter().collect()).unwrap_or_default()
    }

    /// These settings with what is new.
    pub fn with(&self, change: Change) -> Self {
        let Change { registry, schemas, tls } = change;
        Self {
            registry: registry.unwrap_or_else(|| self.registry.clone()),
            schemas: schemas.map_or_else(|| self.schemas.clone(), Rc::new),
            tls: tls.unwrap_or_else(|| self.tls.clone()),
            filters: RefCell::default(),
        }
    }
}

impl Change {
    /// The first settings of a core; `None` when something is missing.
    pub fn complete(self) -> Option<Live> {
        let Self { registry, schemas, tls } = self;
        Some(Live { registry: registry?, schemas: Rc::new(schemas?), tls: tls?, filters: RefCell::default() })
    }
}

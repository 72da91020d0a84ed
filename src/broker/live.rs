//! What a reload replaces: the registry, the compiled schemas and the certificates.

use crate::auth::{AuthProblem, Peer, ServerTls};
use crate::registry::model::{Client, Registry};
use crate::schema::SchemaSet;
use rustls::pki_types::UnixTime;
use std::rc::Rc;
use std::sync::Arc;

/// The settings that one core works by until the next change.
pub struct Live {
    /// The same for all cores.
    pub registry: Arc<Registry>,
    /// Compiled for this core alone, because regular expressions keep scratch space behind a lock.
    pub schemas: Rc<SchemaSet>,
    pub tls: ServerTls,
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

    /// These settings with what is new.
    pub fn with(&self, change: Change) -> Self {
        let Change { registry, schemas, tls } = change;
        Self {
            registry: registry.unwrap_or_else(|| self.registry.clone()),
            schemas: schemas.map_or_else(|| self.schemas.clone(), Rc::new),
            tls: tls.unwrap_or_else(|| self.tls.clone()),
        }
    }
}

impl Change {
    /// The first settings of a core; `None` when something is missing.
    pub fn complete(self) -> Option<Live> {
        let Self { registry, schemas, tls } = self;
        Some(Live { registry: registry?, schemas: Rc::new(schemas?), tls: tls? })
    }
}

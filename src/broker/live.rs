//! What a reload replaces: the registry, the compiled schemas and the certificates, always together.

use crate::auth::{AuthProblem, Peer, ServerTls};
use crate::registry::model::{Client, Registry};
use crate::schema::SchemaSet;
use rustls::pki_types::UnixTime;
use std::sync::Arc;

/// The settings that one core works by until the next reload.
pub struct Live {
    /// The same for all cores.
    pub registry: Arc<Registry>,
    /// Compiled for this core alone, because regular expressions keep scratch space behind a lock.
    pub schemas: SchemaSet,
    pub tls: ServerTls,
}

impl Live {
    /// The client at the other end, if it may be here now.
    pub fn client_of(&self, peer: &Peer) -> Result<&Arc<Client>, AuthProblem> {
        peer.client(&self.tls.verifier, &self.registry, UnixTime::now())
    }
}

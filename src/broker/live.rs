//! What a reload replaces: the registry, the compiled schemas and the certificates, always together.

use crate::auth::ServerTls;
use crate::registry::model::Registry;
use crate::schema::SchemaSet;
use std::sync::Arc;

/// The settings that one core works by until the next reload.
pub struct Live {
    /// The same for all cores.
    pub registry: Arc<Registry>,
    /// Compiled for this core alone, because regular expressions keep scratch space behind a lock.
    pub schemas: SchemaSet,
    pub tls: ServerTls,
}

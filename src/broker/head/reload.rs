//! A new registry: read and checked as a whole on a helper thread, its types made known to the journal, then given to every
//! core at once. The running one stays until all of that has succeeded.

use super::Head;
use super::queue::Own;
use crate::auth::ServerTls;
use crate::broker::Core;
use crate::broker::live::Change;
use crate::broker::message::Message;
use crate::config::{Config, Problem};
use crate::id::CoreId;
use crate::outgoing::Client as Api;
use crate::registry::model::Registry;
use crate::registry::{self, mpass};
use crate::schema::SchemaSet;
use rustls::pki_types::UnixTime;
use std::rc::Rc;
use std::sync::Arc;

/// The protocols offered by ALPN, the preferred one first.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What was read, with schemas for every core.
pub struct Loaded {
    registry: Registry,
    schemas: Vec<SchemaSet>,
    certificates: Certificates,
}

/// What is read from the files of certificates and keys.
struct Certificates {
    tls: ServerTls,
    /// When clients come from an API.
    api: Option<Api>,
}

impl Loaded {
    /// Reads registry, schemas and certificates and reports every problem. Blocks.
    pub fn read(config: &Config, cores: usize) -> Result<Self, Vec<Problem>> {
        let certificates = Certificates::read(config);
        let read = registry::load(config).and_then(|loaded| {
            let schemas =
                (0..cores).map(|_| SchemaSet::compile(&loaded.registry)).collect::<Result<_, Vec<_>>>();
            match schemas {
                Ok(schemas) => Ok((loaded.registry, schemas)),
                Err(found) => Err(loaded.schema_problems(&found)),
            }
        });
        match (read, certificates) {
            (Ok((registry, schemas)), Ok(certificates)) => Ok(Self { registry, schemas, certificates }),
            (read, certificates) => Err(read.err().into_iter().chain(certificates.err()).flatten().collect()),
        }
    }
}

impl Certificates {
    fn read(config: &Config) -> Result<Self, Vec<Problem>> {
        let tls = ServerTls::load(&config.tls, &ALPN, UnixTime::now());
        let service = config.registry.mpass().map(|mpass| &mpass.service);
        let api = service.map(|service| Api::load(service, mpass::ANSWER_BYTES_MAX)).transpose();
        match (tls, api) {
            (Ok(tls), Ok(api)) => Ok(Self { tls, api }),
            (tls, api) => Err(tls.err().into_iter().chain(api.err()).flatten().collect()),
        }
    }
}

impl Head {
    /// Reads the registry again; what is wrong with it is logged and the running one stays.
    pub async fn reload(self: &Rc<Self>, core: &Rc<Core>) {
        let (config, cores) = (core.config.clone(), core.cores());
        match core.pool.run(move || Loaded::read(&config, cores)).await {
            Ok(loaded) => {
                let (types, clients) = (loaded.registry.types.len(), loaded.registry.clients.len());
                self.go_live(core, loaded).await;
                tracing::info!(types, clients, "the registry was loaded");
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "the new registry is refused");
                }
                tracing::error!(problems = problems.len(), "the running registry stays as it is");
            }
        }
    }

    /// Reads the certificates, keys and revocation lists again; what is wrong with them is logged and the running ones stay.
    pub async fn reload_certificates(self: &Rc<Self>, core: &Rc<Core>) {
        let config = core.config.clone();
        match core.pool.run(move || Certificates::read(&config)).await {
            Ok(certificates) => {
                let tls = self.take_certificates(core, certificates);
                core.post_all(|| {
                    Message::Live(Box::new(Change { tls: Some(tls.clone()), ..Change::default() }))
                });
                tracing::info!("the certificates were loaded");
            }
            Err(problems) => {
                for problem in &problems {
                    tracing::error!(%problem, "the new certificates are refused");
                }
                tracing::error!(problems = problems.len(), "the running certificates stay as they are");
            }
        }
    }

    /// Gives a registry to every core, once the journal knows all its types.
    pub async fn go_live(self: &Rc<Self>, core: &Rc<Core>, loaded: Loaded) {
        let Loaded { registry, schemas, certificates } = loaded;
        self.define_types(&registry).await;
        let tls = self.take_certificates(core, certificates);
        let registry = Arc::new(self.complete(registry));
        self.registry.replace(Some(registry.clone()));
        for (to, schemas) in schemas.into_iter().enumerate() {
            let (registry, tls) = (registry.clone(), tls.clone());
            let change = Change { registry: Some(registry), schemas: Some(schemas), tls: Some(tls) };
            core.post(CoreId(to as u8), Message::Live(Box::new(change)));
        }
    }

    /// With the ids of its types, and with the clients of the API if they come from there.
    fn complete(&self, registry: Registry) -> Registry {
        let state = self.state.borrow();
        let registry = registry.with_type_ids(|name| state.type_id(name).expect("every type was defined"));
        match &self.clients {
            Some(clients) => registry.with_clients(clients.known()),
            None => registry,
        }
    }

    /// Has the API asked with the new certificates, and gives those of the listener.
    fn take_certificates(&self, core: &Core, certificates: Certificates) -> ServerTls {
        let Certificates { tls, api } = certificates;
        for (issuer, since) in tls.verifier.outdated_lists(UnixTime::now()) {
            tracing::warn!(issuer, since, "a revocation list is out of date; it counts all the same");
        }
        if let (Some(clients), Some(api)) = (&self.clients, api) {
            clients.use_api(api);
        }
        match core.live_if_any() {
            Some(running) => tls.in_place_of(&running.tls),
            None => tls,
        }
    }

    async fn define_types(&self, registry: &Registry) {
        let unknown = |name: &&str| self.state.borrow().type_id(name).is_none();
        let names = || registry.types.iter().map(|event_type| event_type.name.as_str()).filter(unknown);
        for name in names() {
            self.propose(Own::DefineType(name.to_owned()));
        }
        while names().next().is_some() {
            self.committed.notified().await;
        }
    }
}

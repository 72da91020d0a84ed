//! What a broker must do for the load, and how to reach one.

pub mod nats;
pub mod postgresql;
pub mod rabbitmq;
pub mod redis;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::path::PathBuf;

/// As many as nistru has.
pub const PARTITIONS: u32 = 12;
/// The most events that a consumer takes at a time, where that is its choice.
const READ_MAX: usize = 1000;

/// A broker as the load sees it: partitions that are written and read in order.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Makes the partitions.
    async fn prepare(&self) -> Result<()>;
    /// A producer on a connection of its own.
    async fn producer(&self) -> Result<Box<dyn Producer>>;
    /// A consumer on a connection of its own, which owns `partitions`.
    async fn consumer(&self, partitions: Vec<u32>) -> Result<Box<dyn Consumer>>;
}

#[async_trait]
pub trait Producer: Send {
    /// Returns when the broker has acknowledged every event of the batch.
    async fn send(&mut self, partition: u32, batch: Vec<Bytes>) -> Result<()>;
}

#[async_trait]
pub trait Consumer: Send {
    /// Adds events to `events`; none, when none came within a moment.
    async fn receive(&mut self, events: &mut Vec<Bytes>) -> Result<()>;
    /// Confirms everything received.
    async fn confirm(&mut self) -> Result<()>;
}

/// Where a broker listens, and the certificates with which it is reached.
pub struct Access {
    pub url: String,
    /// Directory of `ca.pem`, `client.pem` and `client.key`.
    pub pki: PathBuf,
}

impl Access {
    /// The text of a file of the directory.
    fn pem(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.pki.join(name);
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Trusts the test authority, and shows the client certificate.
    fn tls(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.pem("ca.pem")?) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(&self.pem("client.pem")?).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&self.pem("client.key")?)?;
        Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
    }
}

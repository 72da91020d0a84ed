//! Who is calling: from a TLS handshake to a registered client.
//!
//! The handshake only proves that the peer holds the key of the certificate it shows. Whether the certificate
//! chains to a trusted authority is decided by [`Verifier::check`], and whose it is by [`authorise`], both after
//! the handshake, so that a client gets an HTTP answer that says what is wrong with it.

mod server;
mod verifier;

pub use server::ServerTls;
pub use verifier::{CertificateProblem, Verifier};

use crate::registry::model::{CertificateKey, Client, Registry};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a peer with a good certificate may not come in. All of them are answered 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProblem {
    /// No registered client holds the certificate.
    UnknownCertificate(CertificateKey),
    /// The client is switched off.
    Disabled,
    /// The client may not connect from this address.
    AddressNotAllowed(IpAddr),
}

/// The registered, enabled client that holds the certificate `key` and may connect from `address`.
///
/// An IPv4 address that arrived mapped into IPv6 counts as the IPv4 address it is.
pub fn authorise<'r>(
    registry: &'r Registry,
    key: &CertificateKey,
    address: IpAddr,
) -> Result<&'r Arc<Client>, AuthProblem> {
    let client = registry.client_of(key).ok_or_else(|| AuthProblem::UnknownCertificate(key.clone()))?;
    let address = address.to_canonical();
    if !client.enabled {
        return Err(AuthProblem::Disabled);
    }
    if !client.networks.iter().any(|network| network.contains(&address)) {
        return Err(AuthProblem::AddressNotAllowed(address));
    }
    Ok(client)
}

impl fmt::Display for AuthProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCertificate(key) => write!(
                f,
                "no client is registered with the certificate of issuer \"{}\" and serial number {}",
                key.issuer, key.serial
            ),
            Self::Disabled => f.write_str("the client is disabled"),
            Self::AddressNotAllowed(address) => {
                write!(f, "the client may not connect from the address {address}")
            }
        }
    }
}

impl std::error::Error for AuthProblem {}

//! Who is calling: from a TLS handshake to a registered client.
//!
//! The handshake only proves that the peer holds the key of the certificate it shows. Whether the certificate
//! chains to a trusted authority is decided by [`Verifier::check`], and whose it is by [`authorise`], both after
//! the handshake, so that a client gets an HTTP answer that says what is wrong with it. A [`Peer`] answers both again for
//! every request, because certificates expire and are revoked, and clients are removed, while a connection is open.

mod peer;
mod revocation;
mod server;
mod verifier;

pub use peer::Peer;
pub use server::{ServerTls, draw_seed, valid_at};
pub use verifier::{CertificateProblem, Verifier};

use crate::registry::model::{CertificateKey, Client, Registry};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a peer may not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProblem {
    /// Its certificate is no good.
    Certificate(CertificateProblem),
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
            Self::Certificate(problem) => problem.fmt(f),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClientId;
    use crate::registry::model::ClientLimits;

    fn key(serial: &str) -> CertificateKey {
        CertificateKey { issuer: "CN=ca".into(), serial: serial.into() }
    }

    fn client(n: u8, serial: &str, enabled: bool) -> Client {
        Client {
            id: ClientId([n; 16]),
            name: format!("client {n}"),
            owner_idno: "1000000000001".into(),
            enabled,
            certificates: vec![key(serial)],
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            producer: None,
            consumer: None,
            limits: ClientLimits::default(),
        }
    }

    fn authorised(serial: &str, address: &str) -> Result<u8, AuthProblem> {
        let registry = Registry::new(Vec::new(), vec![client(1, "01", true), client(2, "02", false)]);
        authorise(&registry, &key(serial), address.parse().unwrap()).map(|client| client.id.0[0])
    }

    #[test]
    fn a_registered_client_comes_in_from_its_networks_only() {
        assert_eq!(authorised("01", "10.1.2.3"), Ok(1));
        assert_eq!(authorised("01", "2001:db8::7"), Ok(1));
        assert_eq!(authorised("01", "::ffff:10.1.2.3"), Ok(1));
        let elsewhere = "192.168.0.1".parse().unwrap();
        assert_eq!(authorised("01", "192.168.0.1"), Err(AuthProblem::AddressNotAllowed(elsewhere)));
        assert_eq!(authorised("01", "::ffff:192.168.0.1"), Err(AuthProblem::AddressNotAllowed(elsewhere)));
    }

    #[test]
    fn unknown_and_disabled_clients_stay_out() {
        assert_eq!(authorised("03", "10.1.2.3"), Err(AuthProblem::UnknownCertificate(key("03"))));
        assert_eq!(authorised("02", "10.1.2.3"), Err(AuthProblem::Disabled));
    }
}

//! Who is at the other end of a connection, for as long as it is open.

use super::{AuthProblem, CertificateProblem, Verifier, authorise};
use crate::registry::model::{CertificateKey, Client, Registry};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The peer of one connection: its address, and the certificates it showed in the handshake.
///
/// The chain is checked once and the result kept until it may be another: when a reload brought other authorities or
/// revocation lists, or when a certificate of the chain starts or ceases to be valid.
pub struct Peer {
    /// Names the connection on its core.
    pub connection: u64,
    pub address: IpAddr,
    /// Its own certificate first; empty when it sent none.
    chain: Vec<CertificateDer<'static>>,
    checked: RefCell<Checked>,
    let_in: Cell<bool>,
    dismissed: Cell<bool>,
}

/// What was found out about the chain.
struct Checked {
    by: Arc<Verifier>,
    found: Result<CertificateKey, CertificateProblem>,
    /// Unix seconds within which the passing of time changes nothing about it.
    stands: Range<u64>,
}

impl Peer {
    /// The peer of `connection` at `address` that showed `chain`, which is checked at once.
    pub fn new(
        connection: u64,
        address: IpAddr,
        chain: Vec<CertificateDer<'static>>,
        verifier: &Arc<Verifier>,
        now: UnixTime,
    ) -> Self {
        let checked = RefCell::new(Checked::new(&chain, verifier, now));
        Self { connection, address, chain, checked, let_in: Cell::new(false), dismissed: Cell::new(false) }
    }

    /// The registered, enabled client that is at the other end, or why none is.
    pub fn client<'r>(
        &self,
        verifier: &Arc<Verifier>,
        registry: &'r Registry,
        now: UnixTime,
    ) -> Result<&'r Arc<Client>, AuthProblem> {
        self.check_again(verifier, now);
        let client = match &self.checked.borrow().found {
            Ok(key) => authorise(registry, key, self.address),
            Err(problem) => Err(AuthProblem::Certificate(problem.clone())),
        };
        self.let_in.set(self.let_in.get() | client.is_ok());
        client
    }

    /// What identifies the certificate that was shown, and the last second at which it is valid; `None` when it is not good.
    pub fn certificate(&self) -> Option<(CertificateKey, i64)> {
        let key = self.checked.borrow().found.clone().ok()?;
        let (_, certificate) = X509Certificate::from_der(self.chain.first()?).ok()?;
        Some((key, certificate.validity().not_after.timestamp()))
    }

    /// Whether there was ever a client at the other end.
    pub fn was_let_in(&self) -> bool {
        self.let_in.get()
    }

    /// Says whether the connection is to end because its client may no longer be here; tells what was said before.
    pub fn dismiss(&self, dismissed: bool) -> bool {
        self.dismissed.replace(dismissed)
    }

    /// Whether the connection is to end with the next answer.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.get()
    }

    /// Checks the chain if what was found before may not stand any more; tells whether it did. That takes some hundred
    /// microseconds.
    pub fn check_again(&self, verifier: &Arc<Verifier>, now: UnixTime) -> bool {
        let stands = {
            let checked = self.checked.borrow();
            Arc::ptr_eq(&checked.by, verifier) && checked.stands.contains(&now.as_secs())
        };
        if !stands {
            self.checked.replace(Checked::new(&self.chain, verifier, now));
        }
        !stands
    }
}

impl Checked {
    fn new(chain: &[CertificateDer<'_>], verifier: &Arc<Verifier>, now: UnixTime) -> Self {
        Self { by: verifier.clone(), found: verifier.check(Some(chain), now), stands: unchanged(chain, now) }
    }
}

/// The time around `now` in which no certificate of the chain starts or ceases to be valid.
fn unchanged(chain: &[CertificateDer<'_>], now: UnixTime) -> Range<u64> {
    let now = now.as_secs();
    let mut stands = 0..u64::MAX;
    for turn in chain.iter().flat_map(|certificate| turns(certificate)) {
        match turn <= now {
            true => stands.start = stands.start.max(turn),
            false => stands.end = stands.end.min(turn),
        }
    }
    stands
}

/// The first second at which the certificate is valid, and the first at which it is not any more.
fn turns(certificate: &[u8]) -> Vec<u64> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let validity = certificate.validity();
    let seconds = [validity.not_before.timestamp(), validity.not_after.timestamp().saturating_add(1)];
    seconds.into_iter().filter_map(|second| u64::try_from(second).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    }

    fn valid(from: i32, to: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    fn start_of(year: i32) -> u64 {
        date_time_ymd(year, 1, 1).unix_timestamp() as u64
    }

    #[test]
    fn what_was_found_stands_until_any_certificate_of_the_chain_starts_or_ceases_to_be_valid() {
        let chain = [valid(2020, 2030), valid(2022, 2028)];
        assert_eq!(unchanged(&chain, at(start_of(2025))), start_of(2022)..start_of(2028) + 1);
        assert_eq!(unchanged(&chain, at(start_of(2021))), start_of(2020)..start_of(2022));
        assert_eq!(unchanged(&chain, at(start_of(2031))), start_of(2030) + 1..u64::MAX);
        assert_eq!(unchanged(&[], at(7)), 0..u64::MAX);
        assert_eq!(unchanged(&[CertificateDer::from(vec![1, 2, 3])], at(7)), 0..u64::MAX);
    }
}

//! Admission of connections and their spread over the cores.
//!
//! The kernel spreads a thousand connections evenly but ten badly (4 to 6), and a few heavy producers are the common case.
//! So one core hears of every connection, wherever it was accepted, enforces the limits exactly, and sends it to the core
//! with the fewest.

use crate::id::CoreId;
use std::collections::HashMap;
use std::net::IpAddr;

/// Limits on open connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All connections together.
    pub total_max: usize,
    /// Connections of one client address.
    pub per_address_max: usize,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The broker has all the connections it may have.
    Full,
    /// The address has all the connections one address may have.
    AddressFull,
}

/// Counts of open connections.
pub struct Reception {
    limits: Limits,
    /// Open connections by core.
    by_core: Vec<usize>,
    by_address: HashMap<IpAddr, usize>,
}

impl Reception {
    pub fn new(cores: usize, limits: Limits) -> Self {
        Self { limits, by_core: vec![0; cores], by_address: HashMap::new() }
    }

    /// Counts a connection from `address` that was accepted on `accepted_on`, and says which core serves it: the one that
    /// accepted it unless another has fewer.
    pub fn admit(&mut self, address: IpAddr, accepted_on: CoreId) -> Result<CoreId, Refusal> {
        if self.by_core.iter().sum::<usize>() >= self.limits.total_max {
            return Err(Refusal::Full);
        }
        let of_address = self.by_address.entry(address).or_default();
        if *of_address >= self.limits.per_address_max {
            return Err(Refusal::AddressFull);
        }
        *of_address += 1;
        let fewest = self.by_core.iter().min().copied().unwrap_or(0);
        let own = usize::from(accepted_on.0);
        let core = match self.by_core[own] == fewest {
            true => own,
            false => self.by_core.iter().position(|&count| count == fewest).unwrap_or(own),
        };
        self.by_core[core] += 1;
        Ok(CoreId(core as u8))
    }

    /// Forgets a connection that `admit` counted.
    pub fn gone(&mut self, address: IpAddr, core: CoreId) {
        self.by_core[usize::from(core.0)] -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

    fn reception(total_max: usize, per_address_max: usize) -> Reception {
        Reception::new(2, Limits { total_max, per_address_max })
    }

    #[test]
    fn connections_spread_evenly_wherever_they_were_accepted() {
        let mut reception = reception(100, 100);
        for _ in 0..10 {
            reception.admit(A, CoreId(1)).unwrap();
        }
        assert_eq!(reception.by_core, [5, 5]);
    }

    #[test]
    fn one_address_cannot_take_the_connections_of_others() {
        let mut reception = reception(3, 2);
        let core = reception.admit(A, CoreId(0)).unwrap();
        reception.admit(A, CoreId(0)).unwrap();
        assert_eq!(reception.admit(A, CoreId(0)), Err(Refusal::AddressFull));
        reception.admit(B, CoreId(0)).unwrap();
        assert_eq!(reception.admit(B, CoreId(0)), Err(Refusal::Full));
        reception.gone(A, core);
        assert!(reception.admit(A, CoreId(0)).is_ok());
    }

    #[test]
    fn addresses_without_connections_take_no_memory() {
        let mut reception = reception(10, 10);
        let core = reception.admit(A, CoreId(0)).unwrap();
        reception.gone(A, core);
        assert!(reception.by_address.is_empty());
    }
}

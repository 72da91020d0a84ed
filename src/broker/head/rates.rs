//! How much a client may produce in a second. One core sees every submission, so what all connections of a client send
//! together is held against its limits exactly.
//!
//! A limit is a bucket that fills at its rate and holds what comes in one second: that much may come at once. Who has
//! anything left is let in with all of its request and may owe for it afterwards, so a batch larger than the bucket is
//! possible and a client's small requests never starve its large ones; who owes waits until that is paid.

use crate::broker::message::Charge;
use crate::broker::refusal::{Rate, Refusal};
use crate::id::ClientId;
use std::collections::HashMap;

/// The accounts of all clients that have a limit.
#[derive(Default)]
pub(super) struct Accounts(HashMap<ClientId, Account, ahash::RandomState>);

/// One client's buckets.
struct Account {
    events: Bucket,
    bytes: Bucket,
    /// By the core's clock that never jumps.
    filled_ms: u64,
}

/// What is left of one limit, in thousandths; negative when it is owed, without end when there is no limit.
#[derive(Clone, Copy)]
struct Bucket(i64);

impl Accounts {
    /// Takes a submission of so many events and bytes off its client's account, or refuses it and takes nothing.
    pub fn charge(&mut self, now_ms: u64, charge: &Charge, events: u64, bytes: u64) -> Result<(), Refusal> {
        let limits = charge.rates;
        let (of_events, of_bytes) = (limits.events_per_second_max, limits.bytes_per_second_max);
        if of_events.is_none() && of_bytes.is_none() {
            self.0.remove(&charge.client);
            return Ok(());
        }
        let full =
            || Account { events: Bucket::full(of_events), bytes: Bucket::full(of_bytes), filled_ms: now_ms };
        let account = self.0.entry(charge.client).or_insert_with(full);
        let elapsed_ms = now_ms.saturating_sub(account.filled_ms);
        account.filled_ms = now_ms;
        account.events.fill(elapsed_ms, of_events);
        account.bytes.fill(elapsed_ms, of_bytes);
        account.events.check(Rate::Events, of_events)?;
        account.bytes.check(Rate::Bytes, of_bytes)?;
        account.events.take(events, of_events);
        account.bytes.take(bytes, of_bytes);
        Ok(())
    }
}

impl Bucket {
    fn full(per_second: Option<u64>) -> Self {
        Self(per_second.map_or(i64::MAX, thousandths))
    }

    /// A limit that was lifted leaves nothing owed, and a new or lower one begins with all it can hold at most.
    fn fill(&mut self, elapsed_ms: u64, per_second: Option<u64>) {
        let full = Self::full(per_second);
        let Some(per_second) = per_second else { return *self = full };
        let come = i64::try_from(elapsed_ms.saturating_mul(per_second)).unwrap_or(i64::MAX);
        self.0 = self.0.saturating_add(come).min(full.0);
    }

    fn check(self, rate: Rate, per_second: Option<u64>) -> Result<(), Refusal> {
        match per_second {
            Some(per_second) if self.0 <= 0 => {
                let until_something_is_left = self.0.unsigned_abs() + 1;
                let seconds = until_something_is_left.div_ceil(per_second.saturating_mul(1000));
                let retry_after_s = u32::try_from(seconds).unwrap_or(u32::MAX);
                Err(Refusal::RateLimited { rate, per_second, retry_after_s })
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, amount: u64, per_second: Option<u64>) {
        if per_second.is_some() {
            self.0 = self.0.saturating_sub(thousandths(amount));
        }
    }
}

fn thousandths(amount: u64) -> i64 {
    i64::try_from(amount.saturating_mul(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::model::Rates;
    use proptest::prelude::*;

    const ONE: ClientId = ClientId([1; 16]);
    const OTHER: ClientId = ClientId([2; 16]);

    fn events(client: ClientId, per_second: u64) -> Charge {
        Charge {
            client,
            rates: Rates { events_per_second_max: Some(per_second), bytes_per_second_max: None },
        }
    }

    fn wait_s(refused: Result<(), Refusal>) -> u32 {
        match refused {
            Err(Refusal::RateLimited { retry_after_s, .. }) => retry_after_s,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_second_of_events_may_come_at_once_and_then_they_come_at_their_rate() {
        let mut accounts = Accounts::default();
        let charge = events(ONE, 10);
        for _ in 0..10 {
            accounts.charge(0, &charge, 1, 0).unwrap();
        }
        assert_eq!(wait_s(accounts.charge(0, &charge, 1, 0)), 1);
        assert!(accounts.charge(100, &charge, 1, 0).is_ok());
        assert!(accounts.charge(100, &charge, 1, 0).is_err());
        assert!(accounts.charge(100, &events(OTHER, 10), 1, 0).is_ok());
    }

    #[test]
    fn a_batch_larger_than_the_limit_is_taken_and_owed() {
        let mut accounts = Accounts::default();
        let charge = events(ONE, 10);
        accounts.charge(0, &charge, 1000, 0).unwrap();
        assert_eq!(wait_s(accounts.charge(0, &charge, 1, 0)), 100);
        assert_eq!(wait_s(accounts.charge(98_000, &charge, 1, 0)), 2);
        assert!(accounts.charge(99_000, &charge, 1, 0).is_err());
        assert!(accounts.charge(99_001, &charge, 1000, 0).is_ok());
    }

    #[test]
    fn a_refused_request_costs_nothing_of_either_limit() {
        let mut accounts = Accounts::default();
        let rates = Rates { events_per_second_max: Some(5), bytes_per_second_max: Some(100) };
        let charge = Charge { client: ONE, rates };
        accounts.charge(0, &charge, 1, 100).unwrap();
        for _ in 0..100 {
            let refused = accounts.charge(0, &charge, 1, 1).unwrap_err();
            assert!(refused.to_string().contains("100 bytes"), "{refused}");
        }
        for _ in 0..5 {
            accounts.charge(10, &charge, 1, 0).unwrap();
        }
        assert!(accounts.charge(10, &charge, 1, 0).unwrap_err().to_string().contains("5 events"));
    }

    #[test]
    fn a_limit_that_is_lifted_leaves_no_debt() {
        let mut accounts = Accounts::default();
        accounts.charge(0, &events(ONE, 1), 1000, 0).unwrap();
        accounts.charge(0, &Charge { client: ONE, rates: Rates::default() }, 1000, 0).unwrap();
        assert!(accounts.charge(0, &events(ONE, 1), 1, 0).is_ok());
        assert_eq!(accounts.0.len(), 1);
    }

    proptest! {
        #[test]
        fn no_more_than_the_rate_comes_through_whatever_is_asked_for(
            per_second in 1_u64..50, asked in prop::collection::vec((0_u64..700, 1_u64..80), 1..200),
        ) {
            let mut accounts = Accounts::default();
            let (mut now_ms, mut through, mut largest) = (0, 0, 0);
            for (pause_ms, events_asked) in asked {
                now_ms += pause_ms;
                largest = largest.max(events_asked);
                match accounts.charge(now_ms, &events(ONE, per_second), events_asked, 0) {
                    Ok(()) => through += events_asked,
                    refused => {
                        let wait_ms = u64::from(wait_s(refused)) * 1000;
                        prop_assert!(wait_ms > 0);
                        let mut later = Accounts(accounts.0.iter().map(|(id, at)| (*id, Account { ..*at })).collect());
                        prop_assert!(later.charge(now_ms + wait_ms, &events(ONE, per_second), 1, 0).is_ok());
                    }
                }
                prop_assert!(through <= per_second * (now_ms + 1000) / 1000 + largest);
            }
        }
    }
}

//! The places that clients take up, counted over all cores.

use crate::broker::places::{Kind, PlaceId};
use crate::id::ClientId;
use std::collections::{HashMap, HashSet};

/// All places taken.
#[derive(Default)]
pub(super) struct Tally(HashMap<(ClientId, Kind), HashSet<PlaceId>>);

impl Tally {
    /// Counts a place unless its client has `max` of its kind without it.
    pub fn take(&mut self, client: ClientId, kind: Kind, place: PlaceId, max: Option<usize>) -> bool {
        let taken = self.0.entry((client, kind)).or_default();
        if taken.contains(&place) {
            return true;
        }
        let admitted = max.is_none_or(|max| taken.len() < max);
        if admitted {
            taken.insert(place);
        }
        admitted
    }

    /// Forgets a place; one that was never counted is no matter.
    pub fn give_back(&mut self, client: ClientId, kind: Kind, place: PlaceId) {
        if let Some(taken) = self.0.get_mut(&(client, kind)) {
            taken.remove(&place);
            if taken.is_empty() {
                self.0.remove(&(client, kind));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::CoreId;

    const CLIENT: ClientId = ClientId([1; 16]);

    fn place(number: u64) -> PlaceId {
        PlaceId { core: CoreId((number % 2) as u8), number }
    }

    #[test]
    fn places_are_limited_by_kind_and_asking_twice_counts_once() {
        let mut tally = Tally::default();
        let mut take = |kind, number, max| tally.take(CLIENT, kind, place(number), Some(max));
        assert!(take(Kind::Connection, 1, 2) && take(Kind::Connection, 2, 2) && take(Kind::Connection, 2, 2));
        assert!(!take(Kind::Connection, 3, 2) && take(Kind::Instance, 3, 2));
        tally.give_back(CLIENT, Kind::Connection, place(1));
        assert!(tally.take(CLIENT, Kind::Connection, place(3), Some(2)));
    }

    #[test]
    fn a_lower_limit_turns_nobody_out() {
        let mut tally = Tally::default();
        for number in 0..5 {
            assert!(tally.take(CLIENT, Kind::Instance, place(number), None));
        }
        assert!(tally.take(CLIENT, Kind::Instance, place(4), Some(1)));
        assert!(!tally.take(CLIENT, Kind::Instance, place(5), Some(5)));
    }

    #[test]
    fn clients_without_places_take_no_memory() {
        let mut tally = Tally::default();
        tally.take(CLIENT, Kind::Instance, place(0), None);
        tally.give_back(CLIENT, Kind::Instance, place(7));
        tally.give_back(CLIENT, Kind::Connection, place(0));
        tally.give_back(CLIENT, Kind::Instance, place(0));
        assert!(tally.0.is_empty());
    }
}

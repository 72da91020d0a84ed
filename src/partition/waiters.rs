//! Readers that have seen everything and wait for an event of their types.

use super::filter::TypeFilter;
use crate::id::TypeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The parked readers of one partition, called `F`: whatever the owner names a reader by.
///
/// Readers with the same filter are kept together. Parking costs one look-up, an append costs something for the filters that
/// want its type, and readers of other types cost nothing.
pub struct Waiters<F> {
    slots: Vec<Slot<F>>,
    by_filter: HashMap<TypeFilter, usize, ahash::RandomState>,
    /// Slots whose filter holds the type.
    by_type: BTreeMap<TypeId, Vec<usize>>,
    /// Number of slots at which those without a reader are given up.
    purge_at: usize,
    /// How many slots, the first ones, were kept when that happened last.
    kept: usize,
}

/// The readers of one filter. By name, so that they are woken in the same order in every run.
struct Slot<F> {
    filter: TypeFilter,
    parked: BTreeSet<F>,
    /// Somebody has parked since empty slots were last looked for. Readers that are busy come back, and making their slot
    /// costs something for each of their types.
    used: bool,
}

/// The least number of slots at which it is worth looking for empty ones.
const PURGE_MIN: usize = 64;

impl<F> Default for Waiters<F> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            // Never iterated, so the order it would give is of no matter.
            by_filter: HashMap::default(),
            by_type: BTreeMap::new(),
            purge_at: PURGE_MIN,
            kept: 0,
        }
    }
}

impl<F: Copy + Ord> Waiters<F> {
    /// Parks `reader` until an event of one of `filter`'s types is appended.
    pub fn park(&mut self, reader: F, filter: &TypeFilter) {
        let slot = match self.by_filter.get(filter) {
            Some(slot) => *slot,
            None => self.add_slot(filter),
        };
        let slot = &mut self.slots[slot];
        slot.parked.insert(reader);
        slot.used = true;
    }

    /// Takes back what [`Self::park`] did. A reader that is not parked is no matter.
    pub fn cancel(&mut self, reader: F, filter: &TypeFilter) {
        if let Some(slot) = self.by_filter.get(filter) {
            self.slots[*slot].parked.remove(&reader);
        }
    }

    /// Adds to `woken` the readers that wait for `type_id`; they are not parked any more.
    pub fn appended(&mut self, type_id: TypeId, woken: &mut Vec<F>) {
        for slot in self.by_type.get(&type_id).into_iter().flatten() {
            woken.extend(std::mem::take(&mut self.slots[*slot].parked));
        }
    }

    /// How many readers are parked.
    pub fn len(&self) -> usize {
        self.slots.iter().map(|slot| slot.parked.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.parked.is_empty())
    }

    fn add_slot(&mut self, filter: &TypeFilter) -> usize {
        if self.slots.len() >= self.purge_at {
            self.purge();
        }
        self.insert(Slot { filter: filter.clone(), parked: BTreeSet::new(), used: true })
    }

    fn insert(&mut self, slot: Slot<F>) -> usize {
        let place = self.slots.len();
        for type_id in slot.filter.types() {
            self.by_type.entry(*type_id).or_default().push(place);
        }
        self.by_filter.insert(slot.filter.clone(), place);
        self.slots.push(slot);
        place
    }

    /// Gives up the slots without readers now and since the last time. Runs again after as many new slots as old ones stayed, so it
    /// costs each a constant and what is kept stays in proportion to what is in use.
    fn purge(&mut self) {
        let slots = std::mem::take(&mut self.slots);
        self.by_filter.clear();
        self.by_type.clear();
        let mut stayed = 0;
        for (place, slot) in slots.into_iter().enumerate() {
            if slot.used || !slot.parked.is_empty() {
                stayed += usize::from(place < self.kept);
                self.insert(Slot { used: false, ..slot });
            }
        }
        self.kept = self.slots.len();
        self.purge_at = self.kept + stayed.max(PURGE_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(types: &[u32]) -> TypeFilter {
        types.iter().copied().map(TypeId).collect()
    }

    fn woken(waiters: &mut Waiters<u64>, type_id: u32) -> Vec<u64> {
        let mut woken = Vec::new();
        waiters.appended(TypeId(type_id), &mut woken);
        woken
    }

    #[test]
    fn a_reader_is_woken_once_by_any_of_its_types_and_by_no_other() {
        let mut waiters = Waiters::default();
        waiters.park(1, &filter(&[1, 2]));
        waiters.park(2, &filter(&[2, 3]));
        assert!(woken(&mut waiters, 9).is_empty());
        assert_eq!(woken(&mut waiters, 1), [1]);
        assert_eq!(woken(&mut waiters, 2), [2]);
        assert_eq!((woken(&mut waiters, 3), waiters.len()), (vec![], 0));
    }

    #[test]
    fn a_cancelled_reader_is_not_woken() {
        let mut waiters = Waiters::default();
        waiters.park(1, &filter(&[1]));
        waiters.park(2, &filter(&[1]));
        waiters.cancel(1, &filter(&[1]));
        waiters.cancel(3, &filter(&[1]));
        waiters.cancel(2, &filter(&[2]));
        assert_eq!((woken(&mut waiters, 1), waiters.is_empty()), (vec![2], true));
    }

    #[test]
    fn sixty_thousand_parked_readers_share_what_is_kept_of_their_filter() {
        let mut waiters = Waiters::default();
        for reader in 0..60_000 {
            waiters.park(reader, &filter(&[(reader % 3) as u32, 7]));
        }
        assert_eq!((waiters.slots.len(), waiters.len()), (3, 60_000));
        assert_eq!(woken(&mut waiters, 1).len(), 20_000);
        assert_eq!(woken(&mut waiters, 7).len(), 40_000);
    }

    #[test]
    fn filters_nobody_uses_any_more_are_given_up_and_others_stay() {
        let mut waiters = Waiters::default();
        waiters.park(0, &filter(&[5]));
        for other in 10..10_000 {
            waiters.park(1, &filter(&[other]));
            waiters.cancel(1, &filter(&[other]));
        }
        assert!(waiters.slots.len() <= 4 * PURGE_MIN && waiters.by_type.len() <= 4 * PURGE_MIN);
        assert_eq!(woken(&mut waiters, 5), [0]);
    }

    #[test]
    fn filters_of_busy_readers_are_kept_although_nobody_is_parked_when_room_is_made() {
        let mut waiters = Waiters::default();
        for other in 0..10 * PURGE_MIN as u32 {
            for busy in [1, 2, 3, other + 10] {
                let places = waiters.by_filter.get(&filter(&[busy])).copied();
                waiters.park(1, &filter(&[busy]));
                assert!(busy > 9 || other == 0 || places.is_some(), "{busy} was given up at {other}");
                waiters.cancel(1, &filter(&[busy]));
            }
            assert!(waiters.slots.len() <= 3 * PURGE_MIN);
        }
    }

    #[test]
    fn the_order_of_waking_does_not_depend_on_the_order_of_parking() {
        let (mut a, mut b) = (Waiters::default(), Waiters::default());
        (0..100).for_each(|reader| a.park(reader, &filter(&[1])));
        (0..100).rev().for_each(|reader| b.park(reader, &filter(&[1])));
        assert_eq!(woken(&mut a, 1), woken(&mut b, 1));
    }
}

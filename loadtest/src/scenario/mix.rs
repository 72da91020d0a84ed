//! Which type an event has: a function of its producer and sequence, so that producers, consumers and the check agree
//! without telling each other.

use super::{Group, Scenario};
use std::collections::BTreeSet;

/// The types of a run and their shares.
#[derive(Debug)]
pub struct Mix {
    /// All types, those of one `[[types]]` side by side.
    pub types: Vec<MixedType>,
    /// For each type the end of its part of the 2^64 hashes; the last is `u64::MAX`.
    ends: Vec<u64>,
}

/// One type.
#[derive(Debug)]
pub struct MixedType {
    pub name: String,
    pub bytes: usize,
    pub schema: bool,
    pub share: f64,
    /// The name in `[[types]]` that it comes from.
    family: String,
}

/// The types that a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeSet {
    All,
    /// For each type whether it is one.
    Some(Vec<bool>),
}

impl Mix {
    pub fn new(scenario: &Scenario) -> Self {
        let types: Vec<MixedType> = scenario
            .types
            .iter()
            .flat_map(|kind| {
                kind.names().into_iter().map(|name| MixedType {
                    name,
                    bytes: kind.bytes.unwrap_or(scenario.load.bytes),
                    schema: kind.schema,
                    share: kind.share / kind.count as f64,
                    family: kind.name.clone(),
                })
            })
            .collect();
        let ends = ends(&types);
        Self { types, ends }
    }

    /// The index of the type of an event.
    pub fn type_of(&self, producer: usize, sequence: u64) -> usize {
        if self.types.len() == 1 {
            return 0;
        }
        let point = scramble((producer as u64) << 40 ^ sequence);
        // The types without a share end where the one before them ends and are never found.
        self.ends.partition_point(|end| *end < point).min(self.types.len() - 1)
    }

    /// The part of the traffic that these types are.
    fn share_of(&self, types: &TypeSet) -> f64 {
        let share = |only: &dyn Fn(usize) -> bool| -> f64 {
            let all = self.types.iter().enumerate();
            all.filter(|(index, _)| only(*index)).map(|(_, kind)| kind.share).sum()
        };
        share(&|index| types.contains(index)) / share(&|_| true)
    }

    /// How many of the groups read an event, on the average over all types.
    pub fn readers(&self, groups: &[Group]) -> f64 {
        let read = groups.iter().filter(|kind| kind.consumers > 0);
        read.map(|kind| kind.count as f64 * self.share_of(&self.set_of(kind))).sum()
    }

    /// The types that `group` reads.
    pub fn set_of(&self, group: &Group) -> TypeSet {
        let Some(types) = &group.types else { return TypeSet::All };
        let names: BTreeSet<&str> = types.iter().map(|name| name.get_ref().as_str()).collect();
        let reads: Vec<bool> = self.types.iter().map(|kind| names.contains(kind.family.as_str())).collect();
        if reads.iter().all(|reads| *reads) { TypeSet::All } else { TypeSet::Some(reads) }
    }
}

fn ends(types: &[MixedType]) -> Vec<u64> {
    let total: f64 = types.iter().map(|kind| kind.share).sum();
    let last = types.iter().rposition(|kind| kind.share > 0.0).unwrap_or_default();
    let mut sum = 0.0;
    let end = |(index, kind): (usize, &MixedType)| {
        sum += kind.share;
        if index >= last { u64::MAX } else { (sum / total * u64::MAX as f64) as u64 }
    };
    types.iter().enumerate().map(end).collect()
}

/// A number that looks drawn at random, the same for the same `number` (splitmix64).
fn scramble(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl TypeSet {
    pub fn contains(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(types) => types[index],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventType;
    use super::*;

    fn mix(shares: &[f64]) -> Mix {
        let kind = |(index, share): (usize, &f64)| EventType {
            share: *share,
            ..EventType::named(&format!("A.B.C.T{index}"))
        };
        let types = shares.iter().enumerate().map(kind).collect();
        Mix::new(&Scenario { types, ..Scenario::default() })
    }

    #[test]
    fn types_come_as_often_as_their_shares_say() {
        let mix = mix(&[0.0, 9_989.0, 0.0, 10.0, 1.0, 0.0]);
        let mut counts = [0u64; 6];
        for producer in 0..10 {
            (0..100_000).for_each(|sequence| counts[mix.type_of(producer, sequence)] += 1);
        }
        assert_eq!((counts[0], counts[2], counts[5]), (0, 0, 0));
        assert!((900..1_100).contains(&counts[3]) && (60..140).contains(&counts[4]), "{counts:?}");
    }

    #[test]
    fn every_key_gets_rare_types() {
        let mix = mix(&[999.0, 1.0]);
        let keys: BTreeSet<u64> = (0..200_000)
            .filter(|sequence| mix.type_of(0, *sequence) == 1)
            .map(|sequence| sequence % 16)
            .collect();
        assert_eq!(keys.len(), 16);
    }

    #[test]
    fn the_readers_of_an_event_are_groups_by_their_share_of_the_traffic() {
        let mix = mix(&[6.0, 2.0, 0.0]);
        let reading = |name: &str, count, consumers| Group {
            types: Some(vec![toml::Spanned::new(0..0, name.to_owned())]),
            count,
            consumers,
            ..Group::named("g")
        };
        let groups = [reading("A.B.C.T1", 2, 1), reading("A.B.C.T2", 9, 1), reading("A.B.C.T0", 1, 0)];
        assert_eq!(mix.readers(&groups), 0.5);
        assert_eq!(mix.readers(&[Group::named("all"), reading("A.B.C.T0", 1, 1)]), 1.75);
    }

    #[test]
    fn a_group_reads_the_types_of_the_families_it_names() {
        let types = vec![EventType { count: 3, ..EventType::named("A.B.C.D") }, EventType::named("A.B.C.E")];
        let mix = Mix::new(&Scenario { types, ..Scenario::default() });
        assert_eq!(
            mix.types.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>(),
            ["A.B.C.D-0001", "A.B.C.D-0002", "A.B.C.D-0003", "A.B.C.E"]
        );
        let reading = |name: &str| Group {
            types: Some(vec![toml::Spanned::new(0..0, name.to_owned())]),
            ..Group::named("g")
        };
        assert_eq!(mix.set_of(&reading("A.B.C.D")), TypeSet::Some(vec![true, true, true, false]));
        assert_eq!(mix.set_of(&Group::named("g")), TypeSet::All);
    }
}

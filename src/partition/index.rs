//! Where the records of a segment are, and which of them are of which type.
//!
//! The segment being written keeps its index in memory. When the segment is sealed the index is written beside it as
//! `NNNNNNNNNNNNNNNN.idx`; of a sealed segment only the [`Summary`] stays in memory, the index is read again when needed. A lost index is made
//! again from the segment.
//!
//! Every type has its postings, also one of which nearly all records are. They cost four bytes a record in all, because each record
//! is in one list, and then every reader pays for what it reads and nothing else: nobody looks at records to learn their types.
//! A reader of very many types would pay for looking up all their postings whenever it reads a little, so it begins with the types of
//! the next records, which are kept in order beside them (in memory only: they follow from the postings).
//!
//! A record is counted from 0 in its segment: its *ordinal*. All numbers are little-endian.
//!
//! ```text
//!  0  [u8; 8]  magic      "NISTRIDX"
//!  8  u32      version    1
//! 12  u8       partition
//! 13  [u8; 3]  reserved   0
//! 16  u64      number     of the segment
//! 24  u64      base       offset of the segment's first record
//! 32  [u8;16]  cluster    cluster id of the data directory
//! 48  u32      records    how many
//! 52  u32      data_end   position in the segment behind the last record
//! 56  u64      first_ms   smallest time_ms of the records
//! 64  u64      last_ms    largest time_ms of the records
//! 72  u32      types      how many different ones
//! 76  u32      body_crc   CRC-32 (IEEE) of the body
//! 80  u32      reserved   0
//! 84  u32      head_crc   CRC-32 (IEEE) of bytes 0 .. 84 and of the summary
//! 88  …        summary    per type, ascending: u32 type id, u32 records, u32 first ordinal, u32 last ordinal
//!  …  …        body       u32 positions of all records in the segment, by ordinal;
//!                         then per type, in the order of the summary: u32 ordinals, ascending
//! ```

use super::filter::TypeFilter;
use super::segment::{
    HEADER_BYTES, HeadError, Identity, check_opening, damage_of, put_opening, u32_at, u64_at,
};
use crate::fault::{Fault, planted};
use crate::id::{Offset, TypeId};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"NISTRIDX";
const VERSION: u32 = 1;
/// Bytes before the summary.
pub const HEAD_BYTES: usize = 88;
/// Bytes of a type in the summary.
const TYPE_BYTES: usize = 16;
/// How long a record is taken to be before any was seen.
const EXPECTED_BYTES: u32 = 1 << 10;
/// Up to so many postings are always looked up and merged.
const LISTS_MAX: usize = 16;
/// Records whose type can be looked at in the time that looking up the postings of one type takes.
const LOOKS_PER_LIST: usize = 32;
/// Types that can be looked up in a filter in the time that a search among the types of a segment takes.
const LOOKS_PER_SEARCH: usize = 16;

/// Positions and postings of one segment.
#[derive(Debug, PartialEq, Eq)]
pub struct Index {
    /// Start of each record in the segment; ascending.
    positions: Vec<u32>,
    /// Behind the last record.
    data_end: u32,
    /// Ordinals per type, ascending. Lists are not empty and have no ordinal in common.
    postings: BTreeMap<TypeId, Vec<u32>>,
    /// The type of each record.
    types: Vec<TypeId>,
    first_ms: u64,
    last_ms: u64,
}

/// What is known of a sealed segment without its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub records: u32,
    /// Position behind the last record.
    pub data_end: u32,
    /// Smallest time of a record in Unix milliseconds. Clocks step, so the first record need not have it.
    pub first_ms: u64,
    /// Largest time of a record in Unix milliseconds.
    pub last_ms: u64,
    /// By ascending type.
    types: Box<[TypeSummary]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TypeSummary {
    type_id: TypeId,
    records: u32,
    /// Ordinals of the type's first and last record.
    first: u32,
    last: u32,
}

/// Why an index file cannot be used. It is made again from the segment, unless it is foreign.
pub type IndexError = HeadError;

impl Default for Index {
    fn default() -> Self {
        Self {
            positions: Vec::new(),
            data_end: HEADER_BYTES,
            postings: BTreeMap::new(),
            types: Vec::new(),
            first_ms: u64::MAX,
            last_ms: 0,
        }
    }
}

impl Index {
    /// An index without records, with room for those of `bytes` of a segment. Room costs memory only once it is used, and an executor that
    /// finds none copies the index to where there is more.
    pub fn with_room(bytes: u32) -> Self {
        let records = (bytes / EXPECTED_BYTES) as usize;
        let (positions, types) = (Vec::with_capacity(records), Vec::with_capacity(records));
        Self { positions, types, ..Self::default() }
    }

    /// Adds the record that lies at the current end and is `stride` bytes long.
    pub fn push(&mut self, stride: u32, type_id: TypeId, time_ms: u64) {
        let ordinal = self.records();
        self.postings.entry(type_id).or_default().push(ordinal);
        self.types.push(type_id);
        self.positions.push(self.data_end);
        self.data_end += stride;
        self.first_ms = self.first_ms.min(time_ms);
        self.last_ms = self.last_ms.max(time_ms);
    }

    pub fn records(&self) -> u32 {
        self.positions.len() as u32
    }

    /// Position behind the last record.
    pub fn data_end(&self) -> u32 {
        self.data_end
    }

    /// Largest time of a record in Unix milliseconds; 0 when there is none.
    pub fn last_ms(&self) -> u64 {
        self.last_ms
    }

    /// Smallest time of a record in Unix milliseconds; `u64::MAX` when there is none.
    pub fn first_ms(&self) -> u64 {
        self.first_ms
    }

    /// Where record `ordinal` lies in the segment, padding included.
    pub fn range(&self, ordinal: u32) -> Range<u32> {
        let end = self.positions.get(ordinal as usize + 1).copied().unwrap_or(self.data_end);
        self.positions[ordinal as usize]..end
    }

    /// Ordinals from `from` on whose type is in `filter`, ascending.
    pub fn matches<'a>(&'a self, filter: &'a TypeFilter, from: u32) -> Matches<'a> {
        let lists_max = filter.types().len().min(self.postings.len());
        if lists_max <= LISTS_MAX {
            return self.merged(filter, from);
        }
        // At worst this looks at as many records as cost what looking up the postings costs.
        let looks = (lists_max * LOOKS_PER_LIST).min(self.types.len());
        let upto = from.saturating_add(looks as u32).min(self.records());
        Matches::Next { index: self, filter, at: from, upto }
    }

    /// The same by the postings alone.
    fn merged(&self, filter: &TypeFilter, from: u32) -> Matches<'_> {
        let lists = self.lists(filter);
        if lists.len() == self.postings.len() {
            return Matches::All(from..self.records());
        }
        let mut rest =
            lists.into_iter().map(|list| &list[below(list, from)..]).filter(|list| !list.is_empty());
        match (rest.next(), rest.next()) {
            (None, _) => Matches::One(&[]),
            (Some(list), None) => Matches::One(list),
            (Some(a), Some(b)) => Matches::Several([a, b].into_iter().chain(rest).map(Reverse).collect()),
        }
    }

    /// How many records of `filter`'s types have an ordinal in `range`.
    pub fn count(&self, filter: &TypeFilter, range: Range<u32>) -> u64 {
        let in_list = |list: &[u32]| below(list, range.end).saturating_sub(below(list, range.start)) as u64;
        self.lists(filter).into_iter().map(in_list).sum()
    }

    pub fn summary(&self) -> Summary {
        let types = self.postings.iter().map(|(type_id, list)| TypeSummary {
            type_id: *type_id,
            records: list.len() as u32,
            first: list[0],
            last: list[list.len() - 1],
        });
        Summary {
            records: self.records(),
            data_end: self.data_end,
            first_ms: self.first_ms,
            last_ms: self.last_ms,
            types: types.collect(),
        }
    }

    /// The postings of the filter's types, looked up from the cheaper side.
    fn lists(&self, filter: &TypeFilter) -> Vec<&[u32]> {
        if filter.types().len() * LOOKS_PER_SEARCH <= self.postings.len() {
            filter.types().iter().filter_map(|t| self.postings.get(t)).map(Vec::as_slice).collect()
        } else {
            self.postings
                .iter()
                .filter(|(t, _)| filter.contains(**t))
                .map(|(_, list)| list.as_slice())
                .collect()
        }
    }

    /// The index file.
    pub fn encode(&self, identity: &Identity, number: u64, base: Offset) -> Vec<u8> {
        let summary = self.summary();
        let mut out = vec![0; HEAD_BYTES];
        put_opening(&mut out, &MAGIC, VERSION, identity, number, base);
        out[48..52].copy_from_slice(&summary.records.to_le_bytes());
        out[52..56].copy_from_slice(&summary.data_end.to_le_bytes());
        out[56..64].copy_from_slice(&summary.first_ms.to_le_bytes());
        out[64..72].copy_from_slice(&summary.last_ms.to_le_bytes());
        out[72..76].copy_from_slice(&(summary.types.len() as u32).to_le_bytes());
        for entry in &summary.types {
            put_numbers(&mut out, &[entry.type_id.0, entry.records, entry.first, entry.last]);
        }
        let body = out.len();
        put_numbers(&mut out, &self.positions);
        self.postings.values().for_each(|list| put_numbers(&mut out, list));
        let body_crc = crc32fast::hash(&out[body..]);
        out[76..80].copy_from_slice(&body_crc.to_le_bytes());
        let head_crc = head_crc(&out[..body]);
        out[84..88].copy_from_slice(&head_crc.to_le_bytes());
        out
    }

    /// Reads a whole index file.
    pub fn decode(bytes: &[u8], identity: &Identity, number: u64) -> Result<(Offset, Self), IndexError> {
        let (base, summary) = Summary::decode(bytes, identity, number)?;
        let body = &bytes[HEAD_BYTES + summary.types.len() * TYPE_BYTES..];
        if crc32fast::hash(body) != u32_at(bytes, 76) {
            return Err(HeadError::Damaged("the checksum of the body does not match"));
        }
        let mut numbers = body.chunks_exact(4).map(|number| u32_at(number, 0));
        let listed: u64 = summary.types.iter().map(|entry| u64::from(entry.records)).sum();
        if numbers.len() as u64 != u64::from(summary.records) + listed || !body.len().is_multiple_of(4) {
            return Err(HeadError::Damaged("the body has another length than the head says"));
        }
        let positions = numbers.by_ref().take(summary.records as usize).collect();
        let list =
            |entry: &TypeSummary| (entry.type_id, numbers.by_ref().take(entry.records as usize).collect());
        let postings: BTreeMap<_, Vec<u32>> = summary.types.iter().map(list).collect();
        let types = types_of(&postings, summary.records)
            .ok_or(HeadError::Damaged("the postings do not hold every record once"))?;
        let (data_end, first_ms, last_ms) = (summary.data_end, summary.first_ms, summary.last_ms);
        Ok((base, Self { positions, data_end, postings, types, first_ms, last_ms }))
    }
}

impl Summary {
    /// Bytes of head and summary of the index file that begins with `head`; for reading just these.
    pub fn bytes_in(head: &[u8; HEAD_BYTES]) -> usize {
        HEAD_BYTES + u32_at(head, 72) as usize * TYPE_BYTES
    }

    /// Reads head and summary of an index file; what follows is not looked at.
    pub fn decode(bytes: &[u8], identity: &Identity, number: u64) -> Result<(Offset, Self), IndexError> {
        let head = bytes.first_chunk().ok_or(HeadError::Damaged("the file is shorter than its head"))?;
        let head = bytes.get(..Self::bytes_in(head)).ok_or(HeadError::Damaged("the summary is cut off"))?;
        if head_crc(head) != u32_at(head, 84) {
            return Err(damage_of(head, &MAGIC));
        }
        let base = check_opening(head, &MAGIC, VERSION, identity, number)?;
        let types = head[HEAD_BYTES..].chunks_exact(TYPE_BYTES).map(|entry| TypeSummary {
            type_id: TypeId(u32_at(entry, 0)),
            records: u32_at(entry, 4),
            first: u32_at(entry, 8),
            last: u32_at(entry, 12),
        });
        let summary = Self {
            records: u32_at(head, 48),
            data_end: u32_at(head, 52),
            first_ms: u64_at(head, 56),
            last_ms: u64_at(head, 64),
            types: types.collect(),
        };
        Ok((base, summary))
    }

    /// Whether a record from ordinal `from` on has a type of `filter`.
    pub fn wants(&self, filter: &TypeFilter, from: u32) -> bool {
        let from = if planted(Fault::MissedEvents) { from + 1 } else { from };
        self.of(filter).any(|entry| entry.last >= from)
    }

    /// How many records have a type of `filter`.
    pub fn count(&self, filter: &TypeFilter) -> u64 {
        self.of(filter).map(|entry| u64::from(entry.records)).sum()
    }

    /// About how many records of `filter`'s types have an ordinal in `range`, as if each type were spread evenly
    /// between its first and last record. Never more than there are.
    pub fn estimate(&self, filter: &TypeFilter, range: Range<u32>) -> u64 {
        let share = |entry: &TypeSummary| {
            let span = u64::from(entry.last - entry.first) + 1;
            let from = range.start.max(entry.first);
            let to = range.end.min(entry.last + 1);
            u64::from(to.saturating_sub(from)) * u64::from(entry.records) / span
        };
        self.of(filter).map(share).sum()
    }

    fn of<'a>(&'a self, filter: &'a TypeFilter) -> impl Iterator<Item = &'a TypeSummary> {
        let by_filter = filter.types().len() * LOOKS_PER_SEARCH <= self.types.len();
        let wanted: &'a [TypeId] = if by_filter { filter.types() } else { &[] };
        let all: &'a [TypeSummary] = if by_filter { &[] } else { &self.types };
        let entry = |t: &TypeId| self.types.binary_search_by_key(t, |entry| entry.type_id).ok();
        let looked_up = wanted.iter().filter_map(entry).map(|at| &self.types[at]);
        looked_up.chain(all.iter().filter(|entry| filter.contains(entry.type_id)))
    }
}

/// Ordinals in ascending order.
pub enum Matches<'a> {
    /// Those up to `upto` by the types of the records, then by the postings.
    Next {
        index: &'a Index,
        filter: &'a TypeFilter,
        at: u32,
        upto: u32,
    },
    All(Range<u32>),
    One(&'a [u32]),
    /// The not yet given rest of each list, none of them empty: the one with the smallest ordinal on top.
    Several(BinaryHeap<Reverse<&'a [u32]>>),
}

impl Iterator for Matches<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Next { index, filter, at, upto } => {
                let types = &index.types[*at as usize..*upto as usize];
                if let Some(passed) = types.iter().position(|type_id| filter.contains(*type_id)) {
                    *at += passed as u32 + 1;
                    return Some(*at - 1);
                }
                // A reader at the end, as most are, has nothing to look up.
                *self = match *upto == index.records() {
                    true => Self::One(&[]),
                    false => index.merged(filter, *upto),
                };
                self.next()
            }
            Self::All(range) => range.next(),
            Self::One(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(*first)
            }
            Self::Several(lists) => {
                let mut top = lists.peek_mut()?;
                let (first, rest) = top.0.split_first()?;
                match rest {
                    [] => drop(PeekMut::pop(top)),
                    rest => top.0 = rest,
                }
                Some(*first)
            }
        }
    }
}

/// How many ordinals of `list` are below `ordinal`.
fn below(list: &[u32], ordinal: u32) -> usize {
    list.partition_point(|other| *other < ordinal)
}

/// The type of each of `records` records; `None` when `postings` do not hold every ordinal once.
fn types_of(postings: &BTreeMap<TypeId, Vec<u32>>, records: u32) -> Option<Vec<TypeId>> {
    let mut types = vec![None; records as usize];
    for (type_id, list) in postings {
        for ordinal in list {
            if types.get_mut(*ordinal as usize)?.replace(*type_id).is_some() {
                return None;
            }
        }
    }
    types.into_iter().collect()
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u32]) {
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// Checksum of head and summary without the checksum itself.
fn head_crc(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..84]);
    hasher.update(&head[HEAD_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Partition;
    use proptest::prelude::*;

    const IDENTITY: Identity = Identity { cluster: [7; 16], partition: Partition(5) };

    /// An index of records of these types; record `n` is `16 + 8 n` bytes long.
    fn index_of(types: &[u32]) -> Index {
        let mut index = Index::default();
        for (n, type_id) in types.iter().enumerate() {
            index.push(16 + 8 * n as u32, TypeId(*type_id), 1000 + n as u64);
        }
        index
    }

    fn filter(types: &[u32]) -> TypeFilter {
        types.iter().copied().map(TypeId).collect()
    }

    fn decode(bytes: &[u8]) -> Result<(Offset, Index), IndexError> {
        Index::decode(bytes, &IDENTITY, 3)
    }

    /// Written down from the table above by other means, so that a change of the code cannot change the format unnoticed.
    #[test]
    fn an_index_file_has_the_documented_bytes() {
        let expected = "
            4e 49 53 54 52 49 44 58 01 00 00 00 05 00 00 00
            03 00 00 00 00 00 00 00 32 00 00 00 00 00 00 00
            07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07
            03 00 00 00 88 00 00 00 e8 03 00 00 00 00 00 00
            ea 03 00 00 00 00 00 00 02 00 00 00 76 49 e8 e0
            00 00 00 00 c7 91 a1 d9 01 00 00 00 02 00 00 00
            00 00 00 00 02 00 00 00 02 00 00 00 01 00 00 00
            01 00 00 00 01 00 00 00 40 00 00 00 50 00 00 00
            68 00 00 00 00 00 00 00 02 00 00 00 01 00 00 00";
        let bytes = index_of(&[1, 2, 1]).encode(&IDENTITY, 3, Offset(50));
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn an_index_file_reads_back_whole_and_as_a_summary() {
        for types in [&[][..], &[1], &[1, 2, 1, 9, 1]] {
            let index = index_of(types);
            let bytes = index.encode(&IDENTITY, 3, Offset(50));
            assert_eq!(Summary::decode(&bytes, &IDENTITY, 3), Ok((Offset(50), index.summary())));
            assert_eq!(Summary::bytes_in(bytes.first_chunk().unwrap()), bytes.len() - 8 * types.len());
            assert_eq!(decode(&bytes), Ok((Offset(50), index)));
        }
    }

    #[test]
    fn postings_that_do_not_hold_every_record_once_are_damage() {
        let mut index = index_of(&[1, 2, 1]);
        index.postings.insert(TypeId(2), vec![2]);
        let bytes = index.encode(&IDENTITY, 3, Offset(50));
        assert!(matches!(decode(&bytes), Err(HeadError::Damaged(_))));
    }

    #[test]
    fn any_flipped_bit_and_any_lost_end_of_an_index_file_is_noticed() {
        let bytes = index_of(&[1, 2, 1]).encode(&IDENTITY, 3, Offset(50));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped), Err(HeadError::Damaged(_))), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Err(HeadError::Damaged(_))), "length {length}");
        }
    }

    proptest! {
        #[test]
        fn matches_and_counts_are_those_of_a_scan(
            types in prop_oneof![
                prop::collection::vec(0..6u32, 0..60),
                prop::collection::vec(0..80u32, 0..60),
                // Long enough that readers of many types do not find all by looking.
                prop::collection::vec(0..40u32, 1500..2000),
            ],
            wanted in prop_oneof![
                prop::collection::vec(0..8u32, 0..8),
                prop::collection::vec(0..90u32, 15..80),
                prop::collection::vec(38..90u32, 40..80),
            ],
            from in prop_oneof![0..70u32, 0..2010u32],
            to in prop_oneof![0..70u32, 0..2010u32],
        ) {
            let (index, filter) = (index_of(&types), filter(&wanted));
            let all = types.len() as u32;
            let scan = |range: Range<u32>| {
                range.filter(|n| types.get(*n as usize).is_some_and(|t| wanted.contains(t))).collect::<Vec<_>>()
            };
            let from = from.min(all);
            let rest = scan(from..all);
            prop_assert_eq!(index.matches(&filter, from).collect::<Vec<_>>(), rest.clone());
            prop_assert_eq!(index.summary().wants(&filter, from), !rest.is_empty());
            prop_assert_eq!(index.count(&filter, from..to), scan(from..to).len() as u64);
            prop_assert_eq!(index.summary().count(&filter), scan(0..all).len() as u64);
            prop_assert!(index.summary().estimate(&filter, from..to) <= scan(0..all).len() as u64);
        }

        #[test]
        fn bytes_that_are_no_index_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}

//! From an event to its partition.
//!
//! The hash is murmur2 as Kafka's default partitioner computes it, so that a system moving from Kafka keeps the
//! partition of every key.

use crate::id::Partition;
use std::num::NonZeroU8;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Kafka's `toPositive(murmur2(key))`.
pub fn hash(key: &[u8]) -> u32 {
    murmur2(key) & 0x7fff_ffff
}

/// The partition of a key hash.
pub fn partition(hash: u32, partitions: NonZeroU8) -> Partition {
    Partition((hash % u32::from(partitions.get())) as u8)
}

/// Kafka's `Utils.murmur2`: 32-bit MurmurHash2 with a fixed seed.
fn murmur2(data: &[u8]) -> u32 {
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ (word >> 24)).wrapping_mul(M)
    };
    let mut words = data.chunks_exact(4);
    let mut hash = SEED ^ data.len() as u32;
    for word in &mut words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(word.try_into().expect("4 bytes")));
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let word = tail.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte));
        hash = (hash ^ word).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_own_test() {
        // org.apache.kafka.common.utils.UtilsTest.testMurmur2
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key:?}");
            assert_eq!(hash(key.as_bytes()), (expected & 0x7fff_ffff) as u32, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_the_remainder_of_the_positive_hash() {
        let twelve = NonZeroU8::new(12).unwrap();
        assert_eq!(partition(hash(b"21"), twelve), Partition((1_173_551_340_u32 % 12) as u8));
        assert_eq!(partition(u32::MAX >> 1, NonZeroU8::MIN), Partition(0));
    }
}

//! The stored form of one event: identical bytes in the journal frame and in the partition segment.
//!
//! Little-endian, records start at multiples of [`ALIGN`]. Documented byte by byte in `storage-format.md`.
//!
//! ```text
//!  0  u32  length        header and event, without padding; 0 marks the end of a segment's data
//!  4  u32  crc           CRC-32 (IEEE) of bytes 8 .. length
//!  8  u32  type_id
//! 12  u8   partition
//! 13  u8   flags         none defined, 0
//! 14  u16  reserved      0
//! 16  u32  key_hash      murmur2 as Kafka computes it, sign bit cleared
//! 20  u32  dedup_window_s 0 = the type is not deduplicated
//! 24  u64  time_ms       Unix milliseconds at which the broker took the event
//! 32  u32  source_start  positions in the event bytes of the JSON string's inside, escapes kept
//! 36  u32  source_end
//! 40  u32  id_start
//! 44  u32  id_end
//! 48  …    event         the JSON object as delivered, without the closing brace
//! ```

use crate::id::{Partition, TypeId};

/// Records start at multiples of this many bytes.
pub const ALIGN: usize = 8;
/// Bytes before the event.
pub const HEADER_BYTES: usize = 48;

/// What a record says beside its event bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub type_id: TypeId,
    pub partition: Partition,
    pub key_hash: u32,
    pub dedup_window_s: u32,
    pub time_ms: u64,
    /// Where the inside of the `source` string lies in the event bytes.
    pub source: (u32, u32),
    /// Where the inside of the `id` string lies in the event bytes.
    pub id: (u32, u32),
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Fewer bytes than the header or the length says.
    Short,
    /// A length, position or reserved field that no writer produces.
    Malformed,
    /// The checksum does not match.
    Checksum,
}

/// A checked view of one record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

/// `length` rounded up to the next record start.
pub const fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// Appends a record to `block` in the form above: `write_event` appends the event bytes (without the closing brace)
/// and returns the header. What it appended is taken back when it fails.
pub fn append<E>(
    block: &mut Vec<u8>,
    write_event: impl FnOnce(&mut Vec<u8>) -> Result<RecordHeader, E>,
) -> Result<(), E> {
    debug_assert_eq!(block.len() % ALIGN, 0);
    let start = block.len();
    block.resize(start + HEADER_BYTES, 0);
    match write_event(block) {
        Ok(header) => {
            seal(block, start, &header);
            Ok(())
        }
        Err(error) => {
            block.truncate(start);
            Err(error)
        }
    }
}

/// Fills in the header of the record that starts at `start` and ends where `block` ends, then pads.
fn seal(block: &mut Vec<u8>, start: usize, header: &RecordHeader) {
    let length = block.len() - start;
    let record = &mut block[start..];
    record[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    record[8..12].copy_from_slice(&header.type_id.0.to_le_bytes());
    record[12] = header.partition.0;
    record[16..20].copy_from_slice(&header.key_hash.to_le_bytes());
    record[20..24].copy_from_slice(&header.dedup_window_s.to_le_bytes());
    record[24..32].copy_from_slice(&header.time_ms.to_le_bytes());
    for (at, value) in [(32, header.source.0), (36, header.source.1), (40, header.id.0), (44, header.id.1)] {
        record[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let crc = crc32fast::hash(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    block.resize(start + padded(length), 0);
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`, checking structure and checksum.
    pub fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let record = Self::read_unverified(bytes)?;
        if crc32fast::hash(&record.bytes[8..]) == record.u32_at(4) {
            Ok(record)
        } else {
            Err(RecordError::Checksum)
        }
    }

    /// Reads the record at the start of `bytes`, checking structure only: for bytes whose checksum was verified before.
    pub fn read_unverified(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let length = match bytes.first_chunk::<4>() {
            Some(length) => u32::from_le_bytes(*length) as usize,
            None => return Err(RecordError::Short),
        };
        if length < HEADER_BYTES {
            return Err(RecordError::Malformed);
        }
        let record = Self { bytes: bytes.get(..length).ok_or(RecordError::Short)? };
        let event_bytes = (length - HEADER_BYTES) as u32;
        let ordered = |start: u32, end: u32| start <= end && end <= event_bytes;
        let header = record.header();
        let sound = ordered(header.source.0, header.source.1)
            && ordered(header.id.0, header.id.1)
            && record.bytes[13..16] == [0; 3];
        if sound { Ok(record) } else { Err(RecordError::Malformed) }
    }

    /// The record's bytes without padding.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes from this record's start to the next record's start.
    pub fn stride(&self) -> usize {
        padded(self.bytes.len())
    }

    /// The fields before the event.
    pub fn header(&self) -> RecordHeader {
        RecordHeader {
            type_id: TypeId(self.u32_at(8)),
            partition: Partition(self.bytes[12]),
            key_hash: self.u32_at(16),
            dedup_window_s: self.u32_at(20),
            time_ms: u64::from_le_bytes(self.bytes[24..32].try_into().expect("8 bytes")),
            source: (self.u32_at(32), self.u32_at(36)),
            id: (self.u32_at(40), self.u32_at(44)),
        }
    }

    /// The event as delivered, without the closing brace.
    pub fn event(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The inside of the `source` string, as JSON writes it.
    pub fn source(&self) -> &'a [u8] {
        &self.event()[self.u32_at(32) as usize..self.u32_at(36) as usize]
    }

    /// The inside of the `id` string, as JSON writes it.
    pub fn id(&self) -> &'a [u8] {
        &self.event()[self.u32_at(40) as usize..self.u32_at(44) as usize]
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes"))
    }
}

/// The records of a block, one after the other, up to its end. Structure is checked, checksums are not.
pub fn records(block: &[u8]) -> impl Iterator<Item = Result<(usize, Record<'_>), RecordError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= block.len() {
            return None;
        }
        let start = at;
        match Record::read_unverified(&block[start..]) {
            Ok(record) => {
                at += record.stride();
                Some(Ok((start, record)))
            }
            Err(error) => {
                at = block.len();
                Some(Err(error))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(block: &mut Vec<u8>, event: &[u8]) {
        let header = RecordHeader {
            type_id: TypeId(3),
            partition: Partition(5),
            key_hash: 0x1234_5678,
            dedup_window_s: 60,
            time_ms: 1_700_000_000_000,
            source: (1, 3),
            id: (4, 5),
        };
        append::<()>(block, |out| {
            out.extend_from_slice(event);
            Ok(header)
        })
        .unwrap();
    }

    #[test]
    fn what_is_appended_reads_back_with_padding_between() {
        let mut block = Vec::new();
        sample(&mut block, b"{\"a\":1");
        sample(&mut block, b"{\"bb\":22222");
        let events: Vec<_> = records(&block).map(|r| r.unwrap().1.event().to_vec()).collect();
        assert_eq!(events, [b"{\"a\":1".to_vec(), b"{\"bb\":22222".to_vec()]);
        let record = Record::read(&block).unwrap();
        assert_eq!((record.source(), record.id()), (&b"\"a"[..], &b":"[..]));
        assert_eq!(record.header().time_ms, 1_700_000_000_000);
    }

    #[test]
    fn any_flipped_bit_of_a_record_is_noticed() {
        let mut block = Vec::new();
        sample(&mut block, b"{\"a\":1");
        let length = Record::read(&block).unwrap().bytes().len();
        for bit in 0..length * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_failed_event_leaves_the_block_as_it_was() {
        let mut block = Vec::new();
        sample(&mut block, b"{\"a\":1");
        let before = block.clone();
        let failed = append(&mut block, |out| {
            out.extend_from_slice(b"half");
            Err("no")
        });
        assert_eq!((failed, block), (Err("no"), before));
    }
}

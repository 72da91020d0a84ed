//! The records of one request, end to end, as they go into the journal.

use super::rejection::Fault;
use crate::event::record::{self, Record, RecordHeader};
use crate::id::Partition;
use ahash::RandomState;
use std::cell::OnceCell;
use std::collections::HashMap;

/// All events of one request, ready to be made durable together. Empty for an empty batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Block {
    /// Records as [`crate::event::record`] describes them, one after the other.
    pub bytes: Vec<u8>,
    /// Number of records.
    pub count: u32,
    /// Bit `p` is set when a record belongs to partition `p`.
    pub partitions: u64,
    /// Where each record lies, in order; together they cover `bytes`.
    pub spans: Vec<Span>,
}

/// One record of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub partition: Partition,
    /// Position in the block's bytes.
    pub start: u32,
    /// Bytes up to the next record, padding included.
    pub len: u32,
}

/// A block under construction, which finds events that are in it twice.
pub(super) struct Builder {
    block: Block,
    /// Record number by hash of `source` and `id`; equal hashes of different events take the next free one.
    by_identity: HashMap<u64, u32, Identity>,
    /// Drawn for the first event of a batch.
    hasher: OnceCell<RandomState>,
}

type Identity = std::hash::BuildHasherDefault<Hashed>;

impl Block {
    /// The block that these records make, which lie one after the other and are sound.
    pub fn of_records(bytes: Vec<u8>) -> Self {
        let mut block = Self::default();
        for (start, record) in record::records(&bytes).map_while(Result::ok) {
            let partition = record.header().partition;
            block.spans.push(Span { partition, start: start as u32, len: record.stride() as u32 });
            block.partitions |= 1 << partition.0;
        }
        block.count = block.spans.len() as u32;
        block.bytes = bytes;
        block
    }

    /// The bytes of the record at `span`.
    pub fn record(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..(span.start + span.len) as usize]
    }
}

impl Builder {
    /// A builder that expects about `bytes` of records.
    pub fn new(bytes: usize) -> Self {
        let block = Block { bytes: Vec::with_capacity(bytes), ..Block::default() };
        Self { block, by_identity: HashMap::default(), hasher: OnceCell::new() }
    }

    /// Appends the record that `write_event` writes, or nothing when it fails.
    pub fn append(
        &mut self,
        write_event: impl FnOnce(&mut Vec<u8>) -> Result<RecordHeader, Fault>,
    ) -> Result<(), Fault> {
        let start = self.block.bytes.len();
        let mut partition = Partition(0);
        record::append(&mut self.block.bytes, |out| {
            let header = write_event(out)?;
            partition = header.partition;
            Ok::<_, Fault>(header)
        })?;
        let len = self.block.bytes.len() - start;
        self.block.spans.push(Span { partition, start: start as u32, len: len as u32 });
        self.block.partitions |= 1 << partition.0;
        self.block.count += 1;
        Ok(())
    }

    /// Notes the last record's `source` and `id`; tells whether an earlier record has the same.
    pub fn is_repeated(&mut self) -> bool {
        let number = self.block.count - 1;
        let (source, id) = identity(&self.block, number);
        let mut hash = self.hasher.get_or_init(RandomState::new).hash_one((source, id));
        while let Some(&earlier) = self.by_identity.get(&hash) {
            if identity(&self.block, earlier) == (source, id) {
                return true;
            }
            hash = hash.wrapping_add(1);
        }
        self.by_identity.insert(hash, number);
        false
    }

    pub fn finish(self) -> Block {
        self.block
    }
}

/// `source` and `id` of a record, in the one form that [`crate::event::encode`] gives them.
fn identity(block: &Block, number: u32) -> (&[u8], &[u8]) {
    let bytes = block.record(block.spans[number as usize]);
    let record = Record::read_unverified(bytes).expect("the builder appended this record");
    (record.source(), record.id())
}

/// Passes on a key that is a hash already.
#[derive(Default)]
pub(super) struct Hashed(u64);

impl std::hash::Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TypeId;

    fn append(builder: &mut Builder, event: &str, partition: u8) {
        let header = RecordHeader {
            type_id: TypeId(1),
            partition: Partition(partition),
            key_hash: 7,
            dedup_window_s: 0,
            time_ms: 1,
            source: (0, 1),
            id: (1, 3),
        };
        builder
            .append(|out| {
                out.extend_from_slice(event.as_bytes());
                Ok(header)
            })
            .unwrap();
    }

    #[test]
    fn spans_cover_the_block_and_name_the_partitions() {
        let mut builder = Builder::new(0);
        append(&mut builder, "a11", 3);
        append(&mut builder, "b22222", 63);
        let block = builder.finish();
        assert_eq!((block.count, block.partitions), (2, 1 << 3 | 1 << 63));
        let end = block.spans.iter().fold(0, |at, span| {
            assert_eq!(span.start, at);
            let record = Record::read(block.record(*span)).unwrap();
            assert_eq!((record.stride() as u32, record.header().partition), (span.len, span.partition));
            at + span.len
        });
        assert_eq!(end as usize, block.bytes.len());
    }

    #[test]
    fn a_failed_event_leaves_no_trace() {
        let mut builder = Builder::new(0);
        append(&mut builder, "a11", 3);
        let failed = builder.append(|out| {
            out.push(1);
            Err(Fault::malformed("no"))
        });
        assert!(failed.is_err());
        assert_eq!((builder.block.count, builder.block.spans.len(), builder.block.bytes.len()), (1, 1, 56));
    }

    #[test]
    fn a_repeat_is_told_by_source_and_id_alone() {
        let mut builder = Builder::new(0);
        for (event, repeated) in
            [("s11x", false), ("s12x", false), ("t11x", false), ("s11y", true), ("t12x", false)]
        {
            append(&mut builder, event, 0);
            assert_eq!(builder.is_repeated(), repeated, "{event}");
        }
    }

    #[test]
    fn equal_hashes_alone_make_no_repeat() {
        let mut builder = Builder::new(0);
        append(&mut builder, "s11x", 0);
        append(&mut builder, "s22x", 0);
        // The first record stands where the second one's hash leads.
        let (source, id) = identity(&builder.block, 1);
        let hash = builder.hasher.get_or_init(RandomState::new).hash_one((source, id));
        builder.by_identity.insert(hash, 0);
        assert!(!builder.is_repeated());
        append(&mut builder, "s22z", 0);
        assert!(builder.is_repeated());
    }
}

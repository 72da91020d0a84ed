//! The segment file: a header, then records one after the other.
//!
//! Files are called `NNNNNNNNNNNNNNNN.seg`: the segment's number in 16 lower-case hexadecimal digits, counted from 1 without gaps.
//! The number and not the base offset, because a file is made, and its name durable, before it is known at which offset it
//! will begin. All numbers are little-endian.
//!
//! ```text
//!  0  [u8; 8]  magic      "NISTRSEG"
//!  8  u32      version    1
//! 12  u8       partition
//! 13  [u8; 3]  reserved   0
//! 16  u64      number     as in the file name
//! 24  u64      base       offset of the first record
//! 32  [u8;16]  cluster    cluster id of the data directory, from genesis
//! 48  [u8;12]  reserved   0
//! 60  u32      crc        CRC-32 (IEEE) of bytes 0 .. 60
//! 64  …        records    as in `event::record`, each at a multiple of 8
//! ```
//!
//! A header of zeros is a segment that was made ahead and never used. Behind the last record stand eight zero bytes, which read
//! as a record of length 0, unless fewer than eight bytes are left in the file. Bytes behind this mark have no meaning: after a crash they may hold
//! records that were written but are not below the checkpoint's end; the journal brings these again. How far
//! a segment reaches is therefore said by the checkpoint (the last one) or by the base of the next segment (all others);
//! the mark is for people and tools that look at a single file.
//!
//! A file has the configured size from the start, so that no append can find the disk full, and is cut to the page behind its
//! last record when it is sealed.

use crate::id::{Offset, Partition};
use std::path::{Path, PathBuf};

/// Bytes before the first record.
pub const HEADER_BYTES: u32 = 64;
/// Zero bytes behind the last record.
pub const MARK_BYTES: u32 = 8;
const MAGIC: [u8; 8] = *b"NISTRSEG";
const VERSION: u32 = 1;

/// What every file of a partition says about where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id of the data directory.
    pub cluster: [u8; 16],
    pub partition: Partition,
}

/// The header of a segment in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub identity: Identity,
    pub number: u64,
    pub base: Offset,
}

/// Why a file's head is not one of ours. `Foreign` is the operator's doing, `Damaged` the disk's.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadError {
    Foreign(String),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        put_opening(&mut out, &MAGIC, VERSION, &self.identity, self.number, self.base);
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header and checks that it is the one of segment `number` of `identity`.
    pub fn decode(
        bytes: &[u8; HEADER_BYTES as usize],
        identity: &Identity,
        number: u64,
    ) -> Result<Self, HeadError> {
        if u32_at(bytes, 60) != crc32fast::hash(&bytes[..60]) {
            return Err(damage_of(bytes, &MAGIC));
        }
        let base = check_opening(bytes, &MAGIC, VERSION, identity, number)?;
        Ok(Self { identity: *identity, number, base })
    }
}

/// Writes the first 48 bytes, which segment and index files have in common.
pub(super) fn put_opening(
    out: &mut [u8],
    magic: &[u8; 8],
    version: u32,
    identity: &Identity,
    number: u64,
    base: Offset,
) {
    out[0..8].copy_from_slice(magic);
    out[8..12].copy_from_slice(&version.to_le_bytes());
    out[12] = identity.partition.0;
    out[16..24].copy_from_slice(&number.to_le_bytes());
    out[24..32].copy_from_slice(&base.0.to_le_bytes());
    out[32..48].copy_from_slice(&identity.cluster);
}

/// Checks the first 48 bytes of a head whose checksum is right; returns the base offset.
pub(super) fn check_opening(
    bytes: &[u8],
    magic: &[u8; 8],
    version: u32,
    identity: &Identity,
    number: u64,
) -> Result<Offset, HeadError> {
    let foreign = |what: String| Err(HeadError::Foreign(what));
    let (found_version, found_number) = (u32_at(bytes, 8), u64_at(bytes, 16));
    if bytes[..8] != *magic {
        foreign("it is another kind of file".into())
    } else if found_version != version {
        foreign(format!("its format version is {found_version}, this program reads {version}"))
    } else if bytes[32..48] != identity.cluster {
        foreign("it is of another cluster".into())
    } else if bytes[12] != identity.partition.0 {
        foreign(format!("it is of partition {}, expected {}", bytes[12], identity.partition))
    } else if found_number != number {
        foreign(format!("it is segment {found_number:016x}, expected {number:016x}"))
    } else {
        Ok(Offset(u64_at(bytes, 24)))
    }
}

/// What is wrong with a head whose checksum does not match.
pub(super) fn damage_of(bytes: &[u8], magic: &[u8; 8]) -> HeadError {
    match bytes {
        bytes if bytes.iter().all(|byte| *byte == 0) => HeadError::Damaged("the header was never written"),
        bytes if bytes[..8] == *magic => HeadError::Damaged("the checksum of the header does not match"),
        _ => HeadError::Damaged("there is no header of this kind of file"),
    }
}

/// The kinds of files in a partition's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Segment,
    Index,
    /// An index that was being written when the process ended.
    Unfinished,
}

impl FileKind {
    fn extension(self) -> &'static str {
        match self {
            Self::Segment => "seg",
            Self::Index => "idx",
            Self::Unfinished => "idx.tmp",
        }
    }
}

/// Path of the file of `kind` of segment `number` in `dir`.
pub fn path_of(dir: &Path, number: u64, kind: FileKind) -> PathBuf {
    dir.join(format!("{number:016x}.{}", kind.extension()))
}

/// Number and kind of a file by its name; `None` for names that are not ours.
pub fn parse_name(name: &str) -> Option<(u64, FileKind)> {
    let (number, extension) = name.split_once('.')?;
    let kind = [FileKind::Segment, FileKind::Index, FileKind::Unfinished]
        .into_iter()
        .find(|kind| kind.extension() == extension)?;
    let canonical = number.len() == 16 && number.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(number, 16).ok()).flatten().map(|number| (number, kind))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { cluster: [7; 16], partition: Partition(5) };

    fn header() -> SegmentHeader {
        SegmentHeader { identity: IDENTITY, number: 0x1a, base: Offset(1000) }
    }

    /// Written down from the table above by other means, so that a change of the code cannot change the format unnoticed.
    #[test]
    fn a_header_has_the_documented_bytes() {
        let expected = "
            4e 49 53 54 52 53 45 47 01 00 00 00 05 00 00 00
            1a 00 00 00 00 00 00 00 e8 03 00 00 00 00 00 00
            07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07
            00 00 00 00 00 00 00 00 00 00 00 00 52 8f df 8a";
        let bytes: Vec<_> = header().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(SegmentHeader::decode(&header().encode(), &IDENTITY, 0x1a), Ok(header()));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..HEADER_BYTES as usize * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = SegmentHeader::decode(&bytes, &IDENTITY, 0x1a);
            assert!(matches!(read, Err(HeadError::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_place_says_which() {
        let elsewhere = Identity { partition: Partition(6), ..IDENTITY };
        let foreign = |identity, number| match SegmentHeader::decode(&header().encode(), identity, number) {
            Err(HeadError::Foreign(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(foreign(&elsewhere, 0x1a), "it is of partition 5, expected 6");
        assert_eq!(foreign(&IDENTITY, 2), "it is segment 000000000000001a, expected 0000000000000002");
    }

    #[test]
    fn names_read_back_and_other_names_are_left_alone() {
        for kind in [FileKind::Segment, FileKind::Index, FileKind::Unfinished] {
            let path = path_of(Path::new("d"), 0xfe, kind);
            assert_eq!(parse_name(path.file_name().unwrap().to_str().unwrap()), Some((0xfe, kind)));
        }
        for name in
            ["lost+found", "fe.seg", "00000000000000FE.seg", "00000000000000fe.seg~", "+0000000000000fe.seg"]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}

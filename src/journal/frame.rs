//! A frame: what is written and synced as one, and later replicated as one.
//!
//! Little-endian; a frame starts at a multiple of [`BLOCK`] and is padded with zeros to the next one. Documented byte by
//! byte in `storage-format.md`.
//!
//! ```text
//!  0  u32  magic        "NFRM"
//!  4  u16  version      1
//!  6  u16  kind         1 commands, 2 gap
//!  8  u64  nonce        of the file's present life
//! 16  u64  index
//! 24  u64  prev_index   index - 1; smaller in a gap
//! 32  u64  term
//! 40  u64  prev_term    term of the frame prev_index
//! 48  u64  synced_upto  every frame up to this index was synced before this one was written
//! 56  u64  time_ms      Unix milliseconds by the proposer's clock, never decreasing
//! 64  u32  block        position in the file, in blocks
//! 68  u32  body_bytes
//! 72  u32  body_crc     CRC-32 (IEEE) of the body
//! 76  u32  prev_chain   chain of the frame prev_index
//! 80  u32  chain        CRC-32 that goes on from prev_chain over the fields that replicas share
//! 84  u64  reserved     0
//! 92  u32  header_crc   CRC-32 of bytes 0 .. 92
//! 96  …    body
//! ```

use super::Mark;
use super::layout::{is_zero, put, u16_at, u32_at, u64_at};
use crate::fault::{Fault, planted};
use crate::id::{FrameIndex, Term};
use std::fmt;

/// Frames start at multiples of this many bytes: the largest unit that direct I/O asks for.
pub const BLOCK: usize = 4096;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 96;

const MAGIC: &[u8; 4] = b"NFRM";
const VERSION: u16 = 1;

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Commands one after the other; none at all in a frame that only says what is synced.
    Commands,
    /// Stands in the place of damaged frames that an operator moved aside; see [`Gap`].
    Gap,
}

/// The fields before the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    /// Random, drawn anew each time the file is recycled: stale bytes of an earlier life never match.
    pub nonce: u64,
    pub index: FrameIndex,
    /// The frame this one continues: `index - 1`, or what precedes a gap.
    pub prev_index: FrameIndex,
    pub term: Term,
    pub prev_term: Term,
    /// Tells corruption from a torn tail: what is unreadable at or below this index had been synced. Below `index`.
    pub synced_upto: FrameIndex,
    pub time_ms: u64,
    /// Position in the file in units of [`BLOCK`], against writes that went astray.
    pub block: u32,
    pub body_bytes: u32,
    pub body_crc: u32,
    pub prev_chain: u32,
    pub chain: u32,
}

/// The body of a [`FrameKind::Gap`] frame.
///
/// Frames after a gap name partition offsets that were counted with the lost events. Their events are kept, but what
/// they say about offsets cannot be trusted up to `distrusted_upto`: an ignored confirm only repeats deliveries, a
/// trusted one could skip an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last frame written before the damage was moved aside.
    pub distrusted_upto: FrameIndex,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Fewer bytes than the header or the body length says.
    Short,
    /// No frame starts here.
    Magic,
    /// A frame of another format version.
    Version(u16),
    /// The header's checksum does not match.
    HeaderChecksum,
    /// A field that no writer produces, by name.
    Field(&'static str),
    /// The body's checksum does not match.
    BodyChecksum,
}

/// A checked frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub header: FrameHeader,
    pub body: &'a [u8],
}

/// Bytes that a frame with a body of `body_bytes` takes in a file.
pub const fn frame_bytes(body_bytes: usize) -> usize {
    (HEADER_BYTES + body_bytes).next_multiple_of(BLOCK)
}

impl FrameHeader {
    /// Reads the header at the start of `bytes` and checks it by itself; the body is not looked at.
    pub fn read(bytes: &[u8]) -> Result<Self, FrameError> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(FrameError::Short)?;
        if &bytes[..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        if crc32fast::hash(&bytes[..92]) != u32_at(bytes, 92) {
            return Err(FrameError::HeaderChecksum);
        }
        match u16_at(bytes, 4) {
            VERSION => Self::read_fields(bytes)?.checked(),
            other => Err(FrameError::Version(other)),
        }
    }

    fn read_fields(bytes: &[u8]) -> Result<Self, FrameError> {
        if !is_zero(&bytes[84..92]) {
            return Err(FrameError::Field("reserved"));
        }
        Ok(Self {
            kind: FrameKind::read(u16_at(bytes, 6))?,
            nonce: u64_at(bytes, 8),
            index: FrameIndex(u64_at(bytes, 16)),
            prev_index: FrameIndex(u64_at(bytes, 24)),
            term: Term(u64_at(bytes, 32)),
            prev_term: Term(u64_at(bytes, 40)),
            synced_upto: FrameIndex(u64_at(bytes, 48)),
            time_ms: u64_at(bytes, 56),
            block: u32_at(bytes, 64),
            body_bytes: u32_at(bytes, 68),
            body_crc: u32_at(bytes, 72),
            prev_chain: u32_at(bytes, 76),
            chain: u32_at(bytes, 80),
        })
    }

    /// The relations between fields that every writer keeps.
    fn checked(self) -> Result<Self, FrameError> {
        let index_follows = match self.kind {
            FrameKind::Commands => self.index.0.checked_sub(1) == Some(self.prev_index.0),
            FrameKind::Gap => self.prev_index < self.index,
        };
        if !index_follows {
            Err(FrameError::Field("prev_index"))
        } else if self.prev_term > self.term {
            Err(FrameError::Field("prev_term"))
        } else if self.synced_upto >= self.index {
            Err(FrameError::Field("synced_upto"))
        } else if self.kind == FrameKind::Commands && self.chain != self.computed_chain() {
            Err(FrameError::Field("chain"))
        } else {
            Ok(self)
        }
    }

    /// Writes the header into the first [`HEADER_BYTES`] of `out`.
    pub fn write(&self, out: &mut [u8]) {
        let out = &mut out[..HEADER_BYTES];
        out.fill(0);
        put(out, 0, MAGIC);
        put(out, 4, &VERSION.to_le_bytes());
        put(out, 6, &self.kind.number().to_le_bytes());
        let words = [self.nonce, self.index.0, self.prev_index.0, self.term.0, self.prev_term.0];
        let times = [self.synced_upto.0, self.time_ms];
        for (at, value) in words.iter().chain(&times).enumerate() {
            put(out, 8 + at * 8, &value.to_le_bytes());
        }
        let halves = [self.block, self.body_bytes, self.body_crc, self.prev_chain, self.chain];
        for (at, value) in halves.iter().enumerate() {
            put(out, 64 + at * 4, &value.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[..92]);
        put(out, 92, &crc.to_le_bytes());
    }

    /// The chain value of a commands frame with these fields.
    ///
    /// A CRC that goes on from `prev_chain` differs whenever `prev_chain` differs, so equal chains mean equal logs as
    /// far as CRC-32 can tell. What differs between replicas (nonce, place, `synced_upto`) stays out of it.
    pub fn computed_chain(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new_with_initial(self.prev_chain);
        crc.update(&self.index.0.to_le_bytes());
        crc.update(&self.term.0.to_le_bytes());
        crc.update(&self.time_ms.to_le_bytes());
        crc.update(&self.body_bytes.to_le_bytes());
        crc.update(&self.body_crc.to_le_bytes());
        crc.finalize()
    }

    /// The point in the log after this frame.
    pub fn mark(&self) -> Mark {
        Mark { index: self.index, term: self.term, chain: self.chain, time_ms: self.time_ms }
    }

    /// Whether this frame comes directly after `mark`.
    pub fn follows(&self, mark: &Mark) -> bool {
        (self.prev_index, self.prev_term, self.prev_chain) == (mark.index, mark.term, mark.chain)
    }

    /// Bytes of the whole frame in its file.
    pub fn span(&self) -> u64 {
        frame_bytes(self.body_bytes as usize) as u64
    }

    /// Position of the frame in its file, in bytes.
    pub fn position(&self) -> u64 {
        u64::from(self.block) * BLOCK as u64
    }
}

impl FrameKind {
    fn read(number: u16) -> Result<Self, FrameError> {
        match number {
            1 => Ok(Self::Commands),
            2 => Ok(Self::Gap),
            _ => Err(FrameError::Field("kind")),
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Commands => 1,
            Self::Gap => 2,
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes` and checks header and body.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let frame = Self::read_unverified(bytes)?;
        if crc32fast::hash(frame.body) == frame.header.body_crc || planted(Fault::UncheckedBody) {
            Ok(frame)
        } else {
            Err(FrameError::BodyChecksum)
        }
    }

    /// As [`Frame::read`] without the body's checksum: for bytes that were verified, or never left memory.
    pub fn read_unverified(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let header = FrameHeader::read(bytes)?;
        let end = HEADER_BYTES + header.body_bytes as usize;
        let body = bytes.get(HEADER_BYTES..end).ok_or(FrameError::Short)?;
        Ok(Self { header, body })
    }
}

impl Gap {
    /// Bytes of the body that carry meaning; zeros up to the end of the damaged range follow.
    pub const BYTES: usize = 8;

    /// Reads the body of a gap frame.
    pub fn read(body: &[u8]) -> Result<Self, FrameError> {
        let body = body.get(..Self::BYTES).ok_or(FrameError::Short)?;
        Ok(Self { distrusted_upto: FrameIndex(u64_at(body, 0)) })
    }

    /// The meaningful bytes of the body.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        self.distrusted_upto.0.to_le_bytes()
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the frame is cut short"),
            Self::Magic => f.write_str("no frame starts here"),
            Self::Version(found) => write!(f, "frame of format version {found}, expected {VERSION}"),
            Self::HeaderChecksum => f.write_str("the frame header's checksum does not match"),
            Self::Field(name) => write!(f, "the frame header's field {name} holds an impossible value"),
            Self::BodyChecksum => f.write_str("the frame body's checksum does not match"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: &[u8]) -> Vec<u8> {
        let mut header = FrameHeader {
            kind: FrameKind::Commands,
            nonce: 0x1122_3344_5566_7788,
            index: FrameIndex(7),
            prev_index: FrameIndex(6),
            term: Term(2),
            prev_term: Term(1),
            synced_upto: FrameIndex(6),
            time_ms: 1_700_000_000_000,
            block: 3,
            body_bytes: body.len() as u32,
            body_crc: crc32fast::hash(body),
            prev_chain: 0xdead_beef,
            chain: 0,
        };
        header.chain = header.computed_chain();
        let mut bytes = vec![0; frame_bytes(body.len())];
        header.write(&mut bytes);
        bytes[HEADER_BYTES..HEADER_BYTES + body.len()].copy_from_slice(body);
        bytes
    }

    #[test]
    fn what_is_written_reads_back() {
        let bytes = sample(b"sixteen bytes ok");
        let frame = Frame::read(&bytes).unwrap();
        assert_eq!(frame.body, b"sixteen bytes ok");
        assert_eq!((frame.header.index, frame.header.prev_term), (FrameIndex(7), Term(1)));
        assert_eq!((frame.header.position(), frame.header.span()), (3 * 4096, 4096));
    }

    #[test]
    fn any_flipped_bit_of_header_or_body_is_noticed() {
        let bytes = sample(b"sixteen bytes ok");
        for bit in 0..(HEADER_BYTES + 16) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_version_says_so() {
        let mut bytes = sample(b"");
        bytes[4] = 9;
        let crc = crc32fast::hash(&bytes[..92]);
        bytes[92..96].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::read(&bytes).unwrap_err(), FrameError::Version(9));
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let good = FrameHeader::read(&sample(b"")).unwrap();
        let bad = [
            ("prev_index", FrameHeader { prev_index: FrameIndex(5), ..good }),
            ("prev_index", FrameHeader { index: FrameIndex(0), ..good }),
            ("prev_term", FrameHeader { prev_term: Term(3), ..good }),
            ("synced_upto", FrameHeader { synced_upto: FrameIndex(7), ..good }),
            ("chain", FrameHeader { time_ms: 1, ..good }),
        ];
        for (field, header) in bad {
            let mut bytes = vec![0; BLOCK];
            header.write(&mut bytes);
            assert_eq!(FrameHeader::read(&bytes), Err(FrameError::Field(field)));
        }
    }

    #[test]
    fn a_body_longer_than_the_bytes_is_short_not_a_panic() {
        let bytes = sample(&[5; 5000]);
        assert_eq!(Frame::read(&bytes[..4096]).unwrap_err(), FrameError::Short);
        assert_eq!(Frame::read(&bytes[..95]).unwrap_err(), FrameError::Short);
    }
}

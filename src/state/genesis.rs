//! `genesis`: what is decided when a data directory is made and never changes. 64 bytes.
//!
//! ```text
//!  0  8 bytes  magic       "NISTRUG\0"
//!  8  u32      version     of the whole data directory: 2
//! 12  u8       partitions  that keys are spread over, 1 to 62; there are two more, see [`crate::id::PrivateLog`]
//! 13  3        reserved    0
//! 16  16       cluster
//! 32  24       key hash    name of the function from partition key to partition, ASCII, filled up with zeros
//! 56  u32      reserved    0
//! 60  u32      crc         CRC-32 (IEEE) of bytes 0 .. 60
//! ```

use crate::id::{PRIVATE_PARTITIONS, SHARED_PARTITIONS_MAX};
use crate::journal::ClusterId;
use crate::journal::disk::{Disk, DiskFile};
use crate::journal::layout::{bytes, is_zero, put, u32_at};
use std::fmt;
use std::io;
use std::path::Path;

/// The only key hash of this version: murmur2 as Kafka computes it, sign bit cleared, modulo the partition count.
pub const KEY_HASH: &str = "murmur2-kafka";

const MAGIC: &[u8; 8] = b"NISTRUG\0";
const VERSION: u32 = 2;
const BYTES: usize = 64;
const FILE: &str = "genesis";
const UNFINISHED: &str = "genesis.new";

/// What never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Genesis {
    pub cluster: ClusterId,
    /// Partitions that keys are spread over.
    pub partitions: u8,
}

/// Why a directory is not used.
#[derive(Debug)]
pub enum GenesisError {
    Disk(io::Error),
    /// The directory was made by another version of the format.
    Version(u32),
    /// Not a genesis file, or damaged.
    Damaged,
    /// The directory hashes keys by a function this version does not have.
    KeyHash(String),
    /// The configured number of partitions is not the directory's.
    Partitions {
        found: u8,
        configured: u8,
    },
    /// The configured number of partitions is out of range.
    PartitionsRange(u8),
    /// There are data, but no genesis.
    Missing,
}

impl Genesis {
    /// Reads the genesis of `dir`; makes directory and genesis, with `cluster`, if there is nothing yet.
    pub fn open<D: Disk>(
        disk: &D,
        dir: &Path,
        partitions: u8,
        cluster: impl FnOnce() -> ClusterId,
    ) -> Result<Self, GenesisError> {
        if !(1..=SHARED_PARTITIONS_MAX).contains(&partitions) {
            return Err(GenesisError::PartitionsRange(partitions));
        }
        if disk.exists(&dir.join(FILE)) {
            return Self::load(disk, dir)?.expecting(partitions);
        }
        if ["journal", "partitions", "checkpoint"].iter().any(|data| disk.exists(&dir.join(data))) {
            return Err(GenesisError::Missing);
        }
        let genesis = Self { cluster: cluster(), partitions };
        genesis.create(disk, dir)?;
        Ok(genesis)
    }

    /// Number of all partitions, the private ones included.
    pub fn all_partitions(&self) -> u8 {
        self.partitions + PRIVATE_PARTITIONS
    }

    fn load<D: Disk>(disk: &D, dir: &Path) -> Result<Self, GenesisError> {
        let file = disk.open(&dir.join(FILE))?;
        let mut bytes = vec![0; (file.len()?).min(BYTES as u64) as usize];
        file.read_at(&mut bytes, 0)?;
        Self::read(&bytes)
    }

    fn expecting(self, configured: u8) -> Result<Self, GenesisError> {
        if self.partitions == configured {
            Ok(self)
        } else {
            Err(GenesisError::Partitions { found: self.partitions, configured })
        }
    }

    fn create<D: Disk>(&self, disk: &D, dir: &Path) -> Result<(), GenesisError> {
        disk.create_dir_durably(dir)?;
        let unfinished = dir.join(UNFINISHED);
        if disk.exists(&unfinished) {
            disk.remove(&unfinished)?;
        }
        let file = disk.create(&unfinished)?;
        file.write_at(&self.bytes(), 0)?;
        file.sync()?;
        disk.rename(&unfinished, &dir.join(FILE))?;
        Ok(disk.sync_dir(dir)?)
    }

    /// Reads the file's bytes. Another version may have another layout, so its number is looked at before anything else.
    pub fn read(from: &[u8]) -> Result<Self, GenesisError> {
        if from.len() < 12 || &from[..8] != MAGIC {
            return Err(GenesisError::Damaged);
        }
        if u32_at(from, 8) != VERSION {
            return Err(GenesisError::Version(u32_at(from, 8)));
        }
        let sound = from.len() == BYTES
            && crc32fast::hash(&from[..60]) == u32_at(from, 60)
            && is_zero(&from[13..16])
            && is_zero(&from[56..60])
            && (1..=SHARED_PARTITIONS_MAX).contains(&from[12]);
        if !sound {
            return Err(GenesisError::Damaged);
        }
        let key_hash = String::from_utf8_lossy(&from[32..56]);
        match key_hash.trim_end_matches('\0') {
            KEY_HASH => Ok(Self { cluster: ClusterId(bytes(from, 16)), partitions: from[12] }),
            other => Err(GenesisError::KeyHash(other.to_owned())),
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        bytes[12] = self.partitions;
        put(&mut bytes, 16, &self.cluster.0);
        put(&mut bytes, 32, KEY_HASH.as_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        put(&mut bytes, 60, &crc.to_le_bytes());
        bytes
    }
}

impl From<io::Error> for GenesisError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for GenesisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "the data directory cannot be used: {error}"),
            Self::Version(found) => {
                write!(
                    f,
                    "the data directory has format version {found}, this version of nistru reads {VERSION}"
                )
            }
            Self::Damaged => f.write_str("the file `genesis` of the data directory is damaged"),
            Self::KeyHash(name) => {
                write!(
                    f,
                    "the data directory hashes keys by \"{name}\", this version knows \"{KEY_HASH}\" only"
                )
            }
            Self::Partitions { found, configured } => write!(
                f,
                "the data directory was made with {found} partitions, which cannot be changed; {configured} are configured"
            ),
            Self::PartitionsRange(found) => {
                write!(f, "{found} partitions are configured, expected 1 to {SHARED_PARTITIONS_MAX}")
            }
            Self::Missing => f.write_str(
                "the data directory holds data but no file `genesis`; it cannot be used without it",
            ),
        }
    }
}

impl std::error::Error for GenesisError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;
    use tempfile::tempdir;

    const CLUSTER: ClusterId = ClusterId([3; 16]);

    fn open(dir: &Path, partitions: u8) -> Result<Genesis, GenesisError> {
        Genesis::open(&RealDisk, dir, partitions, || CLUSTER)
    }

    #[test]
    fn a_directory_is_made_once_and_found_again() {
        let dir = tempdir().unwrap();
        let data = dir.path().join("data");
        let made = open(&data, 12).unwrap();
        let found = Genesis::open(&RealDisk, &data, 12, || panic!("only drawn once")).unwrap();
        assert_eq!((made, made.cluster), (found, CLUSTER));
    }

    #[test]
    fn another_number_of_partitions_is_refused() {
        let dir = tempdir().unwrap();
        open(dir.path(), 12).unwrap();
        let refused = open(dir.path(), 6);
        assert!(matches!(refused, Err(GenesisError::Partitions { found: 12, configured: 6 })));
        for partitions in [0, 63] {
            assert!(matches!(open(dir.path(), partitions), Err(GenesisError::PartitionsRange(_))));
        }
    }

    #[test]
    fn another_version_is_told_even_when_its_layout_differs() {
        let mut bytes = Genesis { cluster: CLUSTER, partitions: 1 }.bytes();
        bytes[8] = 1;
        assert!(matches!(Genesis::read(&bytes), Err(GenesisError::Version(1))));
        assert!(matches!(Genesis::read(&bytes[..20]), Err(GenesisError::Version(1))));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let bytes = Genesis { cluster: CLUSTER, partitions: 12 }.bytes();
        assert!(Genesis::read(&bytes).is_ok());
        for bit in 0..BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Genesis::read(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_cut_short_is_damaged() {
        let dir = tempdir().unwrap();
        open(dir.path(), 12).unwrap();
        std::fs::write(dir.path().join(FILE), b"NISTRUG").unwrap();
        assert!(matches!(open(dir.path(), 12), Err(GenesisError::Damaged)));
    }

    #[test]
    fn data_without_a_genesis_are_not_overwritten() {
        let dir = tempdir().unwrap();
        std::fs::create_dir(dir.path().join("journal")).unwrap();
        assert!(matches!(open(dir.path(), 12), Err(GenesisError::Missing)));
    }

    #[test]
    fn an_unfinished_genesis_is_made_anew() {
        let dir = tempdir().unwrap();
        std::fs::write(dir.path().join(UNFINISHED), b"half").unwrap();
        assert!(open(dir.path(), 12).is_ok());
        assert!(!dir.path().join(UNFINISHED).exists());
    }
}

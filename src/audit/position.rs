//! How far records were sent: a small file that is replaced whole.

use super::directory;
use super::recovery::read_header;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Name of the file.
pub const NAME: &str = "mlog.position";
const DRAFT: &str = "mlog.position.new";

/// Everything before it was sent or set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    pub file: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Number of the last record before it.
    pub seq: u64,
}

impl Position {
    /// Reads what `dir` says. `None` when nothing was sent yet.
    pub fn load(dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(dir.join(NAME)) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes this the position, durably.
    pub fn save(self, dir: &Path) -> io::Result<()> {
        let draft = dir.join(DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec(&self).map_err(io::Error::other)?)?;
        file.sync_data()?;
        fs::rename(&draft, dir.join(NAME))?;
        File::open(dir)?.sync_all()
    }

    /// The start of a file.
    pub fn start_of(dir: &Path, number: u64) -> io::Result<Self> {
        let header = read_header(&File::open(directory::path(dir, number))?)?;
        let seq = header.map_or(0, |header| header.first_seq.saturating_sub(1));
        Ok(Self { file: number, bytes: 0, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_again_and_a_broken_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Position::load(dir.path()).unwrap(), None);
        let position = Position { file: 2, bytes: 3, seq: 4 };
        position.save(dir.path()).unwrap();
        assert_eq!(Position::load(dir.path()).unwrap(), Some(position));
        fs::write(dir.path().join(NAME), "{").unwrap();
        assert!(Position::load(dir.path()).is_err());
    }
}

//! The names in the directory of the records.

use crate::journal::disk::Disk;
use std::io;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".jsonl";

/// Name of a file by its number, from 1.
pub fn name(number: u64) -> String {
    format!("{number:08}{SUFFIX}")
}

/// The path of a file.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

/// Where a file is made before it gets its name.
pub fn draft_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.new"))
}

/// Numbers of the files in `dir`, in ascending order.
pub fn numbers(disk: &impl Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let number = |found: String| {
        let number = found.strip_suffix(SUFFIX)?.parse().ok()?;
        (name(number) == found).then_some(number)
    };
    let mut numbers: Vec<_> = disk.list(dir)?.into_iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;

    #[test]
    fn only_proper_names_count_and_numbers_are_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "00000010.jsonl",
            "00000002.jsonl",
            "3.jsonl",
            "00000004.new",
            "refused.jsonl",
            "100000000.jsonl",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(numbers(&RealDisk, dir.path()).unwrap(), [2, 10, 100_000_000]);
    }
}

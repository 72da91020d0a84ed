//! Notices that files have changed: certificates are replaced by tools that send no signal.

use super::signals::Order;
use futures_channel::mpsc::UnboundedSender;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// Files, and what they looked like when the watch began: begin it before they are read.
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Looks>>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Tells when files that changed are at rest again. A certificate and its key are two files: who would read them as soon
/// as one has changed would find a pair that does not fit.
struct Change {
    /// As they were when they were read last.
    read: Vec<Option<Looks>>,
    /// As they were at the last look.
    last: Vec<Option<Looks>>,
}

impl Watch {
    pub fn begin(files: Vec<PathBuf>) -> Self {
        let seen = look_at(&files);
        Self { files, seen }
    }

    /// Looks at the files every `interval` on a thread of its own, and orders when they have changed.
    pub fn start(self, interval: Duration, orders: UnboundedSender<Order>) -> io::Result<()> {
        let Self { files, seen } = self;
        let mut change = Change { last: seen.clone(), read: seen };
        std::thread::Builder::new().name("watch".into()).spawn(move || {
            loop {
                std::thread::sleep(interval);
                if change.is_complete(look_at(&files)) {
                    // The head lives as long as the process.
                    drop(orders.unbounded_send(Order::ReloadCertificates));
                }
            }
        })?;
        Ok(())
    }
}

impl Change {
    /// Whether the files are not as they were read, and are as they were at the last look.
    fn is_complete(&mut self, now: Vec<Option<Looks>>) -> bool {
        let at_rest = now == self.last;
        self.last = now;
        if !at_rest || self.last == self.read {
            return false;
        }
        self.read.clone_from(&self.last);
        true
    }
}

/// `None` for what cannot be looked at.
fn look_at(files: &[PathBuf]) -> Vec<Option<Looks>> {
    let looks = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Looks {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    files.iter().map(looks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_only_when_the_files_are_at_rest() {
        let looks = |size| Some(Looks { device: 1, inode: 2, size, modified: (3, 4), changed: (5, 6) });
        let mut change = Change { read: vec![looks(1), None], last: vec![looks(1), None] };
        let seen = [(1, None), (2, None), (2, looks(7)), (2, looks(7)), (2, looks(7)), (1, None), (1, None)];
        let complete: Vec<_> =
            seen.into_iter().map(|(first, second)| change.is_complete(vec![looks(first), second])).collect();
        assert_eq!(complete, [false, false, false, true, false, false, true]);
    }

    #[test]
    fn a_file_that_is_replaced_by_one_of_the_same_size_looks_different() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, "one").unwrap();
        std::fs::write(&other, "two").unwrap();
        let before = look_at(std::slice::from_ref(&file));
        std::fs::rename(&other, &file).unwrap();
        assert_ne!(look_at(std::slice::from_ref(&file)), before);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(look_at(&[file]), [None]);
    }
}

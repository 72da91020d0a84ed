//! A disk in memory: mapping by `HeapMap`, reads counted, failures on demand.

use crate::journal::disk::{Disk, DiskFile};
use crate::partition::heap::HeapMap;
use crate::partition::map::MapDisk;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
pub struct HeapDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, HeapFile>>>,
    /// Bytes that can still be allocated; `None` is no limit.
    pub room: Arc<Mutex<Option<u64>>>,
    /// Bytes read from files.
    pub bytes_read: Arc<AtomicU64>,
    pub fail_syncs: Arc<AtomicUsize>,
}

#[derive(Clone, Default)]
pub struct HeapFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    disk: HeapDisk,
}

impl HeapDisk {
    pub fn names(&self) -> Vec<String> {
        let files = self.files.lock().unwrap();
        files.keys().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.files.lock().unwrap()[path].bytes.lock().unwrap().clone()
    }

    /// A disk with the same content and nothing else in common.
    pub fn copy(&self) -> Self {
        let copy = Self::default();
        for (path, file) in self.files.lock().unwrap().iter() {
            let bytes = Arc::new(Mutex::new(file.bytes.lock().unwrap().clone()));
            copy.files.lock().unwrap().insert(path.clone(), HeapFile { bytes, disk: copy.clone_handles() });
        }
        copy
    }

    /// The counters and switches without the files, so that files and disk do not keep each other alive.
    fn clone_handles(&self) -> Self {
        Self { files: Arc::default(), ..self.clone() }
    }
}

impl Disk for HeapDisk {
    type File = HeapFile;

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.lock().unwrap().contains_key(path)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<HeapFile> {
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = HeapFile { bytes: Arc::default(), disk: self.clone_handles() };
        self.files.lock().unwrap().insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<HeapFile> {
        self.files.lock().unwrap().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.files.lock().unwrap().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.lock().unwrap().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl MapDisk for HeapDisk {
    type Map = HeapMap<HeapFile>;

    fn map(&self, file: HeapFile, len: usize, _: usize) -> io::Result<HeapMap<HeapFile>> {
        HeapMap::load(file, len)
    }

    fn truncate(&self, file: &HeapFile, len: u64) -> io::Result<()> {
        file.bytes.lock().unwrap().truncate(len as usize);
        Ok(())
    }
}

impl DiskFile for HeapFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        self.disk.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(pos as usize..pos as usize + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = pos as usize + buf.len();
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[pos as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.disk.room.lock().unwrap().is_some_and(|room| room < len) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.bytes.lock().unwrap();
        let length = bytes.len().max(len as usize);
        bytes.resize(length, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match self.disk.fail_syncs.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::Error::other("the disk is gone")),
        }
    }
}

//! A disk that behaves as badly as real ones may.
//!
//! What was written is readable at once and durable after `sync`; names, also those of directories, are durable after
//! `sync_dir`. A power failure keeps any subset of the unsynced sectors and, in each directory, any first part of the unsynced changes
//! of names. The kernel may also write sectors back at any moment. A killed process loses nothing but itself. One sector is written
//! wholly or not at all.

use crate::log::log;
use crate::random::{Random, Trace};
use nistru::journal::disk::{Disk, DiskFile};
use nistru::partition::heap::HeapMap;
use nistru::partition::map::MapDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;

/// A call that is to fail once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Write,
    Sync,
    SyncDir,
}

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed; what it wrote stays with the kernel.
    Kill,
    /// Everything that was not synced is at stake.
    PowerLoss,
}

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Machine>>);

/// An open file.
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
    /// Handles do not outlive the process that opened them.
    boot: u64,
}

struct Machine {
    random: Random,
    trace: Trace,
    boot: u64,
    capacity: u64,
    inodes: BTreeMap<u64, Inode>,
    last_inode: u64,
    dirs: BTreeSet<PathBuf>,
    unsynced_dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// By directory, the changes of names since its last `sync_dir`.
    unsynced_names: BTreeMap<PathBuf, Vec<NameChange>>,
    failure: Option<Failure>,
    /// Changes until the machine stops by itself.
    fuse: Option<u64>,
    off: bool,
}

#[derive(Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Numbers of sectors that differ, or may.
    dirty: BTreeSet<usize>,
    /// The bit that is flipped in `now` and in `durable`.
    flipped_now: Option<usize>,
    flipped_durable: Option<usize>,
}

enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl SimDisk {
    /// An empty disk of `capacity` bytes.
    pub fn new(random: Random, capacity: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine {
            random,
            trace: Trace::new(),
            boot: 0,
            capacity,
            inodes: BTreeMap::new(),
            last_inode: 0,
            dirs: BTreeSet::from([PathBuf::from("/")]),
            unsynced_dirs: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: BTreeMap::new(),
            failure: None,
            fuse: None,
            off: false,
        })))
    }

    /// Stops the machine and starts it again.
    pub fn crash(&self, how: Crash) {
        log(|| format!("{how:?}"));
        let mut machine = self.machine();
        machine.boot += 1;
        (machine.off, machine.fuse, machine.failure) = (false, None, None);
        if how == Crash::PowerLoss {
            machine.lose_power();
        }
    }

    /// The machine stops by itself after `changes` more changes.
    pub fn light_fuse(&self, changes: u64) {
        self.machine().fuse = Some(changes);
    }

    /// The fuse will not burn down.
    pub fn put_out_fuse(&self) {
        self.machine().fuse = None;
    }

    /// Whether the fuse burned down.
    pub fn is_off(&self) -> bool {
        self.machine().off
    }

    /// Makes the next call of that kind fail.
    pub fn fail_next(&self, failure: Failure) {
        self.machine().failure = Some(failure);
    }

    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    pub fn used(&self) -> u64 {
        self.machine().used()
    }

    /// Writes some of what is unsynced, as kernels do when they like.
    pub fn write_back(&self) {
        self.machine().write_back(1, 2);
    }

    /// Every file that has a name, with its length.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let machine = self.machine();
        machine.names.iter().map(|(path, inode)| (path.clone(), machine.inodes[inode].now.len())).collect()
    }

    /// Turns one bit over, on the medium and in the cache.
    pub fn flip(&self, path: &Path, bit: usize) {
        log(|| format!("flip byte {} of {}", bit / 8, path.display()));
        let mut machine = self.machine();
        let inode = machine.names[path];
        machine.inode(inode).flip(bit);
    }

    /// Turns every flipped bit back that was not written since. Says whether there was any.
    pub fn mend(&self) -> bool {
        let mut machine = self.machine();
        machine.inodes.values_mut().filter_map(|inode| inode.mend().then_some(())).count() > 0
    }

    pub fn trace(&self) -> Trace {
        self.machine().trace
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("nobody panicked with the disk in hand")
    }
}

impl Machine {
    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].now.len() as u64).sum()
    }

    /// Before every change: is the machine on, and does this call fail?
    fn change(&mut self, failure: Option<Failure>, what: u64) -> io::Result<()> {
        self.running()?;
        self.trace.add(what);
        if let Some(left) = &mut self.fuse {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => self.off = true,
            }
        }
        self.running()?;
        if failure.is_some() && self.failure == failure {
            self.failure = None;
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn running(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("the machine is off")) } else { Ok(()) }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("open files keep their inodes")
    }

    fn inode_of(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        let dir = change.dir();
        self.unsynced_names.entry(dir).or_default().push(change);
    }

    fn lose_power(&mut self) {
        let of = 4;
        let kept = self.random.below(of + 1);
        self.write_back(kept, of);
        let unsynced = std::mem::take(&mut self.unsynced_names);
        for changes in unsynced.into_values() {
            let survived = self.random.index(changes.len() + 1);
            changes.iter().take(survived).for_each(|change| change.apply(&mut self.durable_names));
        }
        self.lose_dirs();
        self.names = self.durable_names.clone();
        let used: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| used.contains(inode));
        self.inodes.values_mut().for_each(Inode::forget_unsynced);
    }

    /// A directory whose name is lost takes along what lies in it.
    fn lose_dirs(&mut self) {
        for dir in std::mem::take(&mut self.unsynced_dirs) {
            if self.random.chance(1, 2) {
                self.dirs.retain(|other| !other.starts_with(&dir));
                self.durable_names.retain(|path, _| !path.starts_with(&dir));
            }
        }
    }

    fn write_back(&mut self, parts: u64, of: u64) {
        for inode in self.inodes.values_mut() {
            if inode.durable.len() != inode.now.len() && self.random.chance(parts, of) {
                inode.durable.resize(inode.now.len(), 0);
            }
            for sector in std::mem::take(&mut inode.dirty) {
                if !(self.random.chance(parts, of) && inode.persist(sector)) {
                    inode.dirty.insert(sector);
                }
            }
        }
    }
}

impl Inode {
    fn flip(&mut self, bit: usize) {
        self.flipped_now = Some(bit).filter(|bit| bit / 8 < self.now.len());
        self.flipped_durable = Some(bit).filter(|bit| bit / 8 < self.durable.len());
        turn(&mut self.now, bit);
        turn(&mut self.durable, bit);
    }

    fn mend(&mut self) -> bool {
        let (now, durable) = (self.flipped_now.take(), self.flipped_durable.take());
        now.iter().for_each(|bit| turn(&mut self.now, *bit));
        durable.iter().for_each(|bit| turn(&mut self.durable, *bit));
        now.is_some() || durable.is_some()
    }

    fn write(&mut self, bytes: &[u8], pos: usize) {
        let end = pos + bytes.len();
        self.flipped_now.take_if(|bit| (pos..end).contains(&(*bit / 8)));
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[pos..end].copy_from_slice(bytes);
        if end > pos {
            self.dirty.extend(pos / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    /// The sectors that go stay dirty: should the file grow again, it grows by zeros.
    fn truncate(&mut self, len: usize) {
        self.dirty.extend(len / SECTOR_BYTES..self.now.len().div_ceil(SECTOR_BYTES));
        self.now.resize(len, 0);
        self.flipped_now.take_if(|bit| *bit / 8 >= len);
    }

    /// Makes one sector durable; false when it lies behind the end of the file, or behind its durable end.
    fn persist(&mut self, sector: usize) -> bool {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.now.len());
        let reached = end <= self.durable.len() && start < self.now.len();
        if reached && start < end {
            self.durable[start..end].copy_from_slice(&self.now[start..end]);
            self.flipped_durable.take_if(|bit| (start..end).contains(&(*bit / 8)));
            let flipped = self.flipped_now.filter(|bit| (start..end).contains(&(*bit / 8)));
            self.flipped_durable = self.flipped_durable.or(flipped);
        }
        reached
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        self.flipped_durable.take_if(|bit| *bit / 8 >= self.now.len());
        for sector in std::mem::take(&mut self.dirty) {
            self.persist(sector);
        }
    }

    fn forget_unsynced(&mut self) {
        self.now = self.durable.clone();
        self.flipped_now = self.flipped_durable;
        self.dirty.clear();
    }
}

/// Turns a bit over, if `bytes` reach so far.
fn turn(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

impl NameChange {
    fn dir(&self) -> PathBuf {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _)) = self;
        path.parent().expect("files lie in directories").to_owned()
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let machine = self.machine();
        machine.running()?;
        if !machine.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let paths = machine.names.keys().chain(&machine.dirs).filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(paths.filter_map(name).collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let machine = self.machine();
        machine.names.contains_key(path) || machine.dirs.contains(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.change(None, 1)?;
        for dir in dir.ancestors() {
            if machine.dirs.insert(dir.to_owned()) {
                machine.unsynced_dirs.insert(dir.to_owned());
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        log(|| format!("create {}", path.display()));
        let mut machine = self.machine();
        machine.change(None, 2)?;
        if !path.parent().is_some_and(|dir| machine.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if machine.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.last_inode += 1;
        let inode = machine.last_inode;
        machine.inodes.insert(inode, Inode::default());
        machine.change_names(NameChange::Link(path.to_owned(), inode));
        Ok(SimFile { disk: self.clone(), inode, boot: machine.boot })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let machine = self.machine();
        machine.running()?;
        let inode = machine.inode_of(path)?;
        Ok(SimFile { disk: self.clone(), inode, boot: machine.boot })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        assert_eq!(from.parent(), to.parent(), "renamed within one directory");
        log(|| format!("rename {} to {}", from.display(), to.display()));
        let mut machine = self.machine();
        machine.change(None, 3)?;
        machine.inode_of(from)?;
        machine.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        log(|| format!("remove {}", path.display()));
        let mut machine = self.machine();
        machine.change(None, 4)?;
        machine.inode_of(path)?;
        machine.change_names(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        log(|| format!("sync {}", dir.display()));
        let mut machine = self.machine();
        machine.change(Some(Failure::SyncDir), 5)?;
        machine.unsynced_dirs.retain(|inner| inner.parent() != Some(dir));
        for change in machine.unsynced_names.remove(dir).unwrap_or_default() {
            change.apply(&mut machine.durable_names);
        }
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let machine = self.machine();
        machine.running()?;
        Ok(machine.capacity.saturating_sub(machine.used()))
    }
}

impl SimFile {
    /// Runs `act` on the file's machine and inode number, if the process that opened it still runs.
    fn on_machine<T>(&self, act: impl FnOnce(&mut Machine, u64) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.disk.machine();
        assert_eq!(self.boot, machine.boot, "a file of a process that is gone");
        machine.running()?;
        act(&mut machine, self.inode)
    }

    fn change<T>(
        &self,
        failure: Option<Failure>,
        what: u64,
        act: impl FnOnce(&mut Inode) -> T,
    ) -> io::Result<T> {
        self.on_machine(|machine, inode| {
            machine.change(failure, what)?;
            Ok(act(machine.inode(inode)))
        })
    }

    /// Fails with `StorageFull` if the file cannot grow to `len`.
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.on_machine(|machine, inode| {
            let more = len.saturating_sub(machine.inodes[&inode].now.len() as u64);
            if more > 0 && machine.used() + more > machine.capacity {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            Ok(())
        })
    }

    fn log(&self, what: impl FnOnce() -> String) {
        log(|| {
            let machine = self.disk.machine();
            let path =
                machine.names.iter().find(|(_, inode)| **inode == self.inode).map(|(path, _)| path.clone());
            format!("{} {}", what(), path.unwrap_or_default().display())
        });
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.log(|| format!("cut to {len}"));
        self.change(None, 6, |inode| inode.truncate(len as usize))
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.on_machine(|machine, inode| Ok(machine.inodes[&inode].now.len() as u64))
    }

    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<()> {
        self.on_machine(|machine, inode| {
            let bytes = machine.inodes[&inode].now.get(pos as usize..pos as usize + buf.len());
            buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, buf: &[u8], pos: u64) -> io::Result<()> {
        self.log(|| format!("write {} bytes at {pos} of", buf.len()));
        self.reserve(pos + buf.len() as u64)?;
        self.on_machine(|machine, inode| {
            let done = machine.change(Some(Failure::Write), 7);
            machine.trace.add(pos);
            machine.trace.add_bytes(buf);
            // What fails was carried out up to some byte.
            let written = if done.is_ok() { buf.len() } else { machine.random.index(buf.len() + 1) };
            machine.inode(inode).write(&buf[..written], pos as usize);
            done
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.reserve(len)?;
        self.change(None, 8, |inode| {
            if inode.now.len() < len as usize {
                inode.now.resize(len as usize, 0);
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.log(|| "sync".to_owned());
        self.change(Some(Failure::Sync), 9, Inode::sync)
    }
}

impl MapDisk for SimDisk {
    type Map = HeapMap<SimFile>;

    fn map(&self, file: SimFile, len: usize, _: usize) -> io::Result<Self::Map> {
        HeapMap::load(file, len)
    }

    fn truncate(&self, file: &SimFile, len: u64) -> io::Result<()> {
        file.cut(len)
    }
}

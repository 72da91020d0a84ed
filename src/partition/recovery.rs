//! Opening a partition: what a checkpoint says was durable is checked and kept, everything later is dropped, because the
//! journal brings it again.

use super::error::Error;
use super::index::{Index, Summary};
use super::log::{Active, Config, End, Partition, Sealed};
use super::map::{MapDisk, Tail};
use super::segment::{FileKind, Identity, MARK_BYTES, parse_name};
use super::site::Site;
use super::upkeep::Upkeep;
use crate::id::Offset;
use crate::journal::disk::DiskFile;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

impl<D: MapDisk> Partition<D> {
    /// Opens the partition in `dir`, which is made if it does not exist, as of the checkpoint that said `end`. Blocks.
    ///
    /// Segments behind `end` are removed. Without a checkpoint (`None`) that is all of them: only for a journal that begins
    /// with its first frame. `start` is the first event that the checkpoint keeps: segments wholly before it may never have become durable,
    /// and are removed without a look. After replay call [`Partition::expire`] and [`Partition::require`] with the start that the journal tells.
    pub fn open(
        disk: D,
        dir: &Path,
        identity: Identity,
        config: Config,
        end: Option<End>,
        start: Offset,
    ) -> Result<Self, Error> {
        let site = Site { disk, dir: dir.into(), identity };
        let end = end.unwrap_or(End { offset: Offset(0), segment: 0, position: 0 });
        let mut unreachable = site.clear_later(&end)?;
        let numbers = unreachable.split_off(unreachable.len() - reaching(&unreachable, end.segment));
        let active = match numbers.last() {
            Some(_) => Some(site.open_active(&end, config.segment_bytes)?),
            None => None,
        };
        let mut sealed = VecDeque::with_capacity(numbers.len());
        let mut oldest = active.as_ref().map_or(end.offset, |active| active.base);
        for (at, number) in numbers.iter().enumerate().rev().skip(1) {
            if oldest <= start {
                unreachable.extend(&numbers[..=at]);
                break;
            }
            let segment = site.open_sealed(*number, oldest)?;
            oldest = segment.base;
            sealed.push_front(segment);
        }
        let upkeep = Upkeep::new(end, unreachable);
        let (spare, next_number) = (None, end.segment + 1);
        let (start, end, open) = (oldest, end.offset, BTreeMap::new());
        Ok(Self { site, config, start, end, sealed, open, active, spare, next_number, upkeep })
    }
}

/// How many of the ascending `numbers` lead up to `last` without a gap. Removals may reach the disk in any order, so a gap
/// alone is no damage: whether events are missing is known after replay.
fn reaching(numbers: &[u64], last: u64) -> usize {
    numbers.iter().rev().zip((0..=last).rev()).take_while(|(number, expected)| *number == expected).count()
}

impl<D: MapDisk> Site<D> {
    /// Removes what lies behind `end` and what is half made. Returns the numbers of the segments left, ascending.
    fn clear_later(&self, end: &End) -> Result<Vec<u64>, Error> {
        self.disk.create_dir_durably(&self.dir).map_err(Error::disk("make", &self.dir))?;
        let mut names = self.disk.list(&self.dir).map_err(Error::disk("list", &self.dir))?;
        names.sort_unstable();
        let last = if end.position == 0 { 0 } else { end.segment };
        let mut segments = Vec::new();
        for name in names {
            match parse_name(&name) {
                Some((number, FileKind::Segment)) if number <= last => segments.push(number),
                Some((number, FileKind::Index)) if number < last => {}
                Some(_) => self.remove_file(&self.dir.join(name))?,
                None => {}
            }
        }
        self.sync_dir()?;
        Ok(segments)
    }

    /// A sealed segment, from its index or from itself. It reaches to `behind`, where the next one begins.
    fn open_sealed(&self, number: u64, behind: Offset) -> Result<Sealed, Error> {
        let (_, header) = self.open_segment(number)?;
        let records = self.records_between(number, header.base, behind)?;
        let summary = match self.read_summary(number)? {
            Some((base, summary)) if base == header.base && summary.records == records => summary,
            _ => self.rebuild(number, header.base, records)?,
        };
        Ok(Sealed { number, base: header.base, summary, loading: None })
    }

    fn records_between(&self, number: u64, base: Offset, behind: Offset) -> Result<u32, Error> {
        let records = behind.0.checked_sub(base.0).and_then(|records| u32::try_from(records).ok());
        records.ok_or_else(|| {
            let what = format!("it begins at offset {base}, what follows at {behind}");
            Error::corrupt(&self.path(number, FileKind::Segment), 24, what)
        })
    }

    fn rebuild(&self, number: u64, base: Offset, records: u32) -> Result<Summary, Error> {
        let path = self.path(number, FileKind::Segment);
        let length = self.open_segment(number)?.0.len().map_err(Error::disk("read the length of", &path))?;
        let mapped = self.map_sealed(number, u32::try_from(length).unwrap_or(u32::MAX))?;
        let index = self.scan(number, &mapped, records)?;
        self.write_index(number, base, &index)?;
        Ok(index.summary())
    }

    /// The segment that is written on, cut to `end`.
    fn open_active(&self, end: &End, segment_bytes: u32) -> Result<Active<D::Map>, Error> {
        let path = self.path(end.segment, FileKind::Segment);
        let (file, header) = self.open_segment(end.segment)?;
        let records = self.records_between(end.segment, header.base, end.offset)?;
        let length = file.len().map_err(Error::disk("read the length of", &path))?;
        if length < u64::from(end.position) {
            let what = format!("the file ends, but was durable up to {}", end.position);
            return Err(Error::corrupt(&path, length, what));
        }
        let bytes =
            u32::try_from(length).map_err(|_| Error::corrupt(&path, 0, "it is larger than any segment"))?;
        let bytes = bytes.max(segment_bytes);
        file.allocate(u64::from(bytes)).map_err(Error::disk("enlarge", &path))?;
        let (bytes, written) = (bytes as usize, end.position as usize);
        let map = self.disk.map(file, bytes, written).map_err(Error::disk("map", &path))?;
        let mut tail = Tail::new(map, end.position);
        let index = self.scan(end.segment, tail.mapped(), records)?;
        self.check_end(&path, &index, end)?;
        tail.append(&[], end.position, MARK_BYTES);
        Ok(Active { number: end.segment, base: header.base, tail, index, populated: 0, fresh: end.position })
    }

    fn check_end(&self, path: &Path, index: &Index, end: &End) -> Result<(), Error> {
        if index.data_end() == end.position {
            return Ok(());
        }
        let at = u64::from(index.data_end());
        let what = format!("offset {} begins here, but the checkpoint says at {}", end.offset, end.position);
        Err(Error::corrupt(path, at, what))
    }
}

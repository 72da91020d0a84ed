//! Which events are repeats: an event of the same type, `source` and `id` within the type's window.
//!
//! Exact: a hash only finds the place, the bytes are compared. What was seen is kept in chunks by the length of the
//! window, so that forgetting and writing a checkpoint cost little: whole chunks are dropped, and shared, not copied.
//!
//! An event is screened when it is put into a frame, and remembered when the frame is applied. What lies between waits in
//! `pending`, so that two repeats in one frame are noticed as well.

use crate::event::record::{Record, records};
use ahash::{AHashMap, AHashSet, RandomState};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A chunk is complete when its keys take this many bytes.
const CHUNK_BYTES: usize = 32 << 10;
/// How much is forgotten at a time besides as much as was added: little enough to delay nobody.
const FORGOTTEN_BYTES: usize = 4 * CHUNK_BYTES;
/// Parts that the places are kept in. A table that grows moves all it holds: for millions of events in one it would take a second.
const PARTS: usize = 1024;
/// Keys of all chunks together; the oldest are forgotten before their time above that.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// Entries of one window length in the order of their times.
///
/// `bytes` holds entry after entry: u64 time in milliseconds, u32 length of the key, the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    pub window_s: u32,
    /// Time of the last entry, Unix milliseconds.
    pub last_ms: u64,
    pub bytes: Vec<u8>,
}

/// Where an entry is: the chunk's number and the position in its bytes.
#[derive(Clone, Copy, Debug)]
struct Spot {
    window_s: u32,
    chunk: u64,
    at: u32,
}

/// The chunks of one window length. The chunk `n` is at `n - first`.
#[derive(Debug, Default)]
struct Window {
    first: u64,
    chunks: VecDeque<Arc<Chunk>>,
}

/// What was seen within the windows.
#[derive(Debug, Default)]
pub struct Dedup {
    windows: BTreeMap<u32, Window>,
    /// Places of the entries by the hash of their keys.
    spots: Spots,
    hasher: RandomState,
    /// Keys that are in a frame which was not applied yet.
    pending: AHashSet<Box<[u8]>>,
    /// Where keys are put together.
    key: Vec<u8>,
    kept_bytes: usize,
    /// Of them, what was added since the last look at what is to be forgotten.
    added_bytes: usize,
}

/// Places of entries by the hash of their keys, in [`PARTS`].
#[derive(Debug)]
struct Spots(Box<[AHashMap<u64, SmallVec<[Spot; 1]>>]>);

impl Default for Spots {
    fn default() -> Self {
        Self((0..PARTS).map(|_| AHashMap::new()).collect())
    }
}

impl Spots {
    fn of(&self, hash: u64) -> &[Spot] {
        self.0[Self::part(hash)].get(&hash).map_or(&[], SmallVec::as_slice)
    }

    fn add(&mut self, hash: u64, spot: Spot) {
        self.0[Self::part(hash)].entry(hash).or_default().push(spot);
    }

    /// Forgets those that `gone` names.
    fn remove(&mut self, hash: u64, gone: impl Fn(&Spot) -> bool) {
        let part = &mut self.0[Self::part(hash)];
        let Some(spots) = part.get_mut(&hash) else { return };
        spots.retain(|spot| !gone(spot));
        if spots.is_empty() {
            part.remove(&hash);
        }
    }

    fn part(hash: u64) -> usize {
        hash as usize % PARTS
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }
}

impl Dedup {
    /// Leaves out of `block` the events that are repeats at `now_ms`, of applied frames, of frames under way or of the
    /// block itself. `None` if there are none, which is the common case and copies nothing.
    ///
    /// What stays counts as under way: its frame must be written, or the process end.
    pub fn screen(&mut self, now_ms: u64, block: &[u8]) -> Option<Vec<u8>> {
        let mut kept: Option<Vec<u8>> = None;
        for record in records(block) {
            let (start, record) = record.expect("ingress makes sound records");
            let bytes = &block[start..start + record.stride()];
            match (self.is_repeat(now_ms, &record), &mut kept) {
                (true, None) => kept = Some(block[..start].to_vec()),
                (false, Some(kept)) => kept.extend_from_slice(bytes),
                (true, Some(_)) | (false, None) => {}
            }
        }
        kept
    }

    /// The frame with everything under way was not written: none of it counts any more.
    pub fn withdraw(&mut self) {
        self.pending.clear();
    }

    /// Also notes the event as under way if it is not a repeat.
    fn is_repeat(&mut self, now_ms: u64, record: &Record<'_>) -> bool {
        let window_s = record.header().dedup_window_s;
        if window_s == 0 {
            return false;
        }
        write_key(&mut self.key, record);
        let oldest_ms = now_ms.saturating_sub(window_ms(window_s));
        if self.seen_since(oldest_ms) || self.pending.contains(self.key.as_slice()) {
            return true;
        }
        self.pending.insert(self.key.as_slice().into());
        false
    }

    /// Whether `self.key` was seen after `oldest_ms`.
    fn seen_since(&self, oldest_ms: u64) -> bool {
        let hash = self.hasher.hash_one(&self.key);
        self.spots.of(hash).iter().any(|spot| {
            let (time_ms, key, _) = entry(&self.chunk(spot).bytes, spot.at as usize);
            time_ms > oldest_ms && key == self.key
        })
    }

    fn chunk(&self, spot: &Spot) -> &Chunk {
        let window = &self.windows[&spot.window_s];
        &window.chunks[(spot.chunk - window.first) as usize]
    }

    /// Notes an event of a frame with the time `time_ms` that is being applied.
    pub(super) fn remember(&mut self, time_ms: u64, record: &Record<'_>) {
        let window_s = record.header().dedup_window_s;
        if window_s > 0 {
            write_key(&mut self.key, record);
            self.pending.remove(self.key.as_slice());
            self.add(window_s, time_ms);
        }
    }

    /// Adds `self.key` to the last chunk of its window.
    fn add(&mut self, window_s: u32, time_ms: u64) {
        let window = self.windows.entry(window_s).or_default();
        if window.chunks.back().is_none_or(|last| last.bytes.len() >= CHUNK_BYTES) {
            window.chunks.push_back(Arc::new(Chunk { window_s, ..Chunk::default() }));
        }
        let number = window.first + window.chunks.len() as u64 - 1;
        // A checkpoint under way may share the chunk: then this copies it once, which its length bounds.
        let chunk = Arc::make_mut(window.chunks.back_mut().expect("a chunk with room"));
        let at = chunk.bytes.len() as u32;
        chunk.push(time_ms, &self.key);
        let bytes = chunk.bytes.len() - at as usize;
        self.kept_bytes += bytes;
        self.added_bytes += bytes;
        let hash = self.hasher.hash_one(&self.key);
        self.spots.add(hash, Spot { window_s, chunk: number, at });
    }

    /// Forgets what is out of its window at `now_ms`, and the oldest of what is too much; the rest of very much the next time.
    pub(super) fn forget_before(&mut self, now_ms: u64) {
        let enough = self.kept_bytes.saturating_sub(std::mem::take(&mut self.added_bytes) + FORGOTTEN_BYTES);
        while self.kept_bytes > enough
            && let Some(window_s) = self.expired(now_ms).or_else(|| self.surplus())
        {
            self.forget_chunk(window_s);
        }
    }

    /// A window whose oldest chunk is out of it.
    fn expired(&self, now_ms: u64) -> Option<u32> {
        let is_expired = |(window_s, window): &(&u32, &Window)| {
            let oldest_ms = now_ms.saturating_sub(window_ms(**window_s));
            window.chunks.front().is_some_and(|chunk| chunk.last_ms <= oldest_ms)
        };
        self.windows.iter().find(is_expired).map(|(window_s, _)| *window_s)
    }

    /// The window with the oldest chunk, if more is kept than may be.
    fn surplus(&self) -> Option<u32> {
        if self.kept_bytes <= KEPT_BYTES_MAX {
            return None;
        }
        let windows = self.windows.iter().filter(|(_, window)| !window.chunks.is_empty());
        windows.min_by_key(|(_, window)| window.chunks[0].last_ms).map(|(window_s, _)| *window_s)
    }

    fn forget_chunk(&mut self, window_s: u32) {
        let window = self.windows.get_mut(&window_s).expect("a known window");
        let chunk = window.chunks.pop_front().expect("a chunk to forget");
        let number = window.first;
        window.first += 1;
        self.kept_bytes -= chunk.bytes.len();
        for (_, _, key) in chunk.entries() {
            // An event that came again after its window may have had both entries in this chunk.
            let gone = |spot: &Spot| (spot.window_s, spot.chunk) == (window_s, number);
            self.spots.remove(self.hasher.hash_one(key), gone);
        }
    }

    /// Everything remembered, shared and not copied. What is under way is not in it.
    pub(super) fn chunks(&self) -> Vec<Arc<Chunk>> {
        self.windows.values().flat_map(|window| window.chunks.iter().cloned()).collect()
    }

    /// What [`Dedup::chunks`] gave, or `None` if it is not sound.
    pub(super) fn from_chunks(chunks: impl IntoIterator<Item = Chunk>) -> Option<Self> {
        let mut dedup = Self::default();
        for chunk in chunks {
            if !chunk.is_sound() {
                return None;
            }
            let window = dedup.windows.entry(chunk.window_s).or_default();
            let number = window.chunks.len() as u64;
            for (at, _, key) in chunk.entries() {
                let spot = Spot { window_s: chunk.window_s, chunk: number, at: at as u32 };
                dedup.spots.add(dedup.hasher.hash_one(key), spot);
            }
            dedup.kept_bytes += chunk.bytes.len();
            window.chunks.push_back(Arc::new(chunk));
        }
        Some(dedup)
    }
}

impl Chunk {
    fn push(&mut self, time_ms: u64, key: &[u8]) {
        self.last_ms = time_ms;
        self.bytes.extend_from_slice(&time_ms.to_le_bytes());
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
    }

    /// Position, time and key of each entry.
    fn entries(&self) -> impl Iterator<Item = (usize, u64, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = at;
            (start < self.bytes.len()).then(|| {
                let (time_ms, key, next) = entry(&self.bytes, start);
                at = next;
                (start, time_ms, key)
            })
        })
    }

    /// Whether the bytes are whole entries.
    fn is_sound(&self) -> bool {
        let mut at = 0;
        while at < self.bytes.len() {
            let Some(header) = self.bytes.get(at..at + ENTRY_HEADER_BYTES) else { return false };
            at += ENTRY_HEADER_BYTES + crate::journal::layout::u32_at(header, 8) as usize;
        }
        at == self.bytes.len()
    }
}

const ENTRY_HEADER_BYTES: usize = 12;

/// Time and key of the entry at `at`, and where the next one starts.
fn entry(bytes: &[u8], at: usize) -> (u64, &[u8], usize) {
    use crate::journal::layout::{u32_at, u64_at};
    let key = at + ENTRY_HEADER_BYTES;
    let next = key + u32_at(bytes, at + 8) as usize;
    (u64_at(bytes, at), &bytes[key..next], next)
}

/// Type, length of the source, source, id: no two different events share a key.
fn write_key(key: &mut Vec<u8>, record: &Record<'_>) {
    key.clear();
    key.extend_from_slice(&record.header().type_id.0.to_le_bytes());
    key.extend_from_slice(&(record.source().len() as u32).to_le_bytes());
    key.extend_from_slice(record.source());
    key.extend_from_slice(record.id());
}

fn window_ms(window_s: u32) -> u64 {
    u64::from(window_s) * 1000
}

#[cfg(test)]
mod tests {
    use super::super::story::event;
    use super::*;
    use proptest::prelude::*;

    /// Screens an event with a window of 10 s, and applies it at once if it is none.
    fn offer(dedup: &mut Dedup, now_ms: u64, source: &str, id: &str) -> bool {
        let block = event(0, 10, source, id);
        let kept = dedup.screen(now_ms, &block).is_none();
        if kept {
            apply(dedup, now_ms, &block);
        }
        kept
    }

    fn apply(dedup: &mut Dedup, now_ms: u64, block: &[u8]) {
        for record in records(block) {
            dedup.remember(now_ms, &record.unwrap().1);
        }
        dedup.forget_before(now_ms);
    }

    #[test]
    fn a_repeat_within_the_window_is_left_out_and_one_after_it_is_not() {
        let mut dedup = Dedup::default();
        assert!(offer(&mut dedup, 20_000, "s", "1"));
        assert!(!offer(&mut dedup, 29_999, "s", "1"));
        assert!(offer(&mut dedup, 30_000, "s", "1"));
        assert!(!offer(&mut dedup, 31_000, "s", "1"));
    }

    #[test]
    fn other_ids_and_other_splits_of_the_same_bytes_are_no_repeats() {
        let mut dedup = Dedup::default();
        for (source, id) in [("s", "11"), ("s1", "1"), ("s", "1"), ("s11", ""), ("", "s11")] {
            assert!(offer(&mut dedup, 1_000, source, id), "{source} {id}");
        }
    }

    #[test]
    fn repeats_in_one_block_or_in_frames_under_way_are_noticed() {
        let mut dedup = Dedup::default();
        let (one, two) = (event(0, 10, "s", "1"), event(1, 10, "s", "2"));
        let block = [one.clone(), two.clone(), one.clone()].concat();
        assert_eq!(dedup.screen(1_000, &block), Some([one.clone(), two.clone()].concat()));
        assert_eq!(dedup.screen(1_000, &[two, one].concat()), Some(Vec::new()));
    }

    #[test]
    fn types_without_a_window_are_never_screened() {
        let mut dedup = Dedup::default();
        let block = [event(0, 0, "s", "1"), event(0, 0, "s", "1")].concat();
        assert_eq!(dedup.screen(1_000, &block), None);
        apply(&mut dedup, 1_000, &block);
        assert!(dedup.spots.len() == 0 && dedup.chunks().is_empty());
    }

    #[test]
    fn equal_hashes_of_different_events_are_told_apart() {
        let mut dedup = Dedup::default();
        assert!(offer(&mut dedup, 1_000, "s", "1"));
        let spots = dedup.spots.0.iter_mut().find_map(|part| part.drain().next()).unwrap().1;
        write_key(&mut dedup.key, &Record::read(&event(0, 10, "s", "2")).unwrap());
        dedup.spots.add(dedup.hasher.hash_one(&dedup.key), spots[0]);
        assert!(offer(&mut dedup, 1_001, "s", "2"));
        assert!(!offer(&mut dedup, 1_002, "s", "2"));
    }

    #[test]
    fn what_is_out_of_its_window_takes_no_memory() {
        let mut dedup = Dedup::default();
        for n in 0..5_000_u64 {
            assert!(offer(&mut dedup, n * 10, "source", &n.to_string()));
        }
        let kept = dedup.kept_bytes;
        assert!(kept > 900 * 12 && kept < 3_000 * 40, "{kept}");
        dedup.forget_before(1_000_000);
        assert_eq!((dedup.kept_bytes, dedup.spots.len(), dedup.chunks().len()), (0, 0, 0));
    }

    #[test]
    fn very_much_is_forgotten_a_little_at_a_time_and_faster_than_more_comes() {
        let mut dedup = Dedup::default();
        for n in 0..50_000_u64 {
            let block = event(0, 10, "source", &n.to_string());
            dedup.remember(1_000, &Record::read(&block).unwrap());
        }
        dedup.forget_before(1_000);
        let kept = dedup.kept_bytes;
        assert!(kept > 10 * FORGOTTEN_BYTES, "{kept}");
        dedup.forget_before(100_000);
        let forgotten = kept - dedup.kept_bytes;
        assert!((FORGOTTEN_BYTES..FORGOTTEN_BYTES + 2 * CHUNK_BYTES).contains(&forgotten), "{forgotten}");
        assert!(offer(&mut dedup, 100_000, "source", "49999"));
        let kept = dedup.kept_bytes;
        for n in 0..20 {
            let block = event(0, 10, "source", &format!("{n:0>30000}"));
            dedup.remember(100_000, &Record::read(&block).unwrap());
        }
        dedup.forget_before(100_000);
        assert!(dedup.kept_bytes < kept);
    }

    #[test]
    fn chunks_that_are_not_whole_entries_are_refused() {
        let mut dedup = Dedup::default();
        offer(&mut dedup, 1_000, "s", "1");
        let chunk = (*dedup.chunks()[0]).clone();
        for length in 1..chunk.bytes.len() {
            let cut = Chunk { bytes: chunk.bytes[..length].to_vec(), ..chunk.clone() };
            assert!(Dedup::from_chunks([cut]).is_none(), "{length}");
        }
    }

    proptest! {
        /// Against the obvious model, with a checkpoint and a restart at any point.
        #[test]
        fn any_sequence_agrees_with_a_list_of_everything_seen(
            offers in prop::collection::vec((0..3_000_u64, 0..40_u8), 0..200),
            restart in 0..200_usize,
        ) {
            let mut dedup = Dedup::default();
            let mut seen: Vec<(u64, u8)> = Vec::new();
            let mut now = 50_000;
            for (at, (pause, id)) in offers.into_iter().enumerate() {
                now += pause;
                if at == restart {
                    let chunks = dedup.chunks().into_iter().map(|chunk| (*chunk).clone());
                    dedup = Dedup::from_chunks(chunks).unwrap();
                }
                let fresh = !seen.iter().any(|(time, other)| *other == id && now - time < 10_000);
                prop_assert_eq!(offer(&mut dedup, now, "s", &id.to_string()), fresh);
                if fresh {
                    seen.push((now, id));
                }
            }
        }
    }
}

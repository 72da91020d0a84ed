//! Time and what is counted in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since the start of the run, the same for all threads, and as near as the clocks of machines are for those.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    /// What the clock showed then.
    offset_ns: u64,
    epoch: OffsetDateTime,
}

impl Clock {
    /// A clock that shows 0 at `epoch`, which is not in the future.
    pub fn since(epoch: OffsetDateTime) -> Self {
        let offset = OffsetDateTime::now_utc() - epoch;
        Self { started: Instant::now(), offset_ns: offset.whole_nanoseconds().max(0) as u64, epoch }
    }

    pub fn now_ns(self) -> u64 {
        self.offset_ns + self.started.elapsed().as_nanos() as u64
    }

    /// The time of day at `moment_ns`, as RFC 3339 says it, in UTC and to the second.
    pub fn time_of(self, moment_ns: u64) -> String {
        let time = self.epoch + Duration::from_nanos(moment_ns);
        time.truncate_to_second().format(&Rfc3339).unwrap_or_default()
    }
}

/// The part of the run that is measured, in nanoseconds of its clock.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Window {
    /// Contains nothing: while it is not known yet.
    pub const NEVER: Self = Self { start_ns: u64::MAX, end_ns: u64::MAX };

    pub fn contains(&self, moment_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&moment_ns)
    }

    /// Which second of the window `moment_ns` is in, counted from 0; `None` outside.
    pub fn second(&self, moment_ns: u64) -> Option<usize> {
        self.contains(moment_ns).then(|| ((moment_ns - self.start_ns) / 1_000_000_000) as usize)
    }

    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.end_ns - self.start_ns).as_secs_f64()
    }
}

/// What went wrong, each text with how often.
pub type Problems = BTreeMap<String, u64>;

/// Counts a problem. The numbers in broker texts differ from event to event, so only its start is kept.
pub fn note_problem(problems: &mut Problems, text: &str) {
    const CHARS_MAX: usize = 160;
    const DIFFERENT_MAX: usize = 20;
    let text: String = text.chars().take(CHARS_MAX).collect();
    let known = problems.contains_key(&text) || problems.len() < DIFFERENT_MAX;
    *problems.entry(if known { text } else { "others".to_owned() }).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_bounded_in_length_and_number() {
        let mut problems = Problems::new();
        for n in 0..100 {
            note_problem(&mut problems, &format!("{n}{}", "x".repeat(1000)));
        }
        assert!(problems.len() <= 21 && problems.keys().all(|text| text.len() <= 160));
        assert_eq!(problems.values().sum::<u64>(), 100);
    }
}

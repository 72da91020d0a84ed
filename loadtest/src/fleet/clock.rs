//! How far the clock of another machine is ahead.
//!
//! Of several questions the one that was answered fastest counts: what its clock showed belongs to the middle of that
//! time, with an error of at most half of it (Cristian's algorithm). Between processes of one machine that is microseconds.

use std::time::SystemTime;

/// A question and its answer, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    pub asked_ns: u64,
    pub theirs_ns: u64,
    pub answered_ns: u64,
}

impl Exchange {
    fn took_ns(&self) -> u64 {
        self.answered_ns.saturating_sub(self.asked_ns)
    }
}

/// How many nanoseconds the other clock is ahead of ours; 0 when nothing was asked.
pub fn ahead_ns(exchanges: &[Exchange]) -> i64 {
    let best = exchanges.iter().min_by_key(|exchange| exchange.took_ns());
    best.map_or(0, |best| best.theirs_ns as i64 - (best.asked_ns + best.took_ns() / 2) as i64)
}

/// What our clock shows.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_answer_counts_and_its_middle() {
        let slow = Exchange { asked_ns: 1_000, theirs_ns: 9_000, answered_ns: 9_000 };
        let fast = Exchange { asked_ns: 20_000, theirs_ns: 15_100, answered_ns: 20_200 };
        assert_eq!(ahead_ns(&[slow, fast]), -5_000);
        assert_eq!(ahead_ns(&[]), 0);
    }
}

//! The moments at which requests of a rate are to be sent, whatever becomes of those before.

use crate::scenario::Arrival;
use fastrand::Rng;

/// The requests of one thread.
pub struct Arrivals {
    how: Arrival,
    first_ns: f64,
    interval_ns: f64,
    /// How many have passed.
    n: u64,
    next_ns: f64,
    rng: Rng,
}

impl Arrivals {
    /// Requests `interval_ns` apart, on the average, from `first_ns` on. `seed` decides what is random.
    pub fn new(how: Arrival, first_ns: u64, interval_ns: f64, seed: u64) -> Self {
        let first_ns = first_ns as f64;
        let mut arrivals =
            Self { how, first_ns, interval_ns, n: 0, next_ns: first_ns, rng: Rng::with_seed(seed) };
        if how == Arrival::Poisson {
            arrivals.next_ns += arrivals.gap_ns();
        }
        arrivals
    }

    /// When the next request is to be sent.
    pub fn next_ns(&self) -> u64 {
        self.next_ns as u64
    }

    /// Passes the next request if it is to be sent before `end_ns`, and says when.
    pub fn pop_before(&mut self, end_ns: u64) -> Option<u64> {
        let next_ns = self.next_ns();
        (next_ns < end_ns).then(|| {
            self.advance();
            next_ns
        })
    }

    fn advance(&mut self) {
        self.n += 1;
        self.next_ns = match self.how {
            // Computed anew each time, so that rounding does not add up.
            Arrival::Even => self.first_ns + self.n as f64 * self.interval_ns,
            Arrival::Poisson => self.next_ns + self.gap_ns(),
        };
    }

    /// The time between two events of a Poisson process is distributed exponentially.
    fn gap_ns(&mut self) -> f64 {
        -(1.0 - self.rng.f64()).ln() * self.interval_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_requests_keep_their_distance_without_drift() {
        let mut arrivals = Arrivals::new(Arrival::Even, 5_000, 1e9 / 3.0, 0);
        assert_eq!(arrivals.next_ns(), 5_000);
        let passed = std::iter::from_fn(|| arrivals.pop_before(1_000_000_000_000 + 5_000));
        assert_eq!(passed.count(), 3_000);
    }

    #[test]
    fn poisson_requests_come_as_often_and_spread_as_they_should() {
        let mut arrivals = Arrivals::new(Arrival::Poisson, 0, 1_000.0, 7);
        let mut gaps = Vec::new();
        let mut last = 0;
        for _ in 0..100_000 {
            gaps.push((arrivals.next_ns() - last) as f64);
            last = arrivals.next_ns();
            arrivals.advance();
        }
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let longer = gaps.iter().filter(|gap| **gap > 1_000.0).count() as f64 / gaps.len() as f64;
        // Of an exponential distribution, 1/e lies above the mean.
        assert!((mean - 1_000.0).abs() < 15.0 && (longer - 0.368).abs() < 0.01, "{mean} {longer}");
    }
}

//! The real journal, state, partitions, coordinator and sessions, in one thread, over a disk that misbehaves, with everything
//! that may happen at any moment decided by one seed.
//!
//! `NISTRU_SIM_SEEDS` sets how many seeds are run (default 40), `NISTRU_SIM_FIRST` the first of them, `NISTRU_SIM_STEPS` the
//! number of steps of each. A failure names its seed; the same seed runs the same way again, with `NISTRU_SIM_LOG` set line by line.

mod broker;
mod bugs;
mod checkpoints;
mod consumers;
mod disk;
mod history;
mod log;
mod owner;
mod random;
mod rounds;
mod start;
mod world;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let (first, seeds) = (setting("NISTRU_SIM_FIRST", 0), setting("NISTRU_SIM_SEEDS", 40));
    let steps = setting("NISTRU_SIM_STEPS", 5000) as usize;
    for seed in first..first + seeds {
        println!("seed {seed}");
        println!("{:?}", world::run(seed, steps));
    }
}

#[test]
fn the_same_seed_runs_the_same_way() {
    for seed in [1, 2, 3] {
        assert_eq!(world::run(seed, 1500), world::run(seed, 1500), "seed {seed}");
    }
}

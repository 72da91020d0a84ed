//! `cargo bench -p nistru-bench --bench time [-- FILTER]`: how long each hot path takes.

use criterion::{Criterion, Throughput};
use nistru_bench::{BENCHMARKS, HotPath, READY_RUNS};
use std::time::{Duration, Instant};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for benchmark in &BENCHMARKS {
        let mut path = None;
        let mut group = criterion.benchmark_group(benchmark.group);
        group.throughput(Throughput::Elements(benchmark.events as u64));
        group.bench_function(benchmark.name, |bencher| {
            let path = path.get_or_insert_with(|| benchmark.prepare());
            bencher.iter_custom(|runs| time(&mut **path, runs));
        });
        group.finish();
    }
    criterion.final_summary();
}

/// The duration of so many runs, without what makes them ready.
fn time(path: &mut dyn HotPath, runs: u64) -> Duration {
    let (mut done, mut taken) = (0, Duration::ZERO);
    while done < runs {
        path.ready();
        let stretch = READY_RUNS.min(runs - done);
        let started = Instant::now();
        (0..stretch).for_each(|_| path.run());
        taken += started.elapsed();
        done += stretch;
    }
    taken
}

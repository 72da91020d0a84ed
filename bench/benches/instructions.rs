//! `cargo bench -p nistru-bench --bench instructions`: how many instructions each hot path takes, by callgrind.

use gungraun::OutputFormat;
use gungraun::prelude::*;
use nistru_bench::{BENCHMARKS, HotPath};

/// The path of a line of `outcomes.txt`, after its first run, which is not like the others: it allocates what later ones use again.
fn warmed_up(line: String) -> Box<dyn HotPath> {
    let is_it = |title: String| line.strip_prefix(&title).is_some_and(|rest| rest.starts_with(':'));
    let benchmark = BENCHMARKS.iter().find(|benchmark| is_it(benchmark.title()));
    let mut path = benchmark.expect("the tests see to it that the file names every benchmark").prepare();
    path.run();
    path.ready();
    path
}

#[library_benchmark]
#[benches::of(file = "bench/tests/outcomes.txt", setup = warmed_up)]
fn run(mut path: Box<dyn HotPath>) -> Box<dyn HotPath> {
    path.run();
    path
}

library_benchmark_group!(name = hot_paths, benchmarks = [run]);
main!(
    config =
        LibraryBenchmarkConfig::default().output_format(OutputFormat::default().truncate_description(None)),
    library_benchmark_groups = hot_paths
);

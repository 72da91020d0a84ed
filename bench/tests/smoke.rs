//! Every benchmark once, on its fixed inputs: does it make what it made before?

use nistru_bench::BENCHMARKS;

#[test]
fn every_hot_path_makes_what_it_made_before() {
    let outcomes = BENCHMARKS.iter().map(|benchmark| {
        let mut path = benchmark.prepare();
        path.run();
        let made = path.outcome();
        format!("{}: {} bytes, CRC-32 {:08x}\n", benchmark.title(), made.len(), crc32fast::hash(&made))
    });
    let outcomes: String = outcomes.collect();
    let expected = include_str!("outcomes.txt");
    assert!(
        outcomes == expected,
        "expected\n{expected}\nfound\n{outcomes}\nIf that is right, it belongs into outcomes.txt."
    );
}

//! What a run does, line by line, for whoever has to understand a failing seed: set `NISTRU_SIM_LOG`.

use std::sync::OnceLock;

/// Prints a line if lines are wanted.
pub fn log(line: impl FnOnce() -> String) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("NISTRU_SIM_LOG").is_some()) {
        println!("{}", line());
    }
}

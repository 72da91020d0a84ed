//! Progress on stderr for a person who watches.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// A line that counts events; nothing is drawn when stderr is not a terminal, or when `other` (the command's own
/// input or output) is one too and would be written over.
pub(super) fn counter(other: &impl IsTerminal) -> ProgressBar {
    if other.is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} events  {per_sec}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

//! Bugs planted on purpose. The simulation is worth something only if it finds every one of them, and soon.

use crate::world;
use nistru::fault::{Fault, plant};
use std::cell::Cell;
use std::panic;
use std::sync::Once;

/// Seeds within which a bug must be found.
const SEEDS: u64 = 80;
const STEPS: usize = 5000;

thread_local! {
    /// Whether panics of this thread are expected and not worth a word.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Plants `fault` and runs seed after seed until an invariant breaks.
fn assert_found(fault: Fault) {
    hush();
    plant(Some(fault));
    QUIET.set(true);
    let found = (0..SEEDS).find(|seed| panic::catch_unwind(|| world::run(*seed, STEPS)).is_err());
    QUIET.set(false);
    plant(None);
    match found {
        Some(seed) => println!("{fault:?} is found by seed {seed}"),
        None => panic!("{fault:?} stayed unnoticed through {SEEDS} seeds"),
    }
}

/// Keeps the expected panics off the output.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() || std::env::var_os("NISTRU_SIM_LOUD").is_some() {
                usual(info);
            }
        }));
    });
}

macro_rules! found {
    ($($name:ident: $fault:ident,)*) => {
        $(
            #[test]
            fn $name() {
                assert_found(Fault::$fault);
            }
        )*
    };
}

found! {
    a_confirm_of_an_old_epoch_that_counts_is_found: OldEpochConfirms,
    two_readers_of_one_partition_are_found: HandOverAtOnce,
    a_confirm_of_what_was_only_fetched_is_found: ConfirmsFetched,
    events_skipped_by_a_reread_are_found: RereadSkips,
    a_journal_file_whose_name_is_not_durable_is_found: UnsyncedName,
    a_recycled_file_with_its_old_nonce_is_found: OldNonce,
    a_start_that_trusts_the_page_cache_is_found: UnsyncedStart,
    a_frame_that_vouches_for_one_in_flight_is_found: HastySyncedUpto,
    corruption_taken_for_a_torn_tail_is_found: CorruptionCut,
    a_torn_body_taken_for_a_frame_is_found: UncheckedBody,
    a_journal_file_recycled_too_early_is_found: EarlyRecycling,
    a_checkpoint_that_forgets_repeats_is_found: ForgottenRepeats,
    a_cursor_that_moves_back_is_found: CursorBack,
    a_segment_sealed_before_it_is_durable_is_found: UnsyncedSeal,
    a_flush_that_does_nothing_is_found: UnsyncedFlush,
    an_index_that_misses_events_is_found: MissedEvents,
}

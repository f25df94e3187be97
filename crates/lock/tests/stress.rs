//! Real threads against the asymmetric fences. Each spoiled variant must be found out: the test can fail.
//!
//! `SOLORING_STRESS_SECONDS` makes the sound variants run longer.

use soloring_lock_models::stress::{Found, Heavy, Spoiled, fences, lock};
use std::time::{Duration, Instant};

/// How long the sound variants are tried.
fn patience() -> Duration {
    let seconds = std::env::var("SOLORING_STRESS_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// A spoiled variant ends at its first violation; found in milliseconds on an idle machine, but
/// the two threads must get to run at the same time.
const SPOILED_MAX: Duration = Duration::from_secs(120);

/// Again until the threads have met often, on a machine that has other things to do.
fn often_enough(attempt: impl Fn(Duration) -> Found) -> Found {
    let end = Instant::now() + SPOILED_MAX;
    let mut sum = Found::default();
    while sum.violations == 0 && sum.attempts <= 1000 && Instant::now() < end {
        let found = attempt(patience());
        sum.attempts += found.attempts;
        sum.violations += found.violations;
    }
    sum
}

// One test: which fence the process uses is one setting.
#[test]
fn the_pair_of_fences_holds_and_each_half_is_needed() {
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        eprintln!("one processor: no two threads run at the same time, nothing to see");
        return;
    }
    let spoiled = fences(Spoiled::Heavy, SPOILED_MAX);
    assert!(spoiled.violations > 0, "an ordinary fence was not found out: {spoiled:?}");
    let spoiled = fences(Spoiled::Light, SPOILED_MAX);
    assert!(spoiled.violations > 0, "the missing light fence was not found out: {spoiled:?}");
    let spoiled = lock(Heavy::OwnFence, 1, SPOILED_MAX);
    assert!(spoiled.violations > 0, "the lock without membarrier was not found out: {spoiled:?}");

    let sound = often_enough(|limit| fences(Spoiled::Nothing, limit));
    assert!(sound.violations == 0 && sound.attempts > 1000, "{sound:?}");
    for heavy in [Heavy::AskThenMembarrier, Heavy::Membarrier] {
        for foreign in [1, 3] {
            let sound = often_enough(|limit| lock(heavy, foreign, limit));
            assert!(sound.violations == 0 && sound.attempts > 1000, "{heavy:?} {sound:?}");
        }
    }
}

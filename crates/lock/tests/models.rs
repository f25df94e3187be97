//! The model checker's verdicts: the real lock holds, and each earlier scheme fails where it failed in public.

use soloring_lock_models::lock_scenario::LOCK_SCENARIOS;
use soloring_lock_models::scenario::Scenario;
use soloring_lock_models::table;
use soloring_lock_models::trace::{Depth, Verdict};
use soloring_lock_models::tso_scenario::TSO_SCENARIOS;

#[test]
fn every_scheme_fails_exactly_where_it_failed_in_public() {
    let mut wrong = Vec::new();
    for scenario in Scenario::ALL {
        for (row, expected) in table::rows().iter().zip(table::expected(scenario)) {
            let verdict = row.check(scenario, Depth::Quick);
            if verdict.failure.as_ref().map(|failure| failure.kind) != expected {
                wrong.push(format!("{} in {}: {verdict:#?}", row.scheme, scenario.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The record itself: each of the six has a column of its own to fail in, mutex and biased have none.
#[test]
fn the_expected_table_is_the_public_record() {
    let fails = |scheme: usize, scenario| table::expected(scenario)[scheme].is_some();
    let names = table::rows().map(|row| row.scheme);
    assert_eq!(names, ["mutex", "v1", "v2", "v3", "v4", "v5", "v6", "biased"]);
    for (scheme, scenario) in [
        (1, Scenario::SqpollRegister),
        (2, Scenario::Worker),
        (2, Scenario::CloneBuffers),
        (2, Scenario::TwoForeign),
        (3, Scenario::CloseDisabled),
        (4, Scenario::SetupFails),
        (5, Scenario::LateLocker),
        (5, Scenario::ExitedTwoForeign),
        (6, Scenario::ExitWaitsForWorker),
    ] {
        assert!(fails(scheme, scenario), "{} in {}", names[scheme], scenario.name());
        // And the version that followed repaired it (nothing followed v6).
        assert!(scheme == 6 || !fails(scheme + 1, scenario), "{}", scenario.name());
    }
    assert!(Scenario::ALL.iter().all(|&s| !fails(0, s) && !fails(7, s)));
}

#[test]
fn the_real_lock_holds_and_needs_both_fences() {
    for scenario in &LOCK_SCENARIOS {
        let verdict = scenario.check(Depth::Quick);
        as_it_should(scenario.name, scenario.must_fail, &verdict);
        // A model that explores a handful of executions has not let the threads meet.
        assert!(scenario.must_fail || verdict.executions > 100, "{}: {verdict:?}", scenario.name);
    }
}

#[test]
fn the_real_lock_holds_on_a_machine_with_store_buffers() {
    for scenario in &TSO_SCENARIOS {
        as_it_should(scenario.name, scenario.must_fail, &scenario.check(Depth::Quick));
    }
}

fn as_it_should(name: &str, must_fail: bool, verdict: &Verdict) {
    assert_eq!(verdict.passed(), !must_fail, "{name}: {verdict:#?}");
}

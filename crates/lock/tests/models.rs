//! The model checker's verdicts: the real lock holds, and each earlier scheme fails where it failed in public.

use soloring_lock_models::lock_scenario::LOCK_SCENARIOS;
use soloring_lock_models::scenario::Scenario;
use soloring_lock_models::table;
use soloring_lock_models::trace::Depth;
use soloring_lock_models::tso_scenario::TSO_SCENARIOS;

/// Scheme x scenario. A dot: passes. The letters say what must be found:
/// T two inside, N a null submitter, U a use after free, D a deadlock.
const EXPECTED: [(Scenario, &str); 11] = [
    //                              mutex v1 v2 v3 v4 v5 v6 biased
    (Scenario::SqpollRegister, "    .     T  .  .  .  .  .  ."),
    (Scenario::Worker, "            .     T  T  .  .  .  .  ."),
    (Scenario::TwoForeign, "        .     T  T  .  .  .  .  ."),
    (Scenario::CloneBuffers, "      .     T  T  .  .  .  .  ."),
    (Scenario::EnableRegister, "    .     T  .  .  .  .  .  ."),
    (Scenario::CloseDisabled, "     .     T  .  N  .  .  .  ."),
    (Scenario::SetupFails, "        .     .  .  N  N  .  .  ."),
    (Scenario::LateLocker, "        .     .  .  U  U  U  .  ."),
    (Scenario::ExitedTwoForeign, "  .     T  .  T  T  T  .  ."),
    (Scenario::ExitWaitsForWorker, ".     .  .  D  D  D  D  ."),
    (Scenario::ComputingSubmitter, ".     .  .  D  D  D  D  ."),
];

#[test]
fn every_scheme_fails_exactly_where_it_failed_in_public() {
    let mut wrong = Vec::new();
    for (scenario, expected) in EXPECTED {
        let mut expected = expected.split_whitespace();
        for row in table::rows() {
            let verdict = row.check(scenario, Depth::Quick);
            let found = match &verdict.failure {
                None => ".",
                Some(f) if f.what.contains("is inside the ring state while") => "T",
                Some(f) if f.what.contains("null pointer") => "N",
                Some(f) if f.what.contains("after it was freed") => "U",
                Some(f) if f.what.starts_with("deadlock") => "D",
                Some(f) => &f.what,
            };
            if expected.next() != Some(found) {
                wrong.push(format!("{} in {}: {found} {verdict:#?}", row.scheme, scenario.name()));
            }
        }
        assert_eq!(expected.next(), None);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_real_lock_holds_and_needs_both_fences() {
    for scenario in &LOCK_SCENARIOS {
        let verdict = scenario.check(Depth::Quick);
        assert_eq!(verdict.passed(), !scenario.must_fail, "{}: {verdict:#?}", scenario.name);
        // A model that explores a handful of executions has not let the threads meet.
        assert!(scenario.must_fail || verdict.executions > 100, "{}: {verdict:?}", scenario.name);
    }
}

#[test]
fn the_real_lock_holds_on_a_machine_with_store_buffers() {
    for scenario in &TSO_SCENARIOS {
        let verdict = scenario.check(Depth::Quick);
        assert_eq!(verdict.passed(), !scenario.must_fail, "{}: {verdict:#?}", scenario.name);
    }
}

//! The table scheme x scenario.

use crate::biased::Biased;
use crate::history::{Mutex, V1, V2};
use crate::parking::{V3, V4, V5, V6};
use crate::scenario::Scenario;
use crate::scheme::Scheme;
use crate::trace::{Depth, Kind, Verdict};

/// One row: a scheme, and how to check it in a scenario.
pub struct Row {
    pub scheme: &'static str,
    check: fn(Scenario, Depth) -> Verdict,
}

impl Row {
    fn of<S: Scheme>() -> Self {
        Row { scheme: S::NAME, check: |scenario, depth| scenario.check::<S>(depth) }
    }

    pub fn check(&self, scenario: Scenario, depth: Depth) -> Verdict {
        (self.check)(scenario, depth)
    }
}

/// The schemes in the order of their history.
pub fn rows() -> [Row; 8] {
    [
        Row::of::<Mutex>(),
        Row::of::<V1>(),
        Row::of::<V2>(),
        Row::of::<V3>(),
        Row::of::<V4>(),
        Row::of::<V5>(),
        Row::of::<V6>(),
        Row::of::<Biased>(),
    ]
}

/// What the public record says of each scheme in the order of [`rows`]. A checker that finds less is
/// broken; so is a model that fails elsewhere, or of something else.
pub fn expected(scenario: Scenario) -> [Option<Kind>; 8] {
    const OK: Option<Kind> = None;
    const TWO: Option<Kind> = Some(Kind::TwoInside);
    const NUL: Option<Kind> = Some(Kind::NullSubmitter);
    const UAF: Option<Kind> = Some(Kind::UseAfterFree);
    const DEAD: Option<Kind> = Some(Kind::Deadlock);
    match scenario {
        // mutex, v1, v2, v3, v4, v5, v6, biased
        Scenario::SqpollRegister => [OK, TWO, OK, OK, OK, OK, OK, OK],
        Scenario::Worker => [OK, TWO, TWO, OK, OK, OK, OK, OK],
        Scenario::TwoForeign => [OK, TWO, TWO, OK, OK, OK, OK, OK],
        Scenario::CloneBuffers => [OK, TWO, TWO, OK, OK, OK, OK, OK],
        Scenario::EnableRegister => [OK, TWO, OK, OK, OK, OK, OK, OK],
        Scenario::CloseDisabled => [OK, TWO, OK, NUL, OK, OK, OK, OK],
        Scenario::SetupFails => [OK, OK, OK, NUL, NUL, OK, OK, OK],
        Scenario::LateLocker => [OK, OK, OK, UAF, UAF, UAF, OK, OK],
        Scenario::ExitedTwoForeign => [OK, TWO, OK, TWO, TWO, TWO, OK, OK],
        Scenario::ExitWaitsForWorker => [OK, OK, OK, DEAD, DEAD, DEAD, DEAD, OK],
        Scenario::ComputingSubmitter => [OK, OK, OK, DEAD, DEAD, DEAD, DEAD, OK],
    }
}

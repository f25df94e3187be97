//! The table scheme x scenario.

use crate::biased::Biased;
use crate::history::{Mutex, V1, V2};
use crate::parking::{V3, V4, V5, V6};
use crate::scenario::Scenario;
use crate::scheme::Scheme;
use crate::trace::{Depth, Verdict};

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

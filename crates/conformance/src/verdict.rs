//! What came of one run of one test.

use std::fmt;
use std::time::Duration;

/// How a test ended, in the suite's own convention (exit 0 pass, 77 skip, anything else a failure).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    /// The test found something missing and stepped aside (exit 77).
    Skip,
    /// Any other exit status.
    Fail(i32),
    /// Ended by a signal.
    Killed(i32),
    /// Still running when its time was up.
    Timeout,
    /// Exit 0, but not one operation went through soloring: a pass that shows nothing.
    Hollow,
    /// The compiler refused the test's source.
    NotBuilt,
}

impl Verdict {
    pub fn passed(self) -> bool {
        self == Verdict::Pass
    }

    /// The verdict in the three words of the kernel's table.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Skip => "skip",
            _ => "fail",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Pass => f.write_str("pass"),
            Verdict::Skip => f.write_str("skip"),
            Verdict::Fail(code) => write!(f, "fail (exit {code})"),
            Verdict::Killed(signal) => write!(f, "fail (signal {signal})"),
            Verdict::Timeout => f.write_str("fail (timeout)"),
            Verdict::Hollow => f.write_str("fail (no operation of ours)"),
            Verdict::NotBuilt => f.write_str("fail (does not build)"),
        }
    }
}

/// One run of one test.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub wall: Duration,
    /// Operations that soloring completed in all processes of the test; None when nothing
    /// reported (on the kernel, or when every process was killed).
    pub ops: Option<u64>,
    /// The last lines that the test wrote.
    pub tail: String,
}

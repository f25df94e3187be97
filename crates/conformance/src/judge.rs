//! What a test's outcome means for the run: a listed test that fails, fails it; an unlisted one that passes is due.

use crate::verdict::Outcome;
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of one test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Judgement {
    Passed,
    /// The run fails, for this reason.
    Failed(String),
    /// Not asked for, and not passed; with the reason.
    Ignored(String),
}

/// A test that must pass. It has a second chance, for noise; `run` says what came of it, and is told whether that
/// is the second time.
///
/// # Errors
/// Those of `run`.
pub fn listed(mut run: impl FnMut(bool) -> Result<Outcome>) -> Result<Judgement> {
    let first = run(false)?;
    if first.verdict.passed() {
        return Ok(Judgement::Passed);
    }
    let second = run(true)?;
    if second.verdict.passed() {
        return Ok(Judgement::Passed);
    }
    Ok(Judgement::Failed(format!("{}\n{}", second.verdict, second.tail)))
}

/// A test that need not pass, for the reason in `not-listed.txt` if it stands there; `kernel` is the kernel's verdict.
pub fn unlisted(outcome: &Outcome, reason: Option<&str>, kernel: &str) -> Judgement {
    if outcome.verdict.passed() {
        return Judgement::Passed;
    }
    let why = reason.unwrap_or("not listed");
    Judgement::Ignored(format!("{why}; here {}, kernel {kernel}", outcome.verdict))
}

/// Tests that passed and should be on the list: those that are said to pass `sometimes` have done what was said.
pub fn due<'a>(
    passed: &BTreeSet<&'a str>,
    listed: &BTreeMap<&str, &str>,
    not_listed: &BTreeMap<&str, &str>,
) -> Vec<&'a str> {
    let sometimes = |name: &str| not_listed.get(name).is_some_and(|r| r.starts_with("sometimes:"));
    let due = |name: &&&str| !listed.contains_key(**name) && !sometimes(name);
    passed.iter().filter(due).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;
    use std::time::Duration;

    fn outcome(verdict: Verdict) -> Outcome {
        Outcome { verdict, wall: Duration::ZERO, ops: Some(1), tail: "its last line".into() }
    }

    /// A listed test with these verdicts, one a time, and how many were asked for.
    fn judged(verdicts: [Verdict; 2]) -> (Judgement, usize) {
        let mut runs = 0;
        let judgement = listed(|again| {
            assert_eq!(again, runs == 1);
            runs += 1;
            Ok(outcome(verdicts[runs - 1]))
        });
        (judgement.unwrap(), runs)
    }

    #[test]
    fn a_listed_test_fails_the_run_when_it_fails_twice() {
        assert_eq!(judged([Verdict::Pass, Verdict::Pass]), (Judgement::Passed, 1));
        for bad in [Verdict::Fail(1), Verdict::Skip, Verdict::Timeout, Verdict::Hollow] {
            assert_eq!(judged([bad, Verdict::Pass]), (Judgement::Passed, 2));
            let (judgement, runs) = judged([bad, bad]);
            let Judgement::Failed(why) = judgement else { panic!("{bad:?}: {judgement:?}") };
            assert!(runs == 2 && why.ends_with("its last line"), "{why}");
        }
        assert!(listed(|_| anyhow::bail!("it does not start")).is_err());
    }

    #[test]
    fn an_unlisted_test_fails_nothing() {
        assert_eq!(unlisted(&outcome(Verdict::Pass), None, "pass"), Judgement::Passed);
        let judgement = unlisted(&outcome(Verdict::Timeout), Some("never: why"), "pass");
        let Judgement::Ignored(why) = judgement else { panic!("{judgement:?}") };
        assert!(why.starts_with("never: why; here ") && why.ends_with("kernel pass"), "{why}");
    }

    #[test]
    fn what_passes_and_is_not_listed_is_due() {
        let passed = BTreeSet::from(["listed", "new", "now and then", "said to fail"]);
        let listed = BTreeMap::from([("listed", ""), ("fails", "")]);
        let not = BTreeMap::from([("now and then", "sometimes: x"), ("said to fail", "never: y")]);
        assert_eq!(due(&passed, &listed, &not), ["new", "said to fail"]);
    }
}

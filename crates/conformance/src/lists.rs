//! The checked-in lists: tests that must pass, those that need not and why, tests that run alone, tests that
//! need no operation.
//!
//! All are text files in `data/`: one test a line, a word of explanation after it where one
//! is due, `#` for comments. `must-pass.txt` only grows (see `tests/list_grows.rs`).

use std::collections::BTreeMap;

const MUST_PASS: &str = include_str!("../data/must-pass.txt");
const NOT_LISTED: &str = include_str!("../data/not-listed.txt");
const ALONE: &str = include_str!("../data/alone.txt");
const NO_OPS: &str = include_str!("../data/no-ops.txt");

/// Tests that must pass on soloring. The word `root` after a name: passes as root only, without
/// it the suite itself skips the test.
pub fn must_pass() -> BTreeMap<&'static str, &'static str> {
    parse(MUST_PASS)
}

/// Tests that pass on the kernel and need not pass on soloring; with the reason.
pub fn not_listed() -> BTreeMap<&'static str, &'static str> {
    parse(NOT_LISTED)
}

/// Tests that measure time or share something outside their directory, and so run with no other
/// test beside them; with the reason.
pub fn alone() -> BTreeMap<&'static str, &'static str> {
    parse(ALONE)
}

/// Tests that can pass without one completed operation; with the reason.
pub fn no_ops() -> BTreeMap<&'static str, &'static str> {
    parse(NO_OPS)
}

fn parse(text: &'static str) -> BTreeMap<&'static str, &'static str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(char::is_whitespace).unwrap_or((line, "")))
        .map(|(name, rest)| (name, rest.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn lists_name_tests_of_the_suite_once_and_in_order() {
        let table = kernel::table();
        for text in [MUST_PASS, NOT_LISTED, ALONE, NO_OPS] {
            let names: Vec<&str> = text
                .lines()
                .filter(|l| !l.starts_with('#') && !l.is_empty())
                .filter_map(|l| l.split_whitespace().next())
                .collect();
            assert!(names.is_sorted_by(|a, b| a < b), "not sorted, or a name twice: {names:?}");
            for name in names {
                assert!(table.contains_key(name), "{name} is no test of the suite");
            }
        }
    }

    #[test]
    fn what_the_kernel_passes_must_pass_or_has_a_reason() {
        let (must, need_not) = (must_pass(), not_listed());
        for (name, entry) in kernel::table() {
            let reason = need_not.get(name);
            assert!(
                reason.is_none() || entry.verdict.passed(),
                "{name}: the kernel does not pass it either"
            );
            if entry.verdict.passed() {
                let lists = usize::from(must.contains_key(name)) + usize::from(reason.is_some());
                assert_eq!(lists, 1, "{name} is on {lists} of the two lists");
            }
            if let Some(reason) = reason {
                let known = ["never: ", "sometimes: "].iter().any(|word| reason.starts_with(word));
                assert!(known, "{name}: {reason}");
            }
        }
    }

    #[test]
    fn a_listed_test_has_no_remark_but_root() {
        for (name, remark) in must_pass() {
            assert!(matches!(remark, "" | "root"), "{name}: {remark}");
        }
    }

    #[test]
    fn comments_and_remarks_are_told_from_names() {
        let lists = parse("# head\n\na  root\nb # why\n");
        assert_eq!(lists, BTreeMap::from([("a", "root"), ("b", "")]));
    }
}

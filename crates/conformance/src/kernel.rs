//! The kernel's verdict on each test of the suite, from the table that was made on Linux 6.18.

use crate::verdict::Verdict;
use std::collections::BTreeMap;
use std::time::Duration;

const TABLE: &str = include_str!("../data/kernel.tsv");

/// What the kernel made of one test.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub verdict: Verdict,
    pub wall: Duration,
}

/// A test in the table that is newer than the suite in the crate.
const NEWER: &str = "cmd-zone-reset-all";

/// The table, by test name, without the one test that the crate does not have. It is part of this crate, so a line that does not parse is a defect
/// of the crate and panics.
pub fn table() -> BTreeMap<&'static str, Entry> {
    let mut table = BTreeMap::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#') && *l != "test\tverdict\tseconds") {
        let entry = parse(line).unwrap_or_else(|| panic!("kernel.tsv: bad line {line:?}"));
        assert!(table.insert(entry.0, entry.1).is_none(), "kernel.tsv: {} twice", entry.0);
    }
    table.remove(NEWER);
    table
}

fn parse(line: &'static str) -> Option<(&'static str, Entry)> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let verdict = match fields.next()? {
        "pass" => Verdict::Pass,
        "skip" => Verdict::Skip,
        "fail" => Verdict::Fail(1),
        _ => return None,
    };
    let wall = Duration::from_secs_f64(fields.next()?.parse().ok()?);
    fields.next().is_none().then_some((name, Entry { verdict, wall }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_counts_it_was_handed_over_with() {
        let table = table();
        let count = |word| table.values().filter(|e| e.verdict.word() == word).count();
        assert_eq!((count("pass"), count("skip"), count("fail")), (234, 18, 3));
        assert!(table["send-zerocopy"].wall > Duration::from_secs(60));
    }
}

//! The table test / kernel / ours, its count, and the same as a file of tab-separated values.

use crate::kernel::Entry;
use crate::verdict::{Outcome, Verdict};
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A test's place among the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Must pass and did.
    Kept,
    /// Must pass and did not.
    Broken,
    /// Passed and is on neither list.
    Due,
    /// Neither.
    Open,
}

impl Standing {
    /// `excused`: it is known to pass from run to run, or not.
    pub fn of(listed: bool, excused: bool, verdict: Verdict) -> Standing {
        match (listed, verdict.passed()) {
            (true, true) => Standing::Kept,
            (true, false) => Standing::Broken,
            (false, true) if !excused => Standing::Due,
            (false, _) => Standing::Open,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Standing::Kept => "listed",
            Standing::Broken => "LISTED, BROKEN",
            Standing::Due => "due for the list",
            Standing::Open => "",
        }
    }
}

/// One line of the table.
pub struct Row<'a> {
    pub name: &'a str,
    pub kernel: Entry,
    pub outcome: Outcome,
    /// None on the kernel, which has no list.
    pub standing: Option<Standing>,
    /// Why it need not pass, if that is known.
    pub why: &'static str,
}

/// Sums over the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub tests: usize,
    /// Tests that pass on the kernel.
    pub kernel: usize,
    /// Tests that pass on the kernel and here.
    pub both: usize,
    pub broken: usize,
    pub due: usize,
}

pub fn count(rows: &[Row]) -> Count {
    let mut count = Count { tests: rows.len(), ..Count::default() };
    for row in rows {
        count.kernel += usize::from(row.kernel.verdict.passed());
        count.both += usize::from(row.kernel.verdict.passed() && row.outcome.verdict.passed());
        count.broken += usize::from(row.standing == Some(Standing::Broken));
        count.due += usize::from(row.standing == Some(Standing::Due));
    }
    count
}

/// The table as text. `here` heads the column of verdicts of this run.
pub fn table(rows: &[Row], here: &str) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["test", "kernel", here, "s", "operations", ""]);
    for row in rows {
        table.add_row([
            row.name.to_owned(),
            row.kernel.verdict.word().to_owned(),
            row.outcome.verdict.to_string(),
            format!("{:.2}", row.outcome.wall.as_secs_f64()),
            row.outcome.ops.map(|n| n.to_string()).unwrap_or_default(),
            row.standing
                .map_or("", |s| if s == Standing::Open { row.why } else { s.word() })
                .into(),
        ]);
    }
    for column in [3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// The sums as lines of text.
pub fn summary(rows: &[Row], here: &str) -> String {
    let count = count(rows);
    let mut text = format!(
        "{} of the {} tests that pass on the kernel pass on {here}",
        count.both, count.kernel
    );
    let word = |w| rows.iter().filter(|r| r.outcome.verdict.word() == w).count();
    let _ = write!(
        text,
        "\n{} tests: {} pass, {} skip, {} fail",
        count.tests,
        word("pass"),
        word("skip"),
        word("fail")
    );
    for (standing, what) in
        [(Standing::Broken, "listed, but do not pass"), (Standing::Due, "due for the list")]
    {
        let names: Vec<&str> =
            rows.iter().filter(|r| r.standing == Some(standing)).map(|r| r.name).collect();
        if !names.is_empty() {
            let _ = write!(text, "\n{what} ({}): {}", names.len(), names.join(" "));
        }
    }
    text
}

/// Writes name, verdict, seconds, operations and the verdict in full, tab-separated; the first
/// three columns are those of the kernel's table.
pub fn write(rows: &[Row], file: &Path) -> Result<()> {
    let mut by_name = BTreeMap::new();
    for row in rows {
        let ops = row.outcome.ops.map(|n| n.to_string()).unwrap_or_default();
        let seconds = row.outcome.wall.as_secs_f64();
        let verdict = row.outcome.verdict;
        by_name.insert(row.name, format!("{}\t{seconds:.2}\t{ops}\t{verdict}", verdict.word()));
    }
    let mut text = String::from("# test\tverdict\tseconds\toperations\tin full\n");
    for (name, rest) in by_name {
        let _ = writeln!(text, "{name}\t{rest}");
    }
    Ok(fs::write(file, text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(name: &str, kernel: Verdict, ours: Verdict, listed: bool) -> Row<'_> {
        let wall = Duration::from_millis(1500);
        Row {
            name,
            kernel: Entry { verdict: kernel, wall },
            outcome: Outcome { verdict: ours, wall, ops: Some(7), tail: String::new() },
            standing: Some(Standing::of(listed, false, ours)),
            why: "",
        }
    }

    #[test]
    fn a_test_that_passes_sometimes_is_not_due() {
        assert_eq!(Standing::of(false, true, Verdict::Pass), Standing::Open);
        assert_eq!(Standing::of(false, false, Verdict::Pass), Standing::Due);
        assert_eq!(Standing::of(true, false, Verdict::Skip), Standing::Broken);
    }

    #[test]
    fn a_pass_counts_only_where_the_kernel_passes() {
        let rows = [
            row("a", Verdict::Pass, Verdict::Pass, true),
            row("b", Verdict::Skip, Verdict::Pass, false),
            row("c", Verdict::Pass, Verdict::Hollow, true),
            row("d", Verdict::Pass, Verdict::Skip, false),
        ];
        assert_eq!(count(&rows), Count { tests: 4, kernel: 3, both: 1, broken: 1, due: 1 });
        let text = summary(&rows, "soloring");
        assert!(text.contains("1 of the 3 tests"), "{text}");
        assert!(text.contains("listed, but do not pass (1): c"), "{text}");
        assert!(text.contains("due for the list (1): b"), "{text}");
    }

    #[test]
    fn the_table_has_a_line_for_each_test() {
        let rows = [row("a", Verdict::Pass, Verdict::Timeout, false)];
        let text = table(&rows, "ours");
        let line = text.lines().last().unwrap();
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, ["a", "pass", "fail", "(timeout)", "1.50", "7"]);
    }
}

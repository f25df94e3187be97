//! The demo's tables: what was done, by which operations, and what the ring lock cost.

use std::collections::BTreeMap;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use soloring_demo_client::Part;

use crate::out;
use crate::stats::Stats;

/// Prints the three tables.
pub fn print(parts: &[Part], wanted: &BTreeMap<&str, u64>, stats: &Stats) -> Result<()> {
    let mut table = table(&["part", "requests", "seconds", "requests/s", "MiB/s"]);
    for part in parts {
        let requests = part.total_requests();
        table.add_row([
            part.name.clone(),
            grouped(requests),
            format!("{:.2}", part.seconds),
            grouped((requests as f64 / part.seconds) as u64),
            if part.bytes == 0 {
                String::new()
            } else {
                grouped((part.bytes as f64 / (1 << 20) as f64 / part.seconds) as u64)
            },
        ]);
    }
    show(table)?;

    let mut table = self::table(&["operation", "by the client", "by soloring"]);
    for (name, count) in wanted {
        let ours = stats.per_op.get(*name).copied().unwrap_or(0);
        table.add_row([(*name).to_owned(), grouped(*count), grouped(ours)]);
    }
    table.add_row(["all".to_owned(), grouped(wanted.values().sum()), grouped(stats.ops)]);
    show(table)?;

    let lock = &stats.lock;
    let mut table = self::table(&["ring lock", "acquisitions"]);
    table.add_row(["by the owner, no lock taken".to_owned(), grouped(lock.owner_elided)]);
    table.add_row(["by the owner, lock taken".to_owned(), grouped(lock.owner_taken)]);
    table.add_row(["by others, or without an owner".to_owned(), grouped(lock.foreign)]);
    table.add_row(["bias taken from the owner".to_owned(), grouped(lock.revocations)]);
    table.add_row(["waited for the lock".to_owned(), format!("{} us", lock.waited_ns / 1000)]);
    show(table)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn show(table: Table) -> Result<()> {
    for line in table.lines() {
        out::line(format!("   {line}"))?;
    }
    Ok(out::line("")?)
}

/// A number with spaces between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        let cases = [(0, "0"), (999, "999"), (1000, "1 000"), (1_234_567, "1 234 567")];
        for (number, text) in cases {
            assert_eq!(super::grouped(number), text);
        }
    }
}

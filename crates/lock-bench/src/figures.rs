//! What was measured, and the two tables of it.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// One lock that nobody else wants; nanoseconds a turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Alone {
    pub lock: String,
    pub lock_unlock_ns: f64,
    pub around_count_ns: f64,
    pub around_8_lines_ns: f64,
}

/// One lock that a thread takes and gives back all the time, visited by another thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Busy {
    pub lock: String,
    /// Visits that found the busy thread at work.
    pub visits: usize,
    /// From asking for the lock to having given it back, in nanoseconds. None without such a visit: the two
    /// threads never ran at the same time.
    pub foreign_p50_ns: Option<f64>,
    pub foreign_p99_ns: Option<f64>,
    /// The busy thread's own acquisitions per microsecond meanwhile.
    pub owner_per_us: f64,
    /// Of a lock of ours: visits that needed a heavy fence, times the bias was given up, and the mode
    /// at the end.
    pub heavy_fences: Option<u64>,
    pub revocations: Option<u64>,
    pub mode: Option<String>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// The first row is the loop without a lock, the second std's mutex.
    pub alone: Vec<Alone>,
    pub busy: Vec<Busy>,
    /// The clock's own part of each visit's time.
    pub clock_ns: f64,
}

pub(crate) fn percentile(mut samples: Vec<f64>, percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() - 1) * percent / 100]
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl Figures {
    /// `of` this row as a part of std's mutex, both without the loop's own cost.
    fn part(&self, row: &Alone, of: fn(&Alone) -> f64) -> f64 {
        let base = of(&self.alone[0]);
        (of(row) - base) / (of(&self.alone[1]) - base)
    }

    /// Both tables, ready to print, without a line end.
    pub fn text(&self) -> String {
        let columns: [fn(&Alone) -> f64; 3] =
            [|row| row.lock_unlock_ns, |row| row.around_count_ns, |row| row.around_8_lines_ns];
        let part = "of std's";
        let mut alone = table([
            "one thread, ns a turn",
            "lock+unlock",
            part,
            "around a count",
            part,
            "around 8 lines",
            part,
        ]);
        for row in &self.alone {
            let cells = columns
                .iter()
                .flat_map(|of| [format!("{:.2}", of(row)), format!("{:.3}", self.part(row, *of))]);
            alone.add_row(std::iter::once(row.lock.clone()).chain(cells));
        }
        let mut busy = table([
            "foreign against busy owner",
            "p50 ns",
            "p99 ns",
            "owner's per us",
            "visits",
            "fences",
            "given up",
            "mode",
        ]);
        let time = |ns: Option<f64>| ns.map_or("-".to_owned(), |ns| format!("{ns:.0}"));
        let count = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        for row in &self.busy {
            busy.add_row([
                row.lock.clone(),
                time(row.foreign_p50_ns),
                time(row.foreign_p99_ns),
                format!("{:.1}", row.owner_per_us),
                row.visits.to_string(),
                count(row.heavy_fences),
                count(row.revocations),
                row.mode.clone().unwrap_or("-".to_owned()),
            ]);
        }
        format!(
            "{alone}\n\n{busy}\n\nOf std's: as a part of std's mutex, both without the loop's own cost. \
             In each visit's time the clock's own part is {:.0} ns.",
            self.clock_ns
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_parts() {
        let samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(percentile(samples.clone(), 50), 51.0);
        assert_eq!(percentile(samples, 99), 100.0);
        let row = |name: &str, ns| Alone {
            lock: name.to_owned(),
            lock_unlock_ns: ns,
            around_count_ns: 2.0 * ns,
            around_8_lines_ns: 3.0 * ns,
        };
        let alone = vec![row("none", 1.0), row("std", 11.0), row("ours", 3.0)];
        let figures = Figures { alone, busy: Vec::new(), clock_ns: 20.0 };
        assert_eq!(figures.part(&figures.alone[2], |row| row.lock_unlock_ns), 0.2);
        let text = figures.text();
        assert!(text.contains("11.00") && text.contains("0.200"), "{text}");
    }
}

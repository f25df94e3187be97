//! What is measured, and the rounds: every variant in turn, so that noise of the machine hits all alike.

use std::path::Path;

use anyhow::Error;

use super::variant::{self, Side, Variant, Worker};
use super::work::{Answer, Order, Way, Work};

pub struct Row {
    /// Key in the JSON and first column of the table.
    pub name: String,
    pub work: Work,
}

/// Medians are taken over rounds: ns per operation by row, variant and round.
pub struct Results {
    pub rows: Vec<Row>,
    pub variants: Vec<Variant>,
    /// `[row][variant]`: one number a round, none where the variant does not take part or failed.
    pub samples: Vec<Vec<Vec<f64>>>,
    /// Why variants have no numbers.
    pub failures: Vec<(Variant, Error)>,
}

/// The rows, on a file of `blocks` blocks.
pub fn rows(path: &Path, blocks: u64) -> Vec<Row> {
    let row = |name: &str, work| Row { name: name.to_owned(), work };
    let read = |way| Work::Read { path: path.to_owned(), blocks, way };
    vec![
        row("NOP, batch 1", Work::Nop { batch: 1 }),
        row("NOP, batch 8", Work::Nop { batch: 8 }),
        row("NOP, batch 32", Work::Nop { batch: 32 }),
        row("cached 4 KiB read, depth 32", read(Way::Plain)),
        row("the same, registered", read(Way::Registered)),
        row("the same, in four pieces", read(Way::Vectored)),
        row("TCP echo, 1 connection", Work::Echo { connections: 1 }),
        row("TCP echo, 32 connections", Work::Echo { connections: 32 }),
    ]
}

/// Runs all rows on all variants, `rounds` times, `ms` milliseconds each. `tell` hears how far it is.
pub fn measure(
    rows: Vec<Row>,
    rounds: u32,
    ms: u64,
    dir: &Path,
    mut tell: impl FnMut(&str),
) -> Results {
    let mut failures = Vec::new();
    let mut workers: Vec<Option<Worker>> = variant::ALL
        .iter()
        .map(|variant| {
            Worker::start(*variant, dir).map_err(|error| failures.push((*variant, error))).ok()
        })
        .collect();
    let mut samples = vec![vec![Vec::new(); workers.len()]; rows.len()];
    for (row, of_row) in rows.iter().zip(&mut samples) {
        tell(&row.name);
        let order = Order { work: row.work.clone(), ms };
        for round in 0..rounds as usize {
            for step in 0..workers.len() {
                // Each round starts with another variant: none is always first.
                let index = (round + step) % workers.len();
                let Some(worker) = &mut workers[index] else { continue };
                let variant = worker.variant;
                match worker.order(&order) {
                    Ok(Answer::Sample(sample)) => of_row[index].push(sample.ns_per_operation()),
                    Ok(_) => unreachable!("a row asks for samples"),
                    Err(error) => {
                        failures.push((variant, error));
                        workers[index] = None;
                    }
                }
            }
        }
    }
    for worker in workers.into_iter().flatten() {
        let variant = worker.variant;
        if let Err(error) = worker.finish() {
            failures.push((variant, error));
        }
    }
    Results { rows, variants: variant::ALL.to_vec(), samples, failures }
}

/// The middle one of some numbers, the mean of the middle two.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

impl Results {
    fn of(&self, row: usize, name: &str) -> &[f64] {
        self.variants
            .iter()
            .position(|variant| variant.name == name)
            .map_or(&[], |index| &self.samples[row][index])
    }

    /// Median time of one operation, in ns.
    pub fn ns(&self, row: usize, name: &str) -> Option<f64> {
        median(self.of(row, name))
    }

    /// How many times as fast `name` is as `base`: the median of the rounds' own ratios.
    pub fn ratio(&self, row: usize, name: &str, base: &str) -> Option<f64> {
        let rounds = self.of(row, name).iter().zip(self.of(row, base));
        median(&rounds.map(|(ns, base)| base / ns).collect::<Vec<_>>())
    }

    /// Whether something of ours failed; that the kernel refuses is not our failure.
    pub fn failed(&self) -> bool {
        self.failures.iter().any(|(variant, _)| variant.side != Side::Kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let results = Results {
            rows: rows(Path::new("x"), 1).into_iter().take(1).collect(),
            variants: variant::ALL[..2].to_vec(),
            samples: vec![vec![vec![10.0, 20.0, 10.0], vec![20.0, 40.0, 5.0]]],
            failures: Vec::new(),
        };
        assert_eq!(results.ns(0, "ours SD"), Some(10.0));
        assert_eq!(results.ratio(0, "ours SD", "ours"), Some(2.0));
        assert_eq!(results.ratio(0, "ours SD", "kernel"), None);
    }
}

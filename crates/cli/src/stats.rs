//! What the programs under `soloring run` report as they exit: one JSON object a line, one per process.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How often the ring lock was taken, and how.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lock {
    /// By the ring's submitter, without a read-modify-write.
    pub owner_elided: u64,
    /// By the ring's submitter, through the mutex.
    pub owner_taken: u64,
    /// By anybody else, and by anybody while the ring has no owner.
    pub foreign: u64,
    /// Times the submitter was made to give up its bias.
    pub revocations: u64,
    /// Nanoseconds that foreign lockers waited.
    pub waited_ns: u64,
}

/// Totals of one process, or of all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Operations completed by soloring.
    pub ops: u64,
    /// The same by the operation's name (`IORING_OP_` left out).
    pub per_op: BTreeMap<String, u64>,
    pub lock: Lock,
}

impl Stats {
    fn add(&mut self, one: Stats) {
        self.ops += one.ops;
        for (name, count) in one.per_op {
            *self.per_op.entry(name).or_default() += count;
        }
        self.lock.owner_elided += one.lock.owner_elided;
        self.lock.owner_taken += one.lock.owner_taken;
        self.lock.foreign += one.lock.foreign;
        self.lock.revocations += one.lock.revocations;
        self.lock.waited_ns += one.lock.waited_ns;
    }
}

/// Reads the file that programs under `run` appended to, and adds everything up.
///
/// # Errors
/// No file or nothing in it (then no program ran on soloring), or a line that is not what it should be.
pub fn read(path: &Path) -> Result<Stats> {
    let text = std::fs::read_to_string(path)
        .context("the program left no statistics: it did not run on soloring")?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("statistics: not valid: {line}"))
        })
        .reduce(|sum, one| {
            let mut sum: Stats = sum?;
            sum.add(one?);
            Ok(sum)
        })
        .unwrap_or_else(|| bail!("the program left no statistics: it did not run on soloring"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    #[test]
    fn adds_processes_up_and_refuses_an_empty_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        assert!(super::read(file.path()).is_err());
        writeln!(file, r#"{{"pid":1,"ops":3,"per_op":{{"NOP":3}},"lock":{{"owner_elided":1,"owner_taken":2,"foreign":3,"revocations":4,"waited_ns":5}}}}"#).unwrap();
        writeln!(file, r#"{{"pid":2,"ops":4,"per_op":{{"NOP":1,"READ":3}},"lock":{{"owner_elided":10,"owner_taken":0,"foreign":0,"revocations":0,"waited_ns":0}}}}"#).unwrap();
        let sum = super::read(file.path()).unwrap();
        assert_eq!(sum.ops, 7);
        assert_eq!(sum.per_op, [("NOP".into(), 4), ("READ".into(), 3)].into());
        assert_eq!((sum.lock.owner_elided, sum.lock.waited_ns), (11, 5));
        writeln!(file, "nonsense").unwrap();
        assert!(super::read(file.path()).is_err());
    }
}

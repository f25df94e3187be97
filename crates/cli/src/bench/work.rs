//! What a worker is asked and what it answers, and the clock of one measurement.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// One measurement, as a line of JSON on a worker's standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    Nop {
        batch: u32,
    },
    /// Random reads of 4 KiB blocks; block `i` of the file starts with `i` as 8 bytes, native order.
    Read {
        path: PathBuf,
        blocks: u64,
        way: Way,
    },
    Echo {
        connections: u32,
    },
    /// Arms `requests` requests on one ring that cannot complete.
    Armed {
        kind: Armed,
        requests: u64,
    },
    /// Completes `operations` of several kinds on one ring.
    Growth {
        operations: u64,
    },
    /// The ring lock by itself, beside other mutexes.
    Lock {
        quick: bool,
    },
}

/// How a block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// READ; `pread` without a ring.
    Plain,
    /// READ_FIXED of a registered file; `pread` without a ring.
    Registered,
    /// READV into four pieces; `preadv` without a ring.
    Vectored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Armed {
    Poll,
    Recv,
    Timeout,
}

/// A [`Work`] and for how long to do it, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub work: Work,
    pub ms: u64,
}

/// A worker's answer to one [`Order`], as a line of JSON on its standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Sample(Sample),
    Memory(Memory),
    Lock(soloring_lock_bench::Figures),
    Failed { why: String, errno: Option<i32> },
}

/// One timed run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub operations: u64,
    /// Ring requests that finished in all, warming up included.
    pub requests: u64,
    /// Of these, counted by our engine in the worker's own process.
    pub engine_requests: u64,
    /// Acquisitions of our ring lock by its owner, without and with the lock taken.
    pub lock_elided: u64,
    pub lock_taken: u64,
    pub ns: u64,
}

impl Sample {
    pub fn ns_per_operation(&self) -> f64 {
        self.ns as f64 / self.operations.max(1) as f64
    }
}

/// Anonymous memory of the process and its open descriptors before and after, in bytes and numbers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub requests: u64,
    pub before: u64,
    pub after: u64,
    pub descriptors: u64,
    pub engine_requests: u64,
}

/// Runs turns until a time is over, looking at the clock rarely enough not to measure it. A turn
/// returns how many operations it finished.
pub struct Clock {
    limit: Duration,
    turns_between: u64,
    warm_operations: u64,
}

impl Clock {
    /// Does `turns` turns that do not count, and takes from them how often to look at the clock.
    pub fn warm_up(
        ms: u64,
        turns: u64,
        mut turn: impl FnMut() -> io::Result<u64>,
    ) -> io::Result<Clock> {
        let start = Instant::now();
        let mut warm_operations = 0;
        for _ in 0..turns {
            warm_operations += turn()?;
        }
        let limit = Duration::from_millis(ms);
        let each = start.elapsed().as_nanos() as u64 / turns.max(1);
        // About a hundred looks in the whole time.
        let turns_between = (limit.as_nanos() as u64 / 100 / each.max(1)).clamp(1, 1 << 20);
        Ok(Clock { limit, turns_between, warm_operations })
    }

    /// Times turns whose operations take `requests` ring requests each.
    pub fn run(
        self,
        requests: u64,
        mut turn: impl FnMut() -> io::Result<u64>,
    ) -> io::Result<Sample> {
        let start = Instant::now();
        let mut operations = 0;
        loop {
            for _ in 0..self.turns_between {
                operations += turn()?;
            }
            let elapsed = start.elapsed();
            if elapsed >= self.limit {
                return Ok(Sample {
                    operations,
                    requests: (self.warm_operations + operations) * requests,
                    engine_requests: 0,
                    lock_elided: 0,
                    lock_taken: 0,
                    ns: elapsed.as_nanos() as u64,
                });
            }
        }
    }
}

//! The rows of the ring lock by itself, beside std's and parking_lot's mutexes.

use std::path::Path;

use anyhow::{Result, bail};
use soloring_lock_bench::Figures;

use super::variant::{self, Worker};
use super::work::{Answer, Order, Work};

/// In a fresh process, whose locks are what they are without a word in the environment.
pub fn measure(quick: bool, dir: &Path) -> Result<Figures> {
    let mut worker = Worker::start(variant::ALL[0], dir)?;
    let figures = match worker.order(&Order { work: Work::Lock { quick }, ms: 0 })? {
        Answer::Lock(figures) => figures,
        _ => bail!("the worker answered with something else"),
    };
    worker.finish()?;
    Ok(figures)
}

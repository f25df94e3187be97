//! The memory rows: bytes per request in flight, and growth over many operations, on our ring.

use std::path::Path;

use anyhow::{Error, Result, bail};

use super::variant::{self, Side, Variant, Worker};
use super::work::{Answer, Armed, Memory, Order, Work};

pub struct Space {
    pub variant: Variant,
    /// What was in flight; `None` for the growth row.
    pub armed: Option<Armed>,
    pub requests: u64,
    pub outcome: Result<Memory, Error>,
}

impl Space {
    pub fn bytes_per_request(&self, memory: &Memory) -> f64 {
        (memory.after as f64 - memory.before as f64) / self.requests as f64
    }
}

/// Each row in a fresh process, on both kinds of ring.
pub fn measure(armed: u64, operations: u64, dir: &Path) -> Vec<Space> {
    let variants = variant::ALL.iter().filter(|v| v.side == Side::InProcess && !v.mutex);
    let kinds = [Some(Armed::Poll), Some(Armed::Recv), Some(Armed::Timeout), None];
    variants
        .flat_map(|variant| kinds.map(|kind| (*variant, kind)))
        .map(|(variant, kind)| {
            let requests = match kind {
                // A request that waits for a file holds a descriptor, and those are limited.
                Some(Armed::Poll | Armed::Recv) => armed,
                Some(Armed::Timeout) => 10 * armed,
                None => operations,
            };
            Space { variant, armed: kind, requests, outcome: one(variant, kind, requests, dir) }
        })
        .collect()
}

fn one(variant: Variant, armed: Option<Armed>, requests: u64, dir: &Path) -> Result<Memory> {
    let work = match armed {
        Some(kind) => Work::Armed { kind, requests },
        None => Work::Growth { operations: requests },
    };
    let mut worker = Worker::start(variant, dir)?;
    let memory = match worker.order(&Order { work, ms: 0 })? {
        Answer::Memory(memory) => memory,
        _ => bail!("the worker answered with something else"),
    };
    if armed.is_none() && memory.engine_requests < requests {
        bail!("{requests} requests finished, but our engine counted {}", memory.engine_requests);
    }
    worker.finish()?;
    Ok(memory)
}

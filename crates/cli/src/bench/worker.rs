//! One variant of the bench as a process of its own: takes orders on standard input, answers on output.

use std::io::{self, BufRead};
use std::process::ExitCode;

use anyhow::{Context, Result};
use soloring_engine::uapi;
use soloring_lock_bench::Scale;

use super::work::{Answer, Order, Work};
use super::{memory, net, nop, read, ring};
use crate::backend::{self, Backend};
use crate::out;

#[derive(clap::Args)]
pub struct Args {
    /// How the calls are made
    #[arg(long)]
    via: Via,
    /// A ring with SINGLE_ISSUER and DEFER_TASKRUN rather than one without flags
    #[arg(long)]
    deferred: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// Our engine as functions in the process
    Engine,
    /// System calls by an instruction of the program's own
    Inline,
    /// System calls through libc
    Libc,
    /// No ring: one system call per operation
    Plain,
}

impl Via {
    pub fn name(self) -> &'static str {
        match self {
            Via::Engine => "engine",
            Via::Inline => "inline",
            Via::Libc => "libc",
            Via::Plain => "plain",
        }
    }
}

/// Answers orders until standard input ends.
pub fn main(args: Args) -> Result<ExitCode> {
    let flags = if args.deferred { ring::DEFERRED } else { 0 };
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?).context("not an order")?;
        let outcome = match args.via {
            Via::Engine => counted(backend::Engine, flags, &order),
            Via::Inline => counted(backend::Inline, flags, &order),
            Via::Libc => counted(backend::Libc, flags, &order),
            Via::Plain => plain(&order),
        };
        let answer = outcome
            .unwrap_or_else(|e| Answer::Failed { why: e.to_string(), errno: e.raw_os_error() });
        out::line(serde_json::to_string(&answer)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does the work and notes how many requests our engine completed meanwhile, and how it locked.
fn counted<B: Backend>(backend: B, flags: u32, order: &Order) -> io::Result<Answer> {
    let locked = || uapi::lock_stats().map_or((0, 0), |lock| (lock.owner_elided, lock.owner_taken));
    let (count, (elided, taken)) = (backend.op_count(), locked());
    let mut answer = on_ring(backend, flags, order)?;
    let count = backend.op_count() - count;
    match &mut answer {
        Answer::Sample(sample) => {
            sample.engine_requests = count;
            sample.lock_elided = locked().0 - elided;
            sample.lock_taken = locked().1 - taken;
        }
        Answer::Memory(memory) => memory.engine_requests = count,
        Answer::Lock(_) | Answer::Failed { .. } => {}
    }
    Ok(answer)
}

fn on_ring<B: Backend>(backend: B, flags: u32, order: &Order) -> io::Result<Answer> {
    let ms = order.ms;
    Ok(match &order.work {
        Work::Nop { batch } => Answer::Sample(nop::ring(backend, flags, *batch, ms)?),
        Work::Read { path, blocks, way } => {
            Answer::Sample(read::ring(backend, flags, path, *blocks, *way, ms)?)
        }
        Work::Echo { connections } => Answer::Sample(net::ring(backend, flags, *connections, ms)?),
        Work::Armed { kind, requests } => {
            Answer::Memory(memory::armed(backend, flags, *kind, *requests)?)
        }
        Work::Growth { operations } => Answer::Memory(memory::growth(backend, flags, *operations)?),
        Work::Lock { quick } => {
            let scale = if *quick { Scale::QUICK } else { Scale::FULL };
            Answer::Lock(soloring_lock_bench::measure(scale).map_err(io::Error::other)?)
        }
    })
}

fn plain(order: &Order) -> io::Result<Answer> {
    let ms = order.ms;
    Ok(match &order.work {
        Work::Nop { batch } => Answer::Sample(nop::plain(*batch, ms)?),
        Work::Read { path, blocks, way } => Answer::Sample(read::plain(path, *blocks, *way, ms)?),
        Work::Echo { connections } => Answer::Sample(net::plain(*connections, ms)?),
        Work::Armed { .. } | Work::Growth { .. } | Work::Lock { .. } => {
            return Err(io::Error::other("plain calls have no ring"));
        }
    })
}

//! Command line of the demo's client: the program itself is the package `soloring-demo-client`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use soloring_demo_client::{Options, open_a_ring, run};

use crate::out;

#[derive(clap::Args)]
pub struct Args {
    /// Only open a ring, to see whether it is refused
    #[arg(long)]
    open_only: bool,
    /// Folder for the files to copy
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[arg(long, default_value_t = 64)]
    copy_mib: u64,
    #[arg(long, default_value_t = 200)]
    connections: u32,
    #[arg(long, default_value_t = 100)]
    round_trips: u32,
    #[arg(long, default_value_t = 500)]
    timers: u32,
}

/// Prints one JSON object a line for each part of the work that ended well.
pub fn main(args: Args) -> Result<ExitCode> {
    open_a_ring().context("io_uring_setup")?;
    if args.open_only {
        return Ok(ExitCode::SUCCESS);
    }
    let options = Options {
        dir: args.dir,
        copy_bytes: args.copy_mib << 20,
        connections: args.connections,
        round_trips: args.round_trips,
        timers: args.timers,
    };
    run(&options, |part| out::line(serde_json::to_string(&part)?))?;
    Ok(ExitCode::SUCCESS)
}

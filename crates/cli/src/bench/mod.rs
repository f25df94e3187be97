//! `soloring bench`: our ring in process and through `run`, the kernel's ring, and plain system calls,
//! all in one run and in turns.

mod lock;
mod memory;
mod net;
mod nop;
mod read;
mod report;
mod ring;
mod rows;
mod space;
mod variant;
mod work;
pub mod worker;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::out;

#[derive(clap::Args)]
pub struct Args {
    /// Also write the results to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A short run: fewer rounds, less time each, a smaller file
    #[arg(long)]
    quick: bool,
    /// Folder for the file to read, rather than the one for temporary files
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// How much of everything.
struct Scale {
    rounds: u32,
    ms: u64,
    file_mib: u64,
    armed: u64,
    operations: u64,
}

const FULL: Scale =
    Scale { rounds: 9, ms: 100, file_mib: 256, armed: 10_000, operations: 1_000_000 };
const QUICK: Scale = Scale { rounds: 3, ms: 25, file_mib: 32, armed: 10_000, operations: 100_000 };

pub fn main(args: Args) -> Result<ExitCode> {
    let scale = if args.quick { QUICK } else { FULL };
    // A file that cannot be written is better known before the work than after it.
    let json = args
        .json
        .map(|path| {
            std::fs::File::create(&path)
                .map(|file| (file, path.clone()))
                .with_context(|| format!("cannot write {}", path.display()))
        })
        .transpose()?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("soloring-bench-");
    let dir = match &args.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    }
    .context("cannot make a folder for temporary files")?;
    out::clean_up_when_interrupted(dir.path(), || ())?;

    let path = dir.path().join("blocks");
    let blocks = (scale.file_mib << 20) / read::BLOCK as u64;
    read::write_file(&path, blocks).context("cannot write the file to read")?;
    let progress = std::io::stderr().is_terminal();
    let tell = |what: &str| {
        if progress {
            let _ = writeln!(std::io::stderr(), "{what} ...");
        }
    };
    let results =
        rows::measure(rows::rows(&path, blocks), scale.rounds, scale.ms, dir.path(), tell);
    tell("the lock");
    let locks = lock::measure(args.quick, dir.path());
    tell("memory");
    let space = space::measure(scale.armed, scale.operations, dir.path());

    out::line(report::text(&results, &locks, &space))?;
    if let Some((file, path)) = json {
        let json = report::json(&results, &locks, &space, scale.rounds, scale.ms);
        serde_json::to_writer_pretty(file, &json)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    dir.close().context("cannot remove the temporary files")?;
    if results.failed() || locks.is_err() || space.iter().any(|space| space.outcome.is_err()) {
        bail!("some variants failed, see above");
    }
    Ok(ExitCode::SUCCESS)
}

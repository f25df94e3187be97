//! Starts this very binary again: as a client of its own, plainly or under `soloring run`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The environment variable that names the file to which a program under `run` appends its statistics.
pub const STATS_FILE: &str = "SOLORING_STATS_FILE";

/// `soloring ARGS`, with the ring that the kernel gives or refuses.
pub fn plain(args: &[&str]) -> Result<Command> {
    let mut command = Command::new(own_path()?);
    command.args(args);
    Ok(command)
}

/// `soloring run --deny-kernel -- soloring ARGS`, statistics to the file `stats`.
pub fn under_run(args: &[&str], stats: &Path) -> Result<Command> {
    let own = own_path()?;
    let mut command = Command::new(&own);
    command.args(["run", "--deny-kernel", "--"]).arg(&own).args(args).env(STATS_FILE, stats);
    Ok(command)
}

fn own_path() -> Result<std::path::PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

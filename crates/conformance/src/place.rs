//! Where things are: the workspace, its target directory, and the `soloring` binary, built on demand.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// The workspace's target directory.
pub fn target_dir() -> Result<PathBuf> {
    let metadata = cargo_metadata(
        cargo()
            .args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
    )?;
    let dir =
        metadata["target_directory"].as_str().context("cargo metadata: no target directory")?;
    Ok(PathBuf::from(dir))
}

/// Runs a `cargo metadata` command and returns what it printed. Its messages go to our standard
/// error, because a registry that does not answer is reported there.
pub fn cargo_metadata(command: &mut Command) -> Result<serde_json::Value> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", Path::new(command.get_program()).display()))?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The `soloring` binary: `SOLORING_BIN` if set, else built in release mode (cargo finds it fresh
/// when nothing changed). The preload library is built with it and lies beside it.
pub fn soloring() -> Result<PathBuf> {
    if let Some(bin) = env::var_os("SOLORING_BIN") {
        let bin = PathBuf::from(bin);
        return bin
            .canonicalize()
            .with_context(|| format!("SOLORING_BIN: cannot find {}", bin.display()));
    }
    let status = cargo()
        .args(["build", "--release", "-p", "soloring-cli", "-p", "soloring-preload"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")])
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cannot build soloring: {status}");
    }
    Ok(target_dir()?.join("release/soloring"))
}

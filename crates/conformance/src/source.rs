//! The suite's sources: liburing as shipped in the crate `uring-sys2`, fetched by an ordinary cargo client.
//!
//! The crate is not a dependency of ours: its build script needs clang, and nothing of it may be
//! built or committed. A manifest that depends on it, written into the target directory, makes
//! cargo fetch and verify it.

use crate::place;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The crate that carries liburing.
pub const CRATE: &str = "uring-sys2";
/// Its version; it carries liburing 2.15.
pub const VERSION: &str = "0.13.0";

/// Fetches the crate if cargo does not have it yet, and returns its `liburing` directory.
/// `work` is a directory of ours to write the manifest into.
pub fn fetch(work: &Path) -> Result<PathBuf> {
    fs::create_dir_all(work.join("src"))?;
    let manifest = work.join("Cargo.toml");
    fs::write(
        &manifest,
        format!(
            "[package]\nname = \"fetch-liburing\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n\
             [workspace]\n\n[dependencies]\n{CRATE} = \"={VERSION}\"\n"
        ),
    )?;
    fs::write(work.join("src/lib.rs"), "")?;
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = place::cargo_metadata(
        place::cargo()
            .args(["metadata", "--format-version", "1", "--filter-platform", &platform])
            .arg("--manifest-path")
            .arg(&manifest),
    )
    .with_context(|| format!("cannot fetch the crate {CRATE} {VERSION}"))?;
    let package = metadata["packages"]
        .as_array()
        .and_then(|list| list.iter().find(|p| p["name"] == CRATE && p["version"] == VERSION))
        .with_context(|| format!("cargo metadata does not list {CRATE} {VERSION}"))?;
    let manifest = package["manifest_path"].as_str().context("cargo metadata: no manifest path")?;
    let root = Path::new(manifest).parent().context("a manifest without a directory")?;
    Ok(root.join("liburing"))
}

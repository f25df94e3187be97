//! `soloring demo`: the kernel's ring denied, an ordinary io_uring program on ours, every result checked.
#![allow(unsafe_code)]

pub mod client;
mod report;
mod watched;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use soloring_abi::Opcode;
use soloring_demo_client::Part;

use crate::{deny, launch, out, stats};

/// Far above what the demo takes: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub struct Args {
    /// Size of the file to copy, in MiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=65536))]
    copy_mib: u64,
    /// Simultaneous TCP connections: 200, or as many as the limit on descriptors allows
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10000))]
    connections: Option<u32>,
    /// Messages on each connection
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000000))]
    round_trips: u32,
    /// Timers, and as many cancellations, on each kind of ring
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100000))]
    timers: u32,
}

/// Connections when none are asked for.
const CONNECTIONS: u32 = 200;
/// Descriptors of the client that are not connections: streams, files, the listener, its rings with what belongs to
/// each, and room above the first number of ours.
const OTHER_FILES: u64 = 100;
/// Descriptors of a connection: its two ends, and a duplicate while a worker waits in connect.
const FILES_EACH: u64 = 3;

pub fn main(args: Args) -> Result<ExitCode> {
    let start = Instant::now();
    let connections = connections(args.connections, raise_files())?;
    let dir = tempfile::Builder::new()
        .prefix("soloring-demo-")
        .tempdir()
        .context("cannot make a folder for temporary files")?;
    out::clean_up_when_interrupted(dir.path(), watched::end_now)?;

    out::line(
        "1. The kernel's ring is denied, as in a container: the client alone cannot start\n",
    )?;
    out::line(format!("   $ soloring __demo-client\n   {}\n", refusal()?))?;

    out::line("2. The same client, unmodified, under `soloring run --deny-kernel`\n")?;
    let stats_file = dir.path().join("stats");
    let parts = serve(&args, connections, dir.path(), &stats_file)?;
    let stats = stats::read(&stats_file)?;
    let wanted = totals(&parts);
    served_by_us(&wanted, &stats)?;
    report::print(&parts, &wanted, &stats)?;
    dir.close().context("cannot remove the temporary files")?;
    out::line(format!(
        "All results were checked and are right. {:.1} s.",
        start.elapsed().as_secs_f64()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Raises the limit on descriptors as far as this process may, for the client too, as a server does.
/// Returns the limit.
fn raise_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls write and read one structure on the stack.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 { raised } else { limit }.rlim_cur
    }
}

/// How many connections to make with this limit on descriptors.
fn connections(asked: Option<u32>, files: u64) -> Result<u32> {
    let room = files.saturating_sub(OTHER_FILES) / FILES_EACH;
    let wanted = asked.unwrap_or(CONNECTIONS.min(room.max(1) as u32));
    if u64::from(wanted) > room {
        let needed = OTHER_FILES + FILES_EACH * u64::from(wanted);
        bail!(
            "{wanted} connections take {needed} descriptors, and the limit (ulimit -n) is {files}"
        );
    }
    Ok(wanted)
}

/// Starts the client with the kernel's ring denied and nothing in its place; returns what it says.
fn refusal() -> Result<String> {
    let mut command = launch::plain(&["__demo-client", "--open-only"])?;
    let output = deny::io_uring_in(&mut command)
        .output()
        .context("cannot start the client with the kernel's ring denied")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        bail!("the client opened a ring although the filter denies it");
    }
    if !said.contains("os error 1)") {
        bail!("the client was to be refused with EPERM; it said: {said}");
    }
    Ok(said)
}

/// Runs the client on our ring and shows each part as it ends.
fn serve(args: &Args, connections: u32, dir: &Path, stats_file: &Path) -> Result<Vec<Part>> {
    let numbers = [
        args.copy_mib.to_string(),
        connections.to_string(),
        args.round_trips.to_string(),
        args.timers.to_string(),
    ];
    let [copy, connections, round_trips, timers] = numbers.each_ref().map(String::as_str);
    let dir = dir.to_str().context("the temporary folder's name is not valid UTF-8")?;
    let mut command = launch::under_run(
        &[
            "__demo-client",
            "--dir",
            dir,
            "--copy-mib",
            copy,
            "--connections",
            connections,
            "--round-trips",
            round_trips,
            "--timers",
            timers,
        ],
        stats_file,
    )?;
    command.stdin(Stdio::null());
    let mut parts = Vec::new();
    watched::lines(&mut command, LIMIT, |line| {
        let part: Part =
            serde_json::from_str(line).with_context(|| format!("the client printed: {line}"))?;
        out::line(format!("   {:<9}  {}\n   {:<9}  {}", part.name, part.work, "", part.checked))?;
        parts.push(part);
        Ok(())
    })
    .context("the client under `soloring run`")?;
    out::line("")?;
    if parts.len() != 3 {
        bail!("the client finished {} of 3 parts", parts.len());
    }
    Ok(parts)
}

/// Requests of all parts, by name.
fn totals(parts: &[Part]) -> BTreeMap<&'static str, u64> {
    let mut wanted = BTreeMap::new();
    for (opcode, count) in parts.iter().flat_map(|part| &part.requests) {
        let name = Opcode::from_raw(*opcode).map_or("?", Opcode::name);
        *wanted.entry(name).or_default() += count;
    }
    wanted
}

/// Every request that the client counted must have been counted by our engine too: a program that
/// fell back to anything else would pass its own checks.
fn served_by_us(wanted: &BTreeMap<&'static str, u64>, stats: &stats::Stats) -> Result<()> {
    let all: u64 = wanted.values().sum();
    if stats.ops < all {
        bail!("the client finished {all} requests, soloring counted {}", stats.ops);
    }
    for (name, count) in wanted {
        let ours = stats.per_op.get(*name).copied().unwrap_or(0);
        if ours < *count {
            bail!("the client finished {count} {name} requests, soloring counted {ours}");
        }
    }
    Ok(())
}

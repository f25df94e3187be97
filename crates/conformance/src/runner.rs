//! Runs one test of the suite in a directory and a process group of its own, with a time limit.

use crate::leftovers::{MARK, Processes};
use crate::lists;
use crate::suite::Suite;
use crate::verdict::{Outcome, Verdict};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The suite's own limit for one test (`TIMEOUT` of its runtests.sh).
pub const LIMIT: Duration = Duration::from_secs(60);
/// Names the file that soloring appends one line of JSON to as a process exits:
/// `{"pid": 1, "ops": 2}`, ops being the operations completed by the engine in that process.
pub const STATS_FILE: &str = "SOLORING_STATS_FILE";
const SKIPPED: i32 = 77;
const TAIL_LINES: usize = 12;

/// On what the tests run.
pub enum On {
    Kernel,
    /// Under `soloring run --deny-kernel`, with the path of the binary.
    Soloring(PathBuf),
}

pub struct Runner {
    suite: Suite,
    on: On,
    scratch: PathBuf,
    /// Whether soloring reports its operations, so that a pass without a report shows nothing.
    reports: bool,
}

/// The suite's limit; where the kernel itself needs more, three times what it needed.
pub fn limit(kernel: Duration) -> Duration {
    if kernel > LIMIT { kernel * 3 } else { LIMIT }
}

impl Runner {
    /// `scratch` is a directory of ours on an ordinary file system (some tests read and write
    /// with O_DIRECT). Fails when `soloring run` does not run programs: every test would pass
    /// that way.
    pub fn new(suite: Suite, on: On, scratch: PathBuf) -> Result<Runner> {
        fs::create_dir_all(&scratch)?;
        let mut runner = Runner { suite, on, scratch, reports: false };
        if let On::Soloring(binary) = &runner.on {
            let stats = runner.scratch.join("check.stats");
            runner.reports = check(binary, &stats)?;
            if !runner.reports {
                eprintln!("soloring does not report its operations: a pass may be hollow");
            }
        }
        Ok(runner)
    }

    /// Runs a test. Its directory keeps what it printed (`output.log`) until its next run.
    pub fn run(&self, name: &str, limit: Duration) -> Result<Outcome> {
        let Some(executable) = self.suite.executable(name) else {
            let tail = last_lines(&self.suite.build_error(name));
            return Ok(Outcome {
                verdict: Verdict::NotBuilt,
                wall: Duration::ZERO,
                ops: None,
                tail,
            });
        };
        let dir = self.scratch.join(name);
        self.lay_out(&dir, name, &executable)?;
        let log = File::create(dir.join("output.log"))?;
        let stats = self.scratch.join(format!("{name}.stats"));
        if stats.exists() {
            fs::remove_file(&stats)?;
        }
        let mark = new_mark();
        let mut command = self.command(name);
        command
            .current_dir(&dir)
            .env_remove("LD_LIBRARY_PATH")
            .env(MARK, &mark)
            .env(STATS_FILE, &stats)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0);
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let group = i32::try_from(child.id())?;
        let processes = Processes { group, mark: mark.into() };
        let in_time = wait(group, limit);
        if !matches!(in_time, Ok(true)) {
            write!(&log, "\nstill running after {limit:?}:\n{}", processes.whereabouts())?;
        }
        let wall = begun.elapsed();
        // After a regular end too: a test may leave children behind. Before the child is reaped,
        // so that its group's number is not given to another.
        processes.end();
        let status = child.wait()?;
        let ops = operations(&stats)?;
        let verdict = match (status.code(), status.signal()) {
            _ if !in_time? => Verdict::Timeout,
            (Some(0), _) if self.hollow(name, ops) => Verdict::Hollow,
            (Some(0), _) => Verdict::Pass,
            (Some(SKIPPED), _) => Verdict::Skip,
            (Some(code), _) => Verdict::Fail(code),
            (None, signal) => Verdict::Killed(signal.unwrap_or_default()),
        };
        let output = fs::read(dir.join("output.log"))?;
        clear(&dir)?;
        Ok(Outcome { verdict, wall, ops, tail: last_lines(&String::from_utf8_lossy(&output)) })
    }

    /// An empty directory with the test in it under the name that the suite starts it by. One
    /// test executes another file from the current directory. (napi-test would run a script that makes
    /// network namespaces on this machine; without the script it skips, as it did for the
    /// kernel's table.)
    fn lay_out(&self, dir: &Path, name: &str, executable: &Path) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        symlink(executable, dir.join(format!("{name}.t")))?;
        if name == "sqpoll-exec" {
            symlink(executable.with_file_name("exec-target.t"), dir.join("exec-target.t"))?;
        }
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let test = format!("./{name}.t");
        match &self.on {
            On::Kernel => Command::new(test),
            On::Soloring(binary) => {
                let mut command = Command::new(binary);
                command.args(["run", "--deny-kernel", "--", &test]);
                command
            }
        }
    }

    /// Whether a pass is worth nothing: soloring did not one operation for it.
    fn hollow(&self, name: &str, ops: Option<u64>) -> bool {
        let none = if self.reports { ops.unwrap_or(0) == 0 } else { ops == Some(0) };
        matches!(self.on, On::Soloring(_)) && none && !lists::no_ops().contains_key(name)
    }
}

/// Runs a program that has nothing to do with rings under soloring: its exit status has to come
/// through. Returns whether there was a report of operations.
fn check(binary: &Path, stats: &Path) -> Result<bool> {
    const CODE: i32 = 7;
    let status = Command::new(binary)
        .args(["run", "--deny-kernel", "--", "sh", "-c", &format!("exit {CODE}")])
        .env(STATS_FILE, stats)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    if status.code() != Some(CODE) {
        bail!("`soloring run` does not run programs: `sh -c 'exit {CODE}'` ended with {status}");
    }
    Ok(operations(stats)?.is_some())
}

/// Waits for a child that is not reaped meanwhile. False: it was still running at the limit.
fn wait(pid: i32, limit: Duration) -> Result<bool> {
    let pid = Pid::from_raw(pid).context("a child without a number")?;
    let child = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(&child, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A value that no other run has, in this process or another.
fn new_mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The sum of the operations that the processes of a test reported.
fn operations(stats: &Path) -> Result<Option<u64>> {
    if !stats.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(stats)?;
    fs::remove_file(stats)?;
    let mut sum = None;
    for line in text.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("statistics: {line:?}"))?;
        // Setup and register calls count too: some tests only make and refuse rings.
        let ops = value["ops"].as_u64().with_context(|| format!("no ops in {line:?}"))?
            + value["calls"].as_u64().unwrap_or(0);
        sum = Some(sum.unwrap_or(0) + ops);
    }
    Ok(sum)
}

/// Removes what the test left in its directory, except its output.
fn clear(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.ends_with("output.log") {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

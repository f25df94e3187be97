//! Runs each case in a child process: the test binary starts itself again with the case's name.
#![allow(unsafe_code)]

use crate::case;
use crate::families::FAMILIES;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

/// Names the case that a child process has to run.
const CASE: &str = "SOLORING_ABI_CASE";

/// In a child process: runs its case and gives its exit status. `None` in the parent.
pub fn child_main() -> Option<ExitCode> {
    let name = std::env::var(CASE).ok()?;
    // SAFETY: touches no memory.
    unsafe {
        libc::alarm(case::LIMIT_S);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
    let Some((record, passed)) = case::run(FAMILIES, &name) else {
        println!("no such case: {name}");
        return Some(ExitCode::from(2));
    };
    for line in &record.lines {
        println!("{line}");
    }
    if record.dropped > 0 {
        println!("({} more lines)", record.dropped);
    }
    println!("{} check(s) failed", record.failures.len());
    for failure in &record.failures {
        println!("FAILED {failure}");
    }
    Some(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `backend::family::case@mode` in a child. `Ok` and `Err` both hold what it printed.
pub fn run_in_child(name: &str) -> Result<String, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(exe)
        .env(CASE, name)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("starting the case: {e}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.trim().is_empty() {
        text.push_str("--- standard error\n");
        text.push_str(&errors);
    }
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => Ok(text),
        (_, Some(libc::SIGALRM)) => {
            Err(format!("{text}FAILED hung: ended by the alarm after {} s\n", case::LIMIT_S))
        }
        (_, Some(signal)) => Err(format!("{text}FAILED killed by signal {signal}\n")),
        _ => Err(text),
    }
}

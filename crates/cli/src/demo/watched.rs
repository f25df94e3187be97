//! A child process whose output is read line by line under a time limit, and which never outlives us.
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Process group of the child that runs now, 0 for none: what an interrupt must end.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Set when an interrupt has come: its handler ends this process, and nobody else does.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends the child that runs now, if one does: for a handler of interrupts that ends this process.
pub fn end_now() {
    // Release pairs with the Acquire in `leave_it_to_the_handler`: who sees the child end by this kill
    // sees the flag as well (the kernel orders the two calls; the pairing orders the flag).
    INTERRUPTED.store(true, Ordering::Release);
    end_group(GROUP.load(Ordering::Relaxed));
}

/// After an interrupt: waits for its handler to end the process, with the status that interrupts have.
fn leave_it_to_the_handler() {
    // Acquire pairs with the Release in `end_now`.
    while INTERRUPTED.load(Ordering::Acquire) {
        thread::park();
    }
}

fn end_group(group: i32) {
    if group > 0 {
        // SAFETY: takes numbers only. The group is the child's own: `lines` made it, and stores 0
        // before the child is waited for.
        unsafe { libc::kill(-group, libc::SIGKILL) };
    }
}

/// Waits for the child to end and leaves it a zombie, so that its number is still its own.
fn await_end(child: i32) {
    loop {
        // SAFETY: no memory is involved but a local that is all zeroes, a valid `siginfo_t`.
        let res = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, child as u32, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        let interrupted = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        if res == 0 || !interrupted {
            return;
        }
    }
}

/// Runs `command`, calls `each` for every line it prints, and returns when it has ended well.
///
/// # Errors
/// The child cannot be started, does not end within `limit` (it is killed), fails (with what it said
/// on standard error), or `each` fails.
pub fn lines(
    command: &mut Command,
    limit: Duration,
    mut each: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let mut child = command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot be started")?;
    let group = child.id() as i32;
    GROUP.store(group, Ordering::Relaxed);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (over, wait) = mpsc::channel::<()>();
    let late = &AtomicBool::new(false);

    let (outcome, said) = thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                late.store(true, Ordering::Relaxed);
                end_group(group);
            }
        });
        let errors = scope.spawn(|| {
            let mut said = String::new();
            if let Some(mut stderr) = stderr {
                let _ = stderr.read_to_string(&mut said);
            }
            said
        });
        let outcome = stdout
            .map(|stdout| BufReader::new(stdout).lines())
            .into_iter()
            .flatten()
            .try_for_each(|line| each(&line.context("cannot be read")?));
        if outcome.is_err() {
            end_group(group);
        }
        let said = errors.join().unwrap_or_default();
        await_end(group);
        GROUP.store(0, Ordering::Relaxed);
        drop(over);
        (outcome, said)
    });
    let status = child.wait().context("cannot be waited for")?;
    leave_it_to_the_handler();
    if late.load(Ordering::Relaxed) {
        bail!("did not end within {} s", limit.as_secs());
    }
    outcome?;
    if !status.success() {
        let said = said.trim();
        bail!("failed ({status}){}{said}", if said.is_empty() { "" } else { ": " });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> (Vec<String>, Result<()>) {
        let mut got = Vec::new();
        let mut command = Command::new("sh");
        let outcome = lines(command.args(["-c", script]), limit, |line| {
            got.push(line.to_owned());
            Ok(())
        });
        (got, outcome)
    }

    #[test]
    fn hands_over_lines_and_reports_failure() {
        let (got, outcome) = sh("echo a; echo b", LONG);
        assert_eq!(got, ["a", "b"]);
        assert!(outcome.is_ok());
        let (got, outcome) = sh("echo a; echo why >&2; exit 3", LONG);
        assert_eq!(got, ["a"]);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }

    #[test]
    fn ends_a_child_that_hangs_and_its_children() {
        let (_, outcome) = sh("sleep 1000 & sleep 1000", Duration::from_millis(100));
        assert!(outcome.unwrap_err().to_string().contains("did not end"));
    }

    const LONG: Duration = Duration::from_secs(60);
}

//! The processes of a test: where they hang, and how none of them outlives it.
//!
//! A test's processes are those of its process group and those that carry its mark in their
//! environment: a child that made a group of its own keeps the mark, one that cleared its environment is
//! still in the group. Processes are ended by their number, never by name.

use procfs::process::{self, Process};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;

/// The environment variable that marks the processes of one run of one test.
pub const MARK: &str = "SOLORING_CONFORMANCE_RUN";

/// The processes of one run: its process group and its mark.
pub struct Processes {
    pub group: i32,
    pub mark: OsString,
}

impl Processes {
    fn all(&self) -> Vec<Process> {
        let Ok(all) = process::all_processes() else { return Vec::new() };
        all.flatten().filter(|p| self.owns(p)).collect()
    }

    fn owns(&self, process: &Process) -> bool {
        let Ok(stat) = process.stat() else { return false };
        let alive = !matches!(stat.state, 'Z' | 'X');
        let ours = || {
            stat.pgrp == self.group
                || process
                    .environ()
                    .is_ok_and(|e| e.get(MARK.as_ref() as &std::ffi::OsStr) == Some(&self.mark))
        };
        alive && ours()
    }

    /// Ends all of them, and waits until they are gone (or cannot be ended: 2 s). Returns how many
    /// there were.
    pub fn end(&self) -> usize {
        let mut seen = 0;
        for round in 0..200 {
            let left = self.all();
            if round == 0 {
                seen = left.len();
            }
            if left.is_empty() {
                break;
            }
            for process in left {
                if let Some(pid) = Pid::from_raw(process.pid) {
                    // A process that is gone by now is what we want.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        seen
    }

    /// Where each thread of each process is: its name, state, system call and kernel function.
    pub fn whereabouts(&self) -> String {
        let mut text = String::new();
        for process in self.all() {
            let dir = format!("/proc/{}/task", process.pid);
            let Ok(tasks) = fs::read_dir(dir) else { continue };
            for task in tasks.flatten() {
                let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
                let syscall = read("syscall");
                let _ = writeln!(
                    text,
                    "process {} thread {} ({}): in {}, system call {}",
                    process.pid,
                    task.file_name().to_string_lossy(),
                    read("comm").trim(),
                    read("wchan").trim(),
                    syscall.split(' ').next().unwrap_or_default().trim(),
                );
            }
        }
        text
    }
}

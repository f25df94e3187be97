//! What a process did, as it ends: a line on standard error (`run --stats`), a line of JSON to a file.
//!
//! The file is for programs (`SOLORING_STATS_FILE`): `{"pid":1,"ops":2,...}`, appended in one write, one
//! line per process.
#![allow(unsafe_code)]

use soloring_abi::Opcode;
use soloring_engine::uapi;
use soloring_intercept::dispatch::borrowed_memory;
use soloring_intercept::{environment, patch, raw};
use std::ffi::{CString, c_char};
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering::Relaxed};

/// Whether the line on standard error is still to be printed.
static LINE: AtomicBool = AtomicBool::new(false);
/// The process that prints it even without ever having had a ring: the one that `run` became. 0: none.
static ALWAYS: AtomicI32 = AtomicI32::new(0);
/// The file to append to, or null; leaked.
static FILE: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
/// Run by the C library at `exit`, after the program's own exit functions.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = at_exit;

pub(crate) fn init() {
    let line = std::env::var(environment::STATS).ok();
    let ours = line.as_ref().is_some_and(|pid| *pid == raw::getpid().to_string());
    ALWAYS.store(if ours { raw::getpid() } else { 0 }, Relaxed);
    LINE.store(line.is_some(), Relaxed);
    let file = std::env::var_os(environment::STATS_FILE);
    if let Some(path) = file.and_then(|f| CString::new(f.into_vec()).ok()) {
        FILE.store(path.into_raw(), Relaxed);
    }
}

fn wanted() -> bool {
    LINE.load(Relaxed) || !FILE.load(Relaxed).is_null()
}

/// Room for a report that names every opcode.
const LINE_MAX: usize = 3072;

/// A line that is written in one piece, without allocating: an exit may come in a signal handler.
struct Line {
    bytes: [u8; LINE_MAX],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let part = s.as_bytes().get(..s.len().min(room)).unwrap_or_default();
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        if part.len() < s.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

impl Line {
    fn new() -> Line {
        Line { bytes: [0; LINE_MAX], len: 0 }
    }
    fn write_to(&self, fd: usize) {
        let args = [fd, self.bytes.as_ptr() as usize, self.len, 0, 0, 0];
        // SAFETY: the bytes up to `len` are initialised.
        unsafe { raw::any(libc::SYS_write as usize, args) };
    }
}

/// Reports, once per process.
pub(crate) extern "C" fn at_exit() {
    if borrowed_memory() {
        return; // a child of vfork: the counts are its parent's to report
    }
    let to_file = FILE.swap(ptr::null_mut(), Relaxed);
    if LINE.swap(false, Relaxed) && (ring_used() || ALWAYS.load(Relaxed) == raw::getpid()) {
        print();
    }
    if !to_file.is_null() {
        append(to_file);
    }
}

/// Whether this process made a ring or used one that it inherited.
fn ring_used() -> bool {
    uapi::call_count() + uapi::op_count() > 0
}

/// Before `exec`: the same, if there is something to report. The next program starts from zero; should
/// the `exec` fail, what comes after it is not reported.
pub(crate) fn before_exec() {
    if wanted() && !borrowed_memory() && ring_used() {
        at_exit();
    }
}

fn print() {
    let mut line = Line::new();
    let _ = report(&mut line);
    line.write_to(2);
}

fn report(line: &mut Line) -> fmt::Result {
    let (pid, sites) = (raw::getpid(), patch::patched_sites());
    let ops = uapi::op_count();
    write!(line, "soloring: pid {pid}: {ops} operations, {sites} call sites rewritten")?;
    if let Ok(Some(l)) = uapi::lock_stats_at_exit() {
        let mode = if l.mode.is_everywhere() { l.mode.name() } else { "" };
        let comma = if mode.is_empty() { "" } else { ", " };
        write!(
            line,
            "; ring lock{comma}{mode}: {} elided by its owner, {} taken by its owner, {} by others, \
             {} revocations, {} us waited",
            l.owner_elided,
            l.owner_taken,
            l.foreign,
            l.revocations,
            l.waited_ns / 1000
        )?;
    }
    writeln!(line)
}

fn json(line: &mut Line) -> fmt::Result {
    let counts = uapi::op_counts();
    let ops: u64 = counts.iter().sum();
    let (pid, sites) = (raw::getpid(), patch::patched_sites());
    let calls = uapi::call_count();
    write!(
        line,
        r#"{{"pid":{pid},"ops":{ops},"calls":{calls},"patched_sites":{sites},"per_op":{{"#
    )?;
    let done = Opcode::ALL.iter().filter(|op| counts[**op as usize] > 0);
    for (i, op) in done.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(line, r#"{comma}"{}":{}"#, op.name(), counts[*op as usize])?;
    }
    line.write_str("}")?;
    if let Ok(Some(l)) = uapi::lock_stats_at_exit() {
        write!(
            line,
            r#","lock":{{"owner_elided":{},"owner_taken":{},"foreign":{},"revocations":{},"waited_ns":{}}}"#,
            l.owner_elided, l.owner_taken, l.foreign, l.revocations, l.waited_ns
        )?;
    }
    writeln!(line, "}}")
}

fn append(path: *const c_char) {
    let mut line = Line::new();
    if json(&mut line).is_err() {
        return; // half a line would spoil the file for its reader
    }
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_CLOEXEC;
    let args = [libc::AT_FDCWD as usize, path as usize, flags as usize, 0o644, 0, 0];
    // SAFETY: the path is a leaked C string.
    let fd = unsafe { raw::any(libc::SYS_openat as usize, args) };
    if fd >= 0 {
        line.write_to(fd as usize);
        // SAFETY: closes what was opened above.
        unsafe { raw::any(libc::SYS_close as usize, [fd as usize, 0, 0, 0, 0, 0]) };
    }
}

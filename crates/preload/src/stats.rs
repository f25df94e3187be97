//! What a process did, as it ends: a line on standard error (`run --stats`), a line of JSON to a file.
//!
//! The file is for programs (`SOLORING_STATS_FILE`): `{"pid":1,"ops":2,...}`, appended in one write, one
//! line per process.

use soloring_engine::uapi;
use soloring_intercept::dispatch::borrowed_memory;
use soloring_intercept::{environment, patch, raw};
use std::ffi::{CString, c_char};
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};

/// Whether the line on standard error is still to be printed.
static LINE: AtomicBool = AtomicBool::new(false);
/// The file to append to, or null; leaked.
static FILE: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
/// Operations of the parent, when this process was forked.
static INHERITED: AtomicU64 = AtomicU64::new(0);

/// Run by the C library at `exit`, after the program's own exit functions.
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = at_exit;

pub(crate) fn init() {
    LINE.store(std::env::var_os(environment::STATS).is_some(), Relaxed);
    let file = std::env::var_os(environment::STATS_FILE);
    if let Some(path) = file.and_then(|f| CString::new(f.into_vec()).ok()) {
        FILE.store(path.into_raw(), Relaxed);
    }
    // SAFETY: the handler only stores a number.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
}

extern "C" fn after_fork() {
    INHERITED.store(uapi::op_count(), Relaxed);
}

fn operations() -> u64 {
    uapi::op_count().saturating_sub(INHERITED.load(Relaxed))
}

/// A line that is written in one piece, without allocating: an exit may come in a signal handler.
struct Line {
    bytes: [u8; 1024],
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
        Line { bytes: [0; 1024], len: 0 }
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
    if LINE.swap(false, Relaxed) {
        print();
    }
    if !to_file.is_null() {
        append(to_file);
    }
}

/// Before `exec`: the same, if there is something to report. The next program starts from zero; should
/// the `exec` fail, what comes after it is not reported.
pub(crate) fn before_exec() {
    if !borrowed_memory() && operations() > 0 {
        at_exit();
    }
}

fn print() {
    let mut line = Line::new();
    let (pid, sites) = (raw::getpid(), patch::patched_sites());
    let ops = operations();
    let _ = writeln!(line, "soloring: pid {pid}: {ops} operations, {sites} call sites rewritten");
    line.write_to(2);
}

fn append(path: *const c_char) {
    let mut line = Line::new();
    let _ = writeln!(
        line,
        r#"{{"pid":{},"ops":{},"patched_sites":{}}}"#,
        raw::getpid(),
        operations(),
        patch::patched_sites()
    );
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

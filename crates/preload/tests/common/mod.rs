//! Builds the C programs of tests/programs and runs them under the shared object with the kernel's ring denied.
#![allow(unsafe_code)]

use soloring_intercept::{environment, filter};
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};

/// Seconds after which a program counts as hung.
const LIMIT_SECS: u64 = 120;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(name)
}

/// Path of the program or library `output` built from `name`.c with `flags`; built once per test run.
pub fn compiled(name: &str, output: &str, flags: &[&str]) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap();
    if let Some(path) = built.get(output) {
        return path.clone();
    }
    // A directory per test process: several of them may build at once.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(output);
    let result = Command::new("cc")
        .args(["-O2", "-Wall", "-Wno-unused-function", "-o"])
        .arg(&path)
        .arg(source(&format!("{name}.c")))
        .args(flags)
        .args(["-ldl", "-pthread"])
        .output()
        .expect("a C compiler");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    built.insert(output.to_owned(), path.clone());
    path
}

/// The shared object under test, as cargo built it beside this test.
pub fn shared_object() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let path = own.with_file_name("libsoloring_preload.so");
        assert!(path.exists(), "{} is missing", path.display());
        path
    })
}

/// What a program did under the shared object.
pub struct Ran {
    pub output: Output,
    /// Operations of all its processes, as they reported them.
    pub operations: u64,
}

impl Ran {
    /// Exit status 0, and work done by our engine.
    #[track_caller]
    pub fn passed(&self) {
        assert!(self.output.status.success(), "{}\n{}", self.output.status, self.stderr());
        assert!(self.operations > 0, "nothing went through soloring");
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// `program args` on the kernel as it is, to show that the test itself is right there.
pub fn on_kernel(program: &Path, args: &[&str]) -> Output {
    limited(program).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Whether this machine's kernel has a ring to compare with.
pub fn kernel_has_ring() -> bool {
    let mut params = [0u32; 30];
    // SAFETY: the kernel reads and writes 120 bytes; a descriptor that is returned is closed.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr());
        if fd >= 0 {
            libc::close(fd as i32);
        }
        fd >= 0
    }
}

fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--foreground").arg("-k1").arg(LIMIT_SECS.to_string()).arg(program);
    command
}

/// `program args` under the shared object, with the filter of a container engine below it.
pub fn run(program: &Path, args: &[&str]) -> Ran {
    run_with(program, args, |_| {})
}

/// As [`run`], after `prepare` has changed the command.
pub fn run_with(program: &Path, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Ran {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let stats = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{}-{number}.stats", std::process::id()));
    let deny = filter::deny_program();
    let object = shared_object();
    let mut command = limited(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .env("LD_PRELOAD", object)
        .env(environment::PRELOAD_PATH, object)
        .env(environment::FD_BASE, soloring_engine::uapi::fd_base().to_string())
        .env(environment::STATS_FILE, &stats);
    prepare(&mut command);
    // SAFETY: two system calls and no allocation between fork and exec.
    unsafe { command.pre_exec(move || filter::install(&deny)) };
    let output = command.output().unwrap();
    let report = std::fs::read_to_string(&stats).unwrap_or_default();
    let _ = std::fs::remove_file(&stats);
    Ran { output, operations: report.lines().map(operations).sum() }
}

/// The number behind `"ops":` in one line of the report.
fn operations(line: &str) -> u64 {
    let (_, rest) = line.split_once("\"ops\":").expect("a report has its operations");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number of operations")
}

/// Runs one case of a program on the kernel (must pass where there is a ring) and on ours.
#[track_caller]
pub fn both(program: &Path, args: &[&str]) {
    if kernel_has_ring() {
        let kernel = on_kernel(program, args);
        let error = String::from_utf8_lossy(&kernel.stderr).into_owned();
        assert!(kernel.status.success(), "on the kernel: {} {error}", kernel.status);
    }
    run(program, args).passed();
}

/// The signal that ended a program, for messages.
#[allow(dead_code)]
pub fn signal(ran: &Ran) -> Option<i32> {
    ran.output.status.signal()
}

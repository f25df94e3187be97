//! `soloring __static PATH ARGV...`: starts a program that cannot load us, below a program that did.
//!
//! A static program inherits the filter but has no handler for its stops: its first ring call would kill it.
//! So a tracer follows it and its children: ring calls answer ENOSYS, descriptor calls are carried out as
//! asked, everything else passes without a stop. The tracer lets go of a child that executes a program
//! which loads us. This process becomes the program; the tracer is nobody's child and holds no
//! descriptor of the program.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::{env, fs, ptr};

use libc::{c_char, c_int, c_long, pid_t};
use soloring_abi::cookie::{COOKIE, MMAP_FLAGS_COOKIE};
use soloring_intercept::{environment, filter, raw, target};

use crate::run::sigpipe;

/// Only returns when the program could not be started. `args` are PATH and the argument vector.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut strings = args.filter_map(|a| CString::new(a.into_vec()).ok());
    let Some(path) = strings.next() else {
        eprintln!("soloring: {}: no program", environment::STATIC_SUBCOMMAND.to_string_lossy());
        return ExitCode::from(2);
    };
    let argv: Vec<CString> = strings.collect();
    if let Err(error) = be_traced() {
        let name = path.to_string_lossy();
        let _ = writeln!(
            io::stderr(),
            "soloring: {name} cannot load soloring and cannot be followed ({error}): \
             a ring call will end it"
        );
    }
    if matches!(target::examine(&path), Err(target::Refusal::OtherLoader)) {
        leave_out_preload();
    }
    sigpipe::restore();
    let vector: Vec<_> = argv.iter().map(|a| a.as_ptr()).chain([ptr::null()]).collect();
    // Raw: this process is itself below the shared object, whose `execve` would lead here again.
    // SAFETY: NULL-terminated vectors of NUL-terminated strings that live across the call.
    let error = unsafe { raw::any(libc::SYS_execve as usize, execve_args(&path, &vector)) };
    let error = io::Error::from_raw_os_error(-error as i32);
    let _ = writeln!(io::stderr(), "soloring: {}: {error}", path.to_string_lossy());
    ExitCode::from(if error.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 })
}

/// Takes our object off the list of what is to be loaded: another C library's loader would try to, and end the
/// program. A static program has no loader, and keeps the list for its children.
fn leave_out_preload() {
    const LIST: &str = "LD_PRELOAD";
    let object = env::var_os(environment::PRELOAD_PATH).unwrap_or_default();
    let list = env::var_os(LIST).unwrap_or_default();
    let is_other = |path: &&[u8]| !path.is_empty() && *path != object.as_bytes();
    let entries = list.as_bytes().split(|b| matches!(b, b':' | b' '));
    let rest = entries.filter(is_other).collect::<Vec<_>>().join(&b':');
    // SAFETY: this process has one thread.
    unsafe {
        match rest.is_empty() {
            true => env::remove_var(LIST),
            false => env::set_var(LIST, OsStr::from_bytes(&rest)),
        }
    }
}

fn execve_args(path: &CStr, argv: &[*const c_char]) -> raw::Args {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: this process has one thread, so nobody changes the environment meanwhile.
    let envp = unsafe { environ };
    [path.as_ptr() as usize, argv.as_ptr() as usize, envp as usize, 0, 0, 0]
}

/// Ends a helper process at once, without the reports that the shared object makes at an exit.
fn leave() -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { raw::any(libc::SYS_exit_group as usize, [0; 6]) };
    }
}

/// Starts the tracer and waits until it follows this process.
///
/// # Errors
/// Where the system refuses tracing (EPERM), or processes.
fn be_traced() -> io::Result<()> {
    let (mut ready, mut go) = ([0; 2], [0; 2]);
    // SAFETY: each call writes two descriptors.
    unsafe {
        check(libc::pipe2(ready.as_mut_ptr(), libc::O_CLOEXEC))?;
        check(libc::pipe2(go.as_mut_ptr(), libc::O_CLOEXEC))?;
        let own = libc::getpid();
        // SAFETY: this process has one thread; the children only make calls of their own.
        let between = check(libc::fork())?;
        if between == 0 {
            let tracer = libc::fork();
            if tracer == 0 {
                libc::close(ready[0]);
                libc::close(go[1]);
                trace(own, go[0], ready[1]);
                leave();
            }
            // Yama lets a process be traced by those it names; the number reaches it through the pipe.
            libc::write(ready[1], (&raw const tracer).cast(), size_of::<pid_t>());
            leave();
        }
        libc::close(ready[1]);
        libc::close(go[0]);
        libc::waitpid(between, ptr::null_mut(), 0);
        let mut tracer: pid_t = -1;
        libc::read(ready[0], (&raw mut tracer).cast(), size_of::<pid_t>());
        libc::prctl(libc::PR_SET_PTRACER, tracer as c_long, 0, 0, 0);
        libc::close(go[1]); // the tracer waits for this end of file
        let mut errno = libc::ESRCH;
        libc::read(ready[0], (&raw mut errno).cast(), size_of::<c_int>());
        libc::close(ready[0]);
        if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
    }
}

fn check(ret: c_int) -> io::Result<c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// A ptrace request number.
type Request = libc::c_uint;

const EVENTS: c_int = libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESYSGOOD;

/// The tracer's life: follows `first`, reports on `ready` (an errno, 0 for good), ends with the last tracee.
fn trace(first: pid_t, go: c_int, ready: c_int) {
    let mut byte = 0u8;
    let no_address = ptr::null_mut::<libc::c_void>();
    // SAFETY: reads into a live byte; the other calls take numbers.
    let errno: c_int = unsafe {
        libc::setsid();
        libc::read(go, (&raw mut byte).cast(), 1);
        match libc::ptrace(libc::PTRACE_SEIZE, first, no_address, c_long::from(EVENTS)) {
            0 => 0,
            _ => *libc::__errno_location(),
        }
    };
    // SAFETY: writes a live number; then gives up every descriptor that it shares with the program.
    unsafe {
        libc::write(ready, (&raw const errno).cast(), size_of::<c_int>());
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        libc::chdir(c"/".as_ptr());
    }
    if errno == 0 {
        Tracer { redone: HashMap::new() }.follow();
    }
}

/// Registers to put back once a call that was made again is over.
struct Redone {
    r9: u64,
    r10: u64,
}

struct Tracer {
    redone: HashMap<pid_t, Redone>,
}

impl Tracer {
    fn follow(&mut self) {
        loop {
            let mut status = 0;
            // SAFETY: writes one status. ECHILD: the last tracee is gone or was let go.
            let tid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
            if tid < 0 {
                return;
            }
            if libc::WIFSTOPPED(status) {
                self.stopped(tid, libc::WSTOPSIG(status), status >> 16);
            } else {
                self.redone.remove(&tid);
            }
        }
    }

    fn stopped(&mut self, tid: pid_t, signal: c_int, event: c_int) {
        let go_on = match (signal, event) {
            (s, _) if s == libc::SIGTRAP | 0x80 => self.at_call(tid),
            (_, libc::PTRACE_EVENT_EXEC) if loads_us(tid) => {
                self.redone.remove(&tid);
                (libc::PTRACE_DETACH, 0)
            }
            // A group stop: stay stopped, but hear of what ends it. SIGTRAP is a new child's first stop.
            (s, libc::PTRACE_EVENT_STOP) if s != libc::SIGTRAP => (libc::PTRACE_LISTEN, 0),
            (_, event) if event != 0 => (libc::PTRACE_CONT, 0),
            (libc::SIGSYS, _) => self.at_stop(tid),
            (signal, _) => {
                // Before a call could be made again: its handler comes first, then the call stops anew.
                self.put_back(tid);
                (libc::PTRACE_CONT, signal)
            }
        };
        request(go_on.0, tid, c_long::from(go_on.1));
    }

    /// A SIGSYS about to be delivered: ours is swallowed and its call answered or made again.
    fn at_stop(&mut self, tid: pid_t) -> (Request, c_int) {
        let deliver = (libc::PTRACE_CONT, libc::SIGSYS);
        let Some(nr) = our_stop(tid) else { return deliver };
        let Some(mut regs) = registers(tid) else { return deliver };
        regs.orig_rax = u64::MAX; // no restart of an interrupted call
        if (libc::SYS_io_uring_setup..=libc::SYS_io_uring_register).contains(&nr) {
            regs.rax = -i64::from(libc::ENOSYS) as u64;
            set_registers(tid, &regs);
            return (libc::PTRACE_CONT, 0);
        }
        let before = Redone { r9: regs.r9, r10: regs.r10 };
        regs.rip -= 2; // back onto the instruction
        regs.rax = nr as u64;
        if nr == libc::SYS_mmap {
            regs.r10 = (regs.r10 & 0xffff_ffff) | MMAP_FLAGS_COOKIE;
        } else {
            regs.r9 = COOKIE;
        }
        set_registers(tid, &regs);
        self.redone.insert(tid, before);
        (libc::PTRACE_SYSCALL, 0)
    }

    /// Entry into a call that is made again, or its end: there the registers are put back.
    fn at_call(&mut self, tid: pid_t) -> (Request, c_int) {
        let Some(regs) = registers(tid) else { return (libc::PTRACE_CONT, 0) };
        // At the entry, rax holds -ENOSYS and the marks are still there to be seen by the filter.
        let entering = regs.rax as i64 == -i64::from(libc::ENOSYS);
        if entering {
            return (libc::PTRACE_SYSCALL, 0);
        }
        self.put_back(tid);
        (libc::PTRACE_CONT, 0)
    }

    fn put_back(&mut self, tid: pid_t) {
        if let Some(before) = self.redone.remove(&tid)
            && let Some(mut regs) = registers(tid)
        {
            (regs.r9, regs.r10) = (before.r9, before.r10);
            set_registers(tid, &regs);
        }
    }
}

fn request(what: Request, tid: pid_t, data: c_long) {
    // SAFETY: requests that take numbers only; a tracee that is gone gives an error nobody needs.
    unsafe { libc::ptrace(what, tid, ptr::null_mut::<libc::c_void>(), data) };
}

fn registers(tid: pid_t) -> Option<libc::user_regs_struct> {
    let mut regs = std::mem::MaybeUninit::<libc::user_regs_struct>::uninit();
    // SAFETY: the kernel fills the whole structure when it answers 0.
    unsafe {
        let none = ptr::null_mut::<libc::c_void>();
        (libc::ptrace(libc::PTRACE_GETREGS, tid, none, regs.as_mut_ptr()) == 0)
            .then(|| regs.assume_init())
    }
}

fn set_registers(tid: pid_t, regs: &libc::user_regs_struct) {
    // SAFETY: reads one complete structure.
    unsafe { libc::ptrace(libc::PTRACE_SETREGS, tid, ptr::null_mut::<libc::c_void>(), regs) };
}

/// The number of the call, when the pending SIGSYS is a stop of our filter.
fn our_stop(tid: pid_t) -> Option<c_long> {
    let mut info = [0i32; 32];
    // SAFETY: the kernel writes one siginfo of 128 bytes.
    let ret = unsafe {
        libc::ptrace(
            libc::PTRACE_GETSIGINFO,
            tid,
            ptr::null_mut::<libc::c_void>(),
            info.as_mut_ptr(),
        )
    };
    const SYS_SECCOMP: i32 = 1;
    // struct siginfo: signo, errno, code, pad; call address 8 bytes, number, architecture.
    (ret == 0 && info[2] == SYS_SECCOMP && info[1] == i32::from(filter::MAGIC))
        .then_some(c_long::from(info[6]))
}

/// Whether the program that `pid` just executed will load us and handle its own stops.
fn loads_us(pid: pid_t) -> bool {
    let Ok(exe) = CString::new(format!("/proc/{pid}/exe")) else { return false };
    target::examine(&exe).is_ok() && has_preload(pid).unwrap_or(false)
}

fn has_preload(pid: pid_t) -> io::Result<bool> {
    let object = std::env::var(environment::PRELOAD_PATH).unwrap_or_default();
    let entries = fs::read(format!("/proc/{pid}/environ"))?;
    let list = entries.split(|b| *b == 0).find_map(|e| e.strip_prefix(b"LD_PRELOAD="));
    Ok(list.is_some_and(|l| l.split(|b| matches!(b, b':' | b' ')).any(|p| p == object.as_bytes())))
}

/// Whether `name` is this subcommand.
pub fn is(name: &std::ffi::OsStr) -> bool {
    CStr::to_bytes(environment::STATIC_SUBCOMMAND) == name.as_encoded_bytes()
}

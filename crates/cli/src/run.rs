//! `soloring run`: starts an unmodified program with its io_uring calls carried out here, and becomes it.
//!
//! There is no supervisor: this process prepares the environment and executes the program, so standard
//! streams, exit status, signals and process id are the program's own by construction.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fmt, ptr};

use anyhow::Result;
use io_uring::{IoUring, opcode};
use soloring_engine::uapi;
use soloring_intercept::target::{self, Refusal};
use soloring_intercept::{environment, filter};

#[derive(clap::Args)]
pub struct Args {
    /// First take the kernel's ring away, as container engines do: its three calls answer EPERM
    #[arg(long)]
    deny_kernel: bool,
    /// Step aside and run the program untouched where the kernel's ring works
    #[arg(long)]
    if_needed: bool,
    /// Print a line of counts on standard error as the program ends, and each child that used a ring
    #[arg(long)]
    stats: bool,
    /// The program, looked up in PATH, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Why nothing was started, with the shell's exit status for it.
struct Refused {
    what: String,
    status: u8,
}

/// As the shell has it: 127 not found, 126 found but cannot run.
const NOT_FOUND: u8 = 127;
const CANNOT_RUN: u8 = 126;

impl Refused {
    fn cannot(what: impl fmt::Display) -> Refused {
        Refused { what: what.to_string(), status: CANNOT_RUN }
    }
}

/// Only returns when the program could not be started.
pub fn main(args: Args) -> Result<ExitCode> {
    let Err(refused) = execute(args);
    let _ = writeln!(io::stderr(), "soloring: {}", refused.what.replace('\n', " "));
    Ok(ExitCode::from(refused.status))
}

fn execute(args: Args) -> Result<std::convert::Infallible, Refused> {
    let name = &args.command[0];
    let program = find(name)?;
    if args.deny_kernel {
        filter::install(&filter::deny_program())
            .map_err(|e| Refused::cannot(format_args!("cannot deny the kernel's ring: {e}")))?;
    }
    let aside = args.if_needed && kernel_ring_works();
    if !aside {
        check(name, &program)?;
        prepare_environment(args.stats)?;
    }
    let error = become_program(&program, &args.command);
    Err(Refused::cannot(format_args!("{}: {error}", Path::new(name).display())))
}

fn find(name: &OsStr) -> Result<CString, Refused> {
    let missing = |what: &str| Refused {
        what: match Path::new(name).display().to_string() {
            shown if shown.is_empty() => "the program's name is empty".to_owned(),
            shown => format!("{shown}: {what}"),
        },
        status: NOT_FOUND,
    };
    let c_name = CString::new(name.as_bytes()).map_err(|_| missing("no such program"))?;
    let path = env::var_os("PATH").and_then(|p| CString::new(p.as_bytes()).ok());
    let path = path.as_ref().map_or(ptr::null(), |p| p.as_ptr());
    // SAFETY: both are NUL-terminated and live across the call.
    let found = unsafe { target::on_path(&c_name, path, |p| p.to_owned()) };
    found.ok_or_else(|| missing("no such program in PATH"))
}

fn check(name: &OsStr, program: &CString) -> Result<(), Refused> {
    target::examine(program).map_err(|refusal| {
        let absent = matches!(
            refusal,
            Refusal::Unreadable(libc::ENOENT | libc::ENOTDIR)
                | Refusal::NoInterpreter(libc::ENOENT)
        );
        Refused {
            what: format!("{}: {refusal}", Path::new(name).display()),
            status: if absent { NOT_FOUND } else { CANNOT_RUN },
        }
    })
}

/// Whether a ring can be made here and carries out a request. Under another `run` that is our own.
fn kernel_ring_works() -> bool {
    let no_op = || -> io::Result<bool> {
        let mut ring = IoUring::new(2)?;
        // SAFETY: a NOP refers to no memory.
        unsafe { ring.submission().push(&opcode::Nop::new().build().user_data(7)) }
            .map_err(io::Error::other)?;
        ring.submit_and_wait(1)?;
        Ok(ring.completion().next().is_some_and(|c| c.user_data() == 7 && c.result() == 0))
    };
    no_op().unwrap_or(false)
}

fn prepare_environment(stats: bool) -> Result<(), Refused> {
    let object = preload_path()?;
    // The loader splits the list at these, and knows no way to quote them.
    if object.as_os_str().as_bytes().iter().any(|b| matches!(b, b':' | b' ')) {
        let what =
            format!("{}: LD_PRELOAD cannot name a path with spaces or colons", object.display());
        return Err(Refused::cannot(what));
    }
    let mut list = object.clone().into_os_string();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|l| !l.is_empty()) {
        list.push(":");
        list.push(others);
    }
    // SAFETY: this process has one thread.
    unsafe {
        env::set_var("LD_PRELOAD", list);
        env::set_var(environment::PRELOAD_PATH, &object);
        if let Ok(own) = env::current_exe() {
            env::set_var(environment::COMMAND_PATH, own);
        }
        env::set_var(environment::FD_BASE, uapi::fd_base().to_string());
        if stats {
            env::set_var(environment::STATS, std::process::id().to_string());
        }
    }
    Ok(())
}

const OBJECT: &str = "libsoloring_preload.so";

/// The shared object: where the environment says, or beside this executable, as cargo or a package puts it.
fn preload_path() -> Result<PathBuf, Refused> {
    if let Some(path) = env::var_os(environment::PRELOAD_PATH) {
        let path = PathBuf::from(path);
        return path.canonicalize().map_err(|e| {
            let name = environment::PRELOAD_PATH;
            Refused::cannot(format_args!("{}: {e} ({name} names it)", path.display()))
        });
    }
    let own = env::current_exe()
        .map_err(|e| Refused::cannot(format_args!("cannot find this program's own file: {e}")))?;
    let dir = own.parent().unwrap_or(Path::new("/"));
    let places = [dir.join("deps"), dir.to_owned(), dir.join("../lib/soloring")];
    places.iter().find_map(|place| place.join(OBJECT).canonicalize().ok()).ok_or_else(|| {
        Refused::cannot(format_args!(
            "{OBJECT} is neither beside {} nor in ../lib/soloring: scripts/install.sh installs both, and {} can name it",
            own.display(),
            environment::PRELOAD_PATH
        ))
    })
}

/// Executes the program in this process. Returns the error when that is not possible.
fn become_program(program: &CString, command: &[OsString]) -> io::Error {
    let strings = |list: Vec<Vec<u8>>| -> Vec<CString> {
        list.into_iter().filter_map(|s| CString::new(s).ok()).collect()
    };
    let argv = strings(command.iter().map(|a| a.as_bytes().to_vec()).collect());
    let envp =
        strings(env::vars_os().map(|(k, v)| [k.as_bytes(), b"=", v.as_bytes()].concat()).collect());
    let vector = |list: &[CString]| -> Vec<_> {
        list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
    };
    sigpipe::restore();
    // SAFETY: NULL-terminated vectors of NUL-terminated strings that live across the call.
    unsafe { libc::execve(program.as_ptr(), vector(&argv).as_ptr(), vector(&envp).as_ptr()) };
    io::Error::last_os_error()
}

/// Rust's runtime ignores SIGPIPE before `main`; the program must find the disposition that we found.
pub mod sigpipe {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    static WAS_DEFAULT: AtomicBool = AtomicBool::new(true);

    #[used]
    #[unsafe(link_section = ".init_array")]
    static RECORD: extern "C" fn() = record;

    extern "C" fn record() {
        // SAFETY: all zeros is a valid sigaction; the call only asks.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &mut now);
            WAS_DEFAULT.store(now.sa_sigaction == libc::SIG_DFL, Relaxed);
        }
    }

    pub fn restore() {
        if WAS_DEFAULT.load(Relaxed) {
            // SAFETY: the default action needs no handler.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        }
    }
}

//! Putting the interception in force for the current process.
#![allow(unsafe_code)]

use crate::{dispatch, filter, library, patch, sigsys, stack};
use soloring_engine::uapi;
use std::{fmt, io};

/// Proof that the interception is in force. It cannot be taken out again: seccomp filters are for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// Call sites rewritten, so that they cost no signal.
    pub patched_sites: u32,
    /// Whether the filter was inherited from a parent process rather than installed now.
    pub inherited: bool,
}

/// Why the interception could not be put in force.
#[derive(Debug)]
pub enum InstallError {
    /// The SIGSYS handler was refused.
    Handler(io::Error),
    /// The seccomp filter was refused (EINVAL or ENOSYS: kernel without seccomp; WouldBlock: a thread).
    Filter(io::Error),
    /// A filter of ours with another descriptor base is in force, which would stop the wrong calls.
    OtherBase,
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Handler(e) => write!(f, "the SIGSYS handler was refused: {e}"),
            InstallError::Filter(e) => write!(f, "the seccomp filter was refused: {e}"),
            InstallError::OtherBase => {
                write!(f, "a parent installed the filter with another descriptor base")
            }
        }
    }
}

impl std::error::Error for InstallError {}

/// Catches the io_uring calls of this process from now on, inherited by everything it executes.
///
/// Sets `no_new_privs`, installs one seccomp filter (unless a parent already did), takes SIGSYS, and
/// rewrites call sites in the loaded code. Call it early, best before other threads exist: a thread with
/// SIGSYS blocked would die at its first caught call. Calling it again does nothing.
///
/// # Errors
/// [`InstallError`]; nothing is in force then except possibly the handler, which is harmless alone.
pub fn install() -> Result<Installed, InstallError> {
    stack::init();
    dispatch::note_fork();
    // SAFETY: the handler only stores a number and may run in any forked child.
    unsafe { libc::pthread_atfork(None, None, Some(after_fork)) };
    let ret = sigsys::install();
    if ret < 0 {
        return Err(InstallError::Handler(io::Error::from_raw_os_error(-ret as i32)));
    }
    let base = uapi::fd_base();
    let inherited = match filter::installed(base) {
        filter::Installed::OtherBase => return Err(InstallError::OtherBase),
        filter::Installed::SameBase => true,
        filter::Installed::No => {
            filter::install(&filter::program(base)).map_err(InstallError::Filter)?;
            false
        }
    };
    uapi::only_high_numbers();
    patch::scan();
    library::redirect_syscall();
    Ok(Installed { patched_sites: patch::patched_sites(), inherited })
}

extern "C" fn after_fork() {
    dispatch::note_fork();
}

//! Catches the io_uring system calls of the running process, however they are issued.
//!
//! Three layers, from the net to the fast paths: a seccomp [`filter`] stops what it must see and a SIGSYS
//! handler (`sigsys.rs`) carries it out in process; call sites that can be are rewritten ([`patch`]) so that
//! nothing stops there; and the preload crate interposes the C library's symbols.
//! All three end in [`dispatch`], which calls `soloring_engine::uapi`.
//!
//! What is not served, on purpose: static programs (they are answered ENOSYS below a dynamic one, see the
//! command's `static_child.rs`), 32-bit and x32 callers (ENOSYS), threads made by raw `clone` without the C
//! library's thread-local storage, and code that blocks SIGSYS by its own system-call instruction with
//! the number not next to it: a stopped call kills such a thread. Handlers run on the program's stack for
//! as long as the kernel's signal frame needs (no SA_ONSTACK), everything after that on a stack of ours.
//! A ring cannot be given a number below the base (`dup2` answers EINVAL), so `select` cannot watch one.
//!
//! Absences that hold everywhere in this crate once [`install`] has returned: no allocation, no lock that
//! is waited for, no write to `errno` except where a C library function would write it.

pub mod dispatch;
mod entry;
pub mod environment;
pub mod filter;
mod install;
mod library;
pub mod mask;
pub mod patch;
pub mod raw;
pub mod sigaction;
mod sigsys;
mod site;
mod stack;
pub mod sweep;
pub mod target;
mod trampoline;
pub mod watch;

pub use install::{InstallError, Installed, install};

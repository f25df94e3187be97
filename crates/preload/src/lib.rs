//! The shared object that runs an unmodified program on soloring: a constructor and the C library's symbols.
//!
//! The symbols are the fast path and the part that a filter cannot see (signal masks, environments, sleeps
//! in `poll`). A program that bypasses them is still caught by the filter that the constructor installs.
//! Each file interposes one group of functions; the bodies that do the work live in `soloring-intercept`.
//!
//! Inside this shared object the C library's names resolve to our own definitions, so everything in the
//! process below the program's level (the engine too) makes its descriptor calls raw and marked.
#![allow(unsafe_code)]
// The symbols' contracts are the C library's.
#![allow(clippy::missing_safety_doc)]

mod descriptors;
mod execfd;
mod limits;
mod messages;
mod next;
mod process;
mod signals;
mod sleeps;
mod spawn_actions;
mod stats;
mod syscall;

use soloring_intercept::{environment, raw};

/// Run by the loader before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    environment::record();
    stats::init();
    // Every function of the C library that closes a descriptor is one of ours. A program that makes the
    // calls itself can say so.
    let holds = std::env::var_os(environment::HOLD_FILES).is_some_and(|v| !v.is_empty());
    soloring_engine::uapi::set_close_notified(!holds);
    if let Err(err) = soloring_intercept::install() {
        raw::stderr(&["soloring: cannot run this program here: ", &err.to_string(), "\n"]);
        // Going on would let the program use the kernel's ring, or none, and look like success.
        // SAFETY: ends the process; nothing of it has run yet.
        unsafe { libc::_exit(126) };
    }
}

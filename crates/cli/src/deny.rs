//! Takes the kernel's ring away from a child: with the filter that `run --deny-kernel` installs.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use soloring_intercept::filter;

/// Makes `command` start its program with io_uring denied, as in a container, and nothing in its place.
pub fn io_uring_in(command: &mut Command) -> &mut Command {
    let program = filter::deny_program();
    // SAFETY: the closure makes two system calls and reads what was allocated before the fork: nothing
    // that a child between fork and exec may not do. Only its failure would allocate, to say why.
    unsafe { command.pre_exec(move || filter::install(&program)) }
}

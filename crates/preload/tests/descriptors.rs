//! Ring descriptors under close, duplicates, fcntl, mmap, epoll, poll, sweeps and small limits.

mod common;

use common::{both, compiled, kernel_has_ring, on_kernel, run_with};
use soloring_intercept::environment;

macro_rules! cases {
    ($($name:ident $case:literal;)*) => {$(
        #[test]
        fn $name() {
            both(&compiled("descriptors", "descriptors", &[]), &[$case]);
        }
    )*};
}
cases! {
    duplicates "duplicates";
    replaced "replaced";
    readiness "readiness";
    edges "edges";
    sweeps "sweeps";
    range_cloexec "range-cloexec";
    vfork_sweep "vfork-sweep";
    hidden "hidden";
    small_limit "small-limit";
    own_limit "own-limit";
    executable "executable";
    sent "sent";
}

/// A program that closes by its own system calls can say so, and its requests hold their files.
#[test]
fn closed_silently() {
    let program = compiled("descriptors", "descriptors", &[]);
    if kernel_has_ring() {
        assert!(on_kernel(&program, &["closed-silently"]).status.success(), "on the kernel");
    }
    let ran = run_with(&program, &["closed-silently"], |command| {
        command.env(environment::HOLD_FILES, "1");
    });
    ran.passed();
}

//! Children: fork, vfork, spawn, shells, cleared environments, static programs.

mod common;

use common::{both, compiled};

macro_rules! cases {
    ($($name:ident $case:literal;)*) => {$(
        #[test]
        fn $name() {
            both(&compiled("processes", "processes", &[]), &[$case]);
        }
    )*};
}
cases! {
    forks "forks";
    cleared "cleared";
    spawned "spawned";
    shells "shells";
    threads_and_children "threads-and-children";
    closed_on_exec "closed-on-exec";
    ends "ends";
}

//! Children: fork, vfork, spawn, shells, cleared environments, static programs.

mod common;

use common::{both, compiled, run_with};
use soloring_intercept::environment;

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

/// The kernel's ring needs no file: this is a difference, and not [`both`]'s to compare.
#[test]
fn small_files() {
    run_with(&compiled("processes", "processes", &[]), &["small-files"], |_| {}).passed();
}

/// Ends in a handler that interrupted whatever the program was doing with its rings: the reports, both of
/// which are asked for, must not wait for that.
#[track_caller]
fn ends_in_a_handler(how: &str) {
    let program = compiled("exits", "exits", &[]);
    let ran = run_with(&program, &[how], |command| {
        command.env(environment::STATS, "1");
    });
    ran.passed();
    let report = ran.stderr();
    let lines = || report.lines().filter(|line| line.starts_with("soloring: pid "));
    assert_eq!((lines().count(), report.lines().count()), (201, 201), "a line for each process");
    assert_eq!(lines().filter(|line| line.contains(": 0 operations")).count(), 0, "{report}");
}

#[test]
fn the_systems_exit_in_a_handler() {
    ends_in_a_handler("_exit");
}

#[test]
fn exit_in_a_handler() {
    ends_in_a_handler("exit");
}

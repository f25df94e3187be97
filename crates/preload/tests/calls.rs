//! The three calls by every road: inline assembly, rewritten sites, the C library, code loaded later.
#![allow(unsafe_code)]

mod common;

use common::{both, compiled, run};

macro_rules! cases {
    ($($name:ident $case:literal;)*) => {$(
        #[test]
        fn $name() {
            both(&compiled("calls", "calls", &[]), &[$case]);
        }
    )*};
}
cases! {
    roads "roads";
    errors "errors";
    preserves "preserves";
    by_number "by-number";
}

#[test]
fn sites_are_rewritten_before_main() {
    run(&compiled("calls", "calls", &[]), &["rewritten"]).passed();
}

#[test]
fn code_loaded_later_is_caught_and_rewritten() {
    let library = compiled("late", "late.so", &["-shared", "-fPIC"]);
    run(&compiled("calls", "calls", &[]), &["loaded-later", library.to_str().unwrap()]).passed();
}

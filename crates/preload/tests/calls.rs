//! The three calls by every road: inline assembly, rewritten sites, the C library, code loaded later.

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

#[test]
fn vector_registers_of_a_narrow_object_are_preserved() {
    both(&compiled("vectors", "narrow", &[]), &[]);
}

#[test]
fn vector_registers_of_a_wide_object_are_preserved() {
    let wide = compiled("vectors", "wide", &["-DWIDE"]);
    // Where the machine has no AVX-512 the program ends before it uses a ring.
    assert!(run(&wide, &[]).output.status.success());
    if std::is_x86_feature_detected!("avx512f") {
        both(&wide, &[]);
    }
}

/// Whatever an allocator calls of the C library's, under its own lock and before anything of ours has run.
#[test]
fn allocators_that_ask_the_system() {
    both(&compiled("allocator", "allocator", &[]), &[]);
}

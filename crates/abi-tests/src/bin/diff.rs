//! `diff NAME...`: runs cases on both rings and prints where what they saw differs.
//!
//! A name is `family::case`, `family::case@mode`, or any part of it; all cases that contain it are
//! run. Lines with `-` are the kernel's, lines with `+` are ours.

use similar::TextDiff;
use soloring_abi_tests::{case, families::FAMILIES, runner};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = runner::child_main() {
        return status;
    }
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.is_empty() {
        eprintln!("usage: diff NAME... (a part of family::case@mode; an empty string for all)");
        return ExitCode::from(2);
    }
    let names = case::names(FAMILIES);
    let (mut ran, mut differing) = (0, 0);
    for name in names.iter().filter(|name| wanted.iter().any(|w| name.contains(w.as_str()))) {
        ran += 1;
        let kernel = runner::run_in_child(&format!("kernel::{name}"));
        let ours = runner::run_in_child(&format!("soloring::{name}"));
        let verdict = |r: &Result<_, _>| if r.is_ok() { "pass" } else { "FAIL" };
        let verdicts = format!("kernel {}, soloring {}", verdict(&kernel), verdict(&ours));
        let (kernel, ours) = (kernel.unwrap_or_else(|e| e), ours.unwrap_or_else(|e| e));
        if kernel == ours {
            println!("{name}: same ({verdicts})");
            continue;
        }
        differing += 1;
        println!("{name}: differs ({verdicts})");
        let diff = TextDiff::from_lines(&kernel, &ours);
        print!("{}", diff.unified_diff().context_radius(2).header("kernel", "soloring"));
    }
    println!("{ran} case(s), {differing} differing");
    if ran == 0 { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

//! `matrix`: prints the permission matrix, kernel beside ours, as tab-separated values.
//!
//! The checked-in table is made by `matrix > crates/abi-tests/data/matrix.tsv`. Where the kernel's ring
//! is refused, its column is taken from that table. Ends with status 1 when a difference has no note.

use soloring_abi_tests::backend::{Backend, Kernel, Soloring, kernel_refusal};
use soloring_abi_tests::matrix;
use std::process::ExitCode;

fn main() -> ExitCode {
    let known = matrix::parse(include_str!("../../data/matrix.tsv"));
    let kernel: Option<&'static dyn Backend> = match kernel_refusal() {
        None => Some(&Kernel),
        Some(why) => {
            eprintln!("no ring of the kernel's here ({why}): its column is the checked-in one");
            None
        }
    };
    let rows = matrix::run(kernel, &Soloring, &known);
    println!("# Who may do what to a ring: Linux 6.18 and soloring. Made by the program `matrix`.");
    println!("{}", matrix::HEADER);
    for row in &rows {
        println!("{}", row.line());
    }
    let differ = rows.iter().filter(|r| r.kernel != r.ours);
    let (noted, bare): (Vec<_>, Vec<_>) = differ.partition(|r| !r.note.is_empty());
    eprintln!("{} cells, {} differ with a reason, {} without", rows.len(), noted.len(), bare.len());
    for row in &bare {
        eprintln!("no reason: {}", row.line());
    }
    if bare.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! `fuzz FIRST COUNT [kernel]`: compares random entries on our ring and on the kernel's, seed by seed.
//!
//! `fuzz FIRST COUNT PART [kernel]`: one of the parts of `fuzz::PARTS` (entries, setup, enter, register, words), or `all`.
//!
//! `fuzz FIRST COUNT traffic [kernel|announced]`: random receives from streams, on one ring, against what was sent.
//!
//! `fuzz WORLD 1 world`: one world of the entries, batch by batch, with what both sides say.
//!
//! With `kernel` it compares the kernel with itself, which shows what is a race of the comparison. Prints each kind of mismatch once, with its number. Ends with status 1 when there was any.

use soloring_abi::raw;
use soloring_abi_tests::backend::{Abi, Backend, Kernel, Soloring};
use soloring_abi_tests::families::random::mismatches;
use soloring_abi_tests::families::streams;
use soloring_abi_tests::fuzz::{PARTS, Part, entries};
use soloring_abi_tests::{case, sys, trace};
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [first, count] = numbers[..] else {
        eprintln!("usage: fuzz FIRST COUNT [kernel]");
        return ExitCode::from(2);
    };
    let has = |word: &str| std::env::args().any(|a| a == word);
    if has("announced") {
        sys::announce_closes();
    }
    let side: &'static dyn Backend = match has("kernel") {
        true => &Kernel,
        false => &Soloring,
    };
    let defer = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    if has("traffic") {
        return traffic(side, defer, first..first + count);
    }
    if has("world") {
        for world in first..first + count {
            let abi = Abi::new(side, mode(world / entries::WORLDS as u64));
            println!("{}", entries::story(&abi, world));
        }
        return ExitCode::SUCCESS;
    }
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| has(name) || has("all")).collect();
    if !parts.is_empty() {
        return play(&parts, side, first..first + count);
    }
    let mut kinds: BTreeMap<String, (usize, u64, String)> = BTreeMap::new();
    for seed in first..first + count {
        let abi = Abi::new(side, if seed % 2 == 0 { 0 } else { defer });
        for (_, text) in mismatches(&abi, seed, &[]) {
            // The kind: both outcomes and the operation.
            let end = text.find(" fd=").unwrap_or(text.len());
            let kind = kinds.entry(text[..end].to_string()).or_insert((0, seed, text));
            kind.0 += 1;
        }
        trace::take();
    }
    for (number, seed, text) in kinds.values() {
        println!("{number:5} (seed {seed}) {text}");
    }
    println!("{count} seed(s), {} kind(s) of mismatch", kinds.len());
    if kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Ring flags of a seed.
fn mode(seed: u64) -> u32 {
    case::MODES[seed as usize % case::MODES.len()].1
}

fn play(parts: &[&(&str, Part)], side: &'static dyn Backend, seeds: Range<u64>) -> ExitCode {
    let mut kinds: BTreeMap<String, (usize, u64, String)> = BTreeMap::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        for (name, part) in parts {
            let abi = Abi::new(side, mode(seed));
            for found in part(&abi, seed) {
                let kind = format!("{name}: {}", found.kind);
                kinds.entry(kind).or_insert((0, seed, found.input)).0 += 1;
            }
            trace::take();
        }
    }
    for (kind, (number, seed, input)) in &kinds {
        println!("{number:5} (seed {seed}) {kind}\n      {input}");
    }
    println!("{count} seed(s), {} kind(s) of mismatch", kinds.len());
    if kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn traffic(side: &'static dyn Backend, defer: u32, seeds: Range<u64>) -> ExitCode {
    let mut failures = 0;
    for seed in seeds {
        let abi = Abi::new(side, if seed % 2 == 0 { 0 } else { defer });
        streams::traffic(&abi, seed, 3000);
        for failure in trace::take().failures {
            println!("{failure}");
            failures += 1;
        }
    }
    println!("{failures} failure(s)");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

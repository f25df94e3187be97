//! `fuzz FIRST COUNT [kernel]`: compares random entries on our ring and on the kernel's, seed by seed.
//!
//! `fuzz FIRST COUNT PART [kernel]`: one of the parts of `fuzz::PARTS` (entries, setup, enter, register, words), or `all`.
//!
//! `fuzz FIRST COUNT traffic [kernel|announced]`: random receives from streams, on one ring, against what was sent.
//!
//! `fuzz WORLD 1 world`: one world of the entries, batch by batch, with what both sides say.
//!
//! With `kernel` it compares the kernel with itself, which shows what is a race of the comparison. Prints each kind of mismatch once, with
//! its number, and how often each known and reasoned difference was met. Ends with status 1 when there was any of the first. Each seed of the
//! parts runs in a process of its own, which is killed when it takes too long.

use soloring_abi::raw;
use soloring_abi_tests::backend::{Abi, Backend, Kernel, Soloring};
use soloring_abi_tests::families::random::mismatches;
use soloring_abi_tests::families::streams;
use soloring_abi_tests::fuzz::{PARTS, Part, runs};
use soloring_abi_tests::{case, sys, trace};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

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
            let abi = Abi::new(side, mode(world / runs::WORLDS as u64));
            println!("{}", runs::story(&abi, world));
        }
        return ExitCode::SUCCESS;
    }
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| has(name) || has("all")).collect();
    if has("here") {
        return play_here(&parts, side, first);
    }
    if !parts.is_empty() {
        return play(first..first + count);
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

/// Separates what a child process prints of one difference: the excuse, the kind, the input.
const FIELD: char = '\u{1f}';
const END: char = '\u{1e}';
/// How long one seed may take.
const SEED_MAX: Duration = Duration::from_secs(120);

/// One seed, here and now. Prints its differences for [`play`].
fn play_here(parts: &[&(&str, Part)], side: &'static dyn Backend, seed: u64) -> ExitCode {
    sys::die_with_parent();
    for (name, part) in parts {
        let abi = Abi::new(side, mode(seed));
        for found in part(&abi, seed) {
            let excuse = found.excuse.unwrap_or("");
            println!("{excuse}{FIELD}{name}: {}{FIELD}{}{END}", found.kind, found.input);
        }
        trace::take();
    }
    ExitCode::SUCCESS
}

/// What a child process found with one seed; that it died is a difference, too.
fn play_apart(seed: u64) -> Vec<[String; 3]> {
    let program = std::env::current_exe().expect("this program");
    let words = std::env::args().skip(1).filter(|word| word.parse::<u64>().is_err());
    let one = [seed.to_string(), "1".to_string(), "here".to_string()];
    let mut child = Command::new(program)
        .args(one.into_iter().chain(words))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("another process");
    let outputs: (Box<dyn Read + Send>, Box<dyn Read + Send>) = (
        Box::new(child.stdout.take().expect("a pipe")),
        Box::new(child.stderr.take().expect("a pipe")),
    );
    let [text, errors] = <[_; 2]>::from(outputs).map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if begun.elapsed() > SEED_MAX {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = text.join().expect("what it printed");
    let errors = errors.join().expect("what it printed");
    let ends = text.split(END).filter_map(|one| {
        let fields: Vec<&str> = one.trim_start_matches('\n').split(FIELD).collect();
        <[&str; 3]>::try_from(fields).ok()
    });
    let mut all: Vec<_> = ends.map(|fields| fields.map(str::to_string)).collect();
    if !status.success() {
        all.push([String::new(), format!("the seed's process: {status}"), errors]);
    }
    all
}

/// All seeds, each in a process of its own: none can take this one with it.
fn play(seeds: Range<u64>) -> ExitCode {
    let mut kinds: BTreeMap<String, (usize, u64, String)> = BTreeMap::new();
    let mut excused: BTreeMap<String, usize> = BTreeMap::new();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        for [excuse, kind, input] in play_apart(seed) {
            if excuse.is_empty() {
                kinds.entry(kind).or_insert((0, seed, input)).0 += 1;
            } else {
                *excused.entry(excuse).or_default() += 1;
            }
        }
    }
    for (kind, (number, seed, input)) in &kinds {
        println!("{number:5} (seed {seed}) {kind}\n      {input}");
    }
    for (excuse, number) in &excused {
        println!("{number:5} excused: {excuse}");
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

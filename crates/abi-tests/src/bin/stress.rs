//! `stress [--seconds N] [--seed N] [--patience N] [--submitters N] [--foreigners N] [--no-abandon] [--kernel]`:
//! busy submitters against everybody else; prints what was done. Status 1 when anything was wrong, SIGABRT
//! when a thread stood still.

use soloring_abi_tests::backend::{Backend, Kernel, Soloring};
use soloring_abi_tests::stress::{Plan, run};
use std::process::ExitCode;

fn plan() -> Option<(&'static dyn Backend, Plan)> {
    let mut side: &'static dyn Backend = &Soloring;
    let mut plan =
        Plan { seconds: 5, submitters: 3, foreigners: 3, seed: 1, patience_s: 40, abandon: true };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            "--kernel" => side = &Kernel,
            "--no-abandon" => plan.abandon = false,
            _ => {
                let value: u64 = args.next()?.parse().ok()?;
                match &*arg {
                    "--seconds" => plan.seconds = value,
                    "--seed" => plan.seed = value,
                    "--patience" => plan.patience_s = value,
                    "--submitters" => plan.submitters = value as usize,
                    "--foreigners" => plan.foreigners = value as usize,
                    _ => return None,
                }
            }
        }
    }
    Some((side, plan))
}

fn main() -> ExitCode {
    let Some((side, plan)) = plan() else {
        eprintln!(
            "usage: stress [--seconds N] [--seed N] [--patience N] [--submitters N] \
             [--foreigners N] [--no-abandon] [--kernel]"
        );
        return ExitCode::from(2);
    };
    let outcome = run(side, plan);
    println!("{}, {:.1} s, {plan:?}", side.name(), outcome.took.as_secs_f64());
    for (name, n) in &outcome.counts {
        println!("{n:>12} {name}");
    }
    let sum = |begin: &str| -> u64 {
        outcome.counts.iter().filter(|(k, _)| k.starts_with(begin)).map(|(_, n)| n).sum()
    };
    let (asked, completed) = (sum("submitted"), sum("completed: "));
    let ended = sum("ended with their ring");
    println!("{asked} submitted = {completed} completed + {ended} ended with their ring");
    if let Some(lock) = soloring_engine::uapi::lock_stats() {
        println!("{lock:?}");
    }
    println!("{} thing(s) wrong", outcome.wrong.len());
    let balanced = asked == completed + ended;
    if outcome.wrong.is_empty() && balanced { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

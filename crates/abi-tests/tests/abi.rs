//! `cargo test -p soloring-abi-tests`: each case as `kernel::family::case` and `soloring::family::case`, some
//! as `announced::family::case` as well.

use libtest_mimic::{Arguments, Failed, Trial};
use soloring_abi_tests::backend::kernel_refusal;
use soloring_abi_tests::{case, families::FAMILIES, gaps, runner};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(status) = runner::child_main() {
        return status;
    }
    let args = Arguments::from_args();
    let refusal = kernel_refusal();
    let kernel_is_there = refusal.is_none();
    let mut trials = Vec::new();
    for name in case::names(FAMILIES) {
        let kernel = format!("kernel::{name}");
        let trial = Trial::test(kernel.clone(), move || {
            runner::run_in_child(&kernel).map(|_| ()).map_err(Failed::from)
        });
        trials.push(match &refusal {
            Some(why) => trial.with_kind(why.clone()).with_ignored_flag(true),
            None => trial,
        });
        let waits = case::WAITING.iter().any(|family| name.split("::").next() == Some(family));
        for side in if waits { &["soloring", "announced"][..] } else { &["soloring"] } {
            let name = name.clone();
            trials.push(Trial::test(format!("{side}::{name}"), move || {
                gaps::judge(side, &name, kernel_is_there)
            }));
        }
    }
    libtest_mimic::run(&args, trials).exit_code()
}

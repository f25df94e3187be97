//! The liburing 2.15 suite under `soloring run --deny-kernel`: each test of the suite is a named test here.
//!
//! A test on `data/must-pass.txt` has to pass (after one repeat, alone, for noise). Any other runs
//! too, with little time: when it passes it is reported as due for the list (unless it is known to pass sometimes), when it does not it
//! counts as ignored, with its verdict. `SOLORING_CONFORMANCE` chooses what runs:
//! `all` (the default), `listed` (only the list), `full` (all, with the suite's own time limit).

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};
use soloring_conformance::judge::{self, Judgement};
use soloring_conformance::kernel::{self, Entry};
use soloring_conformance::runner::{self, On, Runner};
use soloring_conformance::schedule::Schedule;
use soloring_conformance::suite::Suite;
use soloring_conformance::{lists, place};
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Time for a test that is not listed: it most likely hangs, and there are many.
const SHORT: Duration = Duration::from_secs(10);
/// Tests at a time, unless `--test-threads` says otherwise.
const JOBS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    All,
    Listed,
    Full,
}

/// What the tests share.
struct Bench {
    runner: Runner,
    schedule: Schedule,
    listed: BTreeMap<&'static str, &'static str>,
    choice: Choice,
    passed: Mutex<BTreeSet<&'static str>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("liburing suite: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(JOBS);
    let choice = choice()?;
    let listed = lists::must_pass();
    let mut table = kernel::table();
    if choice == Choice::Listed {
        table.retain(|name, _| listed.contains_key(name));
    }
    let order = Schedule::new().order(&table);
    if args.list {
        let trials = order.into_iter().map(|name| Trial::test(name, || Ok(()))).collect();
        return Ok(libtest_mimic::run(&args, trials).exit_code());
    }
    let runner = match prepare() {
        Ok(runner) => runner,
        Err(error) if listed.is_empty() => {
            eprintln!("liburing suite: not run, and nothing is listed: {error:#}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => return Err(error),
    };
    let bench = Arc::new(Bench {
        runner,
        schedule: Schedule::new(),
        listed,
        choice,
        passed: Mutex::new(BTreeSet::new()),
    });
    let trials = order
        .into_iter()
        .map(|name| {
            let (bench, entry) = (Arc::clone(&bench), table[name]);
            Trial::ignorable_test(name, move || bench.judge(name, entry))
        })
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    bench.report(&table, &conclusion);
    Ok(conclusion.exit_code())
}

fn choice() -> Result<Choice> {
    match env::var("SOLORING_CONFORMANCE").as_deref() {
        Err(_) | Ok("" | "all") => Ok(Choice::All),
        Ok("listed") => Ok(Choice::Listed),
        Ok("full") => Ok(Choice::Full),
        Ok(other) => bail!("SOLORING_CONFORMANCE={other}: choose all, listed or full"),
    }
}

fn prepare() -> Result<Runner> {
    let soloring = place::soloring()?;
    let base = place::target_dir()?.join("conformance");
    let suite = Suite::prepare(&base, &|done, of| {
        if done % 50 == 0 || done == of {
            eprintln!("building the liburing suite: {done} of {of}");
        }
    })?;
    Runner::new(suite, On::Soloring(soloring), base.join("in-tests"))
}

impl Bench {
    fn judge(&self, name: &'static str, entry: Entry) -> Result<Completion, Failed> {
        if let Some(remark) = self.listed.get(name) {
            self.judge_listed(name, entry, remark)
        } else {
            self.judge_unlisted(name, entry)
        }
    }

    fn judge_listed(
        &self,
        name: &'static str,
        entry: Entry,
        remark: &str,
    ) -> Result<Completion, Failed> {
        if remark == "root" && !rustix::process::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root"));
        }
        let limit = runner::limit(entry.wall);
        let judgement = judge::listed(|again| {
            if again {
                eprintln!("{name}: not passed; once more, alone");
                return self.schedule.by_itself(|| self.runner.run(name, limit));
            }
            self.schedule.with(name, || self.runner.run(name, limit))
        })?;
        self.conclude(name, judgement)
    }

    fn judge_unlisted(&self, name: &'static str, entry: Entry) -> Result<Completion, Failed> {
        let limit = match self.choice {
            Choice::Full => runner::limit(entry.wall),
            _ => SHORT,
        };
        let outcome = self.schedule.with(name, || self.runner.run(name, limit))?;
        let reason = lists::not_listed().get(name).copied();
        self.conclude(name, judge::unlisted(&outcome, reason, entry.verdict.word()))
    }

    fn conclude(&self, name: &'static str, judgement: Judgement) -> Result<Completion, Failed> {
        match judgement {
            Judgement::Passed => {
                self.note_pass(name);
                Ok(Completion::Completed)
            }
            Judgement::Failed(why) => Err(why.into()),
            Judgement::Ignored(why) => Ok(Completion::ignored_with(why)),
        }
    }

    fn note_pass(&self, name: &'static str) {
        self.passed.lock().unwrap_or_else(|e| e.into_inner()).insert(name);
    }

    fn report(&self, table: &BTreeMap<&'static str, Entry>, conclusion: &Conclusion) {
        let passed = self.passed.lock().unwrap_or_else(|e| e.into_inner());
        let ran = conclusion.num_passed + conclusion.num_failed + conclusion.num_ignored;
        let kernel: Vec<_> =
            table.iter().filter(|(_, e)| e.verdict.passed()).map(|(n, _)| *n).collect();
        let both = kernel.iter().filter(|n| passed.contains(*n)).count();
        println!(
            "liburing 2.15 on soloring: {both} of the {} tests that pass on the kernel pass ({ran} ran)",
            kernel.len()
        );
        let due = judge::due(&passed, &self.listed, &lists::not_listed());
        if !due.is_empty() {
            println!("due for must-pass.txt ({}): {}", due.len(), due.join(" "));
        }
    }
}

//! Runs the liburing suite on soloring or on the kernel and prints the table test / kernel / here.

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use soloring_conformance::report::{self, Row, Standing};
use soloring_conformance::runner::{self, On, Runner};
use soloring_conformance::schedule::Schedule;
use soloring_conformance::suite::Suite;
use soloring_conformance::verdict::Outcome;
use soloring_conformance::{kernel, lists, place};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

/// Run the liburing 2.15 test suite and compare it with the kernel's verdicts
#[derive(Parser)]
struct Cli {
    /// What the tests run on
    #[arg(long, value_enum, default_value_t = Where::Soloring)]
    on: Where,
    /// Run these tests only (names separated by commas)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Tests at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Seconds that one test may take [default: the suite's limit, 60; more where the kernel needs more]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Write the verdicts to this file as tab-separated values
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Print the last lines of each test that does not pass
    #[arg(long)]
    output: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Where {
    Kernel,
    Soloring,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let mut table = kernel::table();
    if let Some(name) = cli.only.iter().find(|n| !table.contains_key(n.as_str())) {
        bail!("the suite has no test {name}");
    }
    if !cli.only.is_empty() {
        table.retain(|name, _| cli.only.iter().any(|n| n == name));
    }
    let runner = prepare(cli.on)?;
    let outcomes = run_all(&runner, &table, cli)?;
    let here = match cli.on {
        Where::Kernel => "this kernel",
        Where::Soloring => "soloring",
    };
    let (listed, excused) = (lists::must_pass(), lists::not_listed());
    let rows: Vec<Row> = outcomes
        .into_iter()
        .map(|(name, outcome)| {
            let why = excused.get(name).copied();
            let (on_list, sometimes) =
                (listed.contains_key(name), why.is_some_and(|why| why.starts_with("sometimes")));
            Row {
                name,
                kernel: table[name],
                standing: (cli.on == Where::Soloring)
                    .then(|| Standing::of(on_list, sometimes, outcome.verdict)),
                outcome,
                why: why.unwrap_or_default(),
            }
        })
        .collect();
    if cli.output {
        for row in rows.iter().filter(|r| !r.outcome.verdict.passed()) {
            println!("---- {}: {}\n{}", row.name, row.outcome.verdict, row.outcome.tail);
        }
    }
    println!("{}\n\n{}", report::table(&rows, here), report::summary(&rows, here));
    if let Some(file) = &cli.write {
        report::write(&rows, file)?;
    }
    Ok(ExitCode::from(u8::from(report::count(&rows).broken > 0)))
}

/// Builds what is needed: soloring, unless the tests run on the kernel, and the suite.
fn prepare(on: Where) -> Result<Runner> {
    let (on, scratch) = match on {
        Where::Kernel => (On::Kernel, "on-kernel"),
        Where::Soloring => (On::Soloring(place::soloring()?), "on-soloring"),
    };
    let base = place::target_dir()?.join("conformance");
    let bar = bar("building the suite");
    let suite = Suite::prepare(&base, &|done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Runner::new(suite, on, base.join(scratch))
}

/// Runs all tests of the table, by name.
fn run_all<'a>(
    runner: &Runner,
    table: &BTreeMap<&'a str, kernel::Entry>,
    cli: &Cli,
) -> Result<BTreeMap<&'a str, Outcome>> {
    let bar = bar("running");
    bar.set_length(table.len() as u64);
    let outcomes = Mutex::new(BTreeMap::new());
    let schedule = Schedule::new();
    schedule.run(table, usize::from(cli.jobs), |name, entry| {
        bar.set_message(name.to_owned());
        let limit = match cli.limit {
            Some(seconds) => Duration::from_secs(seconds.into()),
            None => runner::limit(entry.wall),
        };
        let outcome = runner.run(name, limit);
        outcomes.lock().expect("no panic while held").insert(name, outcome);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let outcomes = outcomes.into_inner().expect("no panic while held");
    outcomes.into_iter().map(|(name, outcome)| Ok((name, outcome?))).collect()
}

fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {wide_msg}")
        .expect("a constant template");
    ProgressBar::new(0).with_style(style).with_prefix(what)
}

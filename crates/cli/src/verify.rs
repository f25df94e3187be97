//! `soloring verify`: the ring lock and the schemes tried before it, model-checked; with what broke them.

use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use soloring_lock_models::lock_scenario::LOCK_SCENARIOS;
use soloring_lock_models::scenario::Scenario;
use soloring_lock_models::table;
use soloring_lock_models::trace::{Bounds, Depth, Failure, Verdict};
use soloring_lock_models::tso_scenario::TSO_SCENARIOS;

use crate::out;

#[derive(clap::Args)]
pub struct Args {
    /// Explore further: minutes instead of seconds
    #[arg(long)]
    deep: bool,
    /// Print the tables only, not the failing interleavings
    #[arg(long)]
    brief: bool,
}

/// A failure to be told after the tables, and where it happened.
struct Told {
    place: String,
    failure: Failure,
}

/// Prints the tables and the interleavings; fails when a verdict is not what the public record, or the
/// lock's contract, says.
pub fn main(args: Args) -> Result<ExitCode> {
    let depth = if args.deep { Depth::Deep } else { Depth::Quick };
    let (mut told, mut wrong) = (Vec::new(), Vec::new());
    schemes(depth, &mut told, &mut wrong)?;
    lock_alone(depth, &mut told, &mut wrong)?;
    if !args.brief {
        interleavings(&told)?;
    }
    if wrong.is_empty() {
        out::line(
            "\nmutex and biased pass everything; v1 to v6 fail where they failed in public; \
             a lock spoiled on purpose is found out.",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    bail!("not as it should be: {}", wrong.join(", "));
}

fn schemes(depth: Depth, told: &mut Vec<Told>, wrong: &mut Vec<String>) -> Result<()> {
    out::line("Schemes in the situations that broke them (biased: the lock's own source)\n")?;
    let rows = table::rows();
    let mut shown = Table::new();
    shown.load_preset(presets::NOTHING);
    shown.set_header(std::iter::once("").chain(rows.iter().map(|row| row.scheme)));
    for scenario in Scenario::ALL {
        let mut cells = vec![scenario.name().to_string()];
        for (row, expected) in rows.iter().zip(table::expected(scenario)) {
            let place = format!("{} in {}", row.scheme, scenario.name());
            let verdict = row.check(scenario, depth);
            cells.push(cell(&verdict));
            if verdict.failure.as_ref().map(|failure| failure.kind) != expected {
                wrong.push(place.clone());
            }
            told.extend(verdict.failure.map(|failure| Told { place, failure }));
        }
        shown.add_row(cells);
    }
    out::line(shown)?;
    out::line("")?;
    for scenario in Scenario::ALL {
        out::line(format_args!("  {:22} {}", scenario.name(), scenario.story()))?;
    }
    Ok(())
}

fn lock_alone(depth: Depth, told: &mut Vec<Told>, wrong: &mut Vec<String>) -> Result<()> {
    out::line("\nThe lock's own source, alone\n")?;
    let mut shown = Table::new();
    shown.load_preset(presets::NOTHING);
    shown.set_header(["", "verdict", "executions", "explored", "what happens"]);
    let on_loom = LOCK_SCENARIOS.iter().map(|s| (s.name, s.story, s.must_fail, s.check(depth)));
    let on_tso = TSO_SCENARIOS.iter().map(|s| (s.name, s.story, s.must_fail, s.check(depth)));
    for (name, story, must_fail, verdict) in on_loom.chain(on_tso) {
        let explored = explored(verdict.bounds);
        let executions = verdict.executions.to_string();
        shown.add_row([name, &cell(&verdict), &executions, &explored, story]);
        if verdict.passed() == must_fail {
            wrong.push(format!("the lock in {name}"));
        }
        let place = format!("the lock in {name} ({story})");
        told.extend(verdict.failure.map(|failure| Told { place, failure }));
    }
    out::line(shown)?;
    Ok(())
}

fn cell(verdict: &Verdict) -> String {
    match &verdict.failure {
        None => "PASS".into(),
        Some(failure) => failure.kind.name().into(),
    }
}

fn explored(bounds: Bounds) -> String {
    match bounds {
        Bounds::Preemptions(n, None) => format!("all, up to {n} preemptions"),
        Bounds::Preemptions(n, Some(gated)) => {
            format!("all, up to {n} preemptions; gated {gated}")
        }
        Bounds::Random { seed, .. } => format!("random, x86 store buffers, seed {seed:#x}"),
    }
}

fn interleavings(told: &[Told]) -> Result<()> {
    out::line("\nThe failing interleavings")?;
    for Told { place, failure } in told {
        out::line(format_args!("\n{place}: {}", failure.kind.name()))?;
        for (who, what) in &failure.steps {
            out::line(format_args!("    {who} {what}"))?;
        }
        out::line(format_args!("  * {}", failure.what))?;
    }
    Ok(())
}

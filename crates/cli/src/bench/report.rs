//! The bench's tables and its JSON.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};
use soloring_lock_bench::Figures;

use super::rows::Results;
use super::space::Space;
use super::work::Armed;

/// Ratios that the project looks at: fast variant, base, head of the column.
const RATIOS: [(&str, &str, &str); 6] = [
    ("ours SD", "kernel SD", "ours SD / kernel SD"),
    ("ours", "kernel", "ours / kernel"),
    ("run libc SD", "kernel SD", "run libc / kernel SD"),
    ("run inline SD", "kernel SD", "run inline / kernel SD"),
    ("ours SD", "plain calls", "ours SD / plain"),
    ("kernel SD", "plain calls", "kernel SD / plain"),
];

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// All tables, ready to print.
pub fn text(results: &Results, locks: &Result<Figures>, space: &[Space]) -> String {
    let names: Vec<&str> =
        results.variants.iter().filter(|v| !v.mutex).map(|variant| variant.name).collect();
    let head = |first: &str, rest: &[&str]| {
        std::iter::once(first).chain(rest.iter().copied()).map(str::to_owned).collect()
    };
    let rows = || results.rows.iter().enumerate();

    let mut times = table(head("ns per operation", &names));
    for (index, row) in rows() {
        let cells = names.iter().map(|name| number(results.ns(index, name)));
        times.add_row(std::iter::once(row.name.clone()).chain(cells));
    }
    let mut ratios = table(head("times as fast", &RATIOS.map(|(_, _, head)| head)));
    for (index, row) in rows() {
        let cells = RATIOS.iter().map(|(name, base, _)| number(results.ratio(index, name, base)));
        ratios.add_row(std::iter::once(row.name.clone()).chain(cells));
    }
    let mut lock = table(head("ours SD, ring lock", &["biased ns", "mutex ns", "biased / mutex"]));
    for (index, row) in rows() {
        lock.add_row([
            row.name.clone(),
            number(results.ns(index, "ours SD")),
            number(results.ns(index, "ours SD mutex")),
            number(results.ratio(index, "ours SD", "ours SD mutex")),
        ]);
    }
    let locks = match locks {
        Ok(figures) => figures.text(),
        Err(error) => format!("failed: the lock by itself: {error:#}"),
    };
    let mut memory = table(head(
        "memory beyond the rings",
        &["ring", "requests", "bytes", "bytes per request", "descriptors"],
    ));
    for space in space {
        let (bytes, each, fds) = match &space.outcome {
            Ok(memory) => (
                (memory.after as i64 - memory.before as i64).to_string(),
                number(Some(space.bytes_per_request(memory))),
                memory.descriptors.to_string(),
            ),
            Err(_) => ("failed".to_owned(), String::new(), String::new()),
        };
        memory.add_row([
            space.what(),
            space.variant.name.to_owned(),
            space.requests.to_string(),
            bytes,
            each,
            fds,
        ]);
    }
    let mut text = format!(
        "{times}\n\n{ratios}\n\n{lock}\n\nSD: SINGLE_ISSUER and DEFER_TASKRUN. Medians over interleaved \
         rounds; ratios are medians of the rounds' ratios.\n\n{locks}\n\n{memory}\n"
    );
    for (variant, error) in &results.failures {
        text.push_str(&format!("failed: {}: {error:#}\n", variant.name));
    }
    for space in space {
        if let Err(error) = &space.outcome {
            text.push_str(&format!("failed: {}: {error:#}\n", space.variant.name));
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// Everything that the tables show, and the single rounds.
pub fn json(
    results: &Results,
    locks: &Result<Figures>,
    space: &[Space],
    rounds: u32,
    ms: u64,
) -> Value {
    let rows: Vec<Value> = results
        .rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let variants: Map<String, Value> = results
                .variants
                .iter()
                .enumerate()
                .filter(|(variant, _)| !results.samples[index][*variant].is_empty())
                .map(|(variant, of)| {
                    let value = json!({
                        "ns_per_operation": results.ns(index, of.name),
                        "rounds_ns": results.samples[index][variant],
                    });
                    (of.name.to_owned(), value)
                })
                .collect();
            let mut ratios: Map<String, Value> = RATIOS
                .iter()
                .map(|(name, base, head)| {
                    ((*head).to_owned(), json!(results.ratio(index, name, base)))
                })
                .collect();
            let ratio = results.ratio(index, "ours SD", "ours SD mutex");
            ratios.insert("biased / mutex".to_owned(), json!(ratio));
            json!({ "name": row.name, "variants": variants, "times_as_fast": ratios })
        })
        .collect();
    let memory: Vec<Value> = space
        .iter()
        .map(|space| match &space.outcome {
            Ok(memory) => json!({
                "what": space.what(), "ring": space.variant.name, "requests": space.requests,
                "bytes_before": memory.before, "bytes_after": memory.after,
                "bytes_per_request": space.bytes_per_request(memory),
                "descriptors": memory.descriptors,
            }),
            Err(error) => json!({
                "what": space.what(), "ring": space.variant.name, "requests": space.requests,
                "error": format!("{error:#}"),
            }),
        })
        .collect();
    let lock = match locks {
        Ok(figures) => json!(figures),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    let failures: Vec<Value> = results
        .failures
        .iter()
        .map(|(variant, error)| json!({ "variant": variant.name, "error": format!("{error:#}") }))
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
        "rounds": rounds,
        "ms_per_round": ms,
        "rows": rows,
        "lock": lock,
        "memory": memory,
        "failures": failures,
    })
}

fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": cpu.map(|(_, name)| name),
        "cpus": std::thread::available_parallelism().map(usize::from).ok(),
    })
}

impl Space {
    fn what(&self) -> String {
        match self.armed {
            Some(Armed::Poll) => "POLL_ADD in flight",
            Some(Armed::Recv) => "RECV in flight",
            Some(Armed::Timeout) => "TIMEOUT in flight",
            None => "growth while requests finish",
        }
        .to_owned()
    }
}

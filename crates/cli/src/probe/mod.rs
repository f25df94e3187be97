//! `soloring probe`: what the kernel here offers, or how it refuses, beside what soloring offers.

mod ask;
mod enter;
mod names;
mod register;
mod trial;

use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use soloring_abi::Opcode;

use crate::backend::{self, errno_name};
use crate::out;
use ask::Offer;
use trial::Answer;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// One line of a table: a name and both answers.
struct Line {
    name: String,
    kernel: String,
    ours: String,
}

struct Section {
    title: &'static str,
    key: &'static str,
    lines: Vec<Line>,
}

const YES: &str = "yes";
const NO: &str = "no";

pub fn main(args: Args) -> Result<ExitCode> {
    let kernel = ask::everything(backend::Raw);
    let ours = ask::everything(backend::Engine);
    let sections = sections(&kernel, &ours);
    if args.json {
        out::line(serde_json::to_string_pretty(&as_json(&kernel, &ours, &sections))?)?;
    } else {
        out::line(as_text(&kernel, &ours, &sections))?;
    }
    if let Err(errno) = ours.open {
        bail!("soloring cannot make a ring here: {}", errno_name(errno));
    }
    Ok(ExitCode::SUCCESS)
}

fn sections(kernel: &Offer, ours: &Offer) -> Vec<Section> {
    let bit = |offer: &Offer, flag: u32| yes(offer, offer.features & flag != 0);
    let features = (0..32)
        .map(|bit| 1u32 << bit)
        .map(|flag| (names::find(names::FEATURES, flag), flag))
        .filter(|(name, flag)| name.is_some() || (kernel.features | ours.features) & flag != 0)
        .map(|(name, flag)| Line {
            name: name.map_or_else(|| format!("{flag:#x}"), str::to_owned),
            kernel: bit(kernel, flag),
            ours: bit(ours, flag),
        })
        .collect();

    let ops = Opcode::ALL.len().max(kernel.opcodes.len()).max(ours.opcodes.len());
    let op = |offer: &Offer, index| yes(offer, offer.opcodes.get(index) == Some(&true));
    let opcodes = (0..ops)
        .map(|index| Line {
            name: u8::try_from(index)
                .ok()
                .and_then(Opcode::from_raw)
                .map_or_else(|| format!("{index}"), |op| op.name().to_owned()),
            kernel: op(kernel, index),
            ours: op(ours, index),
        })
        .collect();

    let tried = |keys: u32,
                 name: &dyn Fn(u32) -> Option<&'static str>,
                 of: fn(&Offer, u32) -> Option<Answer>| {
        (0..keys)
            .map(|key| (key, name(key), of(kernel, key), of(ours, key)))
            // Without a name, a line is worth showing only if somebody accepts it.
            .filter(|(_, name, a, b)| {
                name.is_some() || [a, b].iter().any(|answer| **answer == Some(Answer::Yes))
            })
            .map(|(key, name, a, b)| Line {
                name: name.map_or_else(|| format!("{key}"), str::to_owned),
                kernel: answer(kernel, a),
                ours: answer(ours, b),
            })
            .collect()
    };
    vec![
        Section { title: "features", key: "features", lines: features },
        Section {
            title: "setup flags",
            key: "setup_flags",
            lines: tried(32, &|bit| names::setup(1 << bit), |offer, bit| {
                offer.setup.get(&bit).copied()
            }),
        },
        Section {
            title: "enter flags",
            key: "enter_flags",
            lines: tried(32, &|bit| names::find(names::ENTER, 1 << bit), |offer, bit| {
                offer.enter.get(&bit).copied()
            }),
        },
        Section { title: "operations", key: "operations", lines: opcodes },
        Section {
            title: "register operations",
            key: "register",
            lines: tried(64, &names::register, |offer, op| offer.register.get(&op).copied()),
        },
    ]
}

fn yes(offer: &Offer, holds: bool) -> String {
    match (offer.open, holds) {
        (Err(_), _) => "-".to_owned(),
        (Ok(()), true) => YES.to_owned(),
        (Ok(()), false) => NO.to_owned(),
    }
}

fn answer(offer: &Offer, answer: Option<Answer>) -> String {
    match (offer.open, answer) {
        (Err(_), _) => "-".to_owned(),
        (Ok(()), Some(Answer::Yes)) => YES.to_owned(),
        (Ok(()), Some(Answer::No(errno))) => errno_name(errno),
        (Ok(()), None) => NO.to_owned(),
    }
}

/// The sysctl's value, where the kernel has it (since 6.6).
fn disabled() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// Why the kernel may have answered as it did, as far as can be told from outside.
fn reason(errno: i32) -> &'static str {
    match (errno, disabled()) {
        (libc::ENOSYS, _) => "not built into this kernel, or hidden by a sandbox",
        (libc::EPERM, Some(2)) => "switched off by kernel.io_uring_disabled = 2",
        (libc::EPERM, Some(1)) => "kernel.io_uring_disabled = 1: for privileged programs only",
        (libc::EPERM | libc::EACCES, _) => "refused by a seccomp filter or a security module",
        (libc::ENOMEM, _) => "the locked-memory limit (ulimit -l) is used up",
        _ => "",
    }
}

fn standing(offer: &Offer, reason: impl Fn(i32) -> &'static str) -> String {
    match offer.open {
        Ok(()) => "offers io_uring".to_owned(),
        Err(errno) => {
            let reason = reason(errno);
            let dash = if reason.is_empty() { "" } else { ": " };
            format!("refuses io_uring_setup with {}{dash}{reason}", errno_name(errno))
        }
    }
}

fn as_text(kernel: &Offer, ours: &Offer, sections: &[Section]) -> String {
    let sysctl = disabled().map_or_else(|| "absent".to_owned(), |value| value.to_string());
    let mut text = format!(
        "kernel    {} {}, kernel.io_uring_disabled {sysctl}\nsoloring  {} {}\n",
        release(),
        standing(kernel, reason),
        env!("CARGO_PKG_VERSION"),
        standing(ours, |_| ""),
    );
    for section in sections {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header([section.title, "kernel", "soloring"]);
        for line in &section.lines {
            table.add_row([&line.name, &line.kernel, &line.ours]);
        }
        let count = |side: fn(&Line) -> &str| {
            section.lines.iter().filter(|line| side(line) == YES).count().to_string()
        };
        table.add_row([
            format!("of {}", section.lines.len()),
            count(|line| &line.kernel),
            count(|line| &line.ours),
        ]);
        text.push('\n');
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn as_json(kernel: &Offer, ours: &Offer, sections: &[Section]) -> Value {
    let side = |offer: &Offer| {
        json!({
            "available": offer.open.is_ok(),
            "errno": offer.open.err().map(errno_name),
        })
    };
    let mut value = json!({ "kernel": side(kernel), "soloring": side(ours) });
    value["kernel"]["release"] = json!(release());
    value["kernel"]["io_uring_disabled"] = json!(disabled());
    value["soloring"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    for section in sections {
        value[section.key] = section
            .lines
            .iter()
            .map(|line| json!({ "name": line.name, "kernel": line.kernel, "soloring": line.ours }))
            .collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusing_side_answers_nothing_and_says_why() {
        let refused = Offer {
            open: Err(libc::EPERM),
            features: 0,
            setup: Default::default(),
            enter: Default::default(),
            opcodes: Vec::new(),
            register: Default::default(),
        };
        let sections = sections(&refused, &refused);
        assert_eq!(sections.len(), 5);
        assert!(sections.iter().flat_map(|s| &s.lines).all(|line| line.kernel == "-"));
        assert!(standing(&refused, reason).contains("EPERM"));
        let value = as_json(&refused, &refused, &sections);
        assert_eq!(value["kernel"]["errno"], "EPERM");
        assert_eq!(value["operations"].as_array().map(Vec::len), Some(Opcode::ALL.len()));
    }
}

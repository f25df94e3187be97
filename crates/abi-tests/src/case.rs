//! A case: a named function, the modes it runs in, and how it is run in this process.

use crate::backend::{Abi, Backend, Kernel, Soloring};
use crate::{sys, trace};
use soloring_abi::raw;

/// Seconds after which a case is ended by an alarm, whatever it is doing.
pub const LIMIT_S: u32 = 60;

/// A family's case, with its name without the family.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Abi),
}

/// Cases of one file.
#[derive(Clone, Copy)]
pub struct Family {
    pub name: &'static str,
    pub cases: &'static [Case],
    /// Whether the cases make their rings with [`crate::ring::Ring::new`], whose flags the mode sets.
    pub modes: bool,
}

/// `family!["setup", once; name, ...]` or `family!["rw", modes; name, ...]`.
#[macro_export]
macro_rules! family {
    ($family:literal, once; $($case:ident),* $(,)?) => { $crate::family!(@ $family, false, $($case),*); };
    ($family:literal, modes; $($case:ident),* $(,)?) => { $crate::family!(@ $family, true, $($case),*); };
    (@ $family:literal, $modes:literal, $($case:ident),*) => {
        pub const FAMILY: $crate::case::Family = $crate::case::Family {
            name: $family,
            cases: &[$($crate::case::Case { name: stringify!($case), run: $case }),*],
            modes: $modes,
        };
    };
}

/// Ring flags under which a family's cases run again; the name goes behind the case's, after `@`.
pub const MODES: &[(&str, u32)] = &[
    ("", 0),
    ("defer", raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN),
    ("coop", raw::IORING_SETUP_COOP_TASKRUN | raw::IORING_SETUP_TASKRUN_FLAG),
];

pub const BACKENDS: &[&str] = &["kernel", "soloring"];

fn backend(name: &str) -> Option<&'static dyn Backend> {
    match name {
        "kernel" => Some(&Kernel),
        "soloring" => Some(&Soloring),
        // As under `soloring run`: the engine hears of every close before it happens.
        "announced" => {
            sys::announce_closes();
            Some(&Soloring)
        }
        _ => None,
    }
}

/// Families whose requests wait on files, which they do differently where closes are announced.
pub const WAITING: &[&str] = &[
    "bundles",
    "cancel",
    "epolls",
    "held",
    "kbuf",
    "links",
    "multishot",
    "net",
    "poll",
    "refusals",
    "sendrecv",
    "streams",
];

/// All cases in all modes, as `family::case` or `family::case@mode`.
pub fn names(families: &[Family]) -> Vec<String> {
    let mut names = Vec::new();
    for family in families {
        for (mode, _) in if family.modes { MODES } else { &MODES[..1] } {
            for case in family.cases {
                let at = if mode.is_empty() { "" } else { "@" };
                names.push(format!("{}::{}{at}{mode}", family.name, case.name));
            }
        }
    }
    names
}

/// Runs `backend::family::case@mode` here and now. `None` when there is no such case; otherwise
/// what was recorded, and whether it passed.
pub fn run(families: &[Family], full_name: &str) -> Option<(trace::Record, bool)> {
    let (side, rest) = full_name.split_once("::")?;
    let (path, mode) = rest.split_once('@').unwrap_or((rest, ""));
    let (family, name) = path.split_once("::")?;
    let family = families.iter().find(|f| f.name == family)?;
    let case = family.cases.iter().find(|c| c.name == name)?;
    let (_, flags) = MODES.iter().find(|(m, _)| *m == mode)?;
    let abi = Abi::new(backend(side)?, *flags);
    let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&abi)));
    let record = trace::take();
    let passed = finished.is_ok() && record.failures.is_empty();
    Some((record, passed))
}

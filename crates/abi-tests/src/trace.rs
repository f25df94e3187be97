//! The record of a case: every call and completion, and every check that failed.
//!
//! Checks are soft: a case goes on after a mismatch, so that one run shows all of them. Where going
//! on makes no sense a case panics instead.

use std::sync::Mutex;

/// Longest record kept; a case that loops over thousands of calls shows its first and last ones.
const LINES_MAX: usize = 4000;

#[derive(Default)]
pub struct Record {
    pub lines: Vec<String>,
    pub failures: Vec<String>,
    pub dropped: usize,
}

static RECORD: Mutex<Record> =
    Mutex::new(Record { lines: Vec::new(), failures: Vec::new(), dropped: 0 });

fn with<T>(f: impl FnOnce(&mut Record) -> T) -> T {
    f(&mut RECORD.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Appends a line to the record. Lines hold no addresses and no descriptor numbers, so that the two
/// sides can be compared.
pub fn note(line: String) {
    with(|r| {
        if r.lines.len() < LINES_MAX {
            r.lines.push(line);
        } else {
            r.dropped += 1;
        }
    });
}

/// Records a failed check; the case fails at its end.
pub fn fail(line: String) {
    with(|r| {
        r.lines.push(format!("MISMATCH {line}"));
        r.failures.push(line);
    });
}

/// Takes the whole record, leaving an empty one.
pub fn take() -> Record {
    with(std::mem::take)
}

/// `check_eq!(got, wanted, "what {}", x)`: records a mismatch and goes on.
#[macro_export]
macro_rules! check_eq {
    ($got:expr, $want:expr $(,)?) => { $crate::check_eq!($got, $want, "{}", stringify!($got)) };
    ($got:expr, $want:expr, $($what:tt)+) => {{
        let (got, want) = (&$got, &$want);
        if *got != *want {
            $crate::trace::fail(format!(
                "{}:{}: {}: expected {:?}, got {:?}", file!(), line!(), format_args!($($what)+), want, got
            ));
        }
    }};
}

/// `check_in!(got, [a, b], "what")`: the value races on the kernel; any of the set will do.
#[macro_export]
macro_rules! check_in {
    ($got:expr, [$($want:expr),+ $(,)?], $($what:tt)+) => {{
        let got = $got;
        let wants = [$($want),+];
        if !wants.contains(&got) {
            $crate::trace::fail(format!(
                "{}:{}: {}: expected one of {:?}, got {:?}", file!(), line!(), format_args!($($what)+), wants, got
            ));
        }
    }};
}

/// `check!(condition, "what {}", x)`: records a mismatch and goes on.
#[macro_export]
macro_rules! check {
    ($cond:expr, $($what:tt)+) => {
        if !$cond {
            $crate::trace::fail(format!("{}:{}: {}", file!(), line!(), format_args!($($what)+)));
        }
    };
}

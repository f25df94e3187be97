//! The permission matrix: who may do what to a ring, on the kernel's and on ours.
//!
//! Each cell runs in a process of its own on a ring of its own: the creator sets the ring up, the
//! caller (the creator, another thread of its process, or a process forked from it) tries one action,
//! and what that returns is the cell. The checked-in table is `data/matrix.tsv`.
#![allow(unsafe_code)]

mod actions;
mod notes;

pub use actions::{ACTIONS, Action};
pub use notes::note;

use crate::backend::{Abi, Backend};
use crate::res::Res;
use crate::ring::{Ring, params};
use crate::sys;
use soloring_abi::raw;

/// Seconds after which a cell counts as hanging.
const LIMIT_S: u32 = 10;

/// How a ring is made.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub flags: u32,
    /// The creator enables it before anything else.
    pub enabled: bool,
}

const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const DEFER: u32 = SINGLE | raw::IORING_SETUP_DEFER_TASKRUN;
const DISABLED: u32 = raw::IORING_SETUP_R_DISABLED;
const SQPOLL: u32 = raw::IORING_SETUP_SQPOLL;

pub const KINDS: [Kind; 9] = [
    Kind { name: "0", flags: 0, enabled: false },
    Kind { name: "SINGLE_ISSUER", flags: SINGLE, enabled: false },
    Kind { name: "SINGLE_ISSUER|DEFER_TASKRUN", flags: DEFER, enabled: false },
    Kind { name: "SINGLE_ISSUER|R_DISABLED", flags: SINGLE | DISABLED, enabled: false },
    Kind { name: "SINGLE_ISSUER|R_DISABLED, enabled", flags: SINGLE | DISABLED, enabled: true },
    Kind {
        name: "SINGLE_ISSUER|DEFER_TASKRUN|R_DISABLED",
        flags: DEFER | DISABLED,
        enabled: false,
    },
    Kind {
        name: "SINGLE_ISSUER|DEFER_TASKRUN|R_DISABLED, enabled",
        flags: DEFER | DISABLED,
        enabled: true,
    },
    Kind { name: "SQPOLL", flags: SQPOLL, enabled: false },
    Kind { name: "SQPOLL|SINGLE_ISSUER", flags: SQPOLL | SINGLE, enabled: false },
];

/// Who tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Submitter,
    OtherThread,
    OtherProcess,
}

pub const CALLERS: [Caller; 3] = [Caller::Submitter, Caller::OtherThread, Caller::OtherProcess];

impl Caller {
    pub fn name(self) -> &'static str {
        match self {
            Caller::Submitter => "submitter",
            Caller::OtherThread => "other thread",
            Caller::OtherProcess => "other process",
        }
    }
}

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub flags: String,
    pub caller: String,
    pub action: String,
    pub kernel: String,
    pub ours: String,
    pub note: String,
}

pub const HEADER: &str = "flags\tcaller\taction\tkernel\tours\tnote";

impl Row {
    pub fn line(&self) -> String {
        [&*self.flags, &self.caller, &self.action, &self.kernel, &self.ours, &self.note].join("\t")
    }
}

/// The rows of a table; lines that begin with `#` and the header are skipped.
pub fn parse(text: &str) -> Vec<Row> {
    text.lines()
        .filter(|line| !line.starts_with('#') && *line != HEADER && !line.is_empty())
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_string);
            let mut next = || cells.next().unwrap_or_default();
            Row {
                flags: next(),
                caller: next(),
                action: next(),
                kernel: next(),
                ours: next(),
                note: next(),
            }
        })
        .collect()
}

/// Runs every cell on `ours`, and on `kernel` if given; without, `known` supplies what the kernel said.
pub fn run(
    kernel: Option<&'static dyn Backend>,
    ours: &'static dyn Backend,
    known: &[Row],
) -> Vec<Row> {
    let mut rows = vec![setup_row(kernel, ours, known)];
    for kind in KINDS {
        for caller in CALLERS {
            for action in ACTIONS {
                let shown = [kind.name, caller.name(), action.name];
                let kernel = kernel.map(|side| cell(side, kind, caller, action));
                rows.push(row(shown, kernel, cell(ours, kind, caller, action), known));
            }
        }
    }
    rows
}

fn row(shown: [&str; 3], kernel: Option<String>, ours: String, known: &[Row]) -> Row {
    let [flags, caller, action] = shown.map(str::to_string);
    let kernel = kernel.unwrap_or_else(|| {
        let same = |r: &&Row| (&r.flags, &r.caller, &r.action) == (&flags, &caller, &action);
        known.iter().find(same).map_or("unknown".into(), |r| r.kernel.clone())
    });
    let note = if kernel == ours { "" } else { note(&flags, &caller, &action, &kernel, &ours) };
    Row { flags, caller, action, kernel, ours, note: note.into() }
}

/// Whether SINGLE_ISSUER is in the flags that come back for an SQPOLL ring.
fn setup_row(
    kernel: Option<&'static dyn Backend>,
    ours: &'static dyn Backend,
    known: &[Row],
) -> Row {
    let flags_back = |side| {
        in_a_process(|| {
            let abi = Abi::new(side, 0);
            let mut params = params(SQPOLL | SINGLE);
            let fd = abi.setup(4, &mut params);
            if fd.is_err() {
                return text(fd);
            }
            match params.flags & (SQPOLL | SINGLE) {
                SQPOLL => "SQPOLL".into(),
                both if both == SQPOLL | SINGLE => "SQPOLL|SINGLE_ISSUER".into(),
                other => format!("{other:#x}"),
            }
        })
    };
    let shown = ["SQPOLL|SINGLE_ISSUER", "submitter", "setup: flags given back"];
    row(shown, kernel.map(flags_back), flags_back(ours), known)
}

fn cell(side: &'static dyn Backend, kind: Kind, caller: Caller, action: &Action) -> String {
    in_a_process(|| {
        let abi = Abi::new(side, 0);
        let mut ring = Ring::build(&abi, 8, params(kind.flags));
        if kind.enabled {
            let enable = raw::io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
            assert_eq!(ring.register(enable, std::ptr::null::<u8>(), 0), Res(0));
        }
        (action.before)(&mut ring);
        let said = match caller {
            Caller::Submitter => text((action.act)(&mut ring)),
            Caller::OtherThread => {
                let mut lent = Lent(&mut ring);
                std::thread::scope(|s| {
                    let tried = s.spawn(move || text((action.act)(lent.ring())));
                    tried.join().unwrap_or_else(|_| "panic".into())
                })
            }
            Caller::OtherProcess => in_a_process(|| text((action.act)(&mut ring))),
        };
        ring.leave_open();
        said
    })
}

/// A ring that another thread uses while its creator waits for that thread.
struct Lent<'r, 'a>(&'r mut Ring<'a>);

// SAFETY: `cell` joins the thread that it is sent to before it touches the ring again.
unsafe impl Send for Lent<'_, '_> {}

impl<'a> Lent<'_, 'a> {
    fn ring(&mut self) -> &mut Ring<'a> {
        self.0
    }
}

fn text(res: Res) -> String {
    match res.0 {
        0 => "ok".into(),
        n if res == actions::NO_COMPLETION => format!("no completion ({n})"),
        n if n > 0 => format!("ok {n}"),
        _ => res.to_string().trim_start_matches('-').into(),
    }
}

/// What `body` says in a forked process; `hang` and `signal N` if it says nothing.
fn in_a_process(body: impl FnOnce() -> String) -> String {
    let (from, to) = sys::pipe();
    let status = sys::in_child(LIMIT_S, || {
        sys::write(to, body().as_bytes());
        0
    });
    sys::close(to);
    let mut said = [0; 128];
    let n = sys::read(from, &mut said).0.max(0) as usize;
    sys::close(from);
    const ALARM: i32 = 128 + libc::SIGALRM;
    match status {
        0 => String::from_utf8_lossy(&said[..n]).into_owned(),
        ALARM => "hang".into(),
        101 => "panic".into(),
        n => format!("signal {}", n - 128),
    }
}

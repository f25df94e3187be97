//! Operations: what each opcode checks, tries inline, and does on a worker.
//!
//! One file per family. An operation is four functions of a request; it never completes one, it returns
//! an [`Outcome`]. Only the driver (`issue.rs`) acts on outcomes.

use crate::req::{File, Req, flag};
use crate::state::State;
use soloring_abi::{Errno, raw};
use soloring_iowq::{Class, Interrupt};

pub mod begun;
pub mod buffers;
pub mod cancel;
pub mod cmd;
pub mod epoll;
pub mod file;
pub mod fs;
pub mod futex;
pub mod msg;
pub mod net;
pub mod netbuf;
pub mod netsend;
pub mod nop;
pub mod path;
pub mod pipe;
pub mod poll;
pub mod rights;
pub mod rw;
pub mod rwcall;
pub mod rwmulti;
pub mod rwrules;
pub mod slots;
pub mod sock;
pub mod sockio;
pub mod splice;
pub mod stamps;
pub mod timeout;
pub mod waitid;
pub mod xattr;

/// What an attempt to carry out a request came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Finished: `cqe->res` and `cqe->flags`.
    Done(i32, u32),
    /// Finished, with the second half of a 32-byte CQE.
    DoneBig(i32, [u64; 2]),
    /// Would block: try again when the file has one of these poll events.
    Arm(u32),
    /// Would block and cannot be polled: a worker does it.
    Punt(Class),
    /// The request is a timeout, parsed into its data: start its timer.
    StartTimer,
    /// Finished, but completes with the next run of task work.
    Later(i32),
}

impl Outcome {
    pub fn err(e: Errno) -> Outcome {
        Outcome::Done(e.neg(), 0)
    }
}

impl From<Result<i32, Errno>> for Outcome {
    fn from(r: Result<i32, Errno>) -> Outcome {
        match r {
            Ok(v) => Outcome::Done(v, 0),
            Err(e) => Outcome::err(e),
        }
    }
}

/// How a request came to be issued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// Straight from the SQ, or from its chain.
    First,
    /// Its file became ready, with these poll events.
    Ready(u32),
}

/// What the submitter does about a request that is with a worker; see [`OpDef::punted`].
pub type Punted = fn(&Req, &dyn Fn() -> bool) -> Result<(), Errno>;

/// The functions and properties of one opcode. Hot members first; a cache line each.
#[repr(align(64))]
pub struct OpDef {
    /// Checks the SQE as the kernel's prep does, before anything else happens.
    pub prep: fn(&mut State, &mut Req) -> Result<(), Errno>,
    /// Tries to carry it out without blocking.
    pub issue: fn(&mut State, &mut Req, Attempt) -> Outcome,
    /// Carries it out on a worker; may block. Never called when `issue` cannot say `Punt`.
    pub run: fn(&mut Req, &Interrupt) -> i32,
    /// Called once the request is with a worker, before the program goes on, with what is left of it in its slot. An
    /// error ends the request. The function says whether the workers have all that they may have to do.
    pub punted: Option<Punted>,
    /// Copies what the SQE points to, before the request outlives its submission (SUBMIT_STABLE).
    pub stabilise: fn(&mut Req) -> Result<(), Errno>,
    /// `sqe->fd` names a file.
    pub needs_file: bool,
    /// Provided buffers (IOSQE_BUFFER_SELECT).
    pub buffer_select: bool,
    /// `sqe->ioprio` is used.
    pub ioprio: bool,
    /// Goes to a worker in any case (the kernel's REQ_F_FORCE_ASYNC).
    pub always_async: bool,
    /// May run on an IOPOLL ring.
    pub iopoll: bool,
    /// Blocks on readiness, not on storage: IOSQE_ASYNC re-tries by polling instead of blocking a worker.
    pub pollable: bool,
    /// Whether `run` on this file is better than waiting for readiness.
    pub block_when: fn(&Req) -> bool,
    /// `run` exists.
    pub has_run: bool,
    /// Supported: reported by IORING_REGISTER_PROBE.
    pub supported: bool,
}

pub fn always(_: &Req) -> bool {
    true
}

pub fn no_prep(_: &mut State, _: &mut Req) -> Result<(), Errno> {
    Ok(())
}

pub fn no_stabilise(_: &mut Req) -> Result<(), Errno> {
    Ok(())
}

pub fn no_run(_: &mut Req, _: &Interrupt) -> i32 {
    Errno::EOPNOTSUPP.neg()
}

fn unsupported_prep(_: &mut State, _: &mut Req) -> Result<(), Errno> {
    Err(Errno::EOPNOTSUPP)
}

fn unsupported_issue(_: &mut State, _: &mut Req, _: Attempt) -> Outcome {
    Outcome::err(Errno::EOPNOTSUPP)
}

/// Start of every definition; also what an opcode that is not implemented gets: the kernel's answer
/// for one that was configured out, -EOPNOTSUPP.
pub const UNSUPPORTED: OpDef = OpDef {
    prep: unsupported_prep,
    issue: unsupported_issue,
    run: no_run,
    punted: None,
    stabilise: no_stabilise,
    needs_file: false,
    buffer_select: false,
    ioprio: false,
    always_async: false,
    iopoll: false,
    pollable: false,
    block_when: always,
    has_run: false,
    supported: false,
};

/// Base of a supported operation.
pub const BASE: OpDef = OpDef { prep: no_prep, supported: true, ..UNSUPPORTED };

/// `Err(EINVAL)` unless all these SQE words are zero.
pub fn must_be_zero(words: &[u64]) -> Result<(), Errno> {
    if words.iter().any(|w| *w != 0) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Whether `sqe->file_index` asks for the next free slot.
pub fn wants_alloc(file_index: u32) -> bool {
    file_index == raw::IORING_FILE_INDEX_ALLOC as u32
}

/// The result of a worker's call, for the operations whose errors the kernel does not count as failures
/// of the request: their chain goes on, and their CQE is skipped when success is.
pub fn unfailing(req: &mut Req, result: Result<usize, Errno>) -> i32 {
    // A place in the tree is found to be no file before the operation begins.
    let no_file =
        result == Err(Errno::EBADF) && req.file != File::None && !crate::sys::is_open(req.fd());
    if !no_file {
        req.flags |= flag::NO_FAIL;
    }
    crate::sys::as_res(result)
}

/// Repeats a blocking call while it is interrupted by something else than a cancel.
pub fn retry_eintr(
    interrupt: &Interrupt,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) if !interrupt.cancelled() => {}
            other => return other,
        }
    }
}

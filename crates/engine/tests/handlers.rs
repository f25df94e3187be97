//! A signal handler that uses rings, between any two instructions of a call that uses rings.
//!
//! The processor's trap flag has every instruction of the call followed by a SIGTRAP; its handler makes calls of its own.
#![allow(unsafe_code)]
#![cfg(target_arch = "x86_64")]

mod common;

use common::Ring;
use soloring_abi::{Errno, Opcode, Sqe, raw};
use soloring_engine::uapi;
use std::arch::asm;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

const OWNER: u32 = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
/// More than a thread keeps at hand: each comes from the table when it is its turn.
const MANY: usize = 7;
const BUSY: isize = Errno::EBUSY.neg() as isize;

fn made() -> Ring {
    Ring::new(4, OWNER)
}

fn enter(ring: &Ring, to_submit: u32) -> isize {
    // SAFETY: the entries are NOPs.
    unsafe { uapi::io_uring_enter(ring.fd, to_submit, to_submit, GETEVENTS, null(), 0) }
}

/// Takes all completions and returns how many there were.
fn reap(ring: &Ring) -> u32 {
    // Acquire: pairs with the engine's release store of the tail.
    let tail = ring.word(ring.p.cq_off.tail).load(Ordering::Acquire);
    // AcqRel: pairs with the engine's acquire load of the head.
    tail.wrapping_sub(ring.word(ring.p.cq_off.head).swap(tail, Ordering::AcqRel))
}

/// One NOP from submission to completion, the one that was not taken last time if there is one; or what the call
/// returned otherwise.
fn nop(ring: &Ring) -> Result<(), isize> {
    let [head, tail] =
        [ring.p.sq_off.head, ring.p.sq_off.tail].map(|at| ring.word(at).load(Ordering::Relaxed));
    if head == tail {
        ring.push(Sqe { opcode: Opcode::Nop as u8, fd: -1, ..Sqe::default() });
    }
    match enter(ring, 1) {
        1 if reap(ring) == 1 => Ok(()),
        other => Err(other),
    }
}

fn works(ring: &Ring) -> bool {
    nop(ring).is_ok()
}

/// The rings of the interrupted call, and those of the handler.
struct Rings {
    own: Vec<Ring>,
    handlers: Vec<Ring>,
}

static RINGS: OnceLock<Rings> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// The interrupted call's ring, which the handler enters as well; `usize::MAX`: none.
static SAME: AtomicUsize = AtomicUsize::new(usize::MAX);
static TRAPS: AtomicU32 = AtomicU32::new(0);
static LET_IN: AtomicU32 = AtomicU32::new(0);
static TOLD_BUSY: AtomicU32 = AtomicU32::new(0);
static NOT_FOUND: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);

fn next(rings: &[Ring]) -> &Ring {
    &rings[NEXT.fetch_add(1, Ordering::Relaxed) % rings.len()]
}

/// The handler closes this ring at that trap, and does nothing else. 0: it does not.
static CLOSES: AtomicU32 = AtomicU32::new(0);
static CLOSES_AT: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_trap(_: libc::c_int) {
    let trap = TRAPS.fetch_add(1, Ordering::Relaxed);
    let fd = CLOSES.load(Ordering::Relaxed);
    if fd != 0 {
        if trap == CLOSES_AT.load(Ordering::Relaxed) {
            match uapi::ring_close(fd as i32) {
                Some(0) => {}
                // As above: once more.
                Some(BUSY) => CLOSES_AT.store(trap + 1, Ordering::Relaxed),
                _ => {
                    WRONG.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        return;
    }
    let Some(rings) = RINGS.get() else { return };
    let mut good = match nop(next(&rings.handlers)) {
        Ok(()) => true,
        // The interrupted call was about to look for its ring, and the handler has to look for its own.
        Err(BUSY) => {
            NOT_FOUND.fetch_add(1, Ordering::Relaxed);
            true
        }
        Err(_) => false,
    };
    if let Some(same) = rings.own.get(SAME.load(Ordering::Relaxed)) {
        match enter(same, 0) {
            0 => LET_IN.fetch_add(1, Ordering::Relaxed),
            BUSY => TOLD_BUSY.fetch_add(1, Ordering::Relaxed),
            _ => {
                good = false;
                0
            }
        };
    }
    WRONG.fetch_add(u32::from(!good), Ordering::Relaxed);
}

/// Runs `call` with a trap behind each of its instructions, and returns what it returned and how many there were.
#[inline(never)]
fn interrupted<R>(call: impl FnOnce() -> R) -> (R, u32) {
    let before = TRAPS.load(Ordering::Relaxed);
    // SAFETY: sets the trap flag, whose signal has a handler; nothing else changes.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = call();
    // SAFETY: clears it again.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    (result, TRAPS.load(Ordering::Relaxed) - before)
}

/// A ring whose own thread's handler closes it at any moment leaves no descriptor behind.
fn closed_wherever_it_is_entered() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, mut at, mut traps) = (open(), 1, u32::MAX);
    while at < traps {
        let ring = made();
        assert!(works(&ring));
        CLOSES_AT.store(TRAPS.load(Ordering::Relaxed) + at, Ordering::Relaxed);
        CLOSES.store(ring.fd, Ordering::Relaxed);
        let (result, took) = interrupted(|| nop(&ring));
        CLOSES.store(0, Ordering::Relaxed);
        // Done or too late; what the kernel's file would be while the call is inside, the ring is here.
        assert!(
            [Ok(()), Err(Errno::EBADF.neg() as isize)].contains(&result),
            "at {at}: {result:?}"
        );
        // The last one's trap may not have come.
        assert!([None, Some(0)].contains(&uapi::ring_close(ring.fd as i32)), "at {at}");
        for mapping in [ring.rings, ring.sqes] {
            // SAFETY: one of the two mappings that `made` gave, which nothing uses any more.
            unsafe { libc::munmap(mapping as *mut _, 4096) };
        }
        (at, traps) = (at + 47, took);
    }
    assert!(at > 100 && WRONG.load(Ordering::Relaxed) == 0, "{at}");
    // Making another one, or closing it, ends the last one; and other rings take its place with the thread.
    assert_eq!(uapi::ring_close(made().fd as i32), Some(0));
    assert!(RINGS.get().unwrap().own.iter().all(works));
    assert_eq!(open(), before, "descriptors");
}

// One test: the handler and what it does are the process's.
#[test]
fn a_handler_may_use_rings_wherever_it_interrupts_a_call() {
    // SAFETY: a handler of the right type; an alarm ends a test that waits for itself.
    unsafe {
        let mut act: libc::sigaction = std::mem::zeroed();
        act.sa_sigaction = on_trap as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &act, null_mut()), 0);
        libc::alarm(120);
    }
    let make = |n: usize| (0..n).map(|_| made()).collect();
    let rings = RINGS.get_or_init(|| Rings { own: make(MANY), handlers: make(MANY) });
    let all = || rings.own.iter().chain(&rings.handlers);
    assert!((0..3).all(|_| all().all(works)), "what is made once is made");

    // Calls of the handler that found no ring, so far.
    let not_found = || NOT_FOUND.load(Ordering::Relaxed);
    let took = |what: &str, (good, traps): (bool, u32)| {
        assert!(good && traps > 100, "{what}: {good} after {traps} instructions");
        assert_eq!(WRONG.load(Ordering::Relaxed), 0, "{what}: of the handler's calls");
    };
    // The ring that was used last, and one that has to be looked for.
    assert!(works(&rings.own[0]));
    SAME.store(0, Ordering::Relaxed);
    took("a ring at hand", interrupted(|| works(&rings.own[0])));
    assert_eq!(not_found(), 0, "with a ring at hand nothing is looked for");
    for at in 1..MANY {
        SAME.store(at, Ordering::Relaxed);
        took("a ring from the table", interrupted(|| works(&rings.own[at])));
    }
    let (in_it, busy) = (LET_IN.load(Ordering::Relaxed), TOLD_BUSY.load(Ordering::Relaxed));
    assert!(in_it > 0 && busy > 0, "{in_it} let in, {busy} told that their thread is inside");
    SAME.store(usize::MAX, Ordering::Relaxed);
    // SAFETY: the call takes no argument that it would read.
    let probe = || unsafe { uapi::io_uring_register(rings.own[1].fd, 8, null_mut(), 0) };
    took("a call of register", interrupted(|| probe() == Errno::EINVAL.neg() as isize));
    let duplicate = || uapi::ring_dup(rings.own[2].fd as i32, 0, true).map(|fd| fd as i32);
    took(
        "a duplicate, and its end",
        interrupted(|| duplicate().and_then(uapi::ring_close) == Some(0)),
    );
    let (ring, traps) = interrupted(made);
    took("a ring that is made", (works(&ring), traps));
    took("its end", interrupted(|| uapi::ring_close(ring.fd as i32) == Some(0)));
    assert!(all().all(works), "all go on");
    closed_wherever_it_is_entered();
    let (found, not_found) = (TRAPS.load(Ordering::Relaxed) - not_found(), not_found());
    assert!(
        not_found > 0 && not_found < found / 4,
        "{found} found, {not_found} told to come again"
    );
}

//! Garbage: words of the ring overwritten while it is in use, entries that change while they are read,
//! memory that goes away.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, nop};
use crate::sys;
use soloring_abi::raw;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;

/// Runs `body` while another thread keeps overwriting words of the ring.
fn while_scribbling(words: &[&AtomicU32], body: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(4);
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let value = if rng.bool() { rng.u32(..) } else { rng.u32(..16) };
                    words[rng.usize(..words.len())].store(value, Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        body();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Makes a ring sane again: nothing to submit, nothing to reap. Its SQEs must all be harmless.
fn repair(ring: &mut Ring) {
    for slot in 0..ring.params.sq_entries {
        ring.set_array(slot, slot);
    }
    // A submission makes the ring publish its true head, whatever was written over it.
    for step in 1..1000u32 {
        ring.set_tail(ring.sq_tail().wrapping_add(step));
        if ring.enter(1, 0, 0) == Res(1) {
            break;
        }
    }
    ring.set_tail(ring.sq_head());
    // GETEVENTS fills the CQ from the overflow list: an empty CQ afterwards means an empty list. The
    // flag cannot be asked, it may have been written over.
    for _ in 0..1_000_000 {
        let tail = ring.cq_tail();
        ring.word(ring.params.cq_off.head).store(tail, Ordering::Relaxed);
        ring.enter(0, 0, GETEVENTS);
        if ring.cq_ready() == 0 {
            return;
        }
    }
    panic!("the CQ is never empty");
}

fn scribble(abi: &Abi, pick: fn(&Ring) -> Vec<u32>) {
    scribble_for(abi, 3000, pick);
}

fn scribble_for(abi: &Abi, rounds: u32, pick: fn(&Ring) -> Vec<u32>) {
    let mut ring = Ring::new(abi, 8);
    for i in 0..8 {
        ring.submit_all(&[nop().ud(i)]);
        ring.wait();
    }
    let words: Vec<&AtomicU32> = pick(&ring).into_iter().map(|at| ring.word(at)).collect();
    let fd = ring.fd;
    while_scribbling(&words, || {
        for i in 0..rounds {
            let submit = if i % 3 == 0 { 0 } else { 8 };
            let flags = if i % 2 == 0 { GETEVENTS } else { 0 };
            let res = abi.enter(fd, submit, 0, flags);
            if res.is_err() {
                check_in!(res, [err(libc::EBUSY), err(libc::EAGAIN)], "enter {i}");
            }
        }
    });
    for at in unnamed_words(&ring) {
        ring.word(at).store(0, Ordering::Relaxed);
    }
    repair(&mut ring);
    for ud in 100..110 {
        check_eq!(ring.run(nop().ud(ud)).ud, ud, "after the repair");
    }
}

/// Words before the completions that have no name in the ABI.
fn unnamed_words(ring: &Ring) -> Vec<u32> {
    let (sq, cq) = (ring.params.sq_off, ring.params.cq_off);
    let named = [
        [sq.head, sq.tail, sq.ring_mask, sq.ring_entries, sq.flags, sq.dropped],
        [cq.head, cq.tail, cq.ring_mask, cq.ring_entries, cq.flags, cq.overflow],
    ];
    (0..cq.cqes).step_by(4).filter(|at| !named.as_flattened().contains(at)).collect()
}

/// A ring may keep what it likes there, and must not trust it. Few rounds: some of it may be what takes time.
fn garbage_in_every_word(abi: &Abi) {
    scribble_for(abi, 12, |ring| (0..ring.params.cq_off.cqes).step_by(4).collect());
}

fn garbage_in_the_sq_tail(abi: &Abi) {
    scribble(abi, |ring| vec![ring.params.sq_off.tail]);
}
fn garbage_in_the_array(abi: &Abi) {
    scribble(abi, |ring| {
        let array = ring.params.sq_off.array;
        (0..8).map(|i| array + 4 * i).chain([ring.params.sq_off.tail]).collect()
    });
}
fn garbage_in_the_cq_head(abi: &Abi) {
    scribble(abi, |ring| vec![ring.params.cq_off.head, ring.params.sq_off.tail]);
}
fn garbage_in_what_the_ring_writes(abi: &Abi) {
    scribble(abi, |ring| {
        let (sq, cq) = (ring.params.sq_off, ring.params.cq_off);
        vec![
            sq.head,
            sq.ring_mask,
            sq.ring_entries,
            sq.flags,
            sq.dropped,
            cq.ring_mask,
            cq.ring_entries,
            cq.overflow,
            cq.flags,
            sq.tail,
            cq.head,
        ]
    });
}

/// Entries that change while they are read: whatever mix of old and new comes out is checked as a
/// whole. First words (opcode and flags) are chosen among harmless ones.
fn garbage_in_the_entries(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_SUBMIT_ALL);
    for i in 0..8 {
        ring.submit_all(&[nop().ud(i)]);
        ring.wait();
    }
    let stop = AtomicBool::new(false);
    let fd = ring.fd;
    let (ring_ref, tail) = (&ring, ring.word(ring.params.sq_off.tail));
    let words: Vec<[&AtomicU32; 6]> =
        (0..8).map(|i| [0, 24, 28, 32, 40, 44].map(|at| ring_ref.sqe_word(i, at))).collect();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(5);
            // NOP, linked, drained, hard-linked, forced async, silent, and what is no operation.
            let firsts = [0, 0, 0, 0x400, 0x200, 0x800, 0x1000, 0x4000, 200, 0xff00];
            while !stop.load(Ordering::Relaxed) {
                for [first, rest @ ..] in &words {
                    first.store(firsts[rng.usize(..firsts.len())], Ordering::Relaxed);
                    rest[rng.usize(..5)].store(rng.u32(..), Ordering::Relaxed);
                }
                std::thread::yield_now();
            }
        });
        for i in 0..2000u32 {
            // Release pairs with the Acquire by which a ring reads its tail.
            tail.store(tail.load(Ordering::Relaxed).wrapping_add(8), Ordering::Release);
            let res = abi.enter(fd, 8, 0, if i % 2 == 0 { GETEVENTS } else { 0 });
            check!(!res.is_err(), "enter {i} = {res}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    for slot in 0..8 {
        for at in (0..64).step_by(4) {
            ring.sqe_word(slot, at).store(0, Ordering::Relaxed);
        }
    }
    std::thread::sleep(Duration::from_millis(20));
    repair(&mut ring);
    check_eq!(ring.run(nop().ud(100)).ud, 100, "after the repair");
}

fn garbage_with_requests_in_flight(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let t = sqe::ms(1);
    let words = [ring.params.sq_off.tail, ring.params.cq_off.head];
    for round in 0..20 {
        ring.submit_all(&[
            sqe::poll_add(r, libc::POLLIN as u32),
            sqe::timeout(&t, 0, 0),
            nop().forced_async(),
        ]);
        let fd = ring.fd;
        let words: Vec<&AtomicU32> = words.iter().map(|at| ring.word(*at)).collect();
        while_scribbling(&words, || {
            sys::write(w, b"x");
            for _ in 0..50 {
                abi.enter(fd, 0, 0, GETEVENTS);
            }
        });
        sys::read(r, &mut [0; 8]);
        std::thread::sleep(Duration::from_millis(2));
        repair(&mut ring);
        check_eq!(ring.sq_head(), ring.sq_tail(), "round {round}");
    }
}

fn unmapped_ring_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push(nop().ud(1));
    let (fd, p) = (ring.fd, ring.params);
    // Both mappings go away; the ring itself does not live in them.
    ring.unmap();
    check_eq!(abi.enter(fd, 1, 1, GETEVENTS), Res(1), "submitting without a mapping");
    let again = Ring::map(abi, fd, p);
    check_eq!(again.pop().map(|d| d.ud), Some(1), "seen through a new mapping");
}

fn read_only_ring_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push(nop().ud(1));
    ring.protect(libc::PROT_READ);
    check_eq!(ring.enter(1, 1, GETEVENTS), Res(1), "the program's protection is its own affair");
    ring.protect(libc::PROT_READ | libc::PROT_WRITE);
    check_eq!(ring.pop().map(|d| d.ud), Some(1));
}

family!["garbage", modes;
    garbage_in_the_sq_tail,
    garbage_in_the_array,
    garbage_in_the_cq_head,
    garbage_in_what_the_ring_writes,
    garbage_in_every_word,
    garbage_in_the_entries,
    garbage_with_requests_in_flight,
    unmapped_ring_memory,
    read_only_ring_memory,
];

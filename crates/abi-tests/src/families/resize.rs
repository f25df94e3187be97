//! REGISTER_RESIZE_RINGS: new sizes for a ring in use.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, ms, nop, poll_add, timeout};
use crate::sys;
use libc::{EEXIST, EFAULT, EINVAL, EOVERFLOW};
use soloring_abi::{Params, raw};
use std::sync::atomic::Ordering;

const RESIZE: u32 = raw::io_uring_register_op::IORING_REGISTER_RESIZE_RINGS as u32;
const CQSIZE: u32 = raw::IORING_SETUP_CQSIZE;
const CLAMP: u32 = raw::IORING_SETUP_CLAMP;
const DEFER: u32 = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
const WIDE: u32 = raw::IORING_SETUP_CQE32 | raw::IORING_SETUP_SQE128;
const NO_SQARRAY: u32 = raw::IORING_SETUP_NO_SQARRAY;
const IN: u32 = libc::POLLIN as u32;

/// A ring that may be resized.
fn deferred(abi: &Abi, sq: u32, cq: u32, flags: u32) -> Ring<'_> {
    let mut p = params(DEFER | CQSIZE | flags);
    p.cq_entries = cq;
    Ring::build(abi, sq, p)
}

fn sizes(sq: u32, cq: u32) -> Params {
    let mut p = params(CQSIZE);
    (p.sq_entries, p.cq_entries) = (sq, cq);
    p
}

fn ask(ring: &Ring, p: &mut Params) -> Res {
    ring.register(RESIZE, std::ptr::from_mut(p), 1)
}

/// The kernel does not say where the index array lies, but it lies where it does in a new ring.
fn place_array(p: &mut Params) {
    let wide = u32::from(p.flags & raw::IORING_SETUP_CQE32 != 0);
    if p.flags & NO_SQARRAY == 0 {
        p.sq_off.array = ((p.cq_off.cqes + p.cq_entries * 16) << wide).next_multiple_of(64);
    }
}

/// Resizes, which must succeed, and maps the new memory.
fn resize<'a>(ring: Ring<'a>, sq: u32, cq: u32) -> Ring<'a> {
    let mut p = sizes(sq, cq);
    check_eq!(ask(&ring, &mut p), Res(0), "to {sq} and {cq}");
    place_array(&mut p);
    let mut new = ring.mapped_anew(p);
    if p.flags & NO_SQARRAY == 0 {
        (0..p.sq_entries).for_each(|i| new.set_array(i, i));
    }
    new.set_tail(new.sq_tail());
    new
}

fn only_rings_with_deferred_task_work(abi: &Abi) {
    for flags in [
        0,
        raw::IORING_SETUP_SINGLE_ISSUER,
        raw::IORING_SETUP_COOP_TASKRUN,
        raw::IORING_SETUP_SQPOLL,
        raw::IORING_SETUP_IOPOLL,
    ] {
        let ring = Ring::build(abi, 4, params(flags));
        check_eq!(ask(&ring, &mut sizes(8, 16)), err(EINVAL), "flags {flags:#x}");
    }
    for flags in [0, raw::IORING_SETUP_IOPOLL, raw::IORING_SETUP_R_DISABLED] {
        let ring = Ring::build(abi, 4, params(DEFER | flags));
        check_eq!(ask(&ring, &mut sizes(8, 16)), Res(0), "flags {flags:#x}");
    }
}

fn arguments(abi: &Abi) {
    let ring = deferred(abi, 4, 8, 0);
    let good = sizes(8, 16);
    check_eq!(ring.register(RESIZE, &raw const good, 0), err(EINVAL), "count 0");
    check_eq!(ring.register(RESIZE, &raw const good, 2), err(EINVAL), "count 2");
    check_eq!(ring.register(RESIZE, std::ptr::null::<u8>(), 1), err(EINVAL), "no argument");
    check_eq!(ring.register(RESIZE, sys::BAD, 1), err(EFAULT), "bad pointer");
    for bit in (0..32).filter(|bit| (CQSIZE | CLAMP) >> bit & 1 == 0) {
        let mut p = sizes(8, 16);
        p.flags |= 1 << bit;
        check_eq!(ask(&ring, &mut p), err(EINVAL), "flag bit {bit}");
    }
    for (sq, cq, flags, want, got) in [
        (0, 8, CQSIZE, err(EINVAL), (0, 0)),
        (8, 0, CQSIZE, err(EINVAL), (0, 0)),
        (8, 4, CQSIZE, err(EINVAL), (0, 0)),
        (32769, 65536, CQSIZE, err(EINVAL), (0, 0)),
        (8, 65537, CQSIZE, err(EINVAL), (0, 0)),
        (8, 65537, CQSIZE | CLAMP, Res(0), (8, 65536)),
        (40000, 0, CLAMP, Res(0), (32768, 65536)),
        (3, 5, CQSIZE, Res(0), (4, 8)),
        (5, 9999, 0, Res(0), (8, 16)),
        (8, 16, CQSIZE, Res(0), (8, 16)),
    ] {
        let mut p = params(flags);
        (p.sq_entries, p.cq_entries) = (sq, cq);
        check_eq!(ask(&ring, &mut p), want, "{sq}, {cq}, flags {flags:#x}");
        if !want.is_err() {
            check_eq!((p.sq_entries, p.cq_entries), got, "{sq}, {cq}, flags {flags:#x}");
        }
    }
}

fn what_is_not_asked_for_is_not_looked_at(abi: &Abi) {
    let ring = deferred(abi, 4, 8, 0);
    let mut p = sizes(8, 16);
    (p.sq_thread_cpu, p.sq_thread_idle, p.wq_fd, p.features) = (1, 2, 3, 4);
    p.resv = [5, 6, 7];
    check_eq!(ask(&ring, &mut p), Res(0));
    check_eq!((p.sq_thread_cpu, p.sq_thread_idle, p.wq_fd, p.features), (1, 2, 3, 4));
    check_eq!(p.resv, [5, 6, 7]);
}

fn parameters_come_back(abi: &Abi) {
    for flags in [0, NO_SQARRAY, WIDE, raw::IORING_SETUP_CQE32, raw::IORING_SETUP_SUBMIT_ALL] {
        let ring = deferred(abi, 4, 8, flags);
        let mut p = sizes(16, 64);
        check_eq!(ask(&ring, &mut p), Res(0), "flags {flags:#x}");
        let inherited = flags & (NO_SQARRAY | WIDE);
        check_eq!(p.flags, CQSIZE | inherited, "flags {flags:#x}");
        check_eq!(p.sq_off.array, 0, "flags {flags:#x}");
        place_array(&mut p);
        // As a new ring of that size says.
        let fresh = deferred(abi, 16, 64, flags).params;
        let sq = |p: &Params| (p.sq_off.head, p.sq_off.ring_mask, p.sq_off.flags, p.sq_off.array);
        check_eq!(sq(&p), sq(&fresh), "SQ offsets, flags {flags:#x}");
        let cq = |p: &Params| (p.cq_off.tail, p.cq_off.overflow, p.cq_off.cqes, p.cq_off.flags);
        check_eq!(cq(&p), cq(&fresh), "CQ offsets, flags {flags:#x}");
        let new = ring.mapped_anew(p);
        let word = |offset| new.word(offset).load(Ordering::Relaxed);
        check_eq!(word(p.sq_off.ring_mask), 15);
        check_eq!(word(p.sq_off.ring_entries), 16);
        check_eq!(word(p.cq_off.ring_mask), 63);
        check_eq!(word(p.cq_off.ring_entries), 64);
    }
}

fn what_is_in_the_rings_moves_along(abi: &Abi) {
    for flags in [0, NO_SQARRAY, WIDE] {
        let mut ring = deferred(abi, 4, 8, flags);
        // Heads and tails in the middle, so that both rings wrap.
        (0..7).for_each(|ud| check_eq!(ring.run(nop().ud(ud)).ud, ud));
        let wide = |ud: u64| {
            let big = if flags & raw::IORING_SETUP_CQE32 != 0 { 1 << 5 } else { 0 };
            nop().ud(ud).with(|s| (s.op_flags, s.off, s.addr) = (big, 100 + ud, 200 + ud))
        };
        (0..2).for_each(|i| ring.submit_all(&[wide(10 + 2 * i), wide(11 + 2 * i)]));
        ring.push_all(&[wide(20), wide(21), wide(22)]);
        for (sq, cq) in [(16, 64), (4, 4), (8, 16)] {
            ring = resize(ring, sq, cq);
            check_eq!((ring.cq_ready(), ring.pending()), (4, 3), "flags {flags:#x}, {sq}, {cq}");
            check_eq!((ring.cq_head(), ring.sq_head()), (7, 11), "heads run on");
        }
        check_eq!(ring.submit(), Res(3), "flags {flags:#x}");
        for ud in [10, 11, 12, 13, 20, 21, 22] {
            let done = ring.wait();
            check_eq!((done.ud, done.res), (ud, Res(0)), "flags {flags:#x}");
            if flags & raw::IORING_SETUP_CQE32 != 0 {
                check_eq!(done.extra, [100 + ud, 200 + ud]);
            }
        }
    }
}

fn what_does_not_fit_is_refused(abi: &Abi) {
    let mut ring = deferred(abi, 8, 16, 0);
    ring.submit_all(&[nop().ud(0), nop().ud(1), nop().ud(2)]);
    check_eq!(ask(&ring, &mut sizes(2, 2)), err(EOVERFLOW), "three completions in two");
    ring.push_all(&[nop().ud(3), nop().ud(4), nop().ud(5)]);
    check_eq!(ask(&ring, &mut sizes(2, 8)), err(EOVERFLOW), "three entries in two");
    check_eq!(ring.submit(), Res(3), "the ring is as it was");
    for ud in 0..6 {
        check_eq!(ring.wait().ud, ud);
    }
    check_eq!(ask(&ring, &mut sizes(2, 2)), Res(0), "nothing is left to move");
}

fn overflowed_completions_follow(abi: &Abi) {
    let mut ring = deferred(abi, 4, 4, 0);
    for i in 0..3 {
        ring.submit_all(&[nop().ud(3 * i), nop().ud(3 * i + 1), nop().ud(3 * i + 2)]);
    }
    let flag = raw::IORING_SQ_CQ_OVERFLOW;
    check_eq!(ring.sq_flags() & flag, flag, "before");
    let ring = resize(ring, 4, 16);
    check_eq!((ring.cq_ready(), ring.sq_flags() & flag), (4, flag), "after");
    check_eq!(ring.enter(0, 0, raw::IORING_ENTER_GETEVENTS), Res(0));
    check_eq!((ring.cq_ready(), ring.sq_flags() & flag), (9, 0), "after a call");
    for ud in 0..9 {
        check_eq!(ring.wait().ud, ud);
    }
}

fn requests_in_flight_complete_in_the_new_ring(abi: &Abi) {
    let mut ring = deferred(abi, 4, 8, 0);
    let (r, w) = sys::pipe();
    let t = ms(20);
    let mut buf = [0; 4];
    ring.submit_all(&[
        poll_add(r, IN).ud(1),
        timeout(&t, 0, 0).ud(2),
        crate::sqe::read(r, &mut buf, 0).ud(3).forced_async(),
    ]);
    let ring = resize(ring, 32, 128);
    sys::write(w, b"abcd");
    let mut done = ring.results(3);
    done.retain(|d| d.0 != 2);
    check_eq!(done, [(1, Res(1)), (3, Res(4))]);
}

fn counts_and_flags_are_kept(abi: &Abi) {
    let mut ring = deferred(abi, 4, 8, 0);
    ring.set_array(0, 77);
    ring.set_tail(1);
    check_eq!(ring.submit(), Res(0), "an index that does not exist");
    check_eq!(ring.sq_dropped(), 1);
    ring.word(ring.params.cq_off.flags).store(1, Ordering::Relaxed);
    let ring = resize(ring, 8, 8);
    check_eq!(ring.sq_dropped(), 1, "dropped");
    check_eq!(ring.word(ring.params.cq_off.flags).load(Ordering::Relaxed), 1, "CQ flags");
}

fn the_old_memory_is_only_memory(abi: &Abi) {
    let mut ring = deferred(abi, 4, 8, 0);
    ring.submit_all(&[nop().ud(1)]);
    let mut p = sizes(8, 16);
    check_eq!(ask(&ring, &mut p), Res(0));
    ring.push(nop().ud(2));
    check_eq!(ring.enter(1, 0, 0), Res(0), "an entry in the old ring");
    check_eq!(ring.pop().map(|d| d.ud), Some(1), "what was there still is");
    let new = Ring::map(abi, ring.fd, p);
    check_eq!(new.pop().map(|d| d.ud), Some(1), "and has moved along");
    ring.unmap();
}

fn memory_that_the_program_brings(abi: &Abi) {
    let memory = |p: &mut Params| {
        p.cq_off.user_addr = sys::buffer(1 << 16).as_ptr() as u64;
        p.sq_off.user_addr = sys::buffer(1 << 16).as_ptr() as u64;
    };
    let mut p = params(DEFER | raw::IORING_SETUP_NO_MMAP);
    memory(&mut p);
    let fd = abi.setup(4, &mut p);
    assert!(!fd.is_err(), "setup = {fd}");
    let mut ring = Ring::in_user_memory(abi, fd.0 as i32, p);
    ring.submit_all(&[nop().ud(1)]);
    check_eq!(ask(&ring, &mut sizes(8, 16)), err(EFAULT), "no memory");
    let mut p = sizes(8, 16);
    memory(&mut p);
    let at = (p.sq_off.user_addr, p.cq_off.user_addr);
    check_eq!(ask(&ring, &mut p), Res(0));
    check_eq!((p.sq_off.user_addr, p.cq_off.user_addr), at, "addresses");
    place_array(&mut p);
    ring.leave_open();
    let mut ring = Ring::in_user_memory(abi, fd.0 as i32, p);
    (0..8).for_each(|i| ring.set_array(i, i));
    check_eq!(ring.wait().ud, 1);
    check_eq!(ring.run(nop().ud(2)).ud, 2);
}

fn another_thread_may_not(abi: &Abi) {
    let ring = deferred(abi, 4, 8, 0);
    let (fd, mut p) = (ring.fd, sizes(8, 16));
    let at = std::ptr::from_mut(&mut p) as usize;
    std::thread::scope(|s| {
        s.spawn(|| check_eq!(abi.register(fd, RESIZE, at as *const Params, 1), err(EEXIST)));
    });
}

fn many_times(abi: &Abi) {
    let mut ring = deferred(abi, 8, 8, NO_SQARRAY);
    for ud in 0..200 {
        let sq = 1 << (ud % 6);
        ring = resize(ring, sq, 2 * sq);
        check_eq!(ring.run(nop().ud(ud)).ud, ud);
    }
    check_eq!((ring.sq_head(), ring.cq_tail()), (200, 200));
}

family!["resize", once;
    only_rings_with_deferred_task_work,
    arguments,
    what_is_not_asked_for_is_not_looked_at,
    parameters_come_back,
    what_is_in_the_rings_moves_along,
    what_does_not_fit_is_refused,
    overflowed_completions_follow,
    requests_in_flight_complete_in_the_new_ring,
    counts_and_flags_are_kept,
    the_old_memory_is_only_memory,
    memory_that_the_program_brings,
    another_thread_may_not,
    many_times,
];

//! CQE_MIXED: completions of 16 and of 32 bytes in one ring.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Done, Ring, params};
use crate::sqe::{SqeExt, ms, nop, timeout};
use libc::{EINVAL, EOVERFLOW};
use soloring_abi::extra::{
    IORING_CQE_F_32, IORING_CQE_F_SKIP, IORING_NOP_CQE32, IORING_SETUP_CQE_MIXED,
};
use soloring_abi::{Opcode, Sqe, raw};

const CQSIZE: u32 = raw::IORING_SETUP_CQSIZE;
const MIXED: u32 = IORING_SETUP_CQE_MIXED;
const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const RESIZE: u32 = raw::io_uring_register_op::IORING_REGISTER_RESIZE_RINGS as u32;

/// A mixed ring with so many slots for completions.
fn mixed(abi: &Abi, cq: u32) -> Ring<'_> {
    let mut p = params(MIXED | CQSIZE | abi.mode_flags);
    p.cq_entries = cq;
    Ring::build(abi, cq.min(8), p)
}

/// A NOP with a completion of 32 bytes.
fn wide(ud: u64) -> Sqe {
    nop().ud(ud).with(|s| (s.op_flags, s.off, s.addr) = (IORING_NOP_CQE32, 1000 + ud, 2000 + ud))
}

fn is_wide(done: &Done, ud: u64) -> bool {
    (done.ud, done.flags, done.extra) == (ud, IORING_CQE_F_32, [1000 + ud, 2000 + ud])
}

fn sizes_and_offsets(abi: &Abi) {
    let p = mixed(abi, 16).params;
    let plain = Ring::with_flags(abi, 8, 0).params;
    check_eq!((p.sq_entries, p.cq_entries), (8, 16));
    check_eq!((p.cq_off.cqes, p.sq_off.array), (plain.cq_off.cqes, plain.sq_off.array));
    for (sq, cq, want) in [(1, 1, err(EOVERFLOW)), (1, 2, Res(0)), (2, 2, Res(0))] {
        let mut p = params(MIXED | CQSIZE | abi.mode_flags);
        p.cq_entries = cq;
        let fd = abi.setup(sq, &mut p);
        check_eq!(if fd.is_err() { fd } else { abi.close(fd.0 as i32) }, want, "{sq} and {cq}");
    }
    check_eq!(abi.setup(4, &mut params(MIXED | raw::IORING_SETUP_CQE32)), err(EINVAL));
}

fn each_completion_has_its_size(abi: &Abi) {
    let mut ring = mixed(abi, 16);
    ring.submit_all(&[nop().ud(1), wide(2), nop().ud(3), wide(4), wide(5)]);
    check_eq!((ring.cq_ready(), ring.cq_tail()), (8, 8), "slots, not completions");
    for ud in 1..6 {
        let done = ring.wait();
        let ok = if [1, 3].contains(&ud) {
            done.ud == ud && done.flags == 0
        } else {
            is_wide(&done, ud)
        };
        check!(ok, "completion {ud}: {done:?}");
    }
}

fn a_completion_does_not_wrap(abi: &Abi) {
    let mut ring = mixed(abi, 4);
    for _ in 0..3 {
        // Three slots, and one left before the wrap.
        ring.submit_all(&[nop().ud(1), wide(2)]);
        check_eq!((ring.wait().ud, ring.wait().ud), (1, 2));
        ring.submit_all(&[wide(3)]);
        check_eq!(ring.cq_ready(), 3, "one to skip, and two slots");
        let skip = ring.wait();
        check_eq!((skip.ud, skip.res, skip.flags), (0, Res(0), IORING_CQE_F_SKIP));
        check!(is_wide(&ring.wait(), 3), "after the wrap");
        // Back to the start.
        ring.submit_all(&[nop().ud(4), nop().ud(5)]);
        check_eq!((ring.wait().ud, ring.wait().ud), (4, 5));
        check_eq!(ring.cq_tail() % 4, 0);
    }
}

fn what_does_not_fit_overflows(abi: &Abi) {
    let mut ring = mixed(abi, 8);
    let flag = raw::IORING_SQ_CQ_OVERFLOW;
    ring.submit_all(&[nop().ud(0), wide(1), wide(2), wide(3), wide(4), wide(5), wide(6)]);
    check_eq!((ring.cq_ready(), ring.sq_flags() & flag), (8, flag), "the last slot is to skip");
    check_eq!(ring.wait().ud, 0);
    (1..4).for_each(|ud| check!(is_wide(&ring.wait(), ud), "{ud}"));
    check_eq!(ring.wait().flags, IORING_CQE_F_SKIP);
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0));
    check_eq!((ring.cq_ready(), ring.sq_flags() & flag), (6, 0));
    (4..7).for_each(|ud| check!(is_wide(&ring.wait(), ud), "{ud}"));
}

fn a_full_ring_has_nothing_to_skip(abi: &Abi) {
    let mut ring = mixed(abi, 4);
    ring.submit_all(&[nop().ud(0), nop().ud(1), nop().ud(2)]);
    (0..3).for_each(|ud| check_eq!(ring.wait().ud, ud));
    ring.submit_all(&[nop().ud(3), nop().ud(4), nop().ud(5), nop().ud(6)]);
    // Full, with the tail in the last slot.
    ring.submit_all(&[wide(7), nop().ud(8)]);
    check_eq!(ring.cq_ready(), 4);
    (3..5).for_each(|ud| check_eq!(ring.wait().ud, ud));
    // Two slots are free, but the first of them is the last: what comes first goes nowhere, and all wait for it.
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0));
    let left: Vec<_> = std::iter::from_fn(|| ring.pop()).map(|d| (d.ud, d.flags)).collect();
    check_eq!(left, [(5, 0), (6, 0), (0, IORING_CQE_F_SKIP)]);
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0));
    check!(is_wide(&ring.wait(), 7), "7");
    check_eq!(ring.wait().ud, 8);
}

fn the_smallest_ring(abi: &Abi) {
    let mut ring = mixed(abi, 2);
    for round in 0..4 {
        check!(is_wide(&ring.run(wide(round)), round), "round {round}");
    }
    check_eq!(ring.run(nop().ud(9)).ud, 9);
    ring.submit_all(&[wide(10)]);
    check_eq!(ring.wait().flags, IORING_CQE_F_SKIP);
    check!(is_wide(&ring.wait(), 10), "after the skip");
}

fn waits_and_counted_timeouts_count_slots(abi: &Abi) {
    let mut ring = mixed(abi, 16);
    let t = ms(60_000);
    ring.submit_all(&[timeout(&t, 4, 0).ud(9)]);
    ring.submit_all(&[wide(1)]);
    check_eq!(ring.cq_ready(), 2);
    ring.submit_all(&[wide(2)]);
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0));
    check_eq!(ring.cq_ready(), 5, "the timeout fired");
    check_eq!(ring.enter(0, 5, GETEVENTS), Res(0), "five slots are there");
    check!(is_wide(&ring.wait(), 1) && is_wide(&ring.wait(), 2), "the NOPs");
    check_eq!((ring.wait().ud, ring.cq_ready()), (9, 0));
}

fn links_and_skipped_completions(abi: &Abi) {
    let mut ring = mixed(abi, 16);
    let quiet = |sqe: Sqe| sqe.with(|s| s.flags |= soloring_abi::sqe_flags::CQE_SKIP_SUCCESS);
    ring.submit_all(&[wide(1).link(), quiet(wide(2)), wide(3).forced_async(), wide(4)]);
    let mut seen: Vec<_> = (0..3).map(|_| ring.wait()).collect();
    seen.sort_by_key(|d| d.ud);
    for (done, ud) in seen.iter().zip([1, 3, 4]) {
        check!(is_wide(done, ud), "{ud}: {done:?}");
    }
    check!(ring.quiet(), "one was to be skipped");
}

fn a_failed_wide_nop(abi: &Abi) {
    let mut ring = mixed(abi, 16);
    let failing = wide(1).with(|s| {
        s.op_flags |= raw::IORING_NOP_INJECT_RESULT;
        s.len = -7i32 as u32;
    });
    ring.submit_all(&[failing]);
    let done = ring.wait();
    check_eq!((done.res, done.flags, done.extra), (Res(-7), IORING_CQE_F_32, [1001, 2001]));
    let bad = wide(2).with(|s| s.op_flags |= 1 << 31);
    ring.submit_all(&[bad]);
    let done = ring.wait();
    check_eq!((done.res, done.flags), (err(EINVAL), 0), "flags that do not exist");
}

fn a_message_says_its_size(abi: &Abi) {
    let mut from = Ring::new(abi, 8);
    let to = mixed(abi, 4);
    let message = |ud: u64, flags: u32| {
        nop().with(|s| {
            s.opcode = Opcode::MsgRing as u8;
            (s.fd, s.off, s.len) = (to.fd, ud, 5);
            (s.op_flags, s.file_index) = (raw::IORING_MSG_RING_FLAGS_PASS, flags);
        })
    };
    for (ud, flags) in [(1, 0), (2, IORING_CQE_F_32), (3, IORING_CQE_F_32)] {
        check_eq!(from.res(message(ud, flags)), Res(0), "message {ud}");
    }
    let got: Vec<_> = (0..4).map(|_| to.wait()).map(|d| (d.ud, d.res, d.flags, d.extra)).collect();
    let (big, skip) = (IORING_CQE_F_32, IORING_CQE_F_SKIP);
    check_eq!(
        got,
        [
            (1, Res(5), 0, [0, 0]),
            (2, Res(5), big, [0, 0]),
            (0, Res(0), skip, [0, 0]),
            (3, Res(5), big, [0, 0])
        ]
    );
}

fn resizing(abi: &Abi) {
    let deferred = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    let mut p = params(MIXED | CQSIZE | deferred);
    p.cq_entries = 8;
    let mut ring = Ring::build(abi, 8, p);
    ring.submit_all(&[nop().ud(1), wide(2), wide(3), nop().ud(4)]);
    let mut p = params(CQSIZE);
    (p.sq_entries, p.cq_entries) = (8, 32);
    check_eq!(ring.register(RESIZE, &raw mut p, 1), Res(0));
    check_eq!(p.flags, MIXED | CQSIZE);
    let ring = ring.mapped_anew(p);
    check_eq!(ring.wait().ud, 1);
    check!(is_wide(&ring.wait(), 2) && is_wide(&ring.wait(), 3), "moved along");
    check_eq!(ring.wait().ud, 4);
    (p.sq_entries, p.cq_entries, p.flags) = (1, 1, CQSIZE);
    check_eq!(ring.register(RESIZE, &raw mut p, 1), err(EOVERFLOW), "one slot");
}

family!["mixed", modes;
    sizes_and_offsets,
    each_completion_has_its_size,
    a_completion_does_not_wrap,
    what_does_not_fit_overflows,
    a_full_ring_has_nothing_to_skip,
    the_smallest_ring,
    waits_and_counted_timeouts_count_slots,
    links_and_skipped_completions,
    a_failed_wide_nop,
    a_message_says_its_size,
    resizing,
];

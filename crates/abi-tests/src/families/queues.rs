//! The two queues: bad indices, overflow, what stops a submission, what an entry may not hold.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, CURRENT, SqeExt, nop, nop_result, op, poll_add};
use crate::sys;
use libc::{EBADF, EINVAL};
use soloring_abi::{Opcode, Sqe, raw, sqe_flags};
use std::sync::atomic::Ordering;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const SUBMIT_ALL: u32 = raw::IORING_SETUP_SUBMIT_ALL;
const OVERFLOW: u32 = raw::IORING_SQ_CQ_OVERFLOW;

fn completions_keep_the_order_of_inline_requests(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    ring.submit_all(&(0..64).map(|i| nop().ud(i)).collect::<Vec<_>>());
    for i in 0..64 {
        check_eq!(ring.wait().ud, i);
    }
}

fn user_data_comes_back_untouched(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for ud in [0, 1, u64::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        let done = ring.run(nop().ud(ud));
        check_eq!((done.ud, done.res, done.flags), (ud, Res(0), 0));
    }
}

fn the_array_chooses_the_entry(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    ring.push_all(&[nop().ud(0), nop().ud(1), nop().ud(2), nop().ud(3)]);
    for (slot, index) in [(0, 3), (1, 2), (2, 2), (3, 0)] {
        ring.set_array(slot, index);
    }
    check_eq!(ring.submit(), Res(4));
    check_eq!(ring.wait_n(4).iter().map(|d| d.ud).collect::<Vec<_>>(), [3, 2, 2, 0]);
}

fn a_bad_index_is_dropped_and_counted(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for (round, index) in [4, 5, 100, u32::MAX].into_iter().enumerate() {
        ring.push_all(&[nop().ud(1), nop().ud(2), nop().ud(3)]);
        let slot = ring.sq_head().wrapping_add(1) & 3;
        ring.set_array(slot, index);
        let first = ring.submit();
        check_eq!(ring.sq_dropped(), round as u32 + 1, "dropped after index {index}");
        check_eq!(first, Res(1), "submitted up to index {index}");
        check_eq!(ring.pending(), 1, "left after index {index}");
        check_eq!(ring.submit(), Res(1), "the rest");
        check_eq!(ring.wait_n(2).iter().map(|d| d.ud).collect::<Vec<_>>(), [1, 3]);
        check!(ring.pop().is_none(), "a completion for a dropped entry");
        // The array keeps the bad index until it is overwritten.
        ring.set_array(slot, slot);
    }
}

fn a_bad_index_alone(abi: &Abi) {
    for flags in [0, SUBMIT_ALL] {
        let mut ring = Ring::with_flags(abi, 4, flags);
        ring.push(nop());
        ring.set_array(0, 77);
        check_eq!(ring.submit(), Res(0), "flags {flags:#x}");
        check_eq!(ring.pending(), 0, "consumed");
        check_eq!(ring.sq_dropped(), 1);
        check_eq!(ring.res(nop()), Res(0), "the ring still works");
    }
}

fn a_tail_far_ahead_takes_at_most_the_ring(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for i in 0..4 {
        ring.push(nop().ud(i));
    }
    let head = ring.sq_head();
    ring.set_tail(head.wrapping_add(1000));
    check_eq!(ring.enter(1000, 0, 0), Res(4), "at most the SQ's size");
    check_eq!(ring.sq_head(), head + 4);
    ring.set_tail(head + 4);
    check_eq!(ring.results(4).len(), 4);
}

fn a_tail_behind_the_head(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    ring.submit_all(&[nop(), nop()]);
    ring.wait_n(2);
    ring.set_tail(1);
    // 2^32 - 1 entries seem to be there: at most the ring's size are taken.
    let res = ring.enter(2, 0, 0);
    check_eq!(res, Res(2));
    check_eq!(ring.sq_head(), 4);
    ring.set_tail(4);
    check_eq!(ring.results(2).len(), 2);
}

fn the_heads_are_the_rings_own_copies(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    ring.submit_all(&[nop().ud(1)]);
    ring.wait();
    // Garbage in words that the ring only writes does not move it.
    ring.word(ring.params.sq_off.head).store(12345, Ordering::Relaxed);
    ring.word(ring.params.sq_off.ring_mask).store(u32::MAX, Ordering::Relaxed);
    ring.word(ring.params.sq_off.ring_entries).store(1 << 30, Ordering::Relaxed);
    ring.word(ring.params.cq_off.ring_mask).store(u32::MAX, Ordering::Relaxed);
    ring.word(ring.params.cq_off.ring_entries).store(1 << 30, Ordering::Relaxed);
    ring.word(ring.params.sq_off.head).store(1, Ordering::Relaxed);
    ring.submit_all(&[nop().ud(2)]);
    check_eq!(ring.wait().ud, 2);
    check_eq!(ring.sq_head(), 2, "the head is published again");
}

/// Submits `n` NOPs with user data from `first` on, in pieces that the SQ can hold.
fn submit_nops(ring: &mut Ring, first: u64, n: u64) {
    for i in 0..n {
        ring.submit_all(&[nop().ud(first + i)]);
    }
}

fn overflow_loses_nothing_and_keeps_the_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    check_eq!(ring.params.cq_entries, 8);
    submit_nops(&mut ring, 0, 30);
    // Deferred work has to be run for the flag to appear; plain rings show it at once.
    ring.enter(0, 0, GETEVENTS);
    check_eq!(ring.cq_ready(), 8, "a full CQ");
    check!(ring.sq_flags() & OVERFLOW != 0, "IORING_SQ_CQ_OVERFLOW is not set");
    check_eq!(ring.cq_overflow(), 0, "completions lost");
    for i in 0..30 {
        check_eq!(ring.wait().ud, i);
    }
    check_eq!(ring.sq_flags() & OVERFLOW, 0, "the flag after all have been reaped");
    check!(ring.pop().is_none(), "nothing more");
    check_eq!(ring.res(nop()), Res(0), "the ring still works");
}

fn overflow_is_flushed_by_getevents_only(abi: &Abi) {
    let mut ring = Ring::new(abi, 2);
    submit_nops(&mut ring, 0, 6);
    for i in 0..4 {
        check_eq!(ring.pop().map(|d| d.ud), Some(i));
    }
    check_eq!(ring.cq_ready(), 0, "before the flush");
    check!(ring.sq_flags() & OVERFLOW != 0, "the flag before the flush");
    check_eq!(ring.enter(0, 0, 0), Res(0));
    check_eq!(ring.cq_ready(), 0, "enter without GETEVENTS does not flush");
    check_eq!(ring.enter(0, 0, GETEVENTS), Res(0));
    check_eq!(ring.cq_ready(), 2, "enter with GETEVENTS flushes");
    check_eq!(ring.sq_flags() & OVERFLOW, 0, "the flag after the flush");
}

fn overflow_keeps_later_completions_behind(abi: &Abi) {
    let mut ring = Ring::new(abi, 2);
    submit_nops(&mut ring, 0, 6);
    check_eq!(ring.pop().map(|d| d.ud), Some(0));
    check_eq!(ring.pop().map(|d| d.ud), Some(1));
    // There is room, but older completions wait in the overflow list.
    submit_nops(&mut ring, 6, 1);
    for i in 2..7 {
        check_eq!(ring.wait().ud, i, "order");
    }
}

fn submitting_goes_on_while_overflown(abi: &Abi) {
    let mut ring = Ring::new(abi, 2);
    submit_nops(&mut ring, 0, 5);
    check!(ring.sq_flags() & OVERFLOW != 0, "the flag");
    ring.push(nop().ud(5));
    check_eq!(ring.submit(), Res(1), "no -EBUSY");
    ring.push(nop().ud(6));
    check_eq!(ring.enter(1, 1, GETEVENTS), Res(1), "with GETEVENTS");
    for i in 0..7 {
        check_eq!(ring.wait().ud, i);
    }
}

fn overflow_of_wide_completions(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 2, raw::IORING_SETUP_CQE32);
    submit_nops(&mut ring, 0, 11);
    for i in 0..11 {
        check_eq!(ring.wait().ud, i);
    }
    check_eq!(ring.sq_flags() & OVERFLOW, 0);
}

fn a_foreign_cq_head_is_no_reason_to_crash(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for head in [1, 100, u32::MAX, 1 << 31] {
        ring.word(ring.params.cq_off.head).store(head, Ordering::Relaxed);
        ring.push(nop());
        check_eq!(ring.submit(), Res(1), "cq head {head}");
        ring.enter(0, 0, GETEVENTS);
    }
    let tail = ring.cq_tail();
    ring.word(ring.params.cq_off.head).store(tail, Ordering::Relaxed);
    ring.enter(0, 0, GETEVENTS);
    while ring.pop().is_some() {
        ring.enter(0, 0, GETEVENTS);
    }
    check_eq!(ring.run(nop().ud(42)).ud, 42, "after the head is sane again");
}

/// An entry that fails when it is prepared.
fn bad() -> Sqe {
    Sqe { opcode: 200, ..Sqe::default() }
}

fn a_bad_entry_stops_the_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push_all(&[nop().ud(1), bad().ud(2), nop().ud(3), nop().ud(4)]);
    check_eq!(ring.enter(4, 0, 0), Res(2), "up to and with the bad one");
    check_eq!(ring.results(2), [(1, Res(0)), (2, err(EINVAL))]);
    check_eq!(ring.pending(), 2);
    check_eq!(ring.enter(2, 0, 0), Res(2), "the rest");
    check_eq!(ring.results(2), [(3, Res(0)), (4, Res(0))]);
}

fn submit_all_goes_on_behind_a_bad_entry(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 8, SUBMIT_ALL);
    ring.push_all(&[nop().ud(1), bad().ud(2), nop().ud(3), bad().ud(4)]);
    check_eq!(ring.enter(4, 0, 0), Res(4));
    check_eq!(ring.results(4), [(1, Res(0)), (2, err(EINVAL)), (3, Res(0)), (4, err(EINVAL))]);
}

fn a_request_that_fails_does_not_stop_the_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.push_all(&[
        sqe::fsync(-1, 0).ud(1),
        nop_result(-5).ud(2),
        sqe::read(0, &mut [0; 1], 0).with(|s| s.fd = -1).ud(3),
        nop().ud(4),
    ]);
    check_eq!(ring.enter(4, 0, 0), Res(4));
    check_eq!(ring.results(4), [(1, err(EBADF)), (2, Res(-5)), (3, err(EBADF)), (4, Res(0))]);
}

fn unknown_opcodes(abi: &Abi) {
    let mut ring = Ring::with_flags(abi, 4, SUBMIT_ALL);
    for opcode in 63..=255 {
        let sqe = Sqe { opcode, user_data: opcode as u64, ..Sqe::default() };
        check_eq!(ring.res(sqe), err(EINVAL), "opcode {opcode}");
    }
}

fn unknown_entry_flags(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    check_eq!(ring.res(nop().flag(0x80)), err(EINVAL), "IOSQE bit 7");
    check_eq!(ring.res(nop().flag(sqe_flags::BUFFER_SELECT)), err(libc::EOPNOTSUPP), "NOP");
    check_eq!(ring.res(nop().flag(0xff)), err(EINVAL), "all bits");
    let (r, _) = sys::pipe();
    check_eq!(
        ring.res(poll_add(r, 1).flag(sqe_flags::BUFFER_SELECT)),
        err(libc::EOPNOTSUPP),
        "POLL_ADD"
    );
}

fn unknown_personality(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for personality in [1, 7, u16::MAX] {
        let sqe = nop().with(|s| s.personality = personality);
        check_eq!(ring.res(sqe), err(EINVAL), "personality {personality}");
    }
}

fn bad_descriptors_by_operation(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let mut buf = [0u8; 8];
    let unused = sys::unused_fd();
    let iov = [sys::iovec(&mut buf)];
    let mut buf = [0u8; 8];
    for fd in [-1, unused, i32::MIN] {
        for (name, sqe) in [
            ("READ", sqe::read(fd, &mut buf, 0)),
            ("WRITE", sqe::write(fd, &buf, 0)),
            ("READV", sqe::readv(fd, &iov, CURRENT)),
            ("WRITEV", sqe::writev(fd, &iov, CURRENT)),
            ("FSYNC", sqe::fsync(fd, 0)),
            ("POLL_ADD", poll_add(fd, 1)),
            ("ACCEPT", sqe::accept(fd, 0)),
            ("CONNECT", {
                let addr: &'static _ = Box::leak(Box::new(sys::loopback(1)));
                sqe::connect(fd, std::ptr::from_ref(addr) as u64, 16)
            }),
            ("LISTEN", sqe::listen(fd, 1)),
            ("SHUTDOWN", sqe::shutdown(fd, 0)),
            ("SEND", sqe::send(fd, &buf, 0)),
            ("RECV", sqe::recv(fd, &mut buf, 0)),
        ] {
            check_eq!(ring.res(sqe), err(EBADF), "{name} on {fd}");
            check_eq!(ring.res(sqe.fixed()), err(EBADF), "{name} on {fd}, fixed");
        }
    }
    check_eq!(ring.res(sqe::close(unused)), err(EBADF), "CLOSE");
}

fn operations_without_a_file_ignore_the_descriptor(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    for fd in [-1, 12345, i32::MIN] {
        check_eq!(ring.res(nop().with(|s| s.fd = fd)), Res(0), "NOP with fd {fd}");
    }
    check_eq!(ring.res(nop().fixed()), Res(0), "NOP, fixed");
}

type Change = fn(&mut Sqe);

/// Which fields of an entry an operation refuses to find non-zero.
fn reserved_fields_by_operation(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, _w) = sys::pipe();
    let t: &'static _ = Box::leak(Box::new(sqe::ms(1)));
    let fields: [(&str, Change); 6] = [
        ("ioprio", |s| s.ioprio = 1),
        ("off", |s| s.off = 1),
        ("addr", |s| s.addr = 1),
        ("len", |s| s.len = 1),
        ("buf_index", |s| s.buf_index = 1),
        ("file_index", |s| s.file_index = 1),
    ];
    // The result with that field set to 1 (in the order above); `None`: not refused by its being
    // non-zero alone, so not asked here.
    let e = Some(EINVAL);
    for (name, base, wants) in [
        ("FSYNC", op(Opcode::Fsync, r, 0, 0, 0), [None, None, e, None, e, e]),
        ("POLL_ADD", op(Opcode::PollAdd, r, 0, 0, 0), [None, e, e, None, e, None]),
        ("POLL_REMOVE", op(Opcode::PollRemove, -1, 99, 0, 0), [None, e, None, e, e, e]),
        ("TIMEOUT", sqe::timeout(t, 1, 0), [None, None, None, None, e, e]),
        ("TIMEOUT_REMOVE", sqe::timeout_remove(99), [None, None, None, e, e, e]),
        ("ASYNC_CANCEL", sqe::cancel(99, -1, 0), [None, e, None, None, None, e]),
        ("CLOSE", sqe::close(9998), [None, e, e, e, e, e]),
        ("SHUTDOWN", sqe::shutdown(r, 0), [None, e, e, None, e, e]),
        ("ACCEPT", sqe::accept(r, 0), [None, None, None, e, e, None]),
        ("CONNECT", sqe::connect(r, 0, 0), [None, None, None, e, e, e]),
        ("SOCKET", sqe::socket(99, 1, 0), [None, None, e, None, e, None]),
        ("BIND", sqe::bind(r, 0, 0), [None, None, None, e, e, e]),
        ("LISTEN", sqe::listen(r, 1), [None, e, e, None, e, e]),
        ("SEND", sqe::send(r, b"x", 0), [None, None, None, None, None, None]),
    ] {
        for ((field, set), want) in fields.iter().zip(wants) {
            if let Some(want) = want {
                check_eq!(ring.res(base.with(set)), err(want), "{name} with {field}");
            }
        }
        if name == "TIMEOUT" {
            // The one left waiting for a completion got it from the others.
            while ring.pop().is_some() {}
        }
    }
}

/// Operations that have no use for `ioprio` refuse it, some before they look at anything else.
fn ioprio_by_operation(abi: &Abi) {
    let mut ring = Ring::new(abi, 4);
    let (r, w) = sys::pipe();
    let mut out = sys::zeroed_statx();
    let root = sys::c("/");
    let t = sqe::ms(1);
    for (name, sqe) in [
        ("NOP", nop()),
        ("FSYNC", sqe::fsync(r, 0)),
        ("OPENAT", sqe::openat(libc::AT_FDCWD, &root, 0, 0)),
        ("CLOSE", sqe::close(sys::dup(r))),
        ("STATX", sqe::statx(libc::AT_FDCWD, &root, 0, 0, &mut out)),
        ("POLL_ADD", poll_add(w, libc::POLLOUT as u32)),
        ("POLL_REMOVE", sqe::poll_remove(1)),
        ("TIMEOUT", sqe::timeout(&t, 0, 0)),
        ("TIMEOUT_REMOVE", sqe::timeout_remove(1)),
        ("ASYNC_CANCEL", sqe::cancel(1, -1, 0)),
        ("CONNECT", sqe::connect(r, 0, 0)),
        ("SHUTDOWN", sqe::shutdown(r, 0)),
        ("SOCKET", sqe::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("BIND", sqe::bind(r, 0, 0)),
        ("LISTEN", sqe::listen(r, 0)),
        ("LINK_TIMEOUT", sqe::link_timeout(&t, 0)),
    ] {
        check_eq!(ring.res(sqe.with(|s| s.ioprio = 0x8000)), err(EINVAL), "{name}");
    }
    let mut buf = [0; 4];
    let read = sqe::read(r, &mut buf, 0).with(|s| s.ioprio = 0xe000);
    check_eq!(ring.res(read), err(EINVAL), "READ with an unknown priority class");
    let accept = sqe::accept(r, 0).with(|s| s.ioprio = 0x8000);
    check_eq!(ring.res(accept), err(EINVAL), "ACCEPT with an unknown flag");
    let send = sqe::send(w, b"x", 0).with(|s| s.ioprio = 0x8000);
    check_eq!(ring.res(send), err(EINVAL), "SEND with an unknown flag");
    let recv = sqe::recv(r, &mut buf, 0).with(|s| s.ioprio = 0x8000);
    check_eq!(ring.res(recv), err(EINVAL), "RECV with an unknown flag");
}

family!["queues", modes;
    completions_keep_the_order_of_inline_requests,
    user_data_comes_back_untouched,
    the_array_chooses_the_entry,
    a_bad_index_is_dropped_and_counted,
    a_bad_index_alone,
    a_tail_far_ahead_takes_at_most_the_ring,
    a_tail_behind_the_head,
    the_heads_are_the_rings_own_copies,
    overflow_loses_nothing_and_keeps_the_order,
    overflow_is_flushed_by_getevents_only,
    overflow_keeps_later_completions_behind,
    submitting_goes_on_while_overflown,
    overflow_of_wide_completions,
    a_foreign_cq_head_is_no_reason_to_crash,
    a_bad_entry_stops_the_submission,
    submit_all_goes_on_behind_a_bad_entry,
    a_request_that_fails_does_not_stop_the_submission,
    unknown_opcodes,
    unknown_entry_flags,
    unknown_personality,
    bad_descriptors_by_operation,
    operations_without_a_file_ignore_the_descriptor,
    reserved_fields_by_operation,
    ioprio_by_operation,
];

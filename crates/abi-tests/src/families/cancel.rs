//! ASYNC_CANCEL: which requests a key finds, and what both sides are told.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, cancel, ms, nop, poll_add, poll_multi, timeout};
use crate::sys;
use libc::{EALREADY, EBADF, ECANCELED, EINTR, EINVAL, ENOENT};
use soloring_abi::{Opcode, SyncCancelReg, raw, sqe_flags};

const IN: u32 = libc::POLLIN as u32;
const ALL: u32 = raw::IORING_ASYNC_CANCEL_ALL;
const FD: u32 = raw::IORING_ASYNC_CANCEL_FD;
const ANY: u32 = raw::IORING_ASYNC_CANCEL_ANY;
const FD_FIXED: u32 = raw::IORING_ASYNC_CANCEL_FD_FIXED;
const USERDATA: u32 = raw::IORING_ASYNC_CANCEL_USERDATA;
const OP: u32 = raw::IORING_ASYNC_CANCEL_OP;

fn by_op(opcode: Opcode, flags: u32) -> soloring_abi::Sqe {
    cancel(0, -1, OP | flags).with(|s| s.len = opcode as u32)
}

fn nothing_to_cancel(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.res(cancel(1, -1, 0)), err(ENOENT), "by user data");
    check_eq!(ring.res(cancel(1, -1, ALL)), Res(0), "all by user data");
    check_eq!(ring.res(cancel(0, -1, ANY)), Res(0), "any");
    check_eq!(ring.res(cancel(0, -1, ANY | ALL)), Res(0), "any and all");
    check_eq!(ring.res(cancel(0, 0, FD)), err(ENOENT), "by descriptor");
    check_eq!(ring.res(cancel(0, 0, FD | ALL)), Res(0), "all by descriptor");
    check_eq!(ring.res(by_op(Opcode::Read, 0)), err(ENOENT), "by operation");
    check_eq!(ring.res(by_op(Opcode::Read, ALL)), Res(0), "all by operation");
}

fn finished_requests_cannot_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    ring.submit_all(&[nop().ud(1)]);
    ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, err(ENOENT))]);
}

fn armed_requests_by_user_data(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    let (a, _b) = sys::socketpair(libc::SOCK_STREAM);
    let (listener, _) = sys::tcp_listener();
    let mut buf = [0; 8];
    let t = ms(60_000);
    for (what, sqe) in [
        ("READ", sqe::read(r, &mut buf, 0)),
        ("POLL_ADD", poll_add(r, IN)),
        ("POLL_ADD multishot", poll_multi(r, IN)),
        ("RECV", sqe::recv(a, &mut buf, 0)),
        ("ACCEPT", sqe::accept(listener, 0)),
        ("TIMEOUT", timeout(&t, 0, 0)),
        ("TIMEOUT with a count", timeout(&t, 9, 0)),
    ] {
        ring.submit_all(&[sqe.ud(1)]);
        ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "{what}");
        check_eq!(ring.res(cancel(1, -1, 0)), err(ENOENT), "{what}, again");
    }
}

fn user_data_key_finds_one_or_all(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1), poll_add(r, IN).ud(1), poll_add(r, IN).ud(1)]);
    ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "one");
    ring.submit_all(&[poll_add(r, IN).ud(3)]);
    ring.submit_all(&[cancel(1, -1, ALL | USERDATA).ud(2)]);
    check_eq!(
        ring.results(3),
        [(1, err(ECANCELED)), (1, err(ECANCELED)), (2, Res(2))],
        "all the others"
    );
    check!(ring.quiet(), "another user data was cancelled");
}

fn descriptor_key(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let (r2, _w2) = sys::pipe();
    let t = ms(60_000);
    let mut buf = [0; 8];
    ring.submit_all(&[
        poll_add(r, IN).ud(1),
        sqe::read(r, &mut buf, 0).ud(2),
        poll_add(r2, IN).ud(3),
        timeout(&t, 0, 0).ud(4),
    ]);
    ring.submit_all(&[cancel(0, r, FD | ALL).ud(9)]);
    check_eq!(ring.results(3), [(1, err(ECANCELED)), (2, err(ECANCELED)), (9, Res(2))], "all of r");
    ring.submit_all(&[cancel(0, r2, FD).ud(9)]);
    check_eq!(ring.results(2), [(3, err(ECANCELED)), (9, Res(0))], "one of r2");
    check_eq!(ring.res(cancel(0, sys::unused_fd(), FD)), err(EBADF), "not open");
    check_eq!(ring.res(cancel(0, -1, FD | ALL)), err(EBADF), "-1");
    check!(ring.quiet(), "the timeout went");
}

fn descriptor_key_means_the_file(abi: &Abi) {
    // The key is the open file, not the number.
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let other = sys::dup(r);
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    ring.submit_all(&[cancel(0, other, FD).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "by a duplicate");
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    let (r2, _w2) = sys::pipe();
    sys::dup2(r2, r);
    check_eq!(ring.res(cancel(0, r, FD).ud(2)), err(ENOENT), "the number names another file now");
    ring.submit_all(&[cancel(0, other, FD).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))], "the file by its duplicate");
}

fn fixed_descriptor_key(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    check_eq!(ring.res(cancel(0, 0, FD | FD_FIXED)), err(EBADF), "no table");
    let files = raw::io_uring_register_op::IORING_REGISTER_FILES as u32;
    check_eq!(ring.register(files, [r, -1].as_ptr(), 2), Res(0));
    ring.submit_all(&[poll_add(0, IN).fixed().ud(1), poll_add(r, IN).ud(2)]);
    check_eq!(ring.res(cancel(0, 1, FD | FD_FIXED)), err(EBADF), "an empty slot");
    check_eq!(ring.res(cancel(0, 2, FD | FD_FIXED)), err(EBADF), "beyond the table");
    ring.submit_all(&[cancel(0, 0, FD | FD_FIXED | ALL).ud(9)]);
    check_eq!(
        ring.results(3),
        [(1, err(ECANCELED)), (2, err(ECANCELED)), (9, Res(2))],
        "both ways of naming the file"
    );
    // FIXED_FILE in the entry's flags is taken for the fixed key as well.
    ring.submit_all(&[poll_add(0, IN).fixed().ud(1)]);
    ring.submit_all(&[cancel(0, 0, FD).flag(sqe_flags::FIXED_FILE).ud(9)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (9, Res(0))], "IOSQE_FIXED_FILE");
}

fn operation_key(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let t = ms(60_000);
    let mut bufs = [[0; 8]; 2];
    let [b1, b2] = &mut bufs;
    ring.submit_all(&[
        sqe::read(r, b1, 0).ud(1),
        sqe::read(r, b2, 0).ud(2),
        poll_add(r, IN).ud(3),
        timeout(&t, 0, 0).ud(4),
    ]);
    ring.submit_all(&[by_op(Opcode::Read, ALL).ud(9)]);
    check_eq!(ring.results(3), [(1, err(ECANCELED)), (2, err(ECANCELED)), (9, Res(2))], "READ");
    ring.submit_all(&[by_op(Opcode::Timeout, 0).ud(9)]);
    check_eq!(ring.results(2), [(4, err(ECANCELED)), (9, Res(0))], "TIMEOUT");
    let both = cancel(3, -1, OP | USERDATA).with(|s| s.len = Opcode::Read as u32);
    check_eq!(ring.res(both), err(ENOENT), "user data fits, operation does not");
    let both = cancel(3, -1, OP | USERDATA).with(|s| s.len = Opcode::PollAdd as u32);
    ring.submit_all(&[both.ud(9)]);
    check_eq!(ring.results(2), [(3, err(ECANCELED)), (9, Res(0))], "both fit");
}

fn any_key(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let t = ms(60_000);
    let mut buf = [0; 8];
    let all = |ring: &mut Ring| {
        ring.submit_all(&[
            poll_add(r, IN).ud(1),
            sqe::read(r, &mut buf, 0).ud(2),
            timeout(&t, 0, 0).ud(3),
        ]);
    };
    let mut all = all;
    all(&mut ring);
    ring.submit_all(&[cancel(0, -1, ANY).ud(9)]);
    let mut got = ring.results(4);
    check_eq!(got.pop(), Some((9, Res(3))), "ANY counts, as ALL does");
    check_eq!(got, [(1, err(ECANCELED)), (2, err(ECANCELED)), (3, err(ECANCELED))]);
    all(&mut ring);
    ring.submit_all(&[cancel(0, -1, ANY | ALL).ud(9)]);
    check_eq!(ring.results(4).pop(), Some((9, Res(3))), "ANY with ALL");
}

fn does_not_cancel_itself(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    check_eq!(ring.res(cancel(5, -1, 0).ud(5)), err(ENOENT));
    check_eq!(ring.res(cancel(5, -1, ALL).ud(5)), Res(0));
    check_eq!(ring.res(by_op(Opcode::AsyncCancel, ALL)), Res(0));
}

fn bad_fields(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    for flags in [1 << 6, 1 << 31, FD | ANY, OP | ANY, FD | ANY | ALL] {
        check_eq!(ring.res(cancel(1, 0, flags)), err(EINVAL), "flags {flags:#x}");
    }
    check_eq!(ring.res(cancel(1, 0, 0).with(|s| s.off = 1)), err(EINVAL), "off");
    check_eq!(ring.res(cancel(1, 0, 0).with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(
        ring.res(cancel(1, 0, 0).flag(sqe_flags::BUFFER_SELECT)),
        err(libc::EOPNOTSUPP),
        "buffer select"
    );
}

fn a_waiting_link_is_not_found(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.res(cancel(2, -1, 0).ud(9)), err(ENOENT));
    sys::write(w, b"x");
    check_eq!(ring.results(2), [(1, Res(1)), (2, Res(0))]);
}

fn cancelling_a_head_cancels_its_chain(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1).link(), nop().ud(2).link(), nop().ud(3)]);
    ring.submit_all(&[cancel(1, -1, 0).ud(9)]);
    check_eq!(
        ring.results(4),
        [(1, err(ECANCELED)), (2, err(ECANCELED)), (3, err(ECANCELED)), (9, Res(0))]
    );
}

fn drained_requests_are_not_found(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    ring.submit_all(&[poll_add(r, IN).ud(1), nop().ud(2).drain()]);
    // The cancellation would be held back behind the drain, so it has to come from elsewhere.
    let mut reg = sync_cancel(2, 0);
    reg.timeout.tv_sec = 0;
    check_eq!(register_sync_cancel(&ring, &reg), err(ENOENT));
    sys::write(w, b"x");
    check_eq!(ring.results(2), [(1, Res(1)), (2, Res(0))]);
}

fn cancel_and_target_in_one_submission(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    let mut buf = [0; 8];
    ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1), cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(0))]);
}

fn forced_async_requests(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let mut buf = [0; 8];
    for _ in 0..20 {
        ring.submit_all(&[sqe::read(r, &mut buf, 0).ud(1).forced_async()]);
        ring.submit_all(&[cancel(1, -1, 0).ud(2)]);
        let mut got = vec![ring.wait()];
        if got[0].ud == 2 && got[0].res == err(EALREADY) {
            // Found on a worker: it was interrupted, or came through and waits for data again.
            if let Some(target) = ring.wait_within(std::time::Duration::from_millis(50)) {
                got.push(target);
            } else {
                sys::write(w, b"x");
            }
        }
        if got.len() < 2 {
            got.push(ring.wait());
        }
        got.sort_by_key(|d| d.ud);
        let (target, found) = (got[0].res, got[1].res);
        check_in!(found, [Res(0), err(EALREADY)], "cancellation");
        check_in!(target, [err(ECANCELED), err(EINTR), Res(1)], "target");
        check!(found == err(EALREADY) || target != Res(1), "cancelled, yet it read something");
    }
}

fn sync_cancel(user_data: u64, flags: u32) -> SyncCancelReg {
    SyncCancelReg {
        addr: user_data,
        fd: -1,
        flags,
        timeout: raw::__kernel_timespec { tv_sec: -1, tv_nsec: -1 },
        opcode: 0,
        pad: [0; 7],
        pad2: [0; 3],
    }
}

fn register_sync_cancel(ring: &Ring, reg: &SyncCancelReg) -> Res {
    let opcode = raw::io_uring_register_op::IORING_REGISTER_SYNC_CANCEL as u32;
    ring.register(opcode, std::ptr::from_ref(reg), 1)
}

fn synchronous_cancellation(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, _w) = sys::pipe();
    check_eq!(register_sync_cancel(&ring, &sync_cancel(1, 0)), err(ENOENT), "nothing there");
    ring.submit_all(&[poll_add(r, IN).ud(1)]);
    check_eq!(register_sync_cancel(&ring, &sync_cancel(1, 0)), Res(0));
    check_eq!(ring.results(1), [(1, err(ECANCELED))]);
    ring.submit_all(&[poll_add(r, IN).ud(1), poll_add(r, IN).ud(1)]);
    check_eq!(register_sync_cancel(&ring, &sync_cancel(1, ALL)), Res(2), "all");
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (1, err(ECANCELED))]);
    let mut bad = sync_cancel(1, 0);
    bad.pad[3] = 1;
    check_eq!(register_sync_cancel(&ring, &bad), err(EINVAL), "padding");
    let mut bad = sync_cancel(1, 0);
    bad.pad2[2] = 1;
    check_eq!(register_sync_cancel(&ring, &bad), err(EINVAL), "more padding");
    check_eq!(register_sync_cancel(&ring, &sync_cancel(1, 1 << 9)), err(EINVAL), "flags");
    check_eq!(register_sync_cancel(&ring, &sync_cancel(1, FD)), err(EBADF), "bad descriptor");
}

fn many_requests(abi: &Abi) {
    let mut ring = Ring::new(abi, 256);
    let (r, _w) = sys::pipe();
    for round in 0..8 {
        let sqes: Vec<_> = (0..256).map(|i| poll_add(r, IN).ud(round * 256 + i)).collect();
        ring.submit_all(&sqes);
    }
    for ud in (0..2048).rev().step_by(2) {
        ring.submit_all(&[cancel(ud, -1, 0).ud(9999)]);
        check_eq!(ring.results(2), [(ud, err(ECANCELED)), (9999, Res(0))]);
    }
    ring.submit_all(&[cancel(0, r, FD | ALL).ud(9999)]);
    let got = ring.results(1025);
    check_eq!(got[1024], (9999, Res(1024)));
    check!(got[..1024].iter().all(|g| g.1 == err(ECANCELED)), "targets");
}

family!["cancel", modes;
    nothing_to_cancel,
    finished_requests_cannot_be_cancelled,
    armed_requests_by_user_data,
    user_data_key_finds_one_or_all,
    descriptor_key,
    descriptor_key_means_the_file,
    fixed_descriptor_key,
    operation_key,
    any_key,
    does_not_cancel_itself,
    bad_fields,
    a_waiting_link_is_not_found,
    cancelling_a_head_cancels_its_chain,
    drained_requests_are_not_found,
    cancel_and_target_in_one_submission,
    forced_async_requests,
    synchronous_cancellation,
    many_requests,
];

//! WAITID.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{
    CLD_CONTINUED, CLD_EXITED, CLD_KILLED, CLD_STOPPED, EBADF, ECANCELED, ECHILD, EFAULT, EINVAL,
    SIGCHLD, WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED,
};
use soloring_abi::{Opcode, Sqe, raw};
use std::time::Duration;

const P_ALL: i32 = 0;
const P_PID: i32 = 1;
const P_PGID: i32 = 2;
const P_PIDFD: i32 = 3;

/// `siginfo_t` as 32-bit words: signo, errno, code, -, pid, uid, status.
type Info = [i32; 32];
const UNTOUCHED: i32 = 0x5a5a_5a5a;

fn waitid(which: i32, id: i32, info: &mut Info, options: i32) -> Sqe {
    waitid_to(which, id, info.as_mut_ptr() as u64, options)
}

fn waitid_to(which: i32, id: i32, info: u64, options: i32) -> Sqe {
    op(Opcode::Waitid, id, 0, which as u32, info).with(|s| s.file_index = options as u32)
}

/// A child that ends with `status` once `gate` has a byte or is closed.
fn child(gate: i32, status: i32) -> i32 {
    sys::spawn_child(20, || {
        sys::read(gate, &mut [0; 1]);
        status
    })
}

/// A child that has ended already (and is not waited for).
fn zombie(status: i32) -> i32 {
    let pid = sys::spawn_child(20, || status);
    let mut info: libc::siginfo_t = none();
    // SAFETY: room for one siginfo.
    unsafe { libc::waitid(libc::P_PID, pid as u32, &mut info, WEXITED | WNOWAIT) };
    pid
}

fn none() -> libc::siginfo_t {
    // SAFETY: plain numbers.
    unsafe { std::mem::zeroed() }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: a child of this case.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

fn is_waitable(pid: i32) -> bool {
    let mut info = none();
    // SAFETY: room for one siginfo.
    let ret =
        unsafe { libc::waitid(libc::P_PID, pid as u32, &mut info, WEXITED | WNOWAIT | WNOHANG) };
    ret == 0
}

fn pidfd(pid: i32, flags: u32) -> i32 {
    // SAFETY: touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) };
    assert!(fd >= 0);
    fd as i32
}

fn check_info(info: &Info, pid: i32, code: i32, status: i32, what: &str) {
    let got = (info[0], info[1], info[2], info[4], info[6]);
    check_eq!(got, (SIGCHLD, 0, code, pid, status), "{what}");
    // SAFETY: touches no memory.
    check_eq!(info[5] as u32, unsafe { libc::getuid() }, "{what}: uid");
    check_eq!((info[3], info[7]), (UNTOUCHED, UNTOUCHED), "{what}: nothing else is written");
}

fn a_child_that_has_ended(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let pid = zombie(3);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED | WNOWAIT)), Res(0));
    check_info(&info, pid, CLD_EXITED, 3, "WNOWAIT");
    check!(is_waitable(pid), "WNOWAIT leaves it");
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED)), Res(0));
    check_info(&info, pid, CLD_EXITED, 3, "waited for");
    check!(!is_waitable(pid), "it is gone");
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED)), err(ECHILD));
    let pid = zombie(4);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED).forced_async()), Res(0));
    check_info(&info, pid, CLD_EXITED, 4, "IOSQE_ASYNC");
    let pid = zombie(5);
    check_eq!(ring.res(waitid_to(P_PID, pid, 0, WEXITED)), Res(0), "nobody wants to know");
    check!(!is_waitable(pid), "it is gone");
}

fn a_child_that_ends_later(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for asynchronous in [false, true] {
        let (r, w) = sys::pipe();
        let pid = child(r, 7);
        let mut info = [UNTOUCHED; 32];
        let sqe = waitid(P_PID, pid, &mut info, WEXITED).ud(1);
        ring.submit_all(&[if asynchronous { sqe.forced_async() } else { sqe }]);
        check!(ring.quiet(), "it lives");
        check_eq!(info[0], UNTOUCHED, "nothing is written meanwhile");
        check_eq!(ring.res(nop().ud(2)), Res(0), "the ring goes on meanwhile");
        sys::write(w, b"x");
        check_eq!(ring.results(1), [(1, Res(0))]);
        check_info(&info, pid, CLD_EXITED, 7, "ended");
        check!(!is_waitable(pid), "it is gone");
    }
}

fn a_child_that_is_killed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, _w) = sys::pipe();
    let pid = child(r, 0);
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_PID, pid, &mut info, WEXITED | WNOWAIT)]);
    signal(pid, libc::SIGKILL);
    check_eq!(ring.wait().res, Res(0));
    check_info(&info, pid, CLD_KILLED, libc::SIGKILL, "killed");
    check!(is_waitable(pid), "WNOWAIT leaves it");
    sys::wait_child(pid);
}

fn stopped_and_continued(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_PID, pid, &mut info, WEXITED | WSTOPPED).ud(1)]);
    check!(ring.quiet(), "it runs");
    signal(pid, libc::SIGSTOP);
    check_eq!(ring.results(1), [(1, Res(0))]);
    check_info(&info, pid, CLD_STOPPED, libc::SIGSTOP, "stopped");
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_PID, pid, &mut info, WCONTINUED).ud(2)]);
    check!(ring.quiet(), "it is stopped");
    signal(pid, libc::SIGCONT);
    check_eq!(ring.results(1), [(2, Res(0))]);
    check_info(&info, pid, CLD_CONTINUED, libc::SIGCONT, "continued");
    sys::write(w, b"x");
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED)), Res(0));
    check_info(&info, pid, CLD_EXITED, 1, "ended");
}

fn any_child_and_groups(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_ALL, 0, &mut info, WEXITED)), err(ECHILD), "no child at all");
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_ALL, 77, &mut info, WEXITED).ud(1)]);
    check!(ring.quiet(), "it lives");
    sys::write(w, b"x");
    check_eq!(ring.results(1), [(1, Res(0))]);
    check_info(&info, pid, CLD_EXITED, 1, "any child");
    for (group, what) in [(0, "the own group"), (1, "a group of its own")] {
        let pid = child(r, 2);
        if group == 1 {
            // SAFETY: touches no memory.
            assert_eq!(unsafe { libc::setpgid(pid, pid) }, 0);
        }
        let mut info = [UNTOUCHED; 32];
        let wait = waitid(P_PGID, group * pid, &mut info, WEXITED).ud(1);
        ring.submit_all(&[wait]);
        check!(ring.quiet(), "it lives");
        sys::write(w, b"x");
        check_eq!(ring.results(1), [(1, Res(0))], "{what}");
        check_info(&info, pid, CLD_EXITED, 2, what);
    }
}

fn by_pidfd(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 9);
    let fd = pidfd(pid, 0);
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_PIDFD, fd, &mut info, WEXITED).ud(1)]);
    check!(ring.quiet(), "it lives");
    sys::close(fd);
    sys::write(w, b"x");
    check_eq!(ring.results(1), [(1, Res(0))], "the descriptor may be closed");
    check_info(&info, pid, CLD_EXITED, 9, "pidfd");
    let pid = child(r, 9);
    let fd = pidfd(pid, libc::O_NONBLOCK as u32);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PIDFD, fd, &mut info, WEXITED)), Res(0), "a non-blocking pidfd");
    check_eq!((info[0], info[4]), (0, 0), "which has nothing to tell");
    sys::write(w, b"x");
    sys::wait_child(pid);
    check_eq!(ring.res(waitid(P_PIDFD, fd, &mut info, WEXITED)), err(ECHILD));
}

fn without_waiting(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED | WNOHANG)), Res(0));
    check_eq!([info[0], info[1], info[2], info[4], info[5], info[6]], [0; 6], "nothing to tell");
    check_eq!(info[3], UNTOUCHED);
    let bad = waitid_to(P_PID, pid, 1, WEXITED | WNOHANG);
    check_eq!(ring.res(bad), err(EFAULT), "nowhere to tell it");
    sys::write(w, b"x");
    sys::wait_child(pid);
    let mut info = [UNTOUCHED; 32];
    check_eq!(ring.res(waitid(P_PID, pid, &mut info, WEXITED | WNOHANG)), err(ECHILD));
    check_eq!([info[0], info[1], info[2], info[4]], [0; 4], "an error is told, too");
}

fn bad_arguments(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let pid = zombie(0);
    let mut info = [0; 32];
    let at = info.as_mut_ptr() as u64;
    let sqe = waitid_to(P_PID, pid, at, WEXITED);
    for options in [0, WNOHANG, WNOWAIT, WEXITED | 0x100, WEXITED | 1 << 27, -1] {
        let bad = sqe.with(|s| s.file_index = options as u32);
        check_eq!(ring.res(bad), err(EINVAL), "options {options:#x}");
    }
    for which in [4, 5, -1] {
        check_eq!(ring.res(sqe.with(|s| s.len = which as u32)), err(EINVAL), "which {which}");
    }
    for id in [0, -1] {
        check_eq!(ring.res(waitid_to(P_PID, id, at, WEXITED)), err(EINVAL), "process {id}");
    }
    check_eq!(ring.res(waitid_to(P_PGID, -1, at, WEXITED)), err(EINVAL), "group -1");
    check_eq!(ring.res(waitid_to(P_PIDFD, -1, at, WEXITED)), err(EINVAL), "pidfd -1");
    check_eq!(ring.res(waitid_to(P_PIDFD, sys::unused_fd(), at, WEXITED)), err(EBADF));
    check_eq!(ring.res(waitid_to(P_PIDFD, 0, at, WEXITED)), err(EBADF), "no pidfd");
    check_eq!(ring.res(waitid_to(P_PIDFD, ring.fd, at, WEXITED)), err(EBADF), "a ring");
    check_eq!(ring.res(waitid_to(P_PID, 1, at, WEXITED)), err(ECHILD), "no child of ours");
    check_eq!(ring.res(waitid_to(P_PID, i32::MAX, at, WEXITED)), err(ECHILD), "no process");
    check_eq!(ring.res(waitid_to(P_PID, i32::MAX, 1, WEXITED)), err(EFAULT), "and nowhere to tell");
    check_eq!(ring.res(waitid_to(4, 0, 1, WEXITED)), err(EINVAL), "nothing is told of that");
    check_eq!(ring.res(sqe.with(|s| s.addr = 1)), err(EINVAL), "addr");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(sqe.with(|s| s.addr3 = 1)), err(EINVAL), "addr3");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "op_flags");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check!(is_waitable(pid), "still there");
    check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EFAULT), "nowhere to tell");
    check!(!is_waitable(pid), "it is gone all the same");
    ring.submit_all(&[sqe.ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECHILD)), (2, err(ECANCELED))], "a broken chain");
}

/// Cancelling a wait for a process counts it, where other requests make a plain 0.
fn waits_can_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    for options in [WEXITED, WEXITED | WSTOPPED] {
        ring.submit_all(&[waitid(P_PID, pid, &mut info, options).ud(1)]);
        check!(ring.quiet(), "it lives");
        ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(1))]);
        ring.submit_all(&[
            waitid(P_PID, pid, &mut info, options).ud(1),
            waitid(P_ALL, 0, &mut info, options).ud(1),
        ]);
        ring.submit_all(&[sqe::cancel(1, -1, raw::IORING_ASYNC_CANCEL_ALL).ud(2)]);
        check_eq!(ring.results(3), [(1, err(ECANCELED)), (1, err(ECANCELED)), (2, Res(1))]);
        let ts = sqe::ms(30);
        let limited = waitid(P_PID, pid, &mut info, options).ud(3).link();
        ring.submit_all(&[limited, sqe::link_timeout(&ts, 0).ud(4)]);
        check_eq!(ring.results(2), [(3, err(ECANCELED)), (4, Res(1))], "LINK_TIMEOUT");
    }
    check_eq!([info[0], info[1], info[2], info[4], info[5], info[6]], [0; 6], "nothing to tell");
    check_eq!(info[3], UNTOUCHED);
    ring.submit_all(&[waitid_to(P_PID, pid, 1, WEXITED).ud(1)]);
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(1))], "and nowhere to tell it");
    ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
    check_eq!(ring.results(1), [(2, err(libc::ENOENT))]);
    sys::write(w, b"x");
    check_eq!(sys::wait_child(pid), 1, "the child is there to be waited for");
}

/// With ALL, all waits for processes that a cancellation hits count as one, and all for futexes.
fn how_cancelled_waits_count(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let all = raw::IORING_ASYNC_CANCEL_ALL;
    let any = raw::IORING_ASYNC_CANCEL_ANY;
    let futex = std::sync::atomic::AtomicU32::new(0);
    let futex =
        op(Opcode::FutexWait, 2, futex.as_ptr() as u64, 0, 0).with(|s| s.addr3 = u32::MAX as u64);
    let poll = sqe::poll_add(r, libc::POLLIN as u32);
    let wait = waitid_to(P_PID, pid, 0, WEXITED);
    for (flags, key) in [(all, 1), (all | any, 77), (any, 77)] {
        for (what, waits, kinds) in [
            ("two polls", [poll, poll, nop(), nop(), nop()], 2),
            ("two processes", [wait, wait, nop(), nop(), nop()], 1),
            ("two futexes", [futex, futex, nop(), nop(), nop()], 1),
            ("all of them", [wait, wait, futex, futex, poll], 3),
        ] {
            let waits = waits.map(|s| s.ud(1));
            ring.submit_all(&waits);
            let nops = waits.iter().filter(|s| s.opcode == Opcode::Nop as u8).count();
            check_eq!(ring.results(nops), vec![(1, Res(0)); nops]);
            ring.submit_all(&[sqe::cancel(key, -1, flags).ud(2)]);
            let mut expected = vec![(1, err(ECANCELED)); 5 - nops];
            let hit = if flags & all != 0 { kinds } else { 5 - nops as i64 };
            expected.push((2, Res(hit)));
            check_eq!(ring.results(6 - nops), expected, "{what}, flags {flags}");
        }
    }
    sys::write(w, b"x");
    sys::wait_child(pid);
}

fn a_wait_has_no_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    let by_fd = raw::IORING_ASYNC_CANCEL_FD;
    let fd = pidfd(pid, 0);
    ring.submit_all(&[waitid(P_PID, pid, &mut info, WEXITED).ud(1)]);
    check!(ring.quiet(), "it lives");
    check_eq!(ring.res(sqe::cancel(0, fd, by_fd).ud(2)), err(libc::ENOENT));
    check_eq!(ring.res(sqe::cancel(0, 0, by_fd).ud(2)), err(libc::ENOENT));
    sys::write(w, b"x");
    check_eq!(ring.results(1), [(1, Res(0))]);
}

fn two_waits_for_one_child(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for options in [WEXITED, WEXITED | WSTOPPED] {
        let (r, w) = sys::pipe();
        let pid = child(r, 1);
        let mut info = [UNTOUCHED; 32];
        let at = info.as_mut_ptr() as u64;
        ring.submit_all(&[
            waitid_to(P_PID, pid, at, options).ud(1),
            waitid_to(P_PID, pid, at, options).ud(1),
        ]);
        check!(ring.quiet(), "it lives");
        sys::write(w, b"x");
        check_eq!(ring.results(2), [(1, err(ECHILD)), (1, Res(0))]);
    }
}

/// Somebody else waits for the child first.
fn a_child_that_is_waited_for_elsewhere(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let pid = child(r, 1);
    let mut info = [UNTOUCHED; 32];
    ring.submit_all(&[waitid(P_PID, pid, &mut info, WEXITED).ud(1)]);
    let elsewhere = std::thread::spawn(move || sys::wait_child(pid));
    std::thread::sleep(Duration::from_millis(20));
    sys::write(w, b"x");
    // The other thread fails its assertion when the ring was first.
    let first = elsewhere.join().is_ok();
    let want = if first { err(ECHILD) } else { Res(0) };
    check_eq!(ring.results(1), [(1, want)]);
}

family!["waitids", modes;
    a_child_that_has_ended,
    a_child_that_ends_later,
    a_child_that_is_killed,
    stopped_and_continued,
    any_child_and_groups,
    by_pidfd,
    without_waiting,
    bad_arguments,
    waits_can_be_cancelled,
    how_cancelled_waits_count,
    a_wait_has_no_file,
    two_waits_for_one_child,
    a_child_that_is_waited_for_elsewhere,
];

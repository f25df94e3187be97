//! FUTEX_WAIT, FUTEX_WAKE and FUTEX_WAITV.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, SqeExt, nop, op};
use crate::sys;
use libc::{EAGAIN, ECANCELED, EFAULT, EINVAL, ENOENT};
use soloring_abi::{Opcode, Sqe, raw};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const U32: i32 = 2;
const PRIVATE: i32 = 128;
const ANY: u64 = u32::MAX as u64;

fn wait(futex: &AtomicU32, value: u64, mask: u64, flags: i32) -> Sqe {
    op(Opcode::FutexWait, flags, futex.as_ptr() as u64, 0, value).with(|s| s.addr3 = mask)
}

fn wake(futex: &AtomicU32, count: u64, mask: u64, flags: i32) -> Sqe {
    wait(futex, count, mask, flags).with(|s| s.opcode = Opcode::FutexWake as u8)
}

/// `struct futex_waitv`: value, address, flags and padding.
fn entry(futex: &AtomicU32, value: u32, flags: i32) -> [u64; 3] {
    [value as u64, futex.as_ptr() as u64, flags as u64]
}

fn waitv(entries: &[[u64; 3]]) -> Sqe {
    op(Opcode::FutexWaitv, 0, entries.as_ptr() as u64, entries.len() as u32, 0)
}

fn futex() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

/// FUTEX_WAKE as the system call: the number of waiters woken.
fn wake_by_call(futex: &AtomicU32, count: i32, flags: i32) -> i64 {
    let how = libc::FUTEX_WAKE | if flags & PRIVATE != 0 { libc::FUTEX_PRIVATE_FLAG } else { 0 };
    // SAFETY: the kernel reads the word, at most.
    unsafe { libc::syscall(libc::SYS_futex, futex.as_ptr(), how, count, 0, 0, 0) }
}

fn wake_after_the_value_changed(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    for flags in [U32, U32 | PRIVATE] {
        for asynchronous in [false, true] {
            let f = futex();
            let sqe = wait(f, 0, ANY, flags).ud(1);
            ring.submit_all(&[if asynchronous { sqe.forced_async() } else { sqe }]);
            check!(ring.quiet(), "nobody woke it");
            f.store(1, Ordering::Relaxed);
            check_eq!(ring.res(wake(f, 1, ANY, flags).ud(2)), Res(1), "woken");
            check_eq!(ring.results(1), [(1, Res(0))]);
        }
    }
}

/// The waiter is queued when the submission returns: a wake that follows finds it, whether the value
/// changed or not.
fn a_wake_right_behind_the_wait_finds_it(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    for round in 0..50 {
        ring.submit_all(&[wait(f, 0, ANY, U32).ud(1)]);
        if round % 2 == 0 {
            check_eq!(wake_by_call(f, 1, U32), 1, "by the system call, round {round}");
        } else {
            let elsewhere = std::thread::spawn(move || wake_by_call(f, 1, U32));
            check_eq!(elsewhere.join().unwrap(), 1, "by another thread, round {round}");
        }
        check_eq!(ring.results(1), [(1, Res(0))]);
    }
    ring.submit_all(&[wait(f, 0, ANY, U32).ud(1), wake(f, 1, ANY, U32).ud(2)]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, Res(1))], "in one submission");
    ring.submit_all(&[
        wait(f, 0, ANY, U32).ud(1),
        wait(f, 0, ANY, U32).ud(1),
        wait(f, 0, ANY, U32).ud(1),
        wake(f, 7, ANY, U32).ud(2),
    ]);
    check_eq!(ring.results(4), [(1, Res(0)), (1, Res(0)), (1, Res(0)), (2, Res(3))]);
}

fn waiters_are_woken_in_order(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    for i in 1..=4 {
        ring.submit_all(&[wait(f, 0, ANY, U32).ud(i)]);
    }
    for i in 1..=4 {
        check_eq!(wake_by_call(f, 1, U32), 1);
        check_eq!(ring.results(1), [(i, Res(0))]);
        check!(ring.quiet(), "one only");
    }
    check_eq!(wake_by_call(f, 1, U32), 0);
}

fn masks(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    ring.submit_all(&[wait(f, 0, 1, U32).ud(1), wait(f, 0, 6, U32).ud(2)]);
    check_eq!(ring.res(wake(f, 5, 8, U32).ud(9)), Res(0), "nobody's");
    check_eq!(ring.res(wake(f, 5, 4, U32).ud(9)), Res(1));
    check_eq!(ring.results(1), [(2, Res(0))]);
    check!(ring.quiet(), "the other one");
    check_eq!(ring.res(wake(f, 5, ANY, U32).ud(9)), Res(1));
    check_eq!(ring.results(1), [(1, Res(0))]);
}

fn the_value_is_compared_at_once(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    f.store(7, Ordering::Relaxed);
    check_eq!(ring.res(wait(f, 0, ANY, U32)), err(EAGAIN));
    check_eq!(ring.res(wait(f, 0, ANY, U32 | PRIVATE).forced_async()), err(EAGAIN));
    let entries = [entry(f, 7, U32), entry(f, 8, U32)];
    check_eq!(ring.res(waitv(&entries)), err(EAGAIN));
    ring.submit_all(&[wait(f, 0, ANY, U32).ud(1).link(), nop().ud(2)]);
    check_eq!(ring.results(2), [(1, err(EAGAIN)), (2, err(ECANCELED))], "a broken chain");
    check_eq!(wake_by_call(f, 10, U32), 0, "no waiter was left behind");
}

fn how_many_are_woken(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    check_eq!(ring.res(wake(f, 1, ANY, U32)), Res(0), "nobody waits");
    ring.submit_all(&[wait(f, 0, ANY, U32).ud(1), wait(f, 0, ANY, U32).ud(2)]);
    check_eq!(ring.res(wake(f, 0, ANY, U32)), Res(0), "none");
    check!(ring.quiet(), "none");
    let negative = ring.res(wake(f, u32::MAX as u64, ANY, U32).ud(9));
    check_eq!(negative, Res(1), "a negative number");
    check_eq!(ring.results(1), [(1, Res(0))]);
    check_eq!(ring.res(wake(f, i32::MAX as u64, ANY, U32).ud(9)), Res(1), "all");
    check_eq!(ring.results(1), [(2, Res(0))]);
}

fn private_and_shared_are_different(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let how = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, how, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: that page is never unmapped, and used as an atomic only.
    let f = unsafe { AtomicU32::from_ptr(page.cast()) };
    ring.submit_all(&[wait(f, 0, ANY, U32).ud(1)]);
    check_eq!(ring.res(wake(f, 1, ANY, U32 | PRIVATE).ud(9)), Res(0), "private");
    check_eq!(sys::in_child(10, || wake_by_call(f, 1, U32) as i32), 1, "from another process");
    check_eq!(ring.results(1), [(1, Res(0))]);
}

fn any_of_several(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f: Vec<_> = (0..4).map(|_| futex()).collect();
    let flags = [U32, U32 | PRIVATE, U32, U32 | PRIVATE];
    for (i, asynchronous) in [(0, false), (1, false), (3, false), (2, true)] {
        let entries: Vec<_> = (0..4).map(|n| entry(f[n], 0, flags[n])).collect();
        let sqe = waitv(&entries).ud(1);
        ring.submit_all(&[if asynchronous { sqe.forced_async() } else { sqe }]);
        drop(entries);
        if asynchronous {
            std::thread::sleep(Duration::from_millis(30));
        }
        check_eq!(wake_by_call(f[i], 5, flags[i]), 1);
        check_eq!(ring.results(1), [(1, Res(i as i64))], "its number");
        for n in 0..4 {
            check_eq!(wake_by_call(f[n], 5, flags[n]), 0, "the others do not wait any more");
        }
    }
    let twice = [entry(f[0], 0, U32), entry(f[0], 0, U32)];
    ring.submit_all(&[waitv(&twice).ud(1)]);
    check_eq!(wake_by_call(f[0], 5, U32), 2, "both entries");
    check_in!(ring.results(1)[0], [(1, Res(0)), (1, Res(1))], "either");
}

fn as_many_as_there_may_be(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f: Vec<_> = (0..128).map(|_| futex()).collect();
    let entries: Vec<_> = f.iter().map(|f| entry(f, 0, U32 | PRIVATE)).collect();
    ring.submit_all(&[waitv(&entries).ud(1)]);
    check!(ring.quiet(), "nobody woke it");
    check_eq!(wake_by_call(f[127], 1, U32 | PRIVATE), 1);
    check_eq!(ring.results(1), [(1, Res(127))]);
    let mut more = entries.clone();
    more.push(entries[0]);
    check_eq!(ring.res(waitv(&more)), err(EINVAL), "one more");
    check_eq!(ring.res(waitv(&entries).with(|s| s.len = 0)), err(EINVAL), "none");
}

fn bad_waits_and_wakes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    for sqe in [wait(f, 0, ANY, U32), wake(f, 1, ANY, U32)] {
        let what = Opcode::from_raw(sqe.opcode).unwrap().name();
        for flags in [0, 1, 3, U32 | 0x10, U32 | 0x100, U32 | 0x1000, -1] {
            check_eq!(ring.res(sqe.with(|s| s.fd = flags)), err(EINVAL), "{what}: {flags:#x}");
        }
        check_eq!(ring.res(sqe.with(|s| s.off = 1 << 32)), err(EINVAL), "{what}: value");
        check_eq!(ring.res(sqe.with(|s| s.addr3 = 1 << 32)), err(EINVAL), "{what}: mask");
        check_eq!(ring.res(sqe.with(|s| s.addr3 = 0)), err(EINVAL), "{what}: no mask");
        check_eq!(ring.res(sqe.with(|s| s.addr += 1)), err(EINVAL), "{what}: not aligned");
        check_eq!(ring.res(sqe.with(|s| s.len = 1)), err(EINVAL), "{what}: len");
        check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "{what}: op_flags");
        check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), err(EINVAL), "{what}: buf_index");
        check_eq!(ring.res(sqe.with(|s| s.file_index = 1)), err(EINVAL), "{what}: file_index");
        check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "{what}: ioprio");
    }
    let nowhere = sys::forbidden_page();
    let at = |sqe: Sqe, addr| sqe.with(|s| s.addr = addr);
    check_eq!(ring.res(at(wait(f, 0, ANY, U32), nowhere)), err(EFAULT), "wait, shared");
    check_eq!(ring.res(at(wait(f, 0, ANY, U32 | PRIVATE), nowhere)), err(EFAULT), "wait, private");
    check_eq!(ring.res(at(wake(f, 1, ANY, U32), nowhere)), err(EFAULT), "wake, shared");
    check_eq!(ring.res(at(wake(f, 1, ANY, U32 | PRIVATE), nowhere)), Res(0), "wake, private");
    check_eq!(ring.res(at(wake(f, 0, ANY, U32), nowhere)), err(EFAULT), "wake of none");
    check_eq!(ring.res(at(wake(f, 0, ANY, U32), 2)), err(EINVAL), "wake of none");
    let beyond = 1 << 50;
    check_eq!(ring.res(at(wake(f, 1, ANY, U32 | PRIVATE), beyond)), err(EFAULT), "no address");
    check_eq!(ring.res(at(wait(f, 0, ANY, U32), 0)), err(EFAULT), "null");
}

fn bad_vectors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    let good = entry(f, 0, U32);
    for (what, bad, want) in [
        ("unknown flags", entry(f, 0, U32 | 0x1000), EINVAL),
        ("no size", entry(f, 0, 0), EINVAL),
        ("64 bits", entry(f, 0, 3), EINVAL),
        ("padding", [good[0], good[1], good[2] | 1 << 32], EINVAL),
        ("a long value", [1 << 32, good[1], good[2]], EINVAL),
        ("not aligned", [0, good[1] + 1, good[2]], EINVAL),
        ("nowhere", [0, sys::forbidden_page(), good[2]], EFAULT),
        ("nowhere, private", [0, sys::forbidden_page(), good[2] | PRIVATE as u64], EFAULT),
    ] {
        check_eq!(ring.res(waitv(&[bad])), err(want), "{what}");
        check_eq!(ring.res(waitv(&[good, bad])), err(want), "{what}, second");
    }
    let sqe = waitv(&[good]);
    check_eq!(ring.res(sqe.with(|s| s.addr = 1)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(sqe.with(|s| s.fd = U32)), err(EINVAL), "fd");
    check_eq!(ring.res(sqe.with(|s| s.off = 1)), err(EINVAL), "off");
    check_eq!(ring.res(sqe.with(|s| s.op_flags = 1)), err(EINVAL), "op_flags");
    check_eq!(ring.res(sqe.with(|s| s.buf_index = 1)), err(EINVAL), "buf_index");
    check_eq!(ring.res(sqe.with(|s| s.file_index = 1)), err(EINVAL), "file_index");
    check_eq!(ring.res(sqe.with(|s| s.addr3 = 1)), err(EINVAL), "addr3");
    check_eq!(ring.res(sqe.with(|s| s.ioprio = 1)), err(EINVAL), "ioprio");
    check_eq!(wake_by_call(f, 10, U32), 0, "no waiter was left behind");
}

/// Cancelling a wait for a futex counts it, where other requests make a plain 0.
fn waits_can_be_cancelled(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let f = futex();
    let entries = [entry(f, 0, U32), entry(futex(), 0, U32)];
    for sqe in [wait(f, 0, ANY, U32), waitv(&entries)] {
        ring.submit_all(&[sqe.ud(1)]);
        check!(ring.quiet(), "nobody woke it");
        ring.submit_all(&[sqe::cancel(1, -1, 0).ud(2)]);
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (2, Res(1))]);
        check_eq!(wake_by_call(f, 10, U32), 0, "it waits no more");
        ring.submit_all(&[sqe.ud(1), sqe.ud(1), sqe.ud(3)]);
        ring.submit_all(&[sqe::cancel(1, -1, raw::IORING_ASYNC_CANCEL_ALL).ud(2)]);
        check_eq!(ring.results(3), [(1, err(ECANCELED)), (1, err(ECANCELED)), (2, Res(1))]);
        ring.submit_all(&[sqe::cancel(0, U32, raw::IORING_ASYNC_CANCEL_FD).ud(2)]);
        check_eq!(ring.results(1), [(2, err(ENOENT))], "there is no file");
        check_eq!(wake_by_call(f, 10, U32), 1, "the one left");
        check_eq!(ring.results(1), [(3, Res(0))]);
        let ts = sqe::ms(30);
        ring.submit_all(&[sqe.ud(3).link(), sqe::link_timeout(&ts, 0).ud(4)]);
        check_eq!(ring.results(2), [(3, err(ECANCELED)), (4, Res(1))], "LINK_TIMEOUT");
    }
}

/// A wake that a cancelled waiter would swallow goes to the next one: whoever is cancelled, one of the two
/// waiters is woken.
fn no_wake_is_lost_to_a_cancellation(abi: &Abi) {
    let mut ring = Ring::new(abi, 16);
    let f = futex();
    for round in 0..200 {
        ring.submit_all(&[wait(f, 0, ANY, U32).ud(1), wait(f, 0, ANY, U32).ud(2)]);
        let waker = std::thread::spawn(move || {
            for _ in 0..round % 7 * 50 {
                std::hint::spin_loop();
            }
            wake_by_call(f, 1, U32)
        });
        ring.submit_all(&[sqe::cancel(1, -1, 0).ud(3)]);
        check_eq!(waker.join().unwrap(), 1, "somebody was woken");
        let got = ring.results(2);
        match got[..] {
            // Cancelled before it was woken: the second one is.
            [(1, first), (3, Res(1))] => {
                check_eq!(first, err(ECANCELED), "round {round}");
                check_eq!(ring.results(1), [(2, Res(0))], "round {round}");
            }
            [(1, first), (2, Res(0))] => {
                check_eq!(first, err(ECANCELED), "round {round}");
                check_eq!(ring.results(1), [(3, Res(1))], "round {round}");
            }
            // Woken first: there was nothing to cancel.
            [(1, Res(0)), (3, cancelled)] => {
                check_in!(cancelled, [err(ENOENT), err(libc::EALREADY)], "round {round}");
                check_eq!(wake_by_call(f, 1, U32), 1, "the second one still waits");
                check_eq!(ring.results(1), [(2, Res(0))], "round {round}");
            }
            _ => check!(false, "round {round}: {got:?}"),
        }
    }
}

/// A wait that is cancelled has not failed: its chain goes on, and a completion to skip on success is skipped.
fn a_cancelled_wait_is_no_failure(abi: &Abi) {
    let f = futex();
    let entries = [entry(f, 0, U32)];
    for sqe in [wait(f, 0, ANY, U32), waitv(&entries)] {
        let mut ring = Ring::new(abi, 8);
        ring.submit_all(&[sqe.ud(1).skip()]);
        check_eq!(ring.res(sqe::cancel(1, -1, 0).ud(2)), Res(1), "cancelled");
        check!(ring.quiet(), "opcode {}: the completion was to be skipped", sqe.opcode);
        ring.submit_all(&[sqe.ud(1).link(), nop().ud(3)]);
        check_eq!(ring.res(sqe::cancel(1, -1, 0).ud(2)), Res(1), "cancelled");
        check_eq!(ring.results(2), [(1, err(ECANCELED)), (3, Res(0))], "opcode {}", sqe.opcode);
        let limit = sqe::ms(5);
        ring.submit_all(&[
            sqe.ud(1).skip().link(),
            sqe::link_timeout(&limit, 0).ud(2).link(),
            nop().ud(3),
        ]);
        check_eq!(ring.results(2), [(2, Res(1)), (3, Res(0))], "limited, opcode {}", sqe.opcode);
        check!(ring.quiet(), "limited, opcode {}", sqe.opcode);
    }
}

fn a_ring_with_waiters_closes(abi: &Abi) {
    let f = futex();
    let mut ring = Ring::new(abi, 8);
    let entries = [entry(f, 0, U32)];
    ring.submit_all(&[wait(f, 0, ANY, U32), waitv(&entries)]);
    drop(ring);
    let gone = || wake_by_call(f, 0, U32) == 0 && wake_by_call(f, 10, U32) == 0;
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while !gone() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    check!(gone(), "a waiter is left");
}

fn memory_that_is_only_read_is_no_shared_futex(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::read_only_page();
    for value in [0, 1] {
        let entry = |flags| op(Opcode::FutexWait, flags, at, 0, value).with(|s| s.addr3 = ANY);
        check_eq!(ring.res(entry(U32)), err(EFAULT), "whatever it holds");
        if value == 1 {
            check_eq!(ring.res(entry(U32 | PRIVATE)), err(EAGAIN), "a private one");
        }
    }
}

fn a_futex_that_names_no_node(abi: &Abi) {
    const NUMA: i32 = 4;
    let mut ring = Ring::new(abi, 8);
    let words = sys::buffer(4096);
    words[..8].copy_from_slice(&[b'x'; 8]);
    let at = words.as_ptr() as u64;
    for value in [0, u32::from_ne_bytes([b'x'; 4]) as u64] {
        let flags = U32 | PRIVATE | NUMA;
        let entry = op(Opcode::FutexWait, flags, at, 0, value).with(|s| s.addr3 = ANY);
        check_eq!(ring.res(entry), err(EINVAL), "whatever it holds");
    }
}

family!["futexes", modes;
    a_futex_that_names_no_node,
    memory_that_is_only_read_is_no_shared_futex,
    wake_after_the_value_changed,
    a_wake_right_behind_the_wait_finds_it,
    waiters_are_woken_in_order,
    masks,
    the_value_is_compared_at_once,
    how_many_are_woken,
    private_and_shared_are_different,
    any_of_several,
    as_many_as_there_may_be,
    bad_waits_and_wakes,
    bad_vectors,
    waits_can_be_cancelled,
    no_wake_is_lost_to_a_cancellation,
    a_cancelled_wait_is_no_failure,
    a_ring_with_waiters_closes,
];

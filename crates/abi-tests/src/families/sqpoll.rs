//! SQPOLL rings: the thread that submits, and other processes that use the ring it belongs to.
#![allow(unsafe_code)]

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::{self, SqeExt, nop, nop_result, poll_add};
use crate::sys;
use libc::{EBADF, EOWNERDEAD};
use soloring_abi::raw;
use std::time::{Duration, Instant};

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const WAKEUP: u32 = raw::IORING_ENTER_SQ_WAKEUP;
const SQ_WAIT: u32 = raw::IORING_ENTER_SQ_WAIT;
const IN: u32 = libc::POLLIN as u32;

/// A ring whose thread goes to sleep after `idle_ms` without work. It has worked once: the kernel's goes
/// to sleep at once when it finds nothing to do at the very beginning.
fn polled(abi: &Abi, entries: u32, idle_ms: u32) -> Ring<'_> {
    let mut p = params(raw::IORING_SETUP_SQPOLL);
    p.sq_thread_idle = idle_ms;
    let mut ring = Ring::build(abi, entries, p);
    ring.push(nop());
    ring.enter(1, 0, WAKEUP);
    ring.wait();
    ring
}

fn until(what: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while !what() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn asleep(ring: &Ring<'_>) -> bool {
    until(|| ring.sq_flags() & raw::IORING_SQ_NEED_WAKEUP != 0)
}

fn entries_are_taken_without_a_call(abi: &Abi) {
    let mut ring = polled(abi, 8, 5_000);
    for i in 0..20 {
        ring.push(nop().ud(i));
        check!(until(|| ring.cq_ready() > 0), "completion {i} by itself");
        check_eq!(ring.pop().map(|d| d.ud), Some(i));
    }
    check_eq!(ring.pending(), 0);
}

fn a_sleeping_thread_is_woken(abi: &Abi) {
    let mut ring = polled(abi, 8, 1);
    for i in 0..5 {
        check!(asleep(&ring), "NEED_WAKEUP after the idle time");
        ring.push(nop().ud(i));
        check_eq!(ring.enter(1, 0, WAKEUP), Res(1), "what was asked for");
        check_eq!(ring.wait().ud, i);
    }
    check_eq!(ring.enter(7, 0, WAKEUP), Res(7), "also when nothing is there");
}

fn a_wait_for_room(abi: &Abi) {
    let mut ring = polled(abi, 4, 1);
    check!(asleep(&ring), "NEED_WAKEUP");
    ring.push_all(&[nop(); 4]);
    check_eq!(ring.enter(4, 0, WAKEUP | SQ_WAIT), Res(4));
    check!(ring.pending() < 4, "there is room");
    check_eq!(ring.results(4).len(), 4);
}

fn a_childs_entries_are_its_parents_requests(abi: &Abi) {
    for idle_ms in [1, 5_000] {
        let mut ring = polled(abi, 8, idle_ms);
        let (r, w) = sys::pipe();
        sys::write(w, b"parents");
        let buf = sys::buffer(16);
        let at = buf.as_ptr();
        let status = sys::in_child(20, || {
            // Neither the descriptors nor the memory are the child's.
            let (mine, to) = sys::pipe();
            sys::write(to, b"child");
            let own = sys::buffer(16);
            ring.push_all(&[sqe::read(r, buf, 0).ud(1), sqe::read(mine, own, 0).ud(2)]);
            if ring.enter(2, 0, WAKEUP) != Res(2) {
                return 1;
            }
            if ring.results(2) != [(1, Res(7)), (2, err(EBADF))] {
                return 2;
            }
            if buf.iter().any(|b| *b != 0) { 3 } else { 0 }
        });
        check_eq!(status, 0, "the child's verdict, idle {idle_ms} ms");
        // SAFETY: not the slice, which the compiler may believe unchanged: the ring wrote there.
        let read = unsafe { std::slice::from_raw_parts(at, 7) };
        check_eq!(read, b"parents", "in the parent's memory");
        ring.set_tail(ring.sq_head());
        ring.push(nop().ud(3));
        check_eq!(ring.enter(1, 0, WAKEUP), Res(1));
        check_eq!(ring.wait().ud, 3, "the parent goes on");
    }
}

fn a_child_needs_no_call_while_the_thread_is_awake(abi: &Abi) {
    let mut ring = polled(abi, 8, 10_000);
    let status = sys::in_child(20, || {
        for i in 0..10 {
            ring.push(nop_result(i).ud(i as u64));
            if !until(|| ring.cq_ready() > 0) || ring.pop().map(|d| d.res) != Some(Res(i as i64)) {
                return 1;
            }
        }
        0
    });
    check_eq!(status, 0, "the child's verdict");
}

fn a_child_waits_for_what_completes_later(abi: &Abi) {
    let ring = polled(abi, 8, 1);
    let (r, w) = sys::pipe();
    let pid = sys::spawn_child(20, || {
        let mut ring = Ring::map(abi, ring.fd, ring.params);
        for i in 0..20 {
            ring.push(poll_add(r, IN).ud(i));
            if ring.enter(1, 1, WAKEUP | GETEVENTS) != Res(1) {
                return 1;
            }
            match ring.pop() {
                Some(done) if (done.ud, done.res) == (i, Res(IN as i64)) => {}
                _ => return 2,
            }
            sys::read(r, &mut [0; 1]);
        }
        0
    });
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(3));
        sys::write(w, b"x");
    }
    check_eq!(sys::wait_child(pid), 0, "the child's verdict");
}

fn a_child_waits_for_room(abi: &Abi) {
    let mut ring = polled(abi, 4, 1);
    check!(asleep(&ring), "NEED_WAKEUP");
    let status = sys::in_child(20, || {
        for _ in 0..50 {
            while ring.pending() < 4 {
                ring.push(nop());
            }
            if ring.enter(4, 0, WAKEUP | SQ_WAIT) != Res(4) || ring.pending() == 4 {
                return 1;
            }
            while ring.pop().is_some() {}
        }
        0
    });
    check_eq!(status, 0, "the child's verdict");
}

fn what_overflows_comes_to_the_child_too(abi: &Abi) {
    let mut ring = polled(abi, 2, 1);
    let status = sys::in_child(20, || {
        for i in 0..8 {
            ring.push(nop().ud(i));
            if ring.enter(1, 0, WAKEUP | SQ_WAIT) != Res(1) || !until(|| ring.pending() == 0) {
                return 1;
            }
        }
        for i in 0..8 {
            if ring.wait().ud != i {
                return 2;
            }
        }
        0
    });
    check_eq!(status, 0, "the child's verdict");
}

fn a_child_closes_its_descriptor(abi: &Abi) {
    let mut ring = polled(abi, 8, 1);
    let status = sys::in_child(20, || {
        ring.push(nop().ud(1));
        let woken = ring.enter(1, 0, WAKEUP) == Res(1) && ring.wait().ud == 1;
        if woken && abi.close(ring.fd) == Res(0) { 0 } else { 1 }
    });
    check_eq!(status, 0, "the child's verdict");
    for i in 0..3 {
        check!(asleep(&ring), "NEED_WAKEUP");
        ring.set_tail(ring.sq_head());
        ring.push(nop().ud(i));
        check_eq!(ring.enter(1, 0, WAKEUP), Res(1));
        check_eq!(ring.wait().ud, i, "the parent goes on");
    }
}

fn the_ring_of_a_process_that_is_gone(abi: &Abi) {
    let (from, to) = sys::pipe();
    for idle_ms in [1, 5_000] {
        // Of three generations the middle one makes the ring and goes, of itself or killed.
        for signal in [0, libc::SIGKILL] {
            let middle = sys::spawn_child(20, || {
                let mut ring = polled(abi, 4, idle_ms);
                let me = std::process::id() as i32;
                sys::spawn_orphan(20, || {
                    ring.push(nop());
                    let first = ring.enter(1, 1, WAKEUP | GETEVENTS);
                    if signal != 0 {
                        sys::kill(me, signal);
                    }
                    sys::write(to, &[first.0 as u8]);
                    until(|| sys::parent() != me);
                    // The thread ends with its process, not at one moment.
                    let end = Instant::now() + Duration::from_secs(5);
                    let mut last = ring.enter(0, 0, 0);
                    while last != err(EOWNERDEAD) && Instant::now() < end {
                        std::thread::sleep(Duration::from_millis(5));
                        last = ring.enter(0, 0, 0);
                    }
                    let woken = ring.enter(1, 0, WAKEUP);
                    let waited = ring.enter(0, 1, GETEVENTS);
                    sys::write(to, &[-last.0 as u8, -woken.0 as u8, -waited.0 as u8]);
                    0
                });
                until(|| signal == 0 && ring.cq_ready() > 0);
                std::thread::sleep(Duration::from_millis(20));
                0
            });
            let mut said = [0; 4];
            check_eq!(sys::read(from, &mut said[..1]), Res(1));
            sys::wait_child(middle);
            check_eq!(sys::read(from, &mut said[1..]), Res(3));
            let dead = EOWNERDEAD as u8;
            check_eq!(said, [1, dead, dead, dead], "signal {signal}, idle {idle_ms} ms");
        }
    }
}

family!["sqpoll", once;
    entries_are_taken_without_a_call,
    a_sleeping_thread_is_woken,
    a_wait_for_room,
    a_childs_entries_are_its_parents_requests,
    a_child_needs_no_call_while_the_thread_is_awake,
    a_child_waits_for_what_completes_later,
    a_child_waits_for_room,
    what_overflows_comes_to_the_child_too,
    a_child_closes_its_descriptor,
    the_ring_of_a_process_that_is_gone,
];

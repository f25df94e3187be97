//! Several threads that wait on one ring.

use crate::backend::Abi;
use crate::res::Res;
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop, poll_add};
use crate::sys;
use soloring_abi::raw;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const GETEVENTS: u32 = raw::IORING_ENTER_GETEVENTS;
const LONG: Duration = Duration::from_secs(20);

/// A thread that waits for completions.
struct Waiter {
    thread: JoinHandle<()>,
    done: Receiver<Res>,
}

impl Waiter {
    /// One that waits for `n`, asleep by now.
    fn new(abi: &Abi, fd: i32, n: u32) -> Waiter {
        let (tell, told) = channel();
        let (finish, done) = channel();
        let backend = abi.backend();
        let thread = spawn(move || {
            let abi = Abi::unrecorded(backend);
            tell.send(sys::thread_id()).unwrap();
            // The case may be over, having failed.
            let _ = finish.send(abi.enter(fd, 0, n, GETEVENTS));
        });
        sys::until_asleep(told.recv().unwrap());
        Waiter { thread, done }
    }

    /// What its call returned.
    fn result(self) -> Res {
        let res = self.done.recv_timeout(LONG).expect("the waiter comes back");
        self.thread.join().unwrap();
        res
    }

    fn still_waits(&self) -> bool {
        self.done.recv_timeout(Duration::from_millis(20)).is_err()
    }
}

/// The lowest number that is not taken.
fn lowest_free() -> i32 {
    let fd = sys::dup(0);
    sys::close(fd);
    fd
}

/// What a program opens while its threads wait gets the numbers that it expects, and a sweep over its descriptors
/// takes nothing away from them.
fn waiting_takes_no_number_of_the_programs(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let free = lowest_free();
    let waiters: Vec<Waiter> = (0..3).map(|_| Waiter::new(abi, ring.fd, 1)).collect();
    check_eq!(lowest_free(), free, "the lowest number while threads wait");
    ring.submit_all(&[nop()]);
    for waiter in waiters {
        check_eq!(waiter.result(), Res(0));
    }
    check_eq!(lowest_free(), free, "the lowest number afterwards");
}

fn each_is_woken_when_its_number_is_there(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    for round in 0..3 {
        // In this order: Linux 6.18 does not look beyond the first whom a completion is not enough for.
        let mut waiters: Vec<Waiter> = (1..=3).map(|n| Waiter::new(abi, ring.fd, n)).collect();
        for _ in 0..3 {
            ring.submit_all(&[nop()]);
            check_eq!(waiters.remove(0).result(), Res(0), "round {round}");
            check!(waiters.iter().all(Waiter::still_waits), "round {round}: woken too early");
        }
        check_eq!(ring.wait_n(3).len(), 3);
    }
}

/// A ring lives as long as a thread is inside, and so do its requests.
fn those_inside_keep_a_closed_ring_alive(abi: &Abi) {
    let mut ring = Ring::build(abi, 8, params(0));
    let ((r1, w1), (r2, w2)) = (sys::pipe(), sys::pipe());
    let readable = libc::POLLIN as u32;
    ring.submit_all(&[poll_add(r1, readable).ud(1), poll_add(r2, readable).ud(2)]);
    let (for_one, for_both) = (Waiter::new(abi, ring.fd, 1), Waiter::new(abi, ring.fd, 2));
    abi.close(ring.fd);
    check!(for_one.still_waits() && for_both.still_waits(), "closing wakes nobody");
    sys::write(w1, b"x");
    check_eq!(for_one.result(), Res(0));
    check!(for_both.still_waits(), "its request is gone");
    sys::write(w2, b"x");
    check_eq!(for_both.result(), Res(0));
    let mut seen: Vec<_> = (0..2).filter_map(|_| ring.pop()).map(|d| (d.ud, d.res)).collect();
    seen.sort();
    check_eq!(seen, [(1, Res(readable as i64)), (2, Res(readable as i64))]);
    ring.leave_open();
}

/// Posted by a child, which uses the ring for the first time when all of them sleep.
fn another_processs_completions_wake_them(abi: &Abi) {
    let ring = Ring::build(abi, 8, params(0));
    let (r, w) = sys::pipe();
    let child = sys::spawn_child(40, || {
        let mut ring = Ring::map(abi, ring.fd, ring.params);
        let mut posted = true;
        for _ in 0..2 {
            sys::read(r, &mut [0]);
            ring.push(nop());
            posted &= ring.submit() == Res(1);
        }
        ring.leave_open();
        i32::from(!posted)
    });
    // Linux 6.18 does not look beyond the first whom a completion is not enough for.
    let order = if abi.is_kernel() { [1, 2] } else { [2, 1] };
    let waiters = order.map(|n| (n, Waiter::new(abi, ring.fd, n)));
    for n in 1..=2 {
        sys::write(w, b"x");
        let waiter = waiters.iter().find(|waiter| waiter.0 == n).map(|waiter| &waiter.1);
        let res = waiter.and_then(|waiter| waiter.done.recv_timeout(LONG).ok());
        check_eq!(res, Some(Res(0)), "who waits for {n}");
    }
    check_eq!(sys::wait_child(child), 0, "what the child was told");
}

family!["waiters", once;
    waiting_takes_no_number_of_the_programs,
    each_is_woken_when_its_number_is_there,
    those_inside_keep_a_closed_ring_alive,
    another_processs_completions_wake_them,
];

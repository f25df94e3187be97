//! The pool where threads or timers are short, the reserved signal is taken, or the user changes.
//!
//! Each test in a forked child.
#![allow(unsafe_code)]

use crate::test_rig::{End, Rig, blocking_read, deny, in_child, pipe, rig, until};
use crate::{CancelOutcome, Class, signal};
use std::sync::Arc;
// SeqCst: each access of a word pairs with all others of the test's words, which are to have one order.
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use syscalls::Sysno;

const THREADS: [Sysno; 2] = [Sysno::clone, Sysno::clone3];

/// A cancel that comes before the blocking call, so that a single signal would be lost.
fn cancel_early(rig: &Rig) {
    let (read_end, _write_end) = pipe();
    let gate = Arc::new(AtomicU32::new(0));
    let inner = Arc::clone(&gate);
    let (id, ticket) = rig.queue(Class::Unbounded, None, move |interrupt| {
        inner.store(1, SeqCst);
        while inner.load(SeqCst) != 2 {
            std::hint::spin_loop();
        }
        blocking_read(&read_end, interrupt)
    });
    until("it computes", || gate.load(SeqCst) == 1);
    assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
    gate.store(2, SeqCst);
    assert_eq!(rig.next(), (id, End::Interrupted));
}

#[test]
fn without_any_worker_a_work_fails_with_the_errno() {
    in_child(|| {
        let rig = rig();
        deny(&THREADS, libc::EAGAIN as u16);
        let (id, ticket) = rig.queue(Class::Bounded, Some(1), |_| End::Ran);
        assert_eq!(rig.next(), (id, End::Failed(libc::EAGAIN)));
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::NotFound);
        let (id, _) = rig.queue(Class::Bounded, Some(1), |_| End::Ran);
        assert_eq!(rig.next(), (id, End::Failed(libc::EAGAIN)), "the hash was freed");
        assert_eq!((rig.wq.stats().workers, rig.wq.stats().workers_failed), (0, 2));
    });
}

#[test]
fn without_further_workers_the_existing_one_does_all() {
    in_child(|| {
        let rig = rig();
        let (first, _, write_end) = rig.blocked();
        deny(&THREADS, libc::EAGAIN as u16);
        let (second, _) = rig.queue(Class::Unbounded, None, |_| End::Ran);
        let (third, _) = rig.queue(Class::Bounded, None, |_| End::Ran);
        assert_eq!(rig.wq.stats().ready, [1, 1]);
        drop(write_end);
        assert_eq!(
            [rig.next(), rig.next(), rig.next()],
            [first, second, third].map(|i| (i, End::Ran))
        );
    });
}

#[test]
fn without_kernel_timers_a_thread_repeats_the_signal() {
    in_child(|| {
        let rig = rig();
        deny(&[Sysno::timer_create], libc::EAGAIN as u16);
        for _ in 0..20 {
            cancel_early(&rig);
        }
    });
}

/// RLIMIT_SIGPENDING is used up: the kernel queues no real-time signal and makes no timer, so the
/// interruption waits until there is room again.
#[test]
fn without_signal_queue_space_the_interruption_comes_later() {
    in_child(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure is live for the call.
        unsafe { libc::getrlimit(libc::RLIMIT_SIGPENDING, &raw mut limit) };
        let none = libc::rlimit { rlim_cur: 0, ..limit };
        let rig = rig();
        let (id, ticket, _write_end) = rig.blocked();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const none) }, 0);
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
        std::thread::sleep(Duration::from_millis(5));
        let stats = rig.wq.stats();
        assert_eq!((stats.running, stats.interrupts), ([0, 1], 0));
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const limit) }, 0);
        assert_eq!(rig.next(), (id, End::Interrupted));
    });
}

#[test]
fn a_sweep_of_all_signals_to_the_default_is_survived() {
    in_child(|| {
        let rig = rig();
        cancel_early(&rig);
        for signo in 1..=64 {
            if signo != libc::SIGALRM {
                // SAFETY: SIG_DFL for a signal number; refused ones are of no interest.
                unsafe { libc::signal(signo, libc::SIG_DFL) };
            }
        }
        // The default action of the reserved signal is to end the process.
        cancel_early(&rig);
    });
}

static PROGRAM_HANDLER_RAN: AtomicU32 = AtomicU32::new(0);

extern "C" fn program_handler(_: libc::c_int) {
    PROGRAM_HANDLER_RAN.fetch_add(1, SeqCst);
}

#[test]
fn a_program_that_takes_the_signal_keeps_it() {
    in_child(|| {
        let rig = rig();
        cancel_early(&rig);
        let taken = signal::current();
        let (id, ticket, write_end) = rig.blocked();
        // SAFETY: the handler only counts.
        unsafe { libc::signal(taken, program_handler as *const () as libc::sighandler_t) };
        // This one cannot be interrupted any more, and ends by itself; those that start now can.
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
        for _ in 0..10 {
            cancel_early(&rig);
        }
        assert_ne!(signal::current(), taken);
        drop(write_end);
        assert_eq!(rig.next(), (id, End::Ran));
        cancel_early(&rig);
        assert_eq!(PROGRAM_HANDLER_RAN.load(SeqCst), 0);
    });
}

#[test]
fn with_every_number_taken_works_still_run() {
    in_child(|| {
        for signo in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            // SAFETY: SIG_IGN needs no handler.
            unsafe { libc::signal(signo, libc::SIG_IGN) };
        }
        let rig = rig();
        let (id, ticket, write_end) = rig.blocked();
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
        assert_eq!(rig.wq.stats().interrupts, 0);
        drop(write_end);
        assert_eq!(rig.next(), (id, End::Ran));
    });
}

/// glibc signals every thread and waits for all answers.
#[test]
fn a_change_of_user_is_not_held_up_by_workers() {
    in_child(|| {
        let rig = rig();
        let (read_end, _write_end) = pipe();
        let (_, ticket) = rig.queue(Class::Unbounded, None, move |i| blocking_read(&read_end, i));
        rig.queue(Class::Bounded, None, |_| End::Ran);
        rig.next();
        until("one runs, one idles", || rig.wq.stats().idle == 1);
        // SAFETY: changes nothing, but to all threads.
        assert_eq!(unsafe { libc::setresuid(u32::MAX, u32::MAX, u32::MAX) }, 0);
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
        assert_eq!(rig.next().1, End::Interrupted);
    });
}

/// A signal meant for one work must not shorten a call of the next one on the same worker.
#[test]
fn no_interruption_reaches_the_next_work() {
    let rig = Rig::new([1, 1], Duration::from_secs(5));
    for _ in 0..500 {
        let (first, ticket, _write_end) = rig.blocked();
        let (second, _) = rig.queue(Class::Unbounded, None, |_| {
            let nap = libc::timespec { tv_sec: 0, tv_nsec: 300_000 };
            // SAFETY: no descriptors, no mask, a live timespec.
            let got =
                unsafe { libc::ppoll(std::ptr::null_mut(), 0, &raw const nap, std::ptr::null()) };
            if got == 0 { End::Ran } else { End::Interrupted }
        });
        assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
        assert_eq!(rig.next(), (first, End::Interrupted));
        assert_eq!(rig.next(), (second, End::Ran));
    }
}

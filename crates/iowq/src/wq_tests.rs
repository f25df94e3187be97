//! The pool from outside: callbacks, limits, hash order, interruption, idle exit, affinity, fork.
#![allow(unsafe_code)]

use crate::park::Parker;
use crate::test_rig::{End, Rig, blocking_read, in_child, pipe, rig, until};
use crate::{CancelOutcome, Class, Config, Ticket, Wq};
use std::mem::ManuallyDrop;
// SeqCst: each access of a word pairs with all others of the test's words, which are to have one order.
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

#[test]
fn runs_and_reports() {
    let rig = rig();
    let (id, ticket) = rig.queue(Class::Bounded, None, |_| End::Ran);
    assert_eq!(rig.next(), (id, End::Ran));
    until("the slot is freed", || rig.wq.cancel(ticket) == CancelOutcome::NotFound);
    assert_eq!(rig.wq.stats().started, 1);
}

#[test]
fn no_threads_until_work_is_queued() {
    assert_eq!(rig().wq.stats().workers, 0);
}

#[test]
fn a_blocked_class_does_not_stop_the_other() {
    let rig = Rig::new([1, 1], Duration::from_secs(5));
    let (read_end, write_end) = pipe();
    let (blocked, _) = rig.queue(Class::Unbounded, None, move |i| blocking_read(&read_end, i));
    let (quick, _) = rig.queue(Class::Bounded, None, |_| End::Ran);
    assert_eq!(rig.next(), (quick, End::Ran));
    drop(write_end);
    assert_eq!(rig.next(), (blocked, End::Ran));
}

#[test]
fn blocked_workers_are_joined_by_others_up_to_the_limit() {
    let rig = Rig::new([3, 1], Duration::from_secs(5));
    let barrier = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let barrier = Arc::clone(&barrier);
        // Ends only if all three run at once.
        rig.queue(Class::Bounded, None, move |_| {
            barrier.wait();
            End::Ran
        });
    }
    for _ in 0..3 {
        assert_eq!(rig.next().1, End::Ran);
    }
}

#[test]
fn no_more_than_the_limit_run_at_once() {
    let rig = Rig::new([2, 1], Duration::from_secs(5));
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    for _ in 0..50 {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        rig.queue(Class::Bounded, None, move |_| {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_micros(300));
            running.fetch_sub(1, SeqCst);
            End::Ran
        });
    }
    for _ in 0..50 {
        rig.next();
    }
    assert_eq!(most.load(SeqCst), 2);
}

#[test]
fn max_workers_answers_with_the_former_and_keeps_on_zero() {
    let rig = Rig::new([2, 7], Duration::from_secs(5));
    assert_eq!(rig.wq.max_workers([0, 0]), [2, 7]);
    assert_eq!(rig.wq.max_workers([5, 0]), [2, 7]);
    assert_eq!(rig.wq.max_workers([0, 9]), [5, 7]);
    assert_eq!(rig.wq.max_workers([0, 0]), [5, 9]);
}

#[test]
fn a_raised_limit_starts_what_waits() {
    let rig = Rig::new([1, 1], Duration::from_secs(5));
    let barrier = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        let barrier = Arc::clone(&barrier);
        rig.queue(Class::Unbounded, None, move |_| {
            barrier.wait();
            End::Ran
        });
    }
    until("the first runs", || rig.wq.stats().running[1] == 1);
    rig.wq.max_workers([0, 2]);
    rig.next();
    rig.next();
}

#[test]
fn same_hash_runs_in_order_and_one_at_a_time() {
    let rig = rig();
    let log = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::new(AtomicU32::new(0));
    for n in 0..300u32 {
        let (log, inside) = (Arc::clone(&log), Arc::clone(&inside));
        let hash = u64::from(n % 3);
        rig.queue(Class::Bounded, Some(hash), move |_| {
            let bit = 1 << hash;
            assert_eq!(inside.fetch_or(bit, SeqCst) & bit, 0, "two at once with one hash");
            log.lock().unwrap().push(n);
            std::thread::yield_now();
            inside.fetch_and(!bit, SeqCst);
            End::Ran
        });
    }
    for _ in 0..300 {
        assert_eq!(rig.next().1, End::Ran);
    }
    let log = log.lock().unwrap();
    for hash in 0..3 {
        let of_hash: Vec<u32> = log.iter().copied().filter(|n| n % 3 == hash).collect();
        assert_eq!(of_hash.len(), 100);
        assert!(of_hash.is_sorted(), "out of order: {of_hash:?}");
    }
}

#[test]
fn cancelling_queued_work_removes_it_and_frees_its_hash() {
    let rig = Rig::new([1, 1], Duration::from_secs(5));
    let (read_end, write_end) = pipe();
    let (holder, _) = rig.queue(Class::Bounded, None, move |i| blocking_read(&read_end, i));
    let (first, first_ticket) = rig.queue(Class::Bounded, Some(1), |_| End::Ran);
    let (second, second_ticket) = rig.queue(Class::Bounded, Some(1), |_| End::Ran);
    let (third, _) = rig.queue(Class::Bounded, Some(1), |_| End::Ran);
    assert_eq!(rig.wq.cancel(second_ticket), CancelOutcome::Removed);
    assert_eq!(rig.next(), (second, End::Cancelled));
    assert_eq!(rig.wq.cancel(first_ticket), CancelOutcome::Removed);
    assert_eq!(rig.next(), (first, End::Cancelled));
    assert_eq!(rig.wq.cancel(first_ticket), CancelOutcome::NotFound);
    drop(write_end);
    assert_eq!(rig.next(), (holder, End::Ran));
    assert_eq!(rig.next(), (third, End::Ran));
}

#[test]
fn cancelling_running_work_interrupts_its_system_call() {
    let rig = rig();
    let (id, ticket, _write_end) = rig.blocked();
    assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
    assert_eq!(rig.next(), (id, End::Interrupted));
}

/// The cancel comes while the work computes, before the call that blocks: one signal would be spent
/// for nothing.
#[test]
fn a_cancel_just_before_the_system_call_is_not_lost() {
    let rig = rig();
    let (read_end, _write_end) = pipe();
    let gate = Arc::new(AtomicU32::new(0));
    let inner = Arc::clone(&gate);
    let (id, ticket) = rig.queue(Class::Unbounded, None, move |i| {
        inner.store(1, SeqCst);
        while inner.load(SeqCst) != 2 {
            std::hint::spin_loop();
        }
        blocking_read(&read_end, i)
    });
    until("it computes", || gate.load(SeqCst) == 1);
    assert_eq!(rig.wq.cancel(ticket), CancelOutcome::Running);
    gate.store(2, SeqCst);
    assert_eq!(rig.next(), (id, End::Interrupted));
}

#[test]
fn shutdown_cancels_what_is_queued_and_interrupts_what_runs() {
    let rig = Rig::new([1, 1], Duration::from_secs(5));
    let (running, _, _write_end) = rig.blocked();
    let (queued, _) = rig.queue(Class::Unbounded, None, |_| End::Ran);
    rig.wq.shutdown(true);
    let mut ends = [rig.next(), rig.next()];
    ends.sort_by_key(|e| e.0);
    assert_eq!(ends, [(running, End::Interrupted), (queued, End::Cancelled)]);
    let (late, ticket) = rig.queue(Class::Unbounded, None, |_| End::Ran);
    assert_eq!(ticket, Ticket::NONE);
    assert_eq!(rig.next(), (late, End::Cancelled));
    until("the workers leave", || rig.wq.stats().workers == 0);
}

#[test]
fn idle_workers_leave() {
    let rig = Rig::new([4, 4], Duration::from_millis(20));
    for _ in 0..8 {
        rig.queue(Class::Bounded, None, |_| End::Ran);
    }
    for _ in 0..8 {
        rig.next();
    }
    until("the workers leave", || rig.wq.stats().workers == 0);
    rig.queue(Class::Bounded, None, |_| End::Ran);
    rig.next();
}

#[test]
fn a_panic_costs_one_work_only() {
    let rig = rig();
    rig.queue(Class::Bounded, Some(5), |_| panic!("on purpose, by a test"));
    let (id, _) = rig.queue(Class::Bounded, Some(5), |_| End::Ran);
    assert_eq!(rig.next(), (id, End::Ran));
    assert_eq!(rig.wq.stats().panics, 1);
}

#[test]
fn workers_block_every_signal_but_the_reserved_ones() {
    let rig = rig();
    let mask = Arc::new(Mutex::new((String::new(), String::new())));
    let inner = Arc::clone(&mask);
    rig.queue(Class::Bounded, None, move |_| {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        *inner.lock().unwrap() = (field("SigBlk:"), field("Name:"));
        End::Ran
    });
    rig.next();
    let (blocked, name) = mask.lock().unwrap().clone();
    let open = !u64::from_str_radix(&blocked, 16).unwrap();
    let bit = |n: i32| 1u64 << (n - 1);
    // SIGKILL and SIGSTOP cannot be blocked; the rest is argued at `signal::worker_mask`.
    let unblockable = bit(libc::SIGKILL) | bit(libc::SIGSTOP);
    let reserved = open & !(unblockable | bit(32) | bit(33) | bit(libc::SIGSYS));
    assert_eq!(reserved.count_ones(), 1, "open: {open:#x}");
    assert_eq!(name, format!("iou-wrk-{}", std::process::id()));
}

#[test]
fn affinity_binds_workers() {
    let rig = rig();
    let cpus = || {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let inner = Arc::clone(&seen);
        rig.queue(Class::Bounded, None, move |_| {
            *inner.lock().unwrap() = crate::sys::sched_getaffinity(0).unwrap();
            End::Ran
        });
        rig.next();
        seen.lock().unwrap().clone()
    };
    let all = cpus();
    let mut one = vec![0u8; all.len()];
    let byte = all.iter().position(|&b| b != 0).unwrap();
    one[byte] = all[byte] & all[byte].wrapping_neg();
    let before = crate::sys::sched_getaffinity(0).unwrap();
    assert_eq!(rig.wq.set_affinity(Some(&one)), Ok(()));
    assert_eq!(cpus(), one);
    let mut with_unknown = all.clone();
    with_unknown.resize(2048, 0);
    with_unknown[2047] = 1;
    assert_eq!(rig.wq.set_affinity(Some(&with_unknown)), Ok(()));
    assert_eq!(cpus(), all);
    assert_eq!(rig.wq.set_affinity(Some(&one)), Ok(()));
    assert_eq!(rig.wq.set_affinity(Some(&[0])), Ok(()));
    assert_eq!(rig.wq.set_affinity(None), Ok(()));
    assert_eq!(cpus(), before);
    assert_eq!(crate::sys::sched_getaffinity(0).unwrap(), before, "the caller's own is untouched");
}

#[test]
fn queue_and_cancel_leave_errno_alone() {
    let rig = rig();
    let (read_end, _write_end) = pipe();
    // SAFETY: the calling thread's own errno.
    let errno = || unsafe { &mut *libc::__errno_location() };
    *errno() = 4242;
    let (_, ticket) = rig.queue(Class::Unbounded, None, move |i| blocking_read(&read_end, i));
    rig.wq.cancel(ticket);
    rig.wq.max_workers([1, 1]);
    rig.wq.shutdown(true);
    assert_eq!(*errno(), 4242);
}

#[test]
fn the_pool_works_again_in_a_forked_child() {
    let rig = Rig::new([3, 2], Duration::from_secs(5));
    let (blocked, _, write_end) = rig.blocked();
    in_child(|| {
        rig.wq.reset_after_fork();
        assert_eq!(rig.wq.stats().workers, 0);
        assert_eq!(rig.wq.max_workers([0, 0]), [3, 2]);
        let (id, _) = rig.queue(Class::Bounded, None, |_| End::Ran);
        assert_eq!(rig.next(), (id, End::Ran));
    });
    drop(write_end);
    assert_eq!(rig.next(), (blocked, End::Ran));
}

/// At the fork another thread of the parent may hold the mutex, and is not there in the child to
/// give it back.
#[test]
fn a_child_needs_no_mutex_of_the_parent() {
    let mut wq = ManuallyDrop::new(Wq::new(Config::for_ring(8)));
    let pool = Arc::clone(&wq.pool());
    let held = pool.lock();
    // SAFETY: in the child it is dropped once, and not used again; the parent's copy is another.
    in_child(|| unsafe { ManuallyDrop::drop(&mut wq) });
    in_child(|| {
        wq.reset_after_fork();
        assert_eq!(wq.stats().workers, 0);
    });
    drop(held);
    drop(ManuallyDrop::into_inner(wq));
}

/// A worker that did not sleep would still do its work, at the price of a processor.
#[test]
fn a_wake_before_the_sleep_counts_once() {
    let parker = Parker::default();
    parker.reset();
    parker.unpark();
    assert!(!parker.park(Duration::from_secs(60)));
    parker.reset();
    assert!(parker.park(Duration::from_millis(1)));
}

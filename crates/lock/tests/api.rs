//! What the lock promises its callers, one thread or a few, on the real machine.
#![allow(unsafe_code)]

use soloring_lock::{CtxLock, LockMode, LockStats, Mode, Policy, Reentered, current_thread};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;

/// A lock that is biased to the calling thread.
fn biased() -> CtxLock<u64> {
    let lock = CtxLock::new(0);
    lock.lock().unwrap().bias_to(current_thread());
    lock
}

#[test]
fn tokens_name_threads_and_are_not_reused() {
    let mine = current_thread();
    assert_eq!(mine, current_thread());
    let mut seen = vec![mine];
    for _ in 0..50 {
        let theirs = thread::spawn(current_thread).join().unwrap();
        assert!(!seen.contains(&theirs));
        seen.push(theirs);
    }
}

#[test]
fn a_new_lock_is_a_mutex_without_owner() {
    let lock = CtxLock::new(7);
    let guard = lock.lock().unwrap();
    assert_eq!((guard.mode(), *guard), (Mode::Mutex, 7));
    drop(guard);
    let stats = lock.stats();
    assert_eq!((stats.mode, stats.foreign, stats.acquisitions()), (LockMode::Unowned, 1, 1));
    assert_eq!(lock.owner(), None);
}

#[test]
fn the_owner_is_biased_and_everybody_else_foreign() {
    let lock = biased();
    assert_eq!(lock.owner(), Some(current_thread()));
    let mut guard = lock.lock().unwrap();
    assert_eq!(guard.mode(), Mode::BiasedOwner);
    *guard += 1;
    drop(guard);
    thread::scope(|s| {
        s.spawn(|| {
            let mut guard = lock.lock().unwrap();
            assert_eq!(guard.mode(), Mode::BiasedForeign);
            *guard += 1;
        });
    });
    assert_eq!(*lock.try_lock().unwrap().unwrap(), 2);
    let stats = lock.stats();
    assert_eq!(stats.mode, LockMode::Biased);
    assert_eq!((stats.owner_elided, stats.owner_taken), (2, 0));
    assert_eq!((stats.foreign, stats.heavy_fences, stats.revocations), (2, 1, 0));
}

#[test]
fn the_owner_takes_the_mutex_while_a_foreign_locker_is_inside() {
    let lock = biased();
    let (inside, leave) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|s| {
        s.spawn(|| {
            let guard = lock.lock().unwrap();
            inside.wait();
            leave.wait();
            drop(guard);
        });
        inside.wait();
        assert!(lock.try_lock().unwrap().is_none());
        leave.wait();
        let guard = lock.lock().unwrap();
        assert!(matches!(guard.mode(), Mode::OwnerMutex | Mode::BiasedOwner), "{:?}", guard.mode());
    });
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
}

/// Returns when this thread of the process sleeps, at two looks in a row.
fn until_asleep(thread: i32) {
    let stat = format!("/proc/self/task/{thread}/stat");
    let mut seen = 0;
    while seen < 2 {
        let text = std::fs::read_to_string(&stat).unwrap();
        let asleep = text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
        seen = if asleep { seen + 1 } else { 0 };
        thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn an_owner_that_had_to_wait_is_counted_once_and_so_is_its_wait() {
    let lock = biased();
    let before = lock.stats();
    let (inside, coming) = (Barrier::new(2), AtomicBool::new(false));
    // SAFETY: no memory involved.
    let me = unsafe { libc::gettid() };
    thread::scope(|s| {
        s.spawn(|| {
            let guard = lock.lock().unwrap();
            inside.wait();
            while !coming.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            until_asleep(me);
            drop(guard);
        });
        inside.wait();
        coming.store(true, Ordering::Relaxed);
        // The path is closed: it sleeps on the mutex.
        assert_eq!(lock.lock().unwrap().mode(), Mode::OwnerMutex);
    });
    let stats = lock.stats();
    let taken = |stats: &LockStats| (stats.owner_elided, stats.owner_taken, stats.foreign);
    let (elided, own, foreign) = taken(&before);
    assert_eq!(taken(&stats), (elided, own + 1, foreign + 1));
    assert!(stats.waited_ns > before.waited_ns);
}

#[test]
fn a_foreign_locker_waits_for_a_slow_owner_asleep() {
    let lock = biased();
    thread::scope(|s| {
        let guard = lock.lock().unwrap();
        let (tell, told) = mpsc::channel();
        let lock = &lock;
        let foreign = s.spawn(move || {
            tell.send(()).unwrap();
            *lock.lock().unwrap()
        });
        told.recv().unwrap();
        // Long enough for the foreign locker to reach its futex: the wake-up is what is tested.
        thread::sleep(std::time::Duration::from_millis(50));
        let mut guard = guard;
        *guard = 41;
        drop(guard);
        assert_eq!(foreign.join().unwrap(), 41);
    });
    assert!(lock.stats().waited_ns > 0);
}

#[test]
fn try_lock_of_a_foreigner_gives_way_to_the_owner_and_leaves_it_its_path() {
    let lock = biased();
    let guard = lock.lock().unwrap();
    thread::scope(|s| {
        s.spawn(|| assert!(lock.try_lock().unwrap().is_none())).join().unwrap();
    });
    drop(guard);
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
    thread::scope(|s| {
        s.spawn(|| assert_eq!(lock.try_lock().unwrap().unwrap().mode(), Mode::BiasedForeign));
    });
}

#[test]
fn both_ways_of_holding_refuse_reentry() {
    let lock = CtxLock::new(());
    let guard = lock.lock().unwrap();
    assert_eq!(lock.lock().err(), Some(Reentered));
    assert_eq!(lock.try_lock().err(), Some(Reentered));
    drop(guard);
    let lock = biased();
    let guard = lock.lock().unwrap();
    assert_eq!(guard.mode(), Mode::BiasedOwner);
    assert_eq!(lock.lock().err(), Some(Reentered));
    assert_eq!(lock.try_lock().err(), Some(Reentered));
    // With a foreign locker on its way in, the path is closed, and the answer must be the same.
    thread::scope(|s| {
        let foreign = s.spawn(|| drop(lock.lock().unwrap()));
        thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!(lock.lock().err(), Some(Reentered));
        drop(guard);
        foreign.join().unwrap();
    });
}

#[test]
fn the_bias_moves_to_one_other_thread_and_then_no_further() {
    let lock = biased();
    thread::scope(|s| {
        s.spawn(|| {
            lock.lock().unwrap().bias_to(current_thread());
            assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
        });
    });
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedForeign);
    // Back to a thread that was the owner before: its slot is still its own.
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
    // A third owner is recorded, but the lock is a mutex from here on.
    thread::scope(|s| {
        s.spawn(|| lock.lock().unwrap().bias_to(current_thread()));
    });
    assert_eq!(lock.lock().unwrap().mode(), Mode::Mutex);
    assert_eq!(lock.stats().mode, LockMode::GivenUp);
}

#[test]
fn the_owner_hands_over_and_unbiases_at_its_release() {
    let lock = biased();
    let (ask, asked) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    thread::scope(|s| {
        let lock = &lock;
        s.spawn(move || {
            ask.send(current_thread()).unwrap();
            gone.recv().unwrap();
            assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
        });
        let mut guard = lock.lock().unwrap();
        assert_eq!(guard.mode(), Mode::BiasedOwner);
        guard.bias_to(asked.recv().unwrap());
        drop(guard);
        go.send(()).unwrap();
    });
    let lock = biased();
    let mut guard = lock.lock().unwrap();
    guard.unbias();
    assert_eq!(guard.mode(), Mode::BiasedOwner);
    drop(guard);
    assert_eq!((lock.owner(), lock.stats().mode), (None, LockMode::Unowned));
    assert_eq!(lock.stats().revocations, 1);
}

#[test]
fn a_forced_mutex_is_never_biased_but_knows_its_owner() {
    let lock = CtxLock::new_in(0, Policy::ForceMutex);
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::Mutex);
    let stats = lock.stats();
    assert_eq!((stats.mode, stats.owner_taken, stats.owner_elided), (LockMode::Forced, 1, 0));
}

#[test]
fn the_bias_is_given_up_when_it_does_not_pay_and_comes_back_when_it_would() {
    let lock = biased();
    let turn = Barrier::new(2);
    thread::scope(|s| {
        s.spawn(|| {
            turn.wait();
            for _ in 0..200 {
                drop(lock.lock().unwrap());
            }
            turn.wait();
        });
        turn.wait();
        turn.wait();
    });
    assert_eq!(lock.stats().mode, LockMode::GivenUp);
    assert_eq!((lock.stats().revocations, lock.owner()), (1, Some(current_thread())));
    let mut needed = 0;
    while lock.stats().mode == LockMode::GivenUp {
        drop(lock.lock().unwrap());
        needed += 1;
        assert!(needed < 10_000, "the bias never comes back");
    }
    assert!(needed > 100, "no hysteresis: back after {needed}");
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
}

#[test]
fn two_locks_in_either_order_do_not_deadlock() {
    let (a, b) = (biased(), CtxLock::new(0));
    thread::scope(|s| {
        s.spawn(|| {
            b.lock().unwrap().bias_to(current_thread());
            for _ in 0..2000 {
                let (mut gb, mut ga) = CtxLock::lock_two(&b, &a).unwrap();
                *ga += 1;
                *gb += 1;
            }
        });
        for _ in 0..2000 {
            let (mut ga, mut gb) = CtxLock::lock_two(&a, &b).unwrap();
            *ga += 1;
            *gb += 1;
        }
    });
    assert_eq!((*a.lock().unwrap(), *b.lock().unwrap()), (4000, 4000));
    assert!(CtxLock::lock_two(&a, &a).is_err());
}

#[test]
fn many_threads_count_exactly() {
    let lock = biased();
    let stop = AtomicBool::new(false);
    let mut by_owner = 0u64;
    let by_foreign: u64 = thread::scope(|s| {
        let foreign: Vec<_> = (0..3)
            .map(|_| {
                s.spawn(|| {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        *lock.lock().unwrap() += 1;
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(500);
        while std::time::Instant::now() < end {
            for _ in 0..100 {
                *lock.lock().unwrap() += 1;
                by_owner += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        foreign.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(*lock.lock().unwrap(), by_owner + by_foreign);
    assert_eq!(lock.stats().acquisitions(), by_owner + by_foreign + 2);
}

#[test]
#[cfg(debug_assertions)]
fn blocking_under_the_lock_panics_in_debug_builds() {
    use soloring_lock::assert_may_block;
    let lock = biased();
    assert_may_block();
    let guard = lock.lock().unwrap();
    assert!(std::panic::catch_unwind(assert_may_block).is_err());
    drop(guard);
    assert_may_block();
    // The check is the thread's own: another thread's guard does not matter.
    let _guard = lock.lock().unwrap();
    thread::scope(|s| s.spawn(assert_may_block).join().unwrap());
}

/// For the signal handler: the lock, and what each attempt inside the handler came to.
static HANDLED: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);
static LOCK: std::sync::OnceLock<CtxLock<(u64, u64)>> = std::sync::OnceLock::new();

extern "C" fn on_signal(_: libc::c_int) {
    // Waiting is allowed for others' critical sections, so `lock` and not `try_lock`.
    match LOCK.get().map(CtxLock::lock) {
        Some(Ok(mut guard)) => {
            assert_eq!(guard.0, guard.1, "a handler saw a half-done change");
            *guard = (guard.0 + 1, guard.1 + 1);
        }
        _ => {
            REFUSED.fetch_add(1, Ordering::Relaxed);
        }
    }
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_signal_handler_at_any_instruction_is_answered_or_let_in() {
    let lock = LOCK.get_or_init(|| CtxLock::new((0, 0)));
    lock.lock().unwrap().bias_to(current_thread());
    // SAFETY: the handler is a C function of the right type and async-signal-safe but for the panic of
    // a failing test; `act` is zeroed, which is a valid sigaction.
    unsafe {
        let mut act: libc::sigaction = std::mem::zeroed();
        act.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &act, std::ptr::null_mut()), 0);
    }
    // SAFETY: pthread_self always succeeds.
    let owner = unsafe { libc::pthread_self() };
    let stop = AtomicBool::new(false);
    let mut mine = 0u64;
    thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..4000 {
                // SAFETY: the owner thread lives until the scope ends.
                unsafe { libc::pthread_kill(owner, libc::SIGUSR1) };
                thread::sleep(std::time::Duration::from_micros(50));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let foreign = s.spawn(|| {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let mut guard = lock.lock().unwrap();
                guard.0 += 1;
                guard.1 += 1;
                drop(guard);
                n += 1;
                thread::sleep(std::time::Duration::from_micros(20));
            }
            n
        });
        while !stop.load(Ordering::Relaxed) {
            let mut guard = lock.lock().unwrap();
            guard.0 += 1;
            std::hint::black_box(&mut *guard);
            guard.1 += 1;
            drop(guard);
            mine += 1;
        }
        mine += foreign.join().unwrap();
    });
    let (handled, refused) = (HANDLED.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    assert!(handled > 0);
    // On a loop that is nearly always inside the lock, some interruptions hit and some miss.
    assert!(refused > 0 && refused < handled, "{refused} of {handled} refused");
    assert_eq!(lock.lock().unwrap().0, mine + u64::from(handled - refused));
}

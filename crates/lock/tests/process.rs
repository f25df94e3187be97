//! What the lock does when the process forks, and when a sandbox refuses membarrier. Each case runs in
//! a process of its own: this test starts itself again.
#![allow(unsafe_code)]

use soloring_lock::{
    CtxLock, FenceSupport, LockMode, Mode, after_fork_child, current_thread, fence_support, init,
};
use std::panic::AssertUnwindSafe;
use std::process::Command;
use std::sync::Barrier;

/// Runs the ignored test `name` alone in a new process, with this environment.
fn in_own_process(name: &str, environment: &[(&str, &str)]) {
    let output = Command::new(std::env::current_exe().expect("our own path"))
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .envs(environment.iter().copied())
        .output()
        .expect("a new process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}\n{errors}");
}

#[test]
fn without_membarrier_it_is_a_mutex_and_says_so() {
    in_own_process("refused_from_the_start", &[]);
}

#[test]
#[ignore = "needs a process of its own"]
fn refused_from_the_start() {
    refuse_membarrier();
    let lock = CtxLock::new(0);
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(fence_support(), FenceSupport::Refused);
    assert_eq!(lock.lock().unwrap().mode(), Mode::Mutex);
    let stats = lock.stats();
    assert_eq!((stats.mode, stats.owner_taken), (LockMode::NoMembarrier, 1));
    assert_eq!(lock.owner(), Some(current_thread()));
}

#[test]
fn a_sandbox_that_comes_up_later_turns_biased_locks_into_mutexes() {
    in_own_process("refused_later", &[]);
}

#[test]
#[ignore = "needs a process of its own"]
fn refused_later() {
    let lock = CtxLock::new(0u64);
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
    let mut mine = 0;
    let theirs: u64 = std::thread::scope(|s| {
        let foreign = s.spawn(|| {
            // The filter is for this thread: the owner is in full speed while this comes. As long as the
            // owner answers no fence is needed.
            refuse_membarrier();
            let mut theirs = 0;
            loop {
                let mut guard = lock.lock().unwrap();
                *guard += 1;
                theirs += 1;
                if fence_support() == FenceSupport::Refused {
                    assert_eq!(guard.mode(), Mode::Mutex);
                    return theirs;
                }
                drop(guard);
                // So that the bias pays.
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        });
        while !foreign.is_finished() {
            *lock.lock().unwrap() += 1;
            mine += 1;
            // Now and then it does not.
            for _ in 0..if mine % 1000 == 0 { 100_000 } else { 0 } {
                std::hint::spin_loop();
            }
        }
        foreign.join().unwrap()
    });
    let guard = lock.lock().unwrap();
    assert_eq!((guard.mode(), *guard), (Mode::Mutex, mine + theirs));
    drop(guard);
    assert_eq!(lock.stats().mode, LockMode::NoMembarrier);
    assert!(lock.stats().revocations >= 1);
    // Nobody can be given the bias any more.
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::Mutex);
}

#[test]
fn the_environment_forces_mutexes() {
    in_own_process("forced_by_environment", &[("SOLORING_LOCK", "mutex")]);
    in_own_process("not_forced_by_environment", &[("SOLORING_LOCK", "auto")]);
}

#[test]
#[ignore = "needs a process of its own"]
fn forced_by_environment() {
    let lock = CtxLock::new(());
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::Mutex);
    assert_eq!(lock.stats().mode, LockMode::Forced);
    assert_eq!(fence_support(), FenceSupport::Unknown, "no registration that nobody needs");
}

#[test]
#[ignore = "needs a process of its own"]
fn not_forced_by_environment() {
    init();
    assert_eq!(fence_support(), FenceSupport::Registered);
    let lock = CtxLock::new(());
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
}

#[test]
fn a_forked_child_can_use_locks_that_the_parent_held() {
    in_own_process("fork_while_another_thread_is_inside", &[]);
}

#[test]
#[ignore = "needs a process of its own"]
fn fork_while_another_thread_is_inside() {
    let (held, owned, plain) = (CtxLock::new(1u64), CtxLock::new(1u64), CtxLock::new(1u64));
    owned.lock().unwrap().bias_to(current_thread());
    let (inside, leave) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|s| {
        s.spawn(|| {
            // As an owner inside by the biased path, and one without an owner by its mutex.
            held.lock().unwrap().bias_to(current_thread());
            let guard = held.lock().unwrap();
            assert_eq!(guard.mode(), Mode::BiasedOwner);
            let by_mutex = plain.lock().unwrap();
            inside.wait();
            leave.wait();
            drop((guard, by_mutex));
        });
        inside.wait();
        // SAFETY: the child does nothing but lock, start and join one thread, and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: no memory involved; it ends a child that waits for nobody.
            unsafe { libc::alarm(20) };
            let body = AssertUnwindSafe(|| in_child(&held, &owned, &plain));
            let status = std::panic::catch_unwind(body).is_err();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(status.into()) };
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: `status` is writable; the child is ours.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        leave.wait();
        assert_eq!(status, 0, "the child failed");
    });
    // The parent's locks are as they were.
    assert_eq!(owned.lock().unwrap().mode(), Mode::BiasedOwner);
    assert_eq!([&held, &owned, &plain].map(|lock| *lock.lock().unwrap()), [1; 3]);
}

fn in_child(held: &CtxLock<u64>, owned: &CtxLock<u64>, plain: &CtxLock<u64>) {
    after_fork_child();
    assert_eq!(fence_support(), FenceSupport::Registered);
    assert!(held.try_lock().unwrap().is_none(), "it was held at the fork");
    assert!(plain.try_lock().unwrap().is_none(), "and so was the one without an owner");
    // SAFETY: this is the child's only thread, it holds no guard, and the values are plain numbers.
    unsafe {
        held.reset_after_fork();
        owned.reset_after_fork();
        plain.reset_after_fork();
    }
    *plain.lock().unwrap() += 1;
    assert_eq!((held.owner(), owned.owner()), (None, Some(current_thread())));
    *held.lock().unwrap() += 1;
    assert_eq!(owned.lock().unwrap().mode(), Mode::Mutex);
    for lock in [held, owned] {
        lock.lock().unwrap().bias_to(current_thread());
        assert_eq!(lock.lock().unwrap().mode(), Mode::BiasedOwner);
        lock.forget_counts();
        let stats = lock.stats();
        let counts = [stats.owner_elided, stats.owner_taken, stats.foreign, stats.revocations];
        assert_eq!((counts, stats.waited_ns), ([0; 4], 0));
        drop(lock.lock().unwrap());
        assert_eq!(lock.stats().owner_elided, 1);
    }
    std::thread::scope(|s| {
        s.spawn(|| assert_eq!(held.lock().unwrap().mode(), Mode::BiasedForeign));
    });
}

/// From now on membarrier answers EPERM to this thread and those that it starts.
fn refuse_membarrier() {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter, sock_fprog};
    let op = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The system call's number is the first word of seccomp_data.
        op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, libc::SYS_membarrier as u32),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        op(BPF_RET | BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` and the program that it points to live until the calls are over.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &filter), 0);
    }
}

//! The few raw system calls that the pool makes, and the guard of the program's errno.
#![allow(unsafe_code)]

use crate::prims::AtomicU32;
use std::marker::PhantomData;
use std::time::Duration;
use syscalls::{Errno, Sysno, raw_syscall, syscall};

/// Saves the calling thread's errno and puts it back when dropped.
///
/// Held by every public call that may run on a thread of the program: std's mutex and thread
/// creation go through libc, which may write errno, while io_uring_enter as a raw system call never
/// does.
pub(crate) struct ErrnoGuard(i32, PhantomData<*const ()>);

impl ErrnoGuard {
    pub(crate) fn new() -> Self {
        // SAFETY: `__errno_location` gives the address of the calling thread's own errno, valid
        // while the thread lives.
        Self(unsafe { *libc::__errno_location() }, PhantomData)
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: as in `new`; the guard is not Send, so this is the thread that made it.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// Sleeps while `*word == expected`, at most `timeout`. Returns for any reason: the caller looks at
/// the word again.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> FutexWait {
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word is a live, aligned u32 for the length of the call; the timespec outlives it
    // too.
    let ret = unsafe {
        syscall!(
            Sysno::futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            spec_ptr
        )
    };
    match ret {
        Err(Errno::ETIMEDOUT) => FutexWait::TimedOut,
        _ => FutexWait::Again,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FutexWait {
    Again,
    TimedOut,
}

/// Wakes one thread that sleeps on `word`.
pub(crate) fn futex_wake_one(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address as a key only; the reference keeps it valid.
    unsafe {
        raw_syscall!(Sysno::futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1)
    };
}

pub(crate) fn getpid() -> i32 {
    // SAFETY: takes nothing, touches nothing.
    unsafe { raw_syscall!(Sysno::getpid) as i32 }
}

pub(crate) fn gettid() -> i32 {
    // SAFETY: takes nothing, touches nothing.
    unsafe { raw_syscall!(Sysno::gettid) as i32 }
}

/// Sends `signo` to one thread of this process.
pub(crate) fn tgkill(tid: i32, signo: i32) -> Result<(), i32> {
    // SAFETY: plain numbers; that `tid` is alive is the caller's to know (see `interrupt`).
    unsafe { syscall!(Sysno::tgkill, getpid(), tid, signo) }.map(drop).map_err(Errno::into_raw)
}

/// A kernel signal set: bit n-1 is signal n. The kernel's sets are 64 bits wide on every
/// architecture that we build for.
pub(crate) type SigSet = u64;

pub(crate) const fn sigbit(signo: i32) -> SigSet {
    1 << (signo - 1)
}

/// Replaces the calling thread's signal mask and returns the former one.
pub(crate) fn set_sigmask(new: SigSet) -> SigSet {
    let mut old: SigSet = 0;
    // SAFETY: both sets are live u64s and the size given is theirs. The call cannot fail with these
    // arguments.
    unsafe {
        raw_syscall!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const new,
            &raw mut old,
            size_of::<SigSet>()
        )
    };
    old
}

/// A POSIX timer that signals one thread of this process. The kernel holds a reference to the
/// thread's identity, not its number, so a timer that outlives its thread hits nobody.
#[derive(Debug)]
pub(crate) struct ThreadTimer(i32);

impl ThreadTimer {
    /// Fires `signo` at `tid` after `first`, then every `interval`.
    pub(crate) fn start(
        tid: i32,
        signo: i32,
        first: Duration,
        interval: Duration,
    ) -> Result<Self, i32> {
        // SAFETY: sigevent is plain data for which all zeroes is a value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signo;
        event.sigev_notify_thread_id = tid;
        let mut id: i32 = 0;
        // SAFETY: the event and the id are live for the call, and laid out as the kernel's.
        unsafe {
            syscall!(Sysno::timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut id)
        }
        .map_err(Errno::into_raw)?;
        let timer = Self(id);
        let spec = libc::itimerspec { it_interval: timespec(interval), it_value: timespec(first) };
        // SAFETY: the timer was just created and is ours; the spec is live for the call; no old
        // value is asked for.
        unsafe { syscall!(Sysno::timer_settime, id, 0, &raw const spec, 0) }
            .map_err(Errno::into_raw)?;
        Ok(timer)
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: the id is ours until this call.
        unsafe { raw_syscall!(Sysno::timer_delete, self.0) };
    }
}

fn timespec(d: Duration) -> libc::timespec {
    libc::timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) }
}

/// Restricts `tid` (0: the calling thread) to the CPUs of `mask` (bit n of byte n/8 is CPU n).
pub(crate) fn sched_setaffinity(tid: i32, mask: &[u8]) -> Result<(), i32> {
    // SAFETY: the kernel reads at most `len` bytes of the mask.
    unsafe { syscall!(Sysno::sched_setaffinity, tid, mask.len(), mask.as_ptr()) }
        .map(drop)
        .map_err(Errno::into_raw)
}

/// The CPUs that `tid` (0: the calling thread) may run on.
pub(crate) fn sched_getaffinity(tid: i32) -> Result<Vec<u8>, i32> {
    let mut mask = vec![0u8; 128];
    loop {
        // SAFETY: the kernel writes at most `len` bytes of the mask.
        match unsafe { syscall!(Sysno::sched_getaffinity, tid, mask.len(), mask.as_mut_ptr()) } {
            Ok(n) => {
                mask.truncate(n);
                return Ok(mask);
            }
            // The buffer is smaller than the kernel's set. 64 KiB is half a million CPUs.
            Err(Errno::EINVAL) if mask.len() < 65536 => mask.resize(mask.len() * 2, 0),
            Err(e) => return Err(e.into_raw()),
        }
    }
}

/// RLIMIT_NPROC's soft limit, in threads; `u64::MAX` when there is none.
pub(crate) fn rlimit_nproc() -> u64 {
    let mut lim = libc::rlimit64 { rlim_cur: u64::MAX, rlim_max: u64::MAX };
    // SAFETY: the structure is live for the call; no new limit is given.
    unsafe { raw_syscall!(Sysno::prlimit64, 0, libc::RLIMIT_NPROC, 0, &raw mut lim) };
    lim.rlim_cur
}

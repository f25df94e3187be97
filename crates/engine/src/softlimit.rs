//! The soft limit on descriptors, lifted for the length of one duplication: it stays the program's own.
//!
//! Our numbers lie above most programs' soft limit, which the kernel only looks at as it gives a number out. So
//! the limit is raised around that one call and put back. No lock: a thread may be stopped in between by a signal
//! whose handler needs a descriptor too, or by another thread's fork. The raised value is one that is
//! recognised instead, and the program's is remembered beside it.
#![allow(unsafe_code)]

use crate::sys;
use soloring_abi::Errno;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many descriptors of ours fit above the base.
const ROOM: u64 = 65_536;
/// Attempts before a failure is not put down to another thread that has put the limit back.
const ATTEMPTS: usize = 1000;
/// The same for a full table, which is what EMFILE mostly means.
const ATTEMPTS_FULL: usize = 8;

/// The program's soft limit, as it was when it was last raised or set. 0: it was not.
static OWN: AtomicU64 = AtomicU64::new(0);

/// The hard limit, as it was when it was last asked for. 0: it is to be asked for.
static HARD: AtomicU64 = AtomicU64::new(0);

/// What is remembered of both limits: two system calls less than asking and finding the same.
fn remembered() -> Option<libc::rlimit> {
    let (own, hard) = (OWN.load(Relaxed), HARD.load(Relaxed));
    (own != 0 && hard != 0).then_some(libc::rlimit { rlim_cur: own, rlim_max: hard })
}

fn exchange(new: Option<libc::rlimit>) -> Option<libc::rlimit> {
    let mut old = libc::rlimit { rlim_cur: 1024, rlim_max: 4096 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: prlimit64 on ourselves reads one rlimit on our stack, or none, and writes another.
    let done = unsafe { sys::sys!(prlimit64, 0, libc::RLIMIT_NOFILE, new, &raw mut old) };
    done.ok().map(|_| old)
}

/// The hard limit, in descriptors.
pub fn hard() -> u64 {
    exchange(None).map_or(4096, |limits| limits.rlim_max)
}

/// The soft limit as the program knows it, in descriptors.
pub fn own(base: i32) -> u64 {
    exchange(None).map_or(1024, |limits| told(base, limits.rlim_cur, limits.rlim_max))
}

fn raised(base: i32, hard: u64) -> u64 {
    (base as u64 + ROOM).min(hard)
}

/// What the program is to see where the kernel says `soft`, which may be another thread's raised limit.
pub fn told(base: i32, soft: u64, hard: u64) -> u64 {
    match OWN.load(Relaxed) {
        own if own != 0 && soft == raised(base, hard) => own,
        _ => soft,
    }
}

/// The program has set its limits, the soft one to this.
pub fn note(soft: u64) {
    OWN.store(soft, Relaxed);
    HARD.store(0, Relaxed);
}

/// Whether numbers from `base` on are known to need [`lifted`].
pub fn below(base: i32) -> bool {
    (1..=base as u64).contains(&OWN.load(Relaxed))
}

/// Calls `dup`, which asks for a number from `base` on, with the limit raised.
///
/// # Errors
/// Those of `dup`; EMFILE where the hard limit is in the way.
pub fn lifted(base: i32, dup: impl Fn() -> Result<i32, Errno>) -> Result<i32, Errno> {
    let mut made = Err(Errno::EMFILE);
    for attempt in 0..ATTEMPTS {
        let known = if attempt == 0 { remembered() } else { None };
        let limits = known.or_else(|| exchange(None)).ok_or(Errno::EMFILE)?;
        HARD.store(limits.rlim_max, Relaxed);
        let high = libc::rlimit { rlim_cur: raised(base, limits.rlim_max), ..limits };
        let own = told(base, limits.rlim_cur, limits.rlim_max);
        if own >= high.rlim_cur || high.rlim_cur <= base as u64 {
            return dup();
        }
        // Remembered first: who asks while it is raised must find it.
        if limits.rlim_cur != high.rlim_cur {
            OWN.store(limits.rlim_cur, Relaxed);
        }
        let Some(before) = exchange(Some(high)) else {
            // The hard limit has been lowered since.
            if known.is_some() {
                continue;
            }
            return Err(Errno::EMFILE);
        };
        if before.rlim_cur != high.rlim_cur {
            OWN.store(before.rlim_cur, Relaxed);
        }
        if before.rlim_max != high.rlim_max {
            // Lowered by a call of the program's own that was not seen; it may not have become more by ours.
            HARD.store(0, Relaxed);
        }
        made = dup();
        put_back(libc::rlimit { rlim_max: before.rlim_max, ..high });
        match made {
            Err(Errno::EINVAL) => {}
            Err(Errno::EMFILE) if attempt < ATTEMPTS_FULL => {}
            _ => break,
        }
        // Two threads in step would undo each other's for ever.
        for _ in 0..attempt * 7 % 64 {
            std::hint::spin_loop();
        }
    }
    made
}

fn put_back(high: libc::rlimit) {
    let own = match OWN.load(Relaxed) {
        // The thread that raised it is about to remember what it was, and puts it back.
        0 => return,
        own => libc::rlimit { rlim_cur: own.min(high.rlim_max), ..high },
    };
    let seen = exchange(Some(own));
    // The program set a limit of its own in between: that one holds.
    if let Some(seen) = seen.filter(|s| s.rlim_cur != high.rlim_cur && s.rlim_cur != own.rlim_cur) {
        exchange(Some(seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of its own, because the limit is the whole process's.
    #[test]
    fn the_limit_is_the_programs_again_whoever_interferes() {
        // SAFETY: the child only makes system calls and threads, and leaves by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let passed = std::panic::catch_unwind(interfere).is_ok();
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!passed)) }
            }
            child => {
                let mut status = 0;
                // SAFETY: waits for our own child.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    }

    fn interfere() {
        const BASE: i32 = 600;
        let limits = exchange(None).unwrap();
        let set = |soft| exchange(Some(libc::rlimit { rlim_cur: soft, ..limits })).unwrap();
        set(200);
        let dup = || sys::dup_from(0, BASE);
        assert_eq!(dup(), Err(Errno::EINVAL));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let fd = lifted(BASE, dup).unwrap();
                        assert!(fd >= BASE);
                        sys::close(fd);
                    }
                });
            }
            for _ in 0..1000 {
                assert_eq!(own(BASE), 200);
            }
        });
        assert_eq!(exchange(None).unwrap().rlim_cur, 200);
        assert!(below(BASE) && !below(100));
        // What the program sets while it is raised holds.
        let fd = lifted(BASE, || {
            set(300);
            dup().or(Ok(-1))
        });
        assert_eq!((fd, exchange(None).unwrap().rlim_cur), (Ok(-1), 300));
        // So does a hard limit that was lowered without our being told.
        let lower = libc::rlimit { rlim_cur: 300, rlim_max: 700 };
        exchange(Some(lower)).unwrap();
        for _ in 0..2 {
            let fd = lifted(BASE, dup).unwrap();
            assert!((BASE..700).contains(&fd));
            sys::close(fd);
            let now = exchange(None).unwrap();
            assert_eq!((now.rlim_cur, now.rlim_max), (300, 700));
        }
    }
}

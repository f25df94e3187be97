//! A wait for the program's futexes: a worker sleeps, and yet the waiter is queued when the submission returns.
//!
//! The kernel's ring queues a waiter of its own at submission, so a wake that follows finds it. A worker comes to its
//! futex(2) some time later, and a wake in between would be lost. Therefore the worker first sleeps on words of ours, the
//! *parks*, and the submitting thread moves it from there to the program's futexes (FUTEX_CMP_REQUEUE): from
//! that moment on, and before the submission returns, it is an ordinary waiter there, behind those who came
//! before it. Then the submitter compares the values, which the kernel does as it queues.
//!
//! A park is 0 until its sleeper was moved, and 1 from then on: a sleeper whose call is restarted by a signal, or who comes
//! too late to be moved, finds 1 and waits on the program's futexes directly.
//!
//! `stage`, the only word that both sides change:
//!
//! | from | to | by | when |
//! |---|---|---|---|
//! | QUEUED | PARKED | worker | it is about to sleep |
//! | PARKED, LEAVING | WOKEN | worker | it was woken, and completes the request |
//! | PARKED | LEAVING | holder of the ring lock | the wait is to be cancelled; the worker will be interrupted |
//! | PARKED, LEAVING | CANCELLED | worker | it was interrupted, and is no waiter any more |
//! | QUEUED, LEAVING | CANCELLED | holder of the ring lock | the worker has not begun; or takes too long |
//!
//! A worker that was woken and finds CANCELLED passes the wake on: then, and only then, a wake counted a waiter that
//! was cancelled.
#![allow(unsafe_code)]

use crate::sys::{self, sys};
use crate::usercopy;
use soloring_abi::Errno;
use soloring_iowq::Interrupt;
use std::sync::atomic::{AtomicU32, Ordering};

/// `FUTEX2_*` flags of an entry (Linux 6.7, MPOL 6.16).
pub const SIZE_MASK: u32 = 3;
pub const SIZE_U32: u32 = 2;
pub const NUMA: u32 = 4;
pub const MPOL: u32 = 8;
pub const PRIVATE: u32 = 128;
pub const VALID: u32 = SIZE_MASK | NUMA | MPOL | PRIVATE;

/// The most futexes of one wait.
pub const VECTOR_MAX: u32 = 128;

const QUEUED: u32 = 0;
const PARKED: u32 = 1;
const LEAVING: u32 = 2;
const WOKEN: u32 = 3;
const CANCELLED: u32 = 4;

/// How long a worker is given to leave its parks, and to come to them while there are as many as may be.
const PATIENCE_NS: u64 = 100_000_000;
/// How long a worker is given to come to its parks that only needs a processor. One that comes later waits directly, and
/// misses wakes that come in between without a change of the value.
const LONG_PATIENCE_NS: u64 = 3_000_000_000;

/// One futex of the program's.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub addr: u64,
    pub value: u32,
    pub flags: u32,
}

impl Target {
    fn private(&self) -> i32 {
        if self.flags & PRIVATE != 0 { libc::FUTEX_PRIVATE_FLAG } else { 0 }
    }

    fn compare(&self) -> Result<(), Errno> {
        let now: u32 = usercopy::read(self.addr)?;
        if now == self.value {
            return Ok(());
        }
        // Whether this can be a futex at all comes before its value: memory that is to be read only cannot, shared,
        // nor can one that names no memory node.
        let (how, long_past) = (libc::FUTEX_WAIT_BITSET | self.private(), [0u64; 2]);
        let (addr, value, any, until) = (self.addr, self.value, u32::MAX, long_past.as_ptr());
        // SAFETY: the kernel reads the word, checking the address, and a timespec of ours.
        let asked = unsafe {
            if self.flags & (NUMA | MPOL) == 0 {
                sys!(futex, addr, how, value, until, 0usize, any)
            } else {
                sys!(futex_wait, addr, value, any, self.flags, until, libc::CLOCK_MONOTONIC)
            }
        };
        match asked {
            Err(e @ (Errno::EFAULT | Errno::EINVAL)) => Err(e),
            _ => Err(Errno::EAGAIN),
        }
    }
}

/// A wait in flight, shared by its request and its worker.
#[derive(Debug)]
pub struct FutexWait {
    targets: Box<[Target]>,
    parks: Box<[AtomicU32]>,
    /// FUTEX_WAITV: the result is the number of the futex that was woken.
    vectored: bool,
    /// Which wakes it takes.
    mask: u32,
    stage: AtomicU32,
}

impl FutexWait {
    pub fn new(targets: Vec<Target>, mask: u32, vectored: bool) -> Self {
        FutexWait {
            parks: targets.iter().map(|_| AtomicU32::new(0)).collect(),
            targets: targets.into(),
            vectored,
            mask,
            stage: AtomicU32::new(QUEUED),
        }
    }

    /// Whether every futex still has its expected value.
    ///
    /// # Errors
    /// EINVAL for an address that is not aligned, EFAULT, EAGAIN.
    pub fn compare(&self) -> Result<(), Errno> {
        if self.targets.iter().any(|t| !t.addr.is_multiple_of(4)) {
            return Err(Errno::EINVAL);
        }
        self.targets.iter().try_for_each(Target::compare)
    }

    /// Futexes bound to memory nodes cannot be moved to: their waits take the simple way.
    fn is_movable(&self) -> bool {
        self.targets.iter().all(|t| t.flags & (NUMA | MPOL) == 0)
    }

    /// The worker: sleeps until woken. Returns the request's result.
    pub fn sleep(&self, interrupt: &Interrupt) -> i32 {
        // AcqRel: pairs with `leave`; only one of the two has the request.
        let parked =
            self.stage.compare_exchange(QUEUED, PARKED, Ordering::AcqRel, Ordering::Acquire);
        if parked.is_err() {
            return Errno::ECANCELED.neg();
        }
        wake_word(&self.stage);
        let mut directly = !self.is_movable();
        loop {
            let slept = if directly { self.sleep_directly() } else { self.sleep_on_parks() };
            match slept {
                Ok(index) => return self.woken(index, index as i32, true),
                Err(Errno::EINTR) if interrupt.cancelled() => return self.interrupted(),
                // Acquire: pairs with the release in `settle`; a sleeper that was moved has left that place.
                Err(Errno::EINTR | Errno::EAGAIN) if !directly => {
                    directly = self.parks.iter().any(|p| p.load(Ordering::Acquire) != 0);
                }
                Err(Errno::EINTR) => {}
                // The value is another than at submission: as good as a wake that came before.
                Err(Errno::EAGAIN) => {
                    let index = self.changed();
                    return self.woken(index, index as i32, false);
                }
                Err(e) => return self.woken(0, e.neg(), false),
            }
        }
    }

    fn changed(&self) -> usize {
        self.targets.iter().position(|t| t.compare().is_err()).unwrap_or(0)
    }

    /// Changes a stage that the worker may still change; false when the request was completed without it.
    fn end(&self, stage: u32) -> bool {
        let open = |s| (s == PARKED || s == LEAVING).then_some(stage);
        // AcqRel: pairs with `leave` and `has_left`; only one side completes the request.
        let was = self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, open);
        if was == Ok(LEAVING) {
            wake_word(&self.stage);
        }
        was.is_ok()
    }

    /// The sleep ended by itself: `result` for a vector or an error, 0 for one futex.
    fn woken(&self, index: usize, result: i32, by_wake: bool) -> i32 {
        if self.end(WOKEN) {
            return if self.vectored || result < 0 { result } else { 0 };
        }
        if by_wake {
            let t = &self.targets[index];
            let _ = wake(t.addr, 1, self.mask, t.flags);
        }
        Errno::ECANCELED.neg()
    }

    fn interrupted(&self) -> i32 {
        self.end(CANCELLED);
        Errno::ECANCELED.neg()
    }

    fn sleep_on_parks(&self) -> Result<usize, Errno> {
        let entry = |(park, t): (&AtomicU32, &Target)| Target {
            addr: park.as_ptr() as u64,
            value: 0,
            flags: t.flags,
        };
        self.wait(&self.parks.iter().zip(&*self.targets).map(entry).collect::<Vec<_>>())
    }

    fn sleep_directly(&self) -> Result<usize, Errno> {
        self.wait(&self.targets)
    }

    /// Blocks until one of `at` is woken, and returns its number.
    fn wait(&self, at: &[Target]) -> Result<usize, Errno> {
        if let [t] = at {
            let how = libc::FUTEX_WAIT_BITSET | t.private();
            if t.flags & (NUMA | MPOL) == 0 {
                // SAFETY: the kernel reads the word, checking the address; no timeout.
                return unsafe { sys!(futex, t.addr, how, t.value, 0usize, 0usize, self.mask) };
            }
            let (mask, clock) = (self.mask, libc::CLOCK_MONOTONIC);
            // SAFETY: as above.
            return unsafe { sys!(futex_wait, t.addr, t.value, mask, t.flags, 0usize, clock) };
        }
        // struct futex_waitv: value, address, flags and padding.
        let entries: Vec<[u64; 3]> =
            at.iter().map(|t| [t.value as u64, t.addr, t.flags as u64]).collect();
        let clock = libc::CLOCK_MONOTONIC;
        // SAFETY: the entries are ours; the kernel checks the addresses in them; no timeout.
        unsafe { sys!(futex_waitv, entries.as_ptr(), entries.len(), 0, 0usize, clock) }
    }

    /// The submitter, once the wait is with a worker: returns when the waiter is queued.
    ///
    /// The caller holds the ring lock. It waits for the worker to come to its parks, which needs nothing from any
    /// ring, and for a bounded time: a short one when `full` says that no worker is to be had before another wait ends.
    ///
    /// # Errors
    /// As [`FutexWait::compare`]: the wait should be withdrawn.
    pub fn settle(&self, full: &dyn Fn() -> bool) -> Result<(), Errno> {
        if self.is_movable() {
            self.move_all(full)?;
        }
        self.compare()
    }

    fn move_all(&self, full: &dyn Fn() -> bool) -> Result<(), Errno> {
        let begun = sys::now_ns(libc::CLOCK_MONOTONIC);
        let mut late = false;
        for (park, target) in self.parks.iter().zip(&*self.targets) {
            loop {
                if late {
                    // Release: pairs with the acquire in `sleep`.
                    park.store(1, Ordering::Release);
                }
                let moved = requeue(park, late as u32, target);
                match moved {
                    Ok(1) => break,
                    _ if late => break,
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(e) => return Err(e),
                }
                // Acquire: pairs with the worker's changes; only what it says matters here.
                let stage = self.stage.load(Ordering::Acquire);
                match stage {
                    QUEUED => sleep_while(&self.stage, QUEUED),
                    // Between its change of the stage and its sleep.
                    PARKED => yield_now(),
                    _ => return Ok(()),
                }
                let spent = sys::now_ns(libc::CLOCK_MONOTONIC) - begun;
                late =
                    spent >= LONG_PATIENCE_NS || spent >= PATIENCE_NS && stage == QUEUED && full();
            }
            // Release: pairs with the acquire in `sleep`.
            park.store(1, Ordering::Release);
        }
        Ok(())
    }

    /// First half of taking the request away from its worker, before that is interrupted. False: it was woken
    /// before, and completes by itself.
    pub fn leave(&self) -> bool {
        let next = |stage| match stage {
            QUEUED => Some(CANCELLED),
            PARKED => Some(LEAVING),
            _ => None,
        };
        // AcqRel: pairs with `sleep` and `end`; only one side completes the request.
        self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// Second half, after it was interrupted: waits, for a bounded time, until it is no waiter any more. False: it was
    /// woken meanwhile, and completes by itself.
    pub fn has_left(&self) -> bool {
        let deadline = sys::now_ns(libc::CLOCK_MONOTONIC) + PATIENCE_NS;
        loop {
            // Acquire: pairs with `end`.
            match self.stage.load(Ordering::Acquire) {
                LEAVING if sys::now_ns(libc::CLOCK_MONOTONIC) < deadline => {
                    sleep_while(&self.stage, LEAVING);
                }
                LEAVING => {
                    let late = self.stage.compare_exchange(
                        LEAVING,
                        CANCELLED,
                        // AcqRel: pairs with `end`; only one side completes the request.
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    );
                    if late.is_ok() {
                        return true;
                    }
                }
                stage => return stage == CANCELLED,
            }
        }
    }
}

/// FUTEX_WAKE with the strict count of io_uring: 0 wakes nobody.
///
/// # Errors
/// EINVAL for no mask, an address that is not aligned, flags that the kernel does not have; EFAULT.
pub fn wake(addr: u64, count: i32, mask: u32, flags: u32) -> Result<usize, Errno> {
    // SAFETY: the kernel at most reads the word, checking the address.
    match unsafe { sys!(futex_wake, addr, mask, count, flags) } {
        Err(Errno::ENOSYS | Errno::EPERM) => wake_by_old_call(addr, count, mask, flags),
        done => done,
    }
}

/// Before Linux 6.7, and where a sandbox does not know the newer call.
#[cold]
fn wake_by_old_call(addr: u64, count: i32, mask: u32, flags: u32) -> Result<usize, Errno> {
    let t = Target { addr, value: 0, flags };
    if flags & (NUMA | MPOL) != 0 || mask == 0 || !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if count == 0 {
        return usercopy::read::<u32>(addr).map(|_| 0);
    }
    let how = libc::FUTEX_WAKE_BITSET | t.private();
    // SAFETY: the kernel at most reads the word, checking the address.
    unsafe { sys!(futex, addr, how, count, 0usize, 0usize, mask) }
}

/// Moves one sleeper from `park`, if that holds `value`, to the program's futex.
fn requeue(park: &AtomicU32, value: u32, target: &Target) -> Result<usize, Errno> {
    let how = libc::FUTEX_CMP_REQUEUE | target.private();
    // SAFETY: the kernel reads our word, and the program's never; it checks that address.
    unsafe { sys!(futex, park.as_ptr(), how, 0, 1usize, target.addr, value) }
}

fn wake_word(word: &AtomicU32) {
    let how = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: no memory is accessed.
    let _ = unsafe { sys!(futex, word.as_ptr(), how, 1) };
}

fn sleep_while(stage: &AtomicU32, value: u32) {
    let pause = [0u64, 1_000_000];
    let how = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: reads the word and one timespec of ours. Any way out of it leads to another look.
    let _ = unsafe { sys!(futex, stage.as_ptr(), how, value, pause.as_ptr()) };
}

fn yield_now() {
    // SAFETY: no memory involved.
    let _ = unsafe { sys!(sched_yield) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use soloring_iowq::{Class, Config, Work, Wq};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn wait_for(word: &AtomicU32) -> Arc<FutexWait> {
        let target = Target { addr: word.as_ptr() as u64, value: 0, flags: SIZE_U32 | PRIVATE };
        Arc::new(FutexWait::new(vec![target], u32::MAX, false))
    }

    /// A worker that gets no processor for a while.
    struct Late {
        wait: Arc<FutexWait>,
        ended: std::sync::mpsc::Sender<i32>,
    }

    impl Work for Late {
        fn run(self: Box<Self>, interrupt: &Interrupt) {
            std::thread::sleep(Duration::from_millis(400));
            let _ = self.ended.send(self.wait.sleep(interrupt));
        }
        fn cancelled(self: Box<Self>) {}
        fn failed(self: Box<Self>, _: i32) {}
    }

    #[test]
    fn a_worker_that_comes_late_is_queued_before_the_submission_returns() {
        let word = AtomicU32::new(0);
        let wait = wait_for(&word);
        let workers = Wq::new(Config::for_ring(8));
        let (ended, end) = std::sync::mpsc::channel();
        let late = Late { wait: Arc::clone(&wait), ended };
        workers.queue(Box::new(late), Class::Unbounded, None);
        wait.settle(&|| workers.is_full(Class::Unbounded)).unwrap();
        assert_eq!(wake(word.as_ptr() as u64, 5, u32::MAX, SIZE_U32 | PRIVATE), Ok(1));
        assert_eq!(end.recv(), Ok(0));
    }

    #[test]
    fn where_no_worker_can_come_the_submission_returns_soon() {
        let begun = Instant::now();
        wait_for(&AtomicU32::new(0)).settle(&|| true).unwrap();
        assert!(begun.elapsed() < Duration::from_nanos(LONG_PATIENCE_NS));
    }
}

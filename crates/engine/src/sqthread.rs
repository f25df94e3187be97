//! The handle of an SQ thread (SQPOLL): which rings it serves, and how to wake it.
//!
//! What the thread does is in `sqpoll.rs`; a ring context only needs to reach it. The words through which
//! it is reached lie in a page that forked children share: the thread goes on serving in the process that
//! made it, and they wake it there.
#![allow(unsafe_code)]

use crate::sys::sys;
use soloring_abi::Errno;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

const PAGE: usize = 4096;

/// What all processes that know the thread share. Begins as zeroes.
#[repr(C)]
pub struct Words {
    /// Futex: changes with every wake-up call.
    pub(crate) wakeups: AtomicU32,
    pub(crate) asleep: AtomicBool,
    /// Futex: changes whenever entries were taken, for SQ_WAIT.
    pub(crate) progress: AtomicU32,
    /// 0: not started yet; then the thread's id; at its end the kernel adds [`GONE`], however it ended.
    life: AtomicU32,
}

/// `FUTEX_OWNER_DIED`.
const GONE: u32 = 0x4000_0000;

/// One SQ thread and the rings it serves.
pub struct SqThread {
    rings: Mutex<Vec<u64>>,
    words: NonNull<Words>,
    pub(crate) idle_ns: u64,
    pid: u32,
}

// SAFETY: `words` is a mapping that lives as long as `self` and is only accessed as atomics.
unsafe impl Send for SqThread {}
// SAFETY: as above.
unsafe impl Sync for SqThread {}

impl SqThread {
    /// A handle for a thread that goes to sleep after `idle_ms` without work; 0 means one second.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(idle_ms: u32) -> Result<SqThread, Errno> {
        let idle_ms = if idle_ms == 0 { 1000 } else { idle_ms };
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping, zeroed, at an address that the kernel chooses.
        let page = unsafe { sys!(mmap, 0usize, PAGE, prot, flags, -1i32, 0) }?;
        Ok(SqThread {
            rings: Mutex::new(Vec::new()),
            words: NonNull::new(page as *mut Words).ok_or(Errno::ENOMEM)?,
            idle_ns: idle_ms as u64 * 1_000_000,
            pid: std::process::id(),
        })
    }

    #[inline]
    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the page lives until `self` is dropped; its words are atomics, valid with any contents.
        unsafe { self.words.as_ref() }
    }

    /// Whether the thread runs in this process. A forked child wakes its parent's.
    pub fn is_here(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Whether the thread has ended, wherever it ran: nobody submits for its rings any more.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.words().life.load(Ordering::Relaxed) & GONE != 0
    }

    /// Runs the body of the thread, on it, so that its end is seen in other processes too: of this life the
    /// kernel marks the word itself, by the list of futexes that a thread leaves behind.
    pub fn live(&self, body: impl FnOnce()) {
        // `struct robust_list_head`: the first entry, from there to its futex, one that is being taken.
        let (mut before, mut len) = (0usize, 0usize);
        let mut entry = 0usize;
        let word = self.words().life.as_ptr() as usize;
        let entry_at = &raw mut entry as usize;
        let mut list = [entry_at, word.wrapping_sub(entry_at), 0];
        let list_at = list.as_mut_ptr() as usize;
        // The last entry names the head. Written before the kernel can read it.
        // SAFETY: our own stack.
        unsafe { (entry_at as *mut usize).write_volatile(list_at) };
        // SAFETY: no memory involved.
        let id = unsafe { sys!(gettid) }.unwrap_or(0);
        // SAFETY: writes two words on our stack.
        let had = unsafe { sys!(get_robust_list, 0, &raw mut before, &raw mut len) };
        // SAFETY: the list and its entry stay where they are until it is taken out of use below; the kernel
        // follows it when the thread ends inside `body`, while this frame still stands.
        let set = had.and_then(|_| unsafe { sys!(set_robust_list, list_at, size_of_val(&list)) });
        if set.is_ok() {
            self.words().life.store(id as u32, Ordering::Relaxed);
        }
        body();
        self.words().life.store(GONE, Ordering::Relaxed);
        if set.is_ok() {
            // SAFETY: the C library's own list, as it was.
            let _ = unsafe { sys!(set_robust_list, before, len) };
        }
    }

    pub(crate) fn rings(&self) -> MutexGuard<'_, Vec<u64>> {
        self.rings.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn attach(&self, id: u64) {
        self.rings().push(id);
        self.wake();
    }

    /// Takes a ring out; the thread ends with its last one. In a forked child the thread is not its, and the
    /// mutex may be held for good: the parent's SQ thread can have been inside at the fork.
    pub fn detach(&self, id: u64) {
        if !self.is_here() {
            return;
        }
        self.rings().retain(|ring| *ring != id);
        self.wake();
        self.note_progress();
    }

    /// IORING_ENTER_SQ_WAKEUP.
    pub fn wake(&self) {
        // Release: pairs with the acquire in `serve`; what was asked for before is seen after.
        self.words().wakeups.fetch_add(1, Ordering::Release);
        futex_wake(&self.words().wakeups);
    }

    pub(crate) fn note_progress(&self) {
        // Release: pairs with the acquire in `wait_for_room`.
        self.words().progress.fetch_add(1, Ordering::Release);
        futex_wake(&self.words().progress);
    }
}

impl Drop for SqThread {
    fn drop(&mut self) {
        // SAFETY: the page made in `new`, which nobody can reach any more.
        let _ = unsafe { sys!(munmap, self.words.as_ptr(), PAGE) };
    }
}

/// Wakes whoever sleeps on `word`, in any process.
fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE takes the word's address and does not access it.
    let _ = unsafe { sys!(futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Sleeps while `word` is `seen`, at most `limit_ns`.
///
/// # Errors
/// EINTR, ETIMEDOUT.
pub(crate) fn futex_wait(word: &AtomicU32, seen: u32, limit_ns: Option<u64>) -> Result<(), Errno> {
    let limit = limit_ns.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let limit_at = limit.as_ref().map_or(0, |l| l.as_ptr() as usize);
    // SAFETY: the word lives as long as `word` is borrowed; the kernel only reads it and the limit.
    match unsafe { sys!(futex, word.as_ptr(), libc::FUTEX_WAIT, seen, limit_at) } {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(e) => Err(e),
    }
}

//! The shim: what the lock takes from the machine. The models put their own file in this place.
#![allow(unsafe_code)]

pub(crate) use super::fence::{handshake_looks, heavy_available, heavy_fence, light_fence};
pub(crate) use super::futex::Futex;
pub(crate) use super::words::AtomicU64;
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::Ordering;

use super::tls;
use super::token::ThreadToken;
use super::tuning::Tuning;
use std::sync::atomic::AtomicU8;
use syscalls::{Sysno, syscall};

/// How often a waiter looks at a lock word before it sleeps. Critical sections last about a
/// microsecond, a futex sleep and wake-up several.
pub(crate) const SPINS_MAX: u32 = 100;

/// When to give a bias up and when to take it back; see `policy.rs`.
#[inline(always)]
pub(crate) const fn tuning() -> Tuning {
    Tuning { foreign_window: 64, saved_ns: 4, owner_window: 4096, back_factor: 4, losses_max: 10 }
}

/// The cell that the guarded value lies in.
#[derive(Debug)]
pub(crate) struct ValueCell<T>(std::cell::UnsafeCell<T>);

impl<T> ValueCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }
    #[inline(always)]
    pub(crate) fn access(&self) -> ValueAccess<T> {
        ValueAccess(std::marker::PhantomData)
    }
    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// Exclusive access to the value, kept by the guard. Nothing at run time; under loom this object
/// checks that no other exists.
#[derive(Debug)]
pub(crate) struct ValueAccess<T>(std::marker::PhantomData<*mut T>);

impl<T> ValueAccess<T> {
    #[inline(always)]
    pub(crate) fn as_ptr(&self, cell: &ValueCell<T>) -> *mut T {
        cell.0.get()
    }
}

/// The bits of the calling thread's token; 0 when it has none yet.
#[inline(always)]
pub(crate) fn token_bits() -> u64 {
    tls::get()
}

/// The calling thread's token.
#[inline(always)]
pub fn current_thread() -> ThreadToken {
    match ThreadToken::from_bits(tls::get()) {
        Some(token) => token,
        None => new_token(),
    }
}

#[cold]
#[inline(never)]
fn new_token() -> ThreadToken {
    static LAST: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the uniqueness of the number matters, which is the read-modify-write's own.
    let fresh = ThreadToken::from_number(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    // A signal handler that comes before the next line gives this thread a token of its own: keep
    // the one that is already in use then.
    let token = ThreadToken::from_bits(tls::get()).or(fresh);
    // 2^56 threads cannot be started in the life of a process, and 0 is never handed out.
    let token = token.unwrap_or_else(|| std::process::abort());
    tls::set(token.bits());
    token
}

#[cfg(debug_assertions)]
thread_local! {
    /// How many ring locks this thread holds.
    static HELD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Notes that this thread got one more lock, or gave one back; debug builds only.
#[inline(always)]
pub(crate) fn note_held(_delta: isize) {
    #[cfg(debug_assertions)]
    HELD.set(HELD.get().wrapping_add_signed(_delta));
}

/// How many ring locks this thread holds; always 0 in release builds.
#[inline(always)]
pub(crate) fn held_count() -> usize {
    #[cfg(debug_assertions)]
    return HELD.get();
    #[cfg(not(debug_assertions))]
    0
}

/// Monotonic clock, in nanoseconds. By a raw call: only threads that have to wait ask for it.
pub(crate) fn now_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    let mut ts = [0i64; 2];
    // SAFETY: the kernel writes one timespec (two 64-bit integers on 64-bit targets) into `ts`.
    let _ = unsafe { syscall!(Sysno::clock_gettime, CLOCK_MONOTONIC, ts.as_mut_ptr()) };
    ts[0] as u64 * 1_000_000_000 + ts[1] as u64
}

/// What is to be done once per process before the first lock is used.
pub(crate) fn prepare() {
    if !mutex_forced() {
        heavy_available();
    }
}

/// Whether `SOLORING_LOCK=mutex` was in the environment when the first lock was made.
pub(crate) fn mutex_forced() -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    static FORCED: AtomicU8 = AtomicU8::new(UNKNOWN);
    let mut state = FORCED.load(Ordering::Relaxed);
    if state == UNKNOWN {
        state = if environment_forces_mutex() { YES } else { NO };
        FORCED.store(state, Ordering::Relaxed);
    }
    state == YES
}

/// Reads the environment block without libc's or std's help: both may lock or allocate, and the
/// first ring may be made inside a signal handler.
fn environment_forces_mutex() -> bool {
    unsafe extern "C" {
        static environ: *const *const std::ffi::c_char;
    }
    // SAFETY: `environ` is null or a null-terminated array of pointers to C strings (environ(7)).
    // A program that rewrites it from another thread at this very moment breaks getenv as well.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            if std::ffi::CStr::from_ptr(*entry).to_bytes() == b"SOLORING_LOCK=mutex" {
                return true;
            }
            entry = entry.add(1);
        }
    }
    false
}

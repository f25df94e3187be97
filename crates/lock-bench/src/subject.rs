//! The locks that are compared, each around a counter, behind one trait.

use std::sync::atomic::{AtomicU64, Ordering};

use soloring_lock::{CtxLock, LockStats, Policy, current_thread};

/// A lock around a counter, whoever made it.
pub trait Subject: Sync {
    fn name(&self) -> &'static str;
    /// Called by the thread that will be the busy one.
    fn begin(&self) {}
    /// Lock, count, unlock.
    fn once(&self);
    /// Lock, unlock.
    fn nothing(&self);
    /// Lock, write a word of each of eight cache lines, unlock.
    fn writing(&self, lines: &Lines);
    /// Of a lock of ours.
    fn stats(&self) -> Option<LockStats> {
        None
    }
}

/// What a critical section writes to: eight cache lines.
pub struct Lines([AtomicU64; 64]);

impl Lines {
    pub fn new() -> Lines {
        Lines([const { AtomicU64::new(0) }; 64])
    }

    #[inline(always)]
    fn write(&self) {
        for line in self.0.chunks(8) {
            line[0].store(1, Ordering::Relaxed);
        }
    }
}

/// The same loops without a lock.
#[derive(Default)]
pub struct NoLock(AtomicU64);
#[derive(Default)]
pub struct Std(std::sync::Mutex<u64>);
#[derive(Default)]
pub struct ParkingLot(parking_lot::Mutex<u64>);
pub struct Ours {
    name: &'static str,
    lock: CtxLock<u64>,
}

impl Ours {
    /// A mutex for ever, whoever owns it.
    pub fn mutex() -> Ours {
        Ours { name: "CtxLock, mutex mode", lock: CtxLock::new_in(0, Policy::ForceMutex) }
    }

    /// Biased, where that is possible, to the thread that calls [`Subject::begin`].
    pub fn biased() -> Ours {
        Ours { name: "CtxLock, biased", lock: CtxLock::new(0) }
    }
}

macro_rules! subject {
    ($type:ty, $name:expr, |$self:ident| $guard:expr $(, $more:item)*) => {
        impl Subject for $type {
            fn name(&self) -> &'static str {
                $name(self)
            }
            #[inline(always)]
            fn once(&self) {
                let $self = self;
                let mut guard = $guard;
                *guard += 1;
            }
            #[inline(always)]
            fn nothing(&self) {
                let $self = self;
                drop($guard);
            }
            #[inline(always)]
            fn writing(&self, lines: &Lines) {
                let $self = self;
                let _guard = $guard;
                lines.write();
            }
            $($more)*
        }
    };
}

subject!(Std, |_| "std::sync::Mutex", |this| this.0.lock().unwrap());
subject!(ParkingLot, |_| "parking_lot::Mutex", |this| this.0.lock());
subject!(
    Ours,
    |this: &Ours| this.name,
    |this| this.lock.lock().unwrap(),
    fn begin(&self) {
        self.lock.lock().unwrap().bias_to(current_thread());
    },
    fn stats(&self) -> Option<LockStats> {
        Some(self.lock.stats())
    }
);

impl Subject for NoLock {
    fn name(&self) -> &'static str {
        "no lock"
    }
    #[inline(always)]
    fn once(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
    #[inline(always)]
    fn nothing(&self) {}
    #[inline(always)]
    fn writing(&self, lines: &Lines) {
        lines.write();
    }
}

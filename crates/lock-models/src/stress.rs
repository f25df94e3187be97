//! Real threads: the asymmetric fences and the lock over them, sound and spoiled on purpose.
//!
//! No model knows what the machine's membarrier does; this is the one check that does. It proves
//! nothing when it finds nothing, so each check comes with a spoiled variant that must be found out.

pub use crate::machine::Heavy;
use crate::machine::{
    CtxLock, Mode, current_thread, heavy_available, heavy_fence, light_fence, set_heavy,
};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Of the fence test: meetings looked at; of the lock test: acquisitions by all threads.
    pub attempts: u64,
    /// Times that what must not be was.
    pub violations: u64,
}

/// Which part of the pair is spoiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoiled {
    Nothing,
    /// The light fence is missing and the compiler has used its freedom: the load comes long before
    /// the store.
    Light,
    /// The heavy fence is an ordinary full fence of the caller.
    Heavy,
}

#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// How many of its last stores the owner remembers. A foreign side that is so far behind looks away.
const MEMORY: usize = 4096;

/// The pattern that the lock rests on: each side writes its own word, passes its fence, and reads the
/// other's word; at least one of the two must see what the other wrote. Both sides write ever higher
/// numbers, so that each of the foreign side's rounds meets the one store of the owner that it just missed:
/// the owner must then have seen the foreign store. Ends after `limit`, or at the first violation if something
/// is spoiled.
pub fn fences(spoiled: Spoiled, limit: Duration) -> Found {
    assert!(heavy_available(), "the kernel refuses membarrier: nothing to test");
    set_heavy(if spoiled == Spoiled::Heavy { Heavy::OwnFence } else { Heavy::Membarrier });
    let (busy, contended) = (Line::default(), Line::default());
    // What the owner saw beside each of its stores: the store's number above, the sight below.
    let memory: Vec<AtomicU64> = (0..MEMORY).map(|_| AtomicU64::new(0)).collect();
    let pack = |store: u64, saw: u64| (store << 32) | (saw & 0xffff_ffff);
    let stop = AtomicBool::new(false);
    let mut found = Found::default();
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut mine = 0;
            while !stop.load(Relaxed) {
                mine += 1;
                let saw = if spoiled == Spoiled::Light {
                    let saw = contended.0.load(Relaxed);
                    for _ in 0..mine % 64 {
                        spin_loop();
                    }
                    busy.0.store(mine, Relaxed);
                    saw
                } else {
                    busy.0.store(mine, Relaxed);
                    light_fence();
                    contended.0.load(Relaxed)
                };
                // Release pairs with the Acquire below; it says nothing about the two words.
                memory[mine as usize % MEMORY].store(pack(mine, saw), Ordering::Release);
            }
        });
        let end = Instant::now() + limit;
        let mut mine = 0;
        while Instant::now() < end && (spoiled == Spoiled::Nothing || found.violations == 0) {
            mine += 1;
            contended.0.store(mine, Relaxed);
            heavy_fence();
            let missed = busy.0.load(Relaxed) + 1;
            let entry = loop {
                // Acquire: pairs with the Release with which the other thread gives its turn or its value.
                let entry = memory[missed as usize % MEMORY].load(Ordering::Acquire);
                if entry >> 32 >= missed || Instant::now() >= end {
                    break entry;
                }
            };
            if entry >> 32 == missed {
                found.attempts += 1;
                found.violations += u64::from(entry & 0xffff_ffff < mine);
            }
            // Let the owner's core have the line of `contended` back, as between two real lockers.
            for _ in 0..mine % 16 {
                spin_loop();
            }
        }
        stop.store(true, Relaxed);
    });
    found
}

/// State that notices a second thread inside. Relaxed atomics, so that even a broken lock is no
/// undefined behaviour of the test.
#[derive(Default)]
struct Site {
    inside: AtomicU64,
    count: AtomicU64,
}

impl Site {
    /// Counts once; the number of signs that somebody else was inside meanwhile.
    fn touch(&self, me: u64) -> u64 {
        let before = self.inside.load(Relaxed);
        self.inside.store(me, Relaxed);
        let count = self.count.load(Relaxed);
        // The owner's stay is short, the foreigners' long enough to notice it.
        for _ in 0..if me == OWNER { 0 } else { 4 } {
            spin_loop();
        }
        self.count.store(count + 1, Relaxed);
        let after = self.inside.load(Relaxed);
        self.inside.store(0, Relaxed);
        u64::from(before != 0) + u64::from(after != me)
    }
}

const OWNER: u64 = 1;

/// An owner that locks all the time and foreign lockers that come again and again. Ends after `limit`,
/// or at the first violation if the heavy fence is spoiled.
pub fn lock(heavy: Heavy, foreign: u64, limit: Duration) -> Found {
    set_heavy(heavy);
    let lock = CtxLock::new(Site::default());
    let (stop, violations) = (AtomicBool::new(false), AtomicU64::new(0));
    let end = Instant::now() + limit;
    let counted: u64 = std::thread::scope(|s| {
        let rounds = |me: u64| {
            let (stop, violations, lock) = (&stop, &violations, &lock);
            move || {
                let mut counted = 0u64;
                while !stop.load(Relaxed) {
                    let Ok(mut guard) = lock.lock() else { unreachable!("never entered twice") };
                    if me == OWNER && guard.mode() == Mode::Mutex {
                        // For the first time, or because the policy has given the bias up.
                        guard.bias_to(current_thread());
                    }
                    let signs = guard.touch(me);
                    drop(guard);
                    counted += 1;
                    if signs > 0 {
                        violations.fetch_add(signs, Relaxed);
                    }
                    if me == OWNER {
                        let enough = heavy == Heavy::OwnFence && violations.load(Relaxed) > 0;
                        if counted.is_multiple_of(1024) && (enough || Instant::now() >= end) {
                            stop.store(true, Relaxed);
                        }
                    } else {
                        // Come back soon, at all moments of the owner's first attempts after this visit: its
                        // cache lines are on the way then, which is when a missing fence shows.
                        for _ in 0..counted % 16 {
                            spin_loop();
                        }
                    }
                }
                counted
            }
        };
        let threads: Vec<_> = (0..=foreign).map(|i| s.spawn(rounds(i + 1))).collect();
        threads.into_iter().map(|t| t.join().expect("no panics here")).sum()
    });
    let lost = counted.abs_diff(lock.into_inner().count.into_inner());
    Found { attempts: counted, violations: violations.into_inner() + lost }
}

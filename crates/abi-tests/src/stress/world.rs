//! What all threads of a stress run share: the plan, the rings in use, the books.

use crate::backend::Abi;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What the foreigners know of a ring.
pub struct Live {
    pub fd: i32,
    pub id: u64,
    pub defer: bool,
    /// Closed only when no foreigner is inside; otherwise closing races with them.
    pub exact: bool,
    /// Set after ENABLE_RINGS returned, or from the start.
    pub enabled: AtomicBool,
    /// Whether it is open; foreigners hold it while they are inside an exact ring.
    pub gate: RwLock<bool>,
    /// Messages that were sent to it with success.
    pub sent: AtomicU64,
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seconds: u64,
    pub submitters: usize,
    pub foreigners: usize,
    pub seed: u64,
    /// Seconds without progress of any one thread after which the run is aborted.
    pub patience_s: u64,
    /// Rings are closed by another thread after their submitter has gone.
    pub abandon: bool,
}

/// What all threads share.
pub struct World {
    pub abi: Abi,
    pub plan: Plan,
    pub stop: AtomicBool,
    /// Rings in use, for the foreigners to choose from.
    pub rings: RwLock<Vec<Arc<Live>>>,
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
    pub wrong: Mutex<Vec<String>>,
}

/// Enough to see what is wrong.
const WRONG_MAX: usize = 40;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Adds a thread's counts to the run's.
    pub fn add(&self, counts: &BTreeMap<&'static str, u64>) {
        let mut all = lock(&self.counts);
        for (name, n) in counts {
            *all.entry(name).or_default() += n;
        }
    }

    /// Notes something that must not be.
    pub fn wrong(&self, what: String) {
        let mut wrong = lock(&self.wrong);
        if wrong.len() < WRONG_MAX {
            eprintln!("WRONG: {what}");
            wrong.push(what);
        }
    }

    /// A ring in use, if there is one.
    pub fn any_ring(&self, rng: &mut fastrand::Rng) -> Option<Arc<Live>> {
        let rings = self.rings.read().unwrap_or_else(PoisonError::into_inner);
        if rings.is_empty() { None } else { Some(Arc::clone(&rings[rng.usize(..rings.len())])) }
    }

    pub fn show(&self, ring: &Arc<Live>) {
        self.rings.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(ring));
    }

    pub fn hide(&self, ring: &Arc<Live>) {
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        rings.retain(|r| !Arc::ptr_eq(r, ring));
    }
}

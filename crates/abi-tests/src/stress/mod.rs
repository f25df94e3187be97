//! The stress run: busy submitters on SINGLE_ISSUER rings, and everybody else who may touch a ring.
//!
//! Submitters ([`session`]) make rings, keep them busy and account for every completion; meanwhile other
//! threads ([`foreign`]) wait in the same rings, try to register and to submit, send messages, read the
//! statistics, and make and close rings of their own. [`beat`] ends a run that stands still.

pub mod beat;
mod foreign;
mod session;
mod work;

use crate::backend::{Abi, Backend};
use beat::Beat;
use session::Live;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

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
    counts: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<Vec<String>>,
}

/// Enough to see what is wrong.
const WRONG_MAX: usize = 40;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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

/// What a run has found.
pub struct Outcome {
    pub counts: BTreeMap<&'static str, u64>,
    pub wrong: Vec<String>,
    pub took: Duration,
}

/// Runs to the end of the plan. Aborts the process when a thread stands still.
pub fn run(side: &'static dyn Backend, plan: Plan) -> Outcome {
    let world = World {
        abi: Abi::unrecorded(side),
        plan,
        stop: AtomicBool::new(false),
        rings: RwLock::default(),
        counts: Mutex::default(),
        wrong: Mutex::default(),
    };
    let started = Instant::now();
    let world = &world;
    std::thread::scope(|s| {
        let mut beats: Vec<Arc<Beat>> = Vec::new();
        let mut start = |name: String, body: fn(&World, &Beat, u64), seed: u64| {
            let beat = Arc::new(Beat::new(name));
            beats.push(Arc::clone(&beat));
            s.spawn(move || {
                body(world, &beat, seed);
                beat.finish();
            });
        };
        for i in 0..plan.submitters {
            start(format!("submitter {i}"), session::run, plan.seed + i as u64);
        }
        for i in 0..plan.foreigners {
            start(format!("foreigner {i}"), foreign::run, plan.seed + 1000 + i as u64);
        }
        start("churn".into(), foreign::churn, plan.seed + 2000);
        start("inspector".into(), foreign::inspect, plan.seed + 3000);
        beat::watch(&beats, plan.patience_s, || {
            if started.elapsed() >= Duration::from_secs(plan.seconds) {
                world.stop.store(true, Ordering::Relaxed);
            }
        });
    });
    Outcome {
        counts: std::mem::take(&mut lock(&world.counts)),
        wrong: std::mem::take(&mut lock(&world.wrong)),
        took: started.elapsed(),
    }
}

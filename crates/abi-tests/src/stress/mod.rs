//! The stress run: busy submitters on SINGLE_ISSUER rings, and everybody else who may touch a ring.
//!
//! Submitters (`session.rs`) make rings, keep them busy and account for every completion; meanwhile other
//! threads (`foreign.rs`) wait in the same rings, try to register and to submit, send messages, read the
//! statistics, and make and close rings of their own. [`beat`] ends a run that stands still.

pub mod beat;
mod foreign;
mod session;
mod work;
mod world;

use crate::backend::{Abi, Backend};
use beat::Beat;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
pub use world::Plan;
use world::{World, lock};

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

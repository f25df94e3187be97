//! What a lock costs: uncontended by its owner, and taken by a foreign thread from a busy owner.
//!
//! `cargo bench -p soloring-lock`; with `-- FILE` the figures also go to FILE as JSON. All rows of one run
//! were measured in turns, so their ratios are comparable; the absolute numbers are the machine's.

use soloring_lock::{CtxLock, LockMode, Policy, current_thread};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A lock around a counter, whoever made it.
trait Subject: Sync {
    fn name(&self) -> &'static str;
    /// Called by the thread that will be the busy one.
    fn begin(&self) {}
    /// Lock, count, unlock; returns the counter.
    fn once(&self) -> u64;
    /// Said beside the figures.
    fn remark(&self) -> String {
        String::new()
    }
}

struct Nothing(std::sync::atomic::AtomicU64);
struct Std(std::sync::Mutex<u64>);
struct ParkingLot(parking_lot::Mutex<u64>);
struct Ours {
    name: &'static str,
    lock: CtxLock<u64>,
}

impl Subject for Nothing {
    fn name(&self) -> &'static str {
        "no lock"
    }
    #[inline]
    fn once(&self) -> u64 {
        // Two relaxed accesses: the increment that all rows have in common.
        let n = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(n, Ordering::Relaxed);
        n
    }
}

impl Subject for Std {
    fn name(&self) -> &'static str {
        "std::sync::Mutex"
    }
    #[inline]
    fn once(&self) -> u64 {
        let mut guard = self.0.lock().unwrap();
        *guard += 1;
        *guard
    }
}

impl Subject for ParkingLot {
    fn name(&self) -> &'static str {
        "parking_lot::Mutex"
    }
    #[inline]
    fn once(&self) -> u64 {
        let mut guard = self.0.lock();
        *guard += 1;
        *guard
    }
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        self.name
    }
    fn begin(&self) {
        self.lock.lock().unwrap().bias_to(current_thread());
    }
    #[inline]
    fn once(&self) -> u64 {
        let mut guard = self.lock.lock().unwrap();
        *guard += 1;
        *guard
    }
    fn remark(&self) -> String {
        let stats = self.lock.stats();
        format!("{}, {} elided, {} foreign", stats.mode.name(), stats.owner_elided, stats.foreign)
    }
}

fn forced() -> Ours {
    Ours { name: "CtxLock, mutex mode", lock: CtxLock::new_in(0, Policy::ForceMutex) }
}

fn biased() -> Ours {
    let lock = CtxLock::new(0);
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.stats().mode, LockMode::Biased, "no membarrier here: nothing to measure");
    Ours { name: "CtxLock, biased", lock }
}

/// Nanoseconds per lock and unlock, the median over the rounds.
fn uncontended<const N: usize>(subjects: [&dyn Subject; N]) -> [f64; N] {
    const ROUNDS: usize = 201;
    const BATCH: u64 = 20_000;
    let mut samples = [const { Vec::new() }; N];
    subjects.iter().for_each(|subject| subject.begin());
    for _ in 0..ROUNDS {
        // In turns, so that a disturbance of the machine hits all of them.
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            let start = Instant::now();
            // Through one virtual call, like all others; the loop inside is inlined.
            black_box(batch(*subject, BATCH));
            samples.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
        }
    }
    samples.map(|samples| percentile(samples, 50))
}

fn batch(subject: &dyn Subject, n: u64) -> u64 {
    (0..n).map(|_| black_box(subject).once()).fold(0, u64::wrapping_add)
}

fn percentile(mut samples: Vec<f64>, percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() - 1) * percent / 100]
}

struct Contended {
    p50_ns: f64,
    p99_ns: f64,
    /// The busy thread's own acquisitions per microsecond meanwhile.
    owner_per_us: f64,
}

/// One thread locks all the time; another comes every 20 microseconds or so.
fn against_a_busy_owner(subject: &dyn Subject) -> Contended {
    const VISITS: usize = 20_000;
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let stop = &stop;
        let owner = s.spawn(move || {
            subject.begin();
            ready.send(()).unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                black_box(batch(subject, 64));
                n += 64;
            }
            n
        });
        is_ready.recv().unwrap();
        let start = Instant::now();
        let mut samples = Vec::with_capacity(VISITS);
        for _ in 0..VISITS {
            let before = Instant::now();
            black_box(subject.once());
            samples.push(before.elapsed().as_nanos() as f64);
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_micros(20) {
                std::hint::spin_loop();
            }
        }
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let owner_per_us = owner.join().unwrap() as f64 / elapsed.as_micros() as f64;
        Contended {
            p50_ns: percentile(samples.clone(), 50),
            p99_ns: percentile(samples, 99),
            owner_per_us,
        }
    })
}

fn main() {
    let json = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let (nothing, standard) = (Nothing(0.into()), Std(0.into()));
    let parking = ParkingLot(parking_lot::Mutex::new(0));
    let (mutex, owner) = (forced(), biased());
    let subjects: [&dyn Subject; 5] = [&nothing, &standard, &parking, &mutex, &owner];
    let base = uncontended(subjects);

    println!("lock + count + unlock by one thread, nobody else there (median)");
    println!("  {:24} {:>8} {:>22}", "", "ns", "ratio to std's mutex");
    let mut rows = Vec::new();
    for (subject, ns) in subjects.iter().zip(base) {
        println!("  {:24} {ns:8.2} {:22.3}", subject.name(), ns / base[1]);
        rows.push(format!("{{\"lock\":\"{}\",\"uncontended_ns\":{ns:.3}}}", subject.name()));
    }

    println!("\none acquisition by a second thread while the first locks all the time");
    println!("  {:24} {:>8} {:>8} {:>16}", "", "p50 ns", "p99 ns", "owner's per us");
    let (standard, parking) = (Std(0.into()), ParkingLot(parking_lot::Mutex::new(0)));
    let (mutex, owner) = (forced(), biased_later());
    let subjects: [&dyn Subject; 4] = [&standard, &parking, &mutex, &owner];
    for subject in subjects {
        let Contended { p50_ns, p99_ns, owner_per_us } = against_a_busy_owner(subject);
        let (name, remark) = (subject.name(), subject.remark());
        println!("  {name:24} {p50_ns:8.0} {p99_ns:8.0} {owner_per_us:16.1}   {remark}");
        rows.push(format!(
            "{{\"lock\":\"{name}\",\"foreign_p50_ns\":{p50_ns:.0},\"foreign_p99_ns\":{p99_ns:.0},\
             \"owner_per_us\":{owner_per_us:.2}}}"
        ));
    }
    if let Some(path) = json {
        let text = format!("[{}]\n", rows.join(",\n "));
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("{path}: {error}");
            std::process::exit(1);
        }
    }
}

/// Not yet biased: the busy thread will make itself the owner.
fn biased_later() -> Ours {
    Ours { name: "CtxLock, biased", lock: CtxLock::new(0) }
}

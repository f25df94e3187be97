//! One thread locks all the time; another comes now and then, and each of its visits is timed.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::figures::{Busy, percentile};
use crate::subject::{Ours, ParkingLot, Std, Subject};

/// Between two visits. Short enough, and the lock finds that the bias does not pay.
const PAUSE: Duration = Duration::from_micros(150);

fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

pub fn measure(visits: u32) -> Vec<Busy> {
    vec![
        against_a_busy_owner(&Std::default(), visits),
        against_a_busy_owner(&ParkingLot::default(), visits),
        against_a_busy_owner(&Ours::mutex(), visits),
        against_a_busy_owner(&Ours::biased(), visits),
    ]
}

fn against_a_busy_owner<S: Subject>(subject: &S, visits: u32) -> Busy {
    let (stop, pulse) = (AtomicBool::new(false), AtomicU64::new(0));
    let (samples, owner_per_us) = std::thread::scope(|s| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, pulse) = (&stop, &pulse);
        let owner = s.spawn(move || {
            subject.begin();
            ready.send(()).expect("the visitor waits for this");
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..16 {
                    black_box(subject).once();
                }
                n += 16;
                pulse.store(n, Ordering::Relaxed);
            }
            n
        });
        is_ready.recv().expect("the busy thread says so");
        let start = Instant::now();
        let mut samples = Vec::with_capacity(visits as usize);
        for _ in 0..visits {
            // Other programs run here too: only a visit to an owner that is at work at this moment counts.
            let seen = pulse.load(Ordering::Relaxed);
            spin_for(Duration::from_micros(4));
            let at_work = pulse.load(Ordering::Relaxed) != seen;
            let before = Instant::now();
            subject.once();
            if at_work {
                samples.push(before.elapsed().as_nanos() as f64);
            }
            spin_for(PAUSE);
        }
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        let owner = owner.join().expect("the busy thread does not panic");
        (samples, owner as f64 / elapsed.as_micros() as f64)
    });
    let stats = subject.stats();
    Busy {
        lock: subject.name().to_owned(),
        visits: samples.len(),
        foreign_p50_ns: (!samples.is_empty()).then(|| percentile(samples.clone(), 50)),
        foreign_p99_ns: (!samples.is_empty()).then(|| percentile(samples, 99)),
        owner_per_us,
        heavy_fences: stats.map(|stats| stats.heavy_fences),
        revocations: stats.map(|stats| stats.revocations),
        mode: stats.map(|stats| stats.mode.name().to_owned()),
    }
}

/// What two looks at the clock take, which is in every sample.
pub fn clock_ns() -> f64 {
    let samples = (0..10_000).map(|_| Instant::now().elapsed().as_nanos() as f64);
    percentile(samples.collect(), 50)
}

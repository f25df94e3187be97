//! One thread locks all the time; another comes now and then, and each of its visits is timed.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::figures::{Busy, percentile};
use crate::subject::{Ours, ParkingLot, Std, Subject};

/// Between two visits. Short enough, and the lock finds that the bias does not pay.
const PAUSE: Duration = Duration::from_micros(150);
/// How long the visitor looks for the busy thread's pulse before it visits; and, if there is none, at most.
const LOOK: Duration = Duration::from_micros(4);
const LONG_LOOK: Duration = Duration::from_micros(24);
/// Beyond the visits: until one of them finds the busy thread at work, which other programs may prevent for long.
const PATIENCE: Duration = Duration::from_secs(3);

fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Whether `pulse` is seen to change.
fn beats(pulse: &AtomicU64) -> bool {
    let (start, seen) = (Instant::now(), pulse.load(Ordering::Relaxed));
    loop {
        spin_for(LOOK);
        let beats = pulse.load(Ordering::Relaxed) != seen;
        if beats || start.elapsed() > LONG_LOOK {
            return beats;
        }
    }
}

pub fn measure(visits: u32) -> Vec<Busy> {
    vec![
        against_a_busy_owner(&Std::default(), visits, PATIENCE),
        against_a_busy_owner(&ParkingLot::default(), visits, PATIENCE),
        against_a_busy_owner(&Ours::mutex(), visits, PATIENCE),
        against_a_busy_owner(&Ours::biased(), visits, PATIENCE),
    ]
}

fn against_a_busy_owner<S: Subject>(subject: &S, visits: u32, patience: Duration) -> Busy {
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
        let (mut made, mut enough) = (0, Duration::MAX);
        while made < visits || samples.is_empty() && start.elapsed() < enough {
            made += 1;
            if made == visits {
                enough = start.elapsed() + patience;
            }
            // Other programs run here too: only a visit to an owner that is at work at this moment counts.
            let at_work = beats(pulse);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Lines;

    /// No lock, and a busy thread that stands still for a while each time.
    struct Standing {
        busy: std::sync::Mutex<Option<std::thread::ThreadId>>,
        times: AtomicU64,
        pause: Duration,
    }

    impl Standing {
        fn new(times: u64, pause: Duration) -> Self {
            Standing { busy: None.into(), times: AtomicU64::new(times), pause }
        }
    }

    impl Subject for Standing {
        fn name(&self) -> &'static str {
            "standing"
        }
        fn begin(&self) {
            *self.busy.lock().unwrap() = Some(std::thread::current().id());
        }
        fn once(&self) {
            let busy = *self.busy.lock().unwrap() == Some(std::thread::current().id());
            if busy && self.times.load(Ordering::Relaxed) > 0 {
                self.times.fetch_sub(1, Ordering::Relaxed);
                std::thread::sleep(self.pause);
            }
        }
        fn nothing(&self) {}
        fn writing(&self, _: &Lines) {}
    }

    #[test]
    fn who_never_meets_the_busy_thread_says_so() {
        let row = against_a_busy_owner(
            &Standing::new(16, Duration::from_millis(200)),
            3,
            Duration::from_millis(20),
        );
        assert_eq!((row.visits, row.foreign_p50_ns, row.foreign_p99_ns), (0, None, None));
    }

    #[test]
    fn who_meets_it_late_has_waited() {
        let row = against_a_busy_owner(
            &Standing::new(1, Duration::from_millis(100)),
            3,
            Duration::from_secs(60),
        );
        assert!(row.visits > 0 && row.foreign_p50_ns.is_some(), "{row:?}");
    }
}

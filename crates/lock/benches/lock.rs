//! What a lock costs: uncontended by its owner, and taken by a foreign thread from a busy owner.
//!
//! `cargo bench -p soloring-lock`; with `-- FILE` the figures also go to FILE as JSON. All rows of one run
//! were measured in turns, so their ratios are comparable; the absolute numbers are the machine's.

use soloring_lock::{CtxLock, LockMode, Policy, current_thread};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A lock around a counter, whoever made it.
trait Subject: Sync {
    fn name(&self) -> &'static str;
    /// Called by the thread that will be the busy one.
    fn begin(&self) {}
    /// Lock, count, unlock.
    fn once(&self);
    /// Lock, unlock.
    fn nothing(&self);
    /// Lock, write a word of each of eight cache lines, unlock.
    fn writing(&self, lines: &Lines);
    /// Said beside the figures.
    fn remark(&self) -> String {
        String::new()
    }
}

/// What a critical section writes to: eight cache lines.
struct Lines([AtomicU64; 64]);

impl Lines {
    #[inline(always)]
    fn write(&self) {
        for line in self.0.chunks(8) {
            line[0].store(1, Ordering::Relaxed);
        }
    }
}

struct Nothing(AtomicU64);
struct Std(std::sync::Mutex<u64>);
struct ParkingLot(parking_lot::Mutex<u64>);
struct Ours {
    name: &'static str,
    lock: CtxLock<u64>,
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
    fn remark(&self) -> String {
        let stats = self.lock.stats();
        format!("{}, {} elided, {} foreign", stats.mode.name(), stats.owner_elided, stats.foreign)
    }
);

/// The same loops without a lock.
impl Subject for Nothing {
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

fn forced() -> Ours {
    Ours { name: "CtxLock, mutex mode", lock: CtxLock::new_in(0, Policy::ForceMutex) }
}

fn biased() -> Ours {
    let lock = CtxLock::new(0);
    lock.lock().unwrap().bias_to(current_thread());
    assert_eq!(lock.stats().mode, LockMode::Biased, "no membarrier here: nothing to measure");
    Ours { name: "CtxLock, biased", lock }
}

/// Nanoseconds per turn of the three loops.
#[derive(Clone, Default)]
struct Turns {
    nothing: Vec<f64>,
    once: Vec<f64>,
    writing: Vec<f64>,
}

const BATCH: u64 = 20_000;

fn timed(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        body();
    }
    start.elapsed().as_nanos() as f64 / BATCH as f64
}

/// One round of all three loops. The subject's address goes through `black_box` at each turn.
fn round<S: Subject>(subject: &S, lines: &Lines, turns: &mut Turns) {
    turns.nothing.push(timed(|| black_box(subject).nothing()));
    turns.once.push(timed(|| black_box(subject).once()));
    turns.writing.push(timed(|| black_box(subject).writing(black_box(lines))));
}

struct Row {
    name: &'static str,
    nothing: f64,
    once: f64,
    writing: f64,
}

/// Nobody else is there: the medians over the rounds, measured in turns, so that a disturbance of the
/// machine hits all rows.
fn uncontended() -> [Row; 5] {
    let nothing = Nothing(0.into());
    let (standard, parking) = (Std(0.into()), ParkingLot(parking_lot::Mutex::new(0)));
    let (mutex, owner) = (forced(), biased());
    let lines = Lines([const { AtomicU64::new(0) }; 64]);
    let mut turns = [const { Turns { nothing: vec![], once: vec![], writing: vec![] } }; 5];
    mutex.begin();
    for _ in 0..201 {
        round(&nothing, &lines, &mut turns[0]);
        round(&standard, &lines, &mut turns[1]);
        round(&parking, &lines, &mut turns[2]);
        round(&mutex, &lines, &mut turns[3]);
        round(&owner, &lines, &mut turns[4]);
    }
    let names =
        [nothing.name(), standard.name(), parking.name(), mutex.name(), owner.name()].into_iter();
    let mut rows = names.zip(turns).map(|(name, turns)| Row {
        name,
        nothing: percentile(turns.nothing, 50),
        once: percentile(turns.once, 50),
        writing: percentile(turns.writing, 50),
    });
    std::array::from_fn(|_| rows.next().expect("five names, five rows"))
}

fn percentile(mut samples: Vec<f64>, percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() - 1) * percent / 100]
}

struct Contended {
    /// How many found the busy thread at work.
    visits: usize,
    p50_ns: f64,
    p99_ns: f64,
    /// The busy thread's own acquisitions per microsecond meanwhile.
    owner_per_us: f64,
}

fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Between two visits. Short enough, and the lock finds that the bias does not pay.
const PAUSE: Duration = Duration::from_micros(150);

/// One thread locks all the time; another comes after every [`PAUSE`].
fn against_a_busy_owner<S: Subject>(subject: &S) -> Contended {
    const VISITS: usize = 8_000;
    let (stop, pulse) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (stop, pulse) = (&stop, &pulse);
        let owner = s.spawn(move || {
            subject.begin();
            ready.send(()).unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    black_box(subject).once();
                }
                n += 64;
                pulse.store(n, Ordering::Relaxed);
            }
            n
        });
        is_ready.recv().unwrap();
        let start = Instant::now();
        let mut samples = Vec::with_capacity(VISITS);
        for _ in 0..VISITS {
            // Other programs run here too: only a visit to an owner that is at work at this moment counts.
            let seen = pulse.load(Ordering::Relaxed);
            spin_for(Duration::from_micros(2));
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
        let owner_per_us = owner.join().unwrap() as f64 / elapsed.as_micros() as f64;
        assert!(!samples.is_empty(), "the two threads never ran at the same time");
        Contended {
            visits: samples.len(),
            p50_ns: percentile(samples.clone(), 50),
            p99_ns: percentile(samples, 99),
            owner_per_us,
        }
    })
}

fn main() {
    let json = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let base = uncontended();
    let mut json_rows = Vec::new();
    println!("ns per turn by one thread, nobody else there (median of 201 rounds);");
    println!("in brackets: without the loop's own cost, as a part of std's mutex\n");
    println!(
        "  {:24} {:>16} {:>16} {:>22}",
        "", "lock+unlock", "around a count", "around 8 lines written"
    );
    for row in &base {
        let part = |of: fn(&Row) -> f64| (of(row) - of(&base[0])) / (of(&base[1]) - of(&base[0]));
        let (nothing, once, writing) = (part(|r| r.nothing), part(|r| r.once), part(|r| r.writing));
        println!(
            "  {:24} {:8.2} ({nothing:.3}) {:8.2} ({once:.3}) {:14.2} ({writing:.3})",
            row.name, row.nothing, row.once, row.writing
        );
        json_rows.push(format!(
            "{{\"lock\":\"{}\",\"lock_unlock_ns\":{:.3},\"around_count_ns\":{:.3},\
             \"around_8_lines_ns\":{:.3}}}",
            row.name, row.nothing, row.once, row.writing
        ));
    }

    println!("\none acquisition by a second thread while the first locks all the time\n");
    println!(
        "  {:24} {:>8} {:>8} {:>16} {:>8}",
        "", "p50 ns", "p99 ns", "owner's per us", "visits"
    );
    let mut busy = |name: &str, remark: String, found: Contended| {
        let Contended { visits, p50_ns, p99_ns, owner_per_us } = found;
        println!("  {name:24} {p50_ns:8.0} {p99_ns:8.0} {owner_per_us:16.1} {visits:8}   {remark}");
        json_rows.push(format!(
            "{{\"lock\":\"{name}\",\"foreign_p50_ns\":{p50_ns:.0},\"foreign_p99_ns\":{p99_ns:.0},\
             \"owner_per_us\":{owner_per_us:.2}}}"
        ));
    };
    let subject = Std(0.into());
    busy(subject.name(), String::new(), against_a_busy_owner(&subject));
    let subject = ParkingLot(parking_lot::Mutex::new(0));
    busy(subject.name(), String::new(), against_a_busy_owner(&subject));
    for subject in [forced(), biased_later()] {
        let found = against_a_busy_owner(&subject);
        busy(subject.name(), subject.remark(), found);
    }
    println!(
        "  {:24} {:8.0} {:8}   (the clock's own part of each sample)",
        "nothing",
        clock_ns(),
        ""
    );
    if let Some(path) = json {
        let text = format!("[{}]\n", json_rows.join(",\n "));
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

/// What two looks at the clock take.
fn clock_ns() -> f64 {
    let samples = (0..10_000).map(|_| Instant::now().elapsed().as_nanos() as f64);
    percentile(samples.collect(), 50)
}

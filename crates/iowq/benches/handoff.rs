//! What a hand-over to a worker costs, beside std's channel and the kernel's io-wq, in one run.
//!
//! `latency`: queue one work that does nothing, wait (spinning) until it has run. `caller`: the
//! time inside `queue` alone, with the worker asleep. `batch`: queue 64, wait for all; per batch.
//! The kernel's figures are a NOP with IOSQE_ASYNC, reaped by spinning on the completion ring; they
//! are left out where the kernel refuses io_uring.
#![allow(unsafe_code)]

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement,
};
use io_uring::{IoUring, opcode, squeue};
use soloring_iowq::{Class, Config, Interrupt, Work, Wq};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const BATCH: u64 = 64;

struct Count(Arc<AtomicU64>);

impl Work for Count {
    fn run(self: Box<Self>, _: &Interrupt) {
        // Release: pairs with the Acquire in `wait_for`.
        self.0.fetch_add(1, Ordering::Release);
    }
    fn cancelled(self: Box<Self>) {
        unreachable!("nothing is cancelled here");
    }
    fn failed(self: Box<Self>, errno: i32) {
        panic!("no worker: errno {errno}");
    }
}

fn wait_for(count: &AtomicU64, value: u64) {
    // Acquire: pairs with the Release of whoever counts.
    while count.load(Ordering::Acquire) < value {
        std::hint::spin_loop();
    }
}

/// Lets the workers go to sleep.
fn settle() {
    std::thread::sleep(Duration::from_micros(200));
}

trait Side {
    fn name(&self) -> &'static str;
    /// Hands over `n` works; they end some time later.
    fn post(&mut self, n: u64);
    /// Waits until all that was handed over has ended.
    fn wait(&mut self);
}

struct Ours {
    wq: Arc<Wq>,
    done: Arc<AtomicU64>,
    posted: u64,
}

impl Ours {
    fn new() -> Self {
        let wq = Wq::new(Config::for_ring(64));
        Self { wq, done: Arc::default(), posted: 0 }
    }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        "soloring"
    }
    fn post(&mut self, n: u64) {
        for _ in 0..n {
            self.wq.enqueue(Box::new(Count(Arc::clone(&self.done))), Class::Bounded, None);
        }
        self.wq.kick();
        self.posted += n;
    }
    fn wait(&mut self) {
        wait_for(&self.done, self.posted);
    }
}

struct Channel {
    to: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    done: Arc<AtomicU64>,
    posted: u64,
}

impl Channel {
    fn new() -> Self {
        let (to, from) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::spawn(move || from.into_iter().for_each(|f| f()));
        Self { to, done: Arc::default(), posted: 0 }
    }
}

impl Side for Channel {
    fn name(&self) -> &'static str {
        "std channel, one thread"
    }
    fn post(&mut self, n: u64) {
        for _ in 0..n {
            let done = Arc::clone(&self.done);
            // Release: pairs with the Acquire in `wait_for`.
            let body = move || _ = done.fetch_add(1, Ordering::Release);
            self.to.send(Box::new(body)).expect("the thread lives");
        }
        self.posted += n;
    }
    fn wait(&mut self) {
        wait_for(&self.done, self.posted);
    }
}

struct Kernel {
    ring: IoUring,
    outstanding: u64,
}

impl Side for Kernel {
    fn name(&self) -> &'static str {
        "kernel io-wq"
    }
    fn post(&mut self, n: u64) {
        for _ in 0..n {
            let nop = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
            // SAFETY: a NOP refers to no memory.
            unsafe { self.ring.submission().push(&nop) }.expect("the queue has room");
        }
        self.ring.submit().expect("submitted");
        self.outstanding += n;
    }
    fn wait(&mut self) {
        while self.outstanding > 0 {
            let reaped = self.ring.completion().count() as u64;
            self.outstanding -= reaped;
            std::hint::spin_loop();
        }
    }
}

type Group<'a> = BenchmarkGroup<'a, measurement::WallTime>;

fn bench(c: &mut Criterion, name: &str, per_iter: u64, f: impl Fn(&mut dyn Side, u64) -> Duration) {
    let mut sides: Vec<Box<dyn Side>> = vec![Box::new(Ours::new()), Box::new(Channel::new())];
    match IoUring::new(256) {
        Ok(ring) => sides.push(Box::new(Kernel { ring, outstanding: 0 })),
        Err(e) => eprintln!("the kernel's ring is left out: {e}"),
    }
    let mut group: Group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(per_iter));
    for mut side in sides {
        group.bench_function(side.name(), |b| b.iter_custom(|iters| f(side.as_mut(), iters)));
    }
}

fn handoff(c: &mut Criterion) {
    bench(c, "latency, worker just asleep", 1, |side, iters| {
        let mut total = Duration::ZERO;
        for _ in 0..iters {
            settle();
            let start = Instant::now();
            side.post(1);
            side.wait();
            total += start.elapsed();
        }
        total
    });
    bench(c, "latency, back to back", 1, |side, iters| {
        let start = Instant::now();
        for _ in 0..iters {
            side.post(1);
            side.wait();
        }
        start.elapsed()
    });
    bench(c, "caller, worker asleep", 1, |side, iters| {
        let mut total = Duration::ZERO;
        for _ in 0..iters {
            settle();
            let start = Instant::now();
            side.post(1);
            total += start.elapsed();
            side.wait();
        }
        total
    });
    bench(c, "batch of 64", BATCH, |side, iters| {
        let start = Instant::now();
        for _ in 0..iters {
            side.post(BATCH);
            side.wait();
        }
        start.elapsed()
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(20);
    targets = handoff
}
criterion_main!(benches);

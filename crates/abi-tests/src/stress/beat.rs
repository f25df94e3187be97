//! The watchdog: every thread says what it does; one that says nothing for too long ends the run.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A thread's sign of life.
pub struct Beat {
    name: String,
    count: AtomicU64,
    finished: AtomicBool,
    doing: Mutex<&'static str>,
}

impl Beat {
    pub fn new(name: String) -> Beat {
        Beat {
            name,
            count: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            doing: Mutex::new("starting"),
        }
    }

    /// Called before each step.
    pub fn at(&self, doing: &'static str) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }
}

/// Returns when all threads have finished; calls `tick` now and then. Aborts with a list of what each
/// thread does when one of them makes no step for `patience_s` seconds.
pub fn watch(beats: &[Arc<Beat>], patience_s: u64, tick: impl Fn()) {
    let mut seen: Vec<(u64, Instant)> = beats.iter().map(|_| (0, Instant::now())).collect();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        tick();
        let mut alive = false;
        let mut hangs = false;
        for (beat, (count, since)) in beats.iter().zip(&mut seen) {
            if beat.finished.load(Ordering::Relaxed) {
                continue;
            }
            alive = true;
            let now = beat.count.load(Ordering::Relaxed);
            if now != *count {
                (*count, *since) = (now, Instant::now());
            }
            hangs |= since.elapsed() > Duration::from_secs(patience_s);
        }
        if !alive {
            return;
        }
        if hangs {
            dump(beats, &seen);
            std::process::abort();
        }
    }
}

fn dump(beats: &[Arc<Beat>], seen: &[(u64, Instant)]) {
    eprintln!("a thread stands still:");
    for (beat, (count, since)) in beats.iter().zip(seen) {
        let doing = *beat.doing.lock().unwrap_or_else(PoisonError::into_inner);
        let finished = beat.finished.load(Ordering::Relaxed);
        let since = since.elapsed().as_secs();
        eprintln!("  {}: step {count}, {since} s in: {doing}, finished: {finished}", beat.name);
    }
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for task in tasks {
        let read = |what| std::fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let (name, at) = (read("comm"), read("syscall"));
        let id = task.file_name();
        eprintln!("  thread {}: {} in system call {}", id.display(), name.trim(), at.trim());
    }
}

//! `std_edges CASE [racy]`: shows that `scripts/sanitize/std_sync.c` tells the sanitizer what it has to, and no more.
//!
//! Each case lets threads hand plain data to each other by one means of the standard library, crowded, so that
//! its slow path is taken: no report may come. With `racy` the same traffic goes on and the data is touched
//! beside it: a report must come. Only for `scripts/sanitize.sh`: without a sanitizer it says nothing.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::sync::{Arc, Mutex, Once, RwLock};
use std::time::Duration;

struct Data(UnsafeCell<u64>);

// SAFETY: a lie when `racy`, which is the point; otherwise each case orders the accesses.
unsafe impl Sync for Data {}

impl Data {
    const fn new() -> Data {
        Data(UnsafeCell::new(0))
    }

    fn touch(&self) {
        // SAFETY: as above. Volatile, so that it stays where it is written.
        unsafe { self.0.get().write_volatile(self.0.get().read_volatile() + 1) }
    }

    fn look(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.0.get().read_volatile() }
    }
}

const THREADS: usize = 4;
const ROUNDS: usize = 300;

fn pause() {
    std::thread::sleep(Duration::from_micros(20));
}

fn crowd(body: impl Fn() + Sync) {
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(&body);
        }
    });
}

fn mutex(racy: bool) {
    let (data, lock) = (Data::new(), Mutex::new(()));
    crowd(|| {
        for _ in 0..ROUNDS {
            if racy {
                data.touch();
            }
            let _held = lock.lock().unwrap();
            pause();
            data.touch();
        }
    });
}

fn rwlock(racy: bool) {
    let (data, lock) = (Data::new(), RwLock::new(()));
    crowd(|| {
        for round in 0..ROUNDS {
            if racy {
                data.touch();
            }
            if round % 3 == 0 {
                let _held = lock.write().unwrap();
                pause();
                data.touch();
            } else {
                let _held = lock.read().unwrap();
                pause();
                data.look();
            }
        }
    });
}

fn once(racy: bool) {
    for _ in 0..ROUNDS {
        let (data, once) = (Data::new(), Once::new());
        crowd(|| {
            if racy {
                data.touch();
            }
            once.call_once(|| {
                pause();
                data.touch();
            });
            data.look();
        });
    }
}

fn scope(racy: bool) {
    let data = Data::new();
    for _ in 0..ROUNDS {
        std::thread::scope(|s| {
            s.spawn(|| data.touch());
            if racy {
                data.touch();
            }
        });
        data.touch();
    }
}

fn arc(racy: bool) {
    struct Touched(Data);
    impl Drop for Touched {
        fn drop(&mut self) {
            self.0.touch();
        }
    }
    for _ in 0..ROUNDS {
        let data = Arc::new(Touched(Data::new()));
        // One thread writes before it lets go; whoever is last writes when it drops.
        let theirs = Arc::clone(&data);
        std::thread::spawn(move || {
            theirs.0.touch();
            drop(theirs);
        });
        if racy {
            data.0.touch();
        }
        drop(data);
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (case, racy) = (args.next().unwrap_or_default(), args.next().is_some());
    match &*case {
        "mutex" => mutex(racy),
        "rwlock" => rwlock(racy),
        "once" => once(racy),
        "scope" => scope(racy),
        "arc" => arc(racy),
        _ => panic!("mutex, rwlock, once, scope or arc"),
    }
}

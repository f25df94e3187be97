//! The order of the tests, and which of them may run beside each other.
//!
//! Most of the suite sleeps more than it computes, so several tests run at a time; those that
//! measure time or share a port or a system-wide limit (`data/alone.txt`) run alone, at the end.

use crate::kernel::Entry;
use crate::lists;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Lets tests run beside each other or alone.
pub struct Schedule {
    alone: BTreeSet<&'static str>,
    /// Held shared by a test that runs beside others, exclusively by one that runs alone.
    machine: RwLock<()>,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule::new()
    }
}

impl Schedule {
    pub fn new() -> Schedule {
        Schedule { alone: lists::alone().into_keys().collect(), machine: RwLock::new(()) }
    }

    /// The tests in the order to start them in: the longest first, since the run lasts as long as the
    /// last of them, and those that run alone at the end, so that the others do not wait for them.
    pub fn order<'a>(&self, table: &BTreeMap<&'a str, Entry>) -> Vec<&'a str> {
        let mut names: Vec<&str> = table.keys().copied().collect();
        names.sort_by_key(|n| (self.alone.contains(n), Reverse(table[n].wall), *n));
        names
    }

    /// Runs something for a test, beside others or alone as the test needs it.
    pub fn with<T>(&self, name: &str, run: impl FnOnce() -> T) -> T {
        if self.alone.contains(name) { self.by_itself(run) } else { self.beside_others(run) }
    }

    /// Runs something with no test beside it.
    pub fn by_itself<T>(&self, run: impl FnOnce() -> T) -> T {
        let _guard = self.machine.write().unwrap_or_else(|e| e.into_inner());
        run()
    }

    fn beside_others<T>(&self, run: impl FnOnce() -> T) -> T {
        let _guard = self.machine.read().unwrap_or_else(|e| e.into_inner());
        run()
    }

    /// Runs all tests of a table, at most `jobs` at a time.
    pub fn run<'a>(
        &self,
        table: &BTreeMap<&'a str, Entry>,
        jobs: usize,
        run: impl Fn(&'a str, Entry) + Sync,
    ) {
        let order = self.order(table);
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(name) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.with(name, || run(name, table[name]));
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;
    use std::sync::Mutex;

    #[test]
    fn each_test_is_run_once_and_those_alone_come_last() {
        let table = kernel::table();
        let schedule = Schedule::new();
        let order = schedule.order(&table);
        assert_eq!(order[0], "send-zerocopy");
        let first_alone = order.iter().position(|n| schedule.alone.contains(n));
        let rest = &order[first_alone.unwrap_or(order.len())..];
        assert!(rest.iter().all(|n| schedule.alone.contains(n)));

        let ran = Mutex::new(Vec::new());
        schedule.run(&table, 3, |name, _| ran.lock().unwrap().push(name));
        let mut ran = ran.into_inner().unwrap();
        ran.sort_unstable();
        assert_eq!(ran, table.keys().copied().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_runs_beside_one_that_is_alone() {
        let schedule = Schedule::new();
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for alone in [true, false, true, false] {
                let (schedule, inside) = (&schedule, &inside);
                scope.spawn(move || {
                    for _ in 0..200 {
                        if alone {
                            schedule.by_itself(|| assert_eq!(inside.load(Ordering::Relaxed), 0));
                        } else {
                            schedule.beside_others(|| {
                                inside.fetch_add(1, Ordering::Relaxed);
                                thread::yield_now();
                                inside.fetch_sub(1, Ordering::Relaxed);
                            });
                        }
                    }
                });
            }
        });
    }
}

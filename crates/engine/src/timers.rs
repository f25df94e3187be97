//! Deadlines in order, per clock: insert, remove and expire in O(log n).

use std::collections::BTreeMap;

/// A timer's place: its deadline and a number that makes it unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerKey {
    pub clock: i32,
    pub deadline_ns: u64,
    seq: u64,
}

/// Deadlines on one clock, in nanoseconds of that clock.
#[derive(Default)]
struct Queue {
    by_deadline: BTreeMap<(u64, u64), u32>,
}

/// The timers of one ring.
#[derive(Default)]
pub struct Timers {
    monotonic: Queue,
    boottime: Queue,
    realtime: Queue,
    seq: u64,
    count: usize,
}

/// The clocks that a timeout can run on.
pub const CLOCKS: [i32; 3] = [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, libc::CLOCK_REALTIME];

impl Timers {
    fn queue(&mut self, clock: i32) -> &mut Queue {
        match clock {
            libc::CLOCK_BOOTTIME => &mut self.boottime,
            libc::CLOCK_REALTIME => &mut self.realtime,
            _ => &mut self.monotonic,
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Adds a deadline for request `index`.
    pub fn insert(&mut self, clock: i32, deadline_ns: u64, index: u32) -> TimerKey {
        self.seq += 1;
        self.count += 1;
        let seq = self.seq;
        self.queue(clock).by_deadline.insert((deadline_ns, seq), index);
        TimerKey { clock, deadline_ns, seq }
    }

    /// Removes a timer; false when it is not there any more.
    pub fn remove(&mut self, key: TimerKey) -> bool {
        let found = self.queue(key.clock).by_deadline.remove(&(key.deadline_ns, key.seq)).is_some();
        self.count -= found as usize;
        found
    }

    /// Earliest deadline on `clock`, in nanoseconds of that clock.
    pub fn earliest(&self, clock: i32) -> Option<u64> {
        let queue = match clock {
            libc::CLOCK_BOOTTIME => &self.boottime,
            libc::CLOCK_REALTIME => &self.realtime,
            _ => &self.monotonic,
        };
        queue.by_deadline.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes the first timer of `clock` that is due at `now_ns`.
    pub fn pop_due(&mut self, clock: i32, now_ns: u64) -> Option<u32> {
        let queue = self.queue(clock);
        let entry = queue.by_deadline.first_entry()?;
        if entry.key().0 > now_ns {
            return None;
        }
        let index = entry.remove();
        self.count -= 1;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_timers_come_in_order_and_removed_ones_never() {
        let mut t = Timers::default();
        let late = t.insert(libc::CLOCK_MONOTONIC, 30, 3);
        t.insert(libc::CLOCK_MONOTONIC, 10, 1);
        t.insert(libc::CLOCK_MONOTONIC, 10, 2);
        t.insert(libc::CLOCK_REALTIME, 5, 9);
        assert_eq!(t.earliest(libc::CLOCK_MONOTONIC), Some(10));
        assert_eq!(t.pop_due(libc::CLOCK_MONOTONIC, 9), None);
        assert_eq!(t.pop_due(libc::CLOCK_MONOTONIC, 20), Some(1));
        assert_eq!(t.pop_due(libc::CLOCK_MONOTONIC, 20), Some(2));
        assert!(t.remove(late) && !t.remove(late));
        assert_eq!(t.pop_due(libc::CLOCK_REALTIME, 5), Some(9));
        assert!(t.is_empty());
    }
}

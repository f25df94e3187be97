//! The watched files of one ring: what is known of each, found by index and by descriptor number.
//!
//! Exclusive to the holder of the ring lock.

use crate::fds;
use crate::req::NIL;
use crate::waiters::Queue;

/// One watched file.
pub struct Watch {
    /// Changes with every registration: events of earlier ones are recognised as stale.
    pub generation: u32,
    /// The number it is found under; -1 once the number no longer names the file, or for a lone watch.
    pub key: i32,
    /// The number it is registered under in epoll; -1 when it is not.
    pub registered: i32,
    /// The duplicate that holds the file; -1 while there is none.
    pub dup: i32,
    /// Events of the registration.
    pub mask: u32,
    /// Epoll tells its readiness for as long as it lasts, and not only when it begins.
    pub level: bool,
    /// Serves one multishot poll, and nobody else.
    pub edges: bool,
    /// Is among those that hold nothing yet.
    pub listed: bool,
    /// Is among those of doubtful identity.
    pub doubted: bool,
    /// Events that nobody waited for since the last arming.
    pub idle: u8,
    /// First attempts to receive that found nothing, in a row.
    pub vain: u8,
    /// How often its level was of no use lately.
    pub unsteady: u8,
    pub queue: Queue,
}

impl Watch {
    fn new(key: i32) -> Self {
        Watch {
            generation: 0,
            key,
            registered: -1,
            dup: -1,
            mask: 0,
            level: false,
            edges: false,
            listed: false,
            doubted: false,
            idle: 0,
            vain: 0,
            unsteady: 0,
            queue: Queue::default(),
        }
    }

    pub fn is_waited_on(&self) -> bool {
        self.queue.waiters() > 0
    }

    pub fn next_generation(&self) -> u32 {
        self.generation.wrapping_add(1).max(1)
    }

    pub fn close_dup(&mut self) {
        fds::close_private(std::mem::replace(&mut self.dup, -1));
    }
}

/// Watch indices by descriptor number, in the program's range and in ours.
#[derive(Default)]
struct Numbers {
    low: Vec<u32>,
    high: Vec<u32>,
}

impl Numbers {
    fn get(&self, fd: i32) -> u32 {
        let base = fds::base();
        let (side, at) = if fd < base { (&self.low, fd) } else { (&self.high, fd - base) };
        side.get(at as usize).copied().unwrap_or(NIL)
    }

    fn set(&mut self, fd: i32, watch: u32) {
        let base = fds::base();
        let (side, at) = if fd < base { (&mut self.low, fd) } else { (&mut self.high, fd - base) };
        let at = at as usize;
        if side.len() <= at {
            side.resize((at + 1).next_power_of_two(), NIL);
        }
        side[at] = watch;
    }
}

pub struct WatchList {
    /// Id of the ring, for the marks in the table of descriptors.
    ring: u64,
    list: Vec<Watch>,
    free: Vec<u32>,
    by_number: Numbers,
}

impl WatchList {
    pub fn new(ring: u64) -> Self {
        WatchList { ring, list: Vec::new(), free: Vec::new(), by_number: Numbers::default() }
    }

    /// Id of the ring that these are the watches of.
    pub fn ring(&self) -> u64 {
        self.ring
    }

    #[inline]
    pub fn at(&mut self, watch: u32) -> &mut Watch {
        &mut self.list[watch as usize]
    }

    #[inline]
    pub fn get(&self, watch: u32) -> &Watch {
        &self.list[watch as usize]
    }

    /// Any index, also one that an event brought or [`NIL`].
    #[inline]
    pub fn get_mut(&mut self, watch: u32) -> Option<&mut Watch> {
        self.list.get_mut(watch as usize)
    }

    /// The watch that is found under `fd`, or [`NIL`].
    #[inline]
    pub fn find(&self, fd: i32) -> u32 {
        self.by_number.get(fd)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Watch> {
        self.list.iter()
    }

    /// A watch that is registered nowhere, found under `key` unless that is -1.
    pub fn make(&mut self, key: i32) -> u32 {
        let mut fresh = Watch::new(key);
        let index = if let Some(index) = self.free.pop() {
            // What names this index goes on: events under way, and the lists that it is in.
            let old = self.get(index);
            fresh.generation = old.generation;
            (fresh.listed, fresh.doubted) = (old.listed, old.doubted);
            *self.at(index) = fresh;
            index
        } else {
            self.list.push(fresh);
            self.list.len() as u32 - 1
        };
        if key >= 0 {
            self.by_number.set(key, index);
            fds::mark_watched(key, self.ring);
        }
        index
    }

    /// The watch is no longer the one of its number.
    pub fn forget_number(&mut self, watch: u32) {
        let key = std::mem::replace(&mut self.at(watch).key, -1);
        if key >= 0 {
            self.by_number.set(key, NIL);
            fds::unmark_watched(key, self.ring);
        }
    }

    /// Frees a watch that nobody waits on. What is left of its registration has become stale.
    pub fn discard(&mut self, watch: u32) {
        self.forget_number(watch);
        let w = self.at(watch);
        debug_assert!(!w.is_waited_on());
        w.close_dup();
        w.generation = w.next_generation();
        w.registered = -1;
        self.free.push(watch);
    }

    /// Whether closing the number of `watch` is sure to be announced: other rings may have taken our
    /// mark along, and there is none beyond the table of descriptors.
    pub fn is_marked(&self, watch: u32) -> bool {
        match fds::watchers(self.get(watch).key) {
            fds::Watchers::None => false,
            fds::Watchers::One(ring) => ring == self.ring,
            fds::Watchers::Many => true,
        }
    }

    /// Closes all duplicates and takes back all marks.
    pub fn clear(&mut self) {
        for w in &mut self.list {
            w.close_dup();
            let key = std::mem::replace(&mut w.key, -1);
            if key >= 0 {
                fds::unmark_watched(key, self.ring);
            }
        }
        *self = WatchList::new(self.ring);
    }

    /// In a forked child: the watches are the parent's. Memory that another thread of it may have been
    /// changing is leaked.
    pub fn forget_after_fork(&mut self) {
        for w in &self.list {
            fds::close_private(w.dup);
            if w.key >= 0 {
                fds::unmark_watched(w.key, self.ring);
            }
        }
        std::mem::forget(std::mem::replace(self, WatchList::new(self.ring)));
    }
}

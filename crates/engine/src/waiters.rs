//! The requests that wait on each watched file, in the order they came.
//!
//! Exclusive to the holder of the ring lock.

use crate::req::NIL;

/// How a waiter takes an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It takes what is there to read; when it finds nothing, nobody else would.
    Reader,
    /// As a reader, and it stays until it is cancelled.
    Repeated,
    /// A multishot poll.
    Edges,
    Other,
}

impl Kind {
    /// Whether telling it of readiness as long as there is any ends with it having taken what is there.
    pub fn takes_all(self) -> bool {
        matches!(self, Kind::Reader | Kind::Repeated)
    }
}

/// The ends of one file's row of waiters.
pub struct Queue {
    head: u32,
    tail: u32,
    waiters: u32,
    /// Waiters that are not plain readers.
    others: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { head: NIL, tail: NIL, waiters: 0, others: 0 }
    }
}

impl Queue {
    #[inline]
    pub fn waiters(&self) -> u32 {
        self.waiters
    }

    pub fn first(&self) -> u32 {
        self.head
    }

    /// Whether nobody but plain readers waits: once one of them finds nothing, none would.
    pub fn only_readers(&self) -> bool {
        self.others == 0
    }
}

/// A request's place, by slot.
#[derive(Clone, Copy)]
struct Link {
    watch: u32,
    prev: u32,
    next: u32,
    events: u32,
    reader: bool,
}

const UNLINKED: Link = Link { watch: NIL, prev: NIL, next: NIL, events: 0, reader: false };

/// The places of all requests of one ring.
#[derive(Default)]
pub struct Waiters {
    links: Vec<Link>,
}

impl Waiters {
    /// Adds `slot` to the end of the queue of `watch`.
    pub fn enlist(&mut self, queue: &mut Queue, watch: u32, slot: u32, events: u32, kind: Kind) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize((at + 1).next_power_of_two(), UNLINKED);
        }
        debug_assert!(self.links[at].watch == NIL);
        let prev = std::mem::replace(&mut queue.tail, slot);
        if prev == NIL {
            queue.head = slot;
        }
        queue.waiters += 1;
        let reader = kind == Kind::Reader;
        queue.others += !reader as u32;
        self.links[at] = Link { watch, prev, next: NIL, events, reader };
        if prev != NIL {
            self.links[prev as usize].next = slot;
        }
    }

    /// Takes a waiter out of `queue`, that of its watch.
    pub fn leave(&mut self, queue: &mut Queue, slot: u32) {
        let link = std::mem::replace(&mut self.links[slot as usize], UNLINKED);
        match link.prev {
            NIL => queue.head = link.next,
            prev => self.links[prev as usize].next = link.next,
        }
        match link.next {
            NIL => queue.tail = link.prev,
            next => self.links[next as usize].prev = link.prev,
        }
        queue.waiters -= 1;
        queue.others -= !link.reader as u32;
    }

    /// The watch that `slot` waits with, or [`NIL`].
    #[inline]
    pub fn watch_of(&self, slot: u32) -> u32 {
        self.links.get(slot as usize).map_or(NIL, |link| link.watch)
    }

    /// The waiter behind `slot`, or [`NIL`].
    pub fn next(&self, slot: u32) -> u32 {
        self.links[slot as usize].next
    }

    /// What `slot` waits for, and whether it is a plain reader.
    pub fn interest(&self, slot: u32) -> (u32, bool) {
        let link = &self.links[slot as usize];
        (link.events, link.reader)
    }

    pub fn set_events(&mut self, slot: u32, events: u32) {
        self.links[slot as usize].events = events;
    }
}

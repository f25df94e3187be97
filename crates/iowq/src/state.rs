//! What the pool's mutex guards: queued and running works, limits, idle workers.
//!
//! Pure bookkeeping: it makes no system call, starts no thread and runs no work; callers do that
//! with what it returns.
//!
//! Every operation is O(1) except `drain`, `running_workers` and the removal of a worker that idled
//! too long.

use crate::work::{Class, Ticket, Work};
use std::collections::HashMap;
use std::sync::Arc;

const NIL: u32 = u32::MAX;
const CLASSES: [Class; 2] = [Class::Bounded, Class::Unbounded];

/// `W` is the worker as the idle list and running works refer to it.
pub(crate) struct State<W> {
    slots: Vec<Slot<W>>,
    free_head: u32,
    ready: [List; 2],
    running: [u32; 2],
    pub(crate) limit: [u32; 2],
    /// A hash is present while one work with it is ready or running; the list holds the works that
    /// wait for that one.
    hashes: HashMap<u64, List>,
    /// Sleeping workers; the last to go to sleep, whose caches are warm, is woken first.
    idle: Vec<Arc<W>>,
    /// Workers that exist or are being created.
    threads: u32,
    /// A worker was woken or is being created and has not come for work yet. There is one at a
    /// time; it calls the next.
    calling: bool,
    closed: bool,
    /// Also the number of works queued so far.
    order_next: u64,
    started: u64,
}

struct Slot<W> {
    generation: u32,
    prev: u32,
    next: u32,
    class: Class,
    hash: Option<u64>,
    /// Position in the order of queueing, over both classes.
    order: u64,
    place: Place<W>,
}

enum Place<W> {
    Free,
    Ready(Box<dyn Work>),
    /// Behind another work with the same hash.
    Behind(Box<dyn Work>),
    Running(Arc<W>),
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

const EMPTY: List = List { head: NIL, tail: NIL, len: 0 };

/// Who is to be called for the work at hand.
#[must_use]
pub(crate) enum Call<W> {
    Nobody,
    Wake(Arc<W>),
    /// Create a worker; `State` counts it already.
    Create,
}

/// What a ticket stands for when a cancel comes.
pub(crate) enum Found<W> {
    Queued(Box<dyn Work>),
    Running(Arc<W>),
    Nothing,
}

impl<W> State<W> {
    pub(crate) fn new(limit: [u32; 2]) -> Self {
        Self {
            slots: Vec::new(),
            free_head: NIL,
            ready: [EMPTY; 2],
            running: [0; 2],
            limit,
            hashes: HashMap::new(),
            idle: Vec::new(),
            threads: 0,
            calling: false,
            closed: false,
            order_next: 0,
            started: 0,
        }
    }

    /// Takes the work in, or hands it back when the pool has been shut down.
    pub(crate) fn push(
        &mut self,
        work: Box<dyn Work>,
        class: Class,
        hash: Option<u64>,
    ) -> Result<Ticket, Box<dyn Work>> {
        if self.closed {
            return Err(work);
        }
        let index = self.alloc();
        let slot = &mut self.slots[index as usize];
        slot.class = class;
        slot.hash = hash;
        slot.order = self.order_next;
        self.order_next += 1;
        let generation = slot.generation;
        match hash.and_then(|h| self.hashes.get_mut(&h)) {
            Some(behind) => {
                slot.place = Place::Behind(work);
                append(&mut self.slots, behind, index);
            }
            None => {
                if let Some(h) = hash {
                    self.hashes.insert(h, EMPTY);
                }
                slot.place = Place::Ready(work);
                append(&mut self.slots, &mut self.ready[class as usize], index);
            }
        }
        Ok(Ticket(u64::from(generation) << 32 | u64::from(index)))
    }

    /// Whether a work may start now.
    fn runnable(&self, class: Class) -> bool {
        let c = class as usize;
        self.ready[c].len > 0 && self.running[c] < self.limit[c]
    }

    /// Whom to call so that what is runnable gets a worker. To be asked after every change that
    /// could have made something runnable, and carried out with the mutex released.
    pub(crate) fn call(&mut self) -> Call<W> {
        if self.calling || self.closed || !CLASSES.iter().any(|&c| self.runnable(c)) {
            return Call::Nobody;
        }
        self.calling = true;
        if let Some(worker) = self.idle.pop() {
            return Call::Wake(worker);
        }
        self.threads += 1;
        Call::Create
    }

    /// The worker that was called has come. (`close` calls all sleepers; nobody is called after
    /// it.)
    pub(crate) fn arrived(&mut self) {
        debug_assert!(self.calling || self.closed);
        self.calling = false;
    }

    /// The worker could not be created. What is there is left to the workers that exist: one that
    /// went to sleep during the attempt is to be woken. When there is none, all works are given
    /// back, for they would wait for ever.
    pub(crate) fn create_failed(&mut self) -> (Vec<Box<dyn Work>>, Call<W>) {
        self.calling = false;
        self.threads -= 1;
        if self.threads == 0 {
            return (self.drain(), Call::Nobody);
        }
        // Those that run will come for work when they are done; another attempt would fail as well.
        let call = if self.idle.is_empty() { Call::Nobody } else { self.call() };
        (Vec::new(), call)
    }

    /// Starts the oldest work that may run, on `worker`.
    pub(crate) fn take(&mut self, worker: &Arc<W>) -> Option<(u32, Box<dyn Work>)> {
        let class = CLASSES
            .into_iter()
            .filter(|&c| self.runnable(c))
            .min_by_key(|&c| self.slots[self.ready[c as usize].head as usize].order)?;
        let index = self.ready[class as usize].head;
        unlink(&mut self.slots, &mut self.ready[class as usize], index);
        self.running[class as usize] += 1;
        self.started += 1;
        let slot = &mut self.slots[index as usize];
        match std::mem::replace(&mut slot.place, Place::Running(Arc::clone(worker))) {
            Place::Ready(work) => Some((index, work)),
            _ => unreachable!("only ready works are on a ready list"),
        }
    }

    /// The work that `take` gave has ended.
    pub(crate) fn finish(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        debug_assert!(matches!(slot.place, Place::Running(_)));
        self.running[slot.class as usize] -= 1;
        self.release(index);
    }

    pub(crate) fn find(&mut self, ticket: Ticket) -> Found<W> {
        let index = ticket.0 as u32;
        let Some(slot) = self.slots.get_mut(index as usize) else { return Found::Nothing };
        if slot.generation != (ticket.0 >> 32) as u32 {
            return Found::Nothing;
        }
        if let Place::Running(worker) = &slot.place {
            return Found::Running(Arc::clone(worker));
        }
        match std::mem::replace(&mut slot.place, Place::Free) {
            Place::Ready(work) => {
                let class = slot.class as usize;
                unlink(&mut self.slots, &mut self.ready[class], index);
                self.release(index);
                Found::Queued(work)
            }
            Place::Behind(work) => {
                let behind = slot.hash.and_then(|h| self.hashes.get_mut(&h));
                let behind = behind.expect("a work waits behind a present hash");
                unlink(&mut self.slots, behind, index);
                self.free(index);
                Found::Queued(work)
            }
            Place::Free | Place::Running(_) => Found::Nothing,
        }
    }

    /// Frees the slot of a work that held its hash, and lets the next with that hash be ready.
    fn release(&mut self, index: u32) {
        if let Some(hash) = self.slots[index as usize].hash {
            let behind =
                self.hashes.get_mut(&hash).expect("a ready or running work holds its hash");
            let next = behind.head;
            if next == NIL {
                self.hashes.remove(&hash);
            } else {
                unlink(&mut self.slots, behind, next);
                let slot = &mut self.slots[next as usize];
                let class = slot.class as usize;
                match std::mem::replace(&mut slot.place, Place::Free) {
                    Place::Behind(work) => slot.place = Place::Ready(work),
                    _ => unreachable!("only waiting works are behind a hash"),
                }
                append(&mut self.slots, &mut self.ready[class], next);
            }
        }
        self.free(index);
    }

    /// Takes out everything that has not started, in the order of queueing.
    pub(crate) fn drain(&mut self) -> Vec<Box<dyn Work>> {
        let mut out = Vec::new();
        for index in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[index as usize];
            match std::mem::replace(&mut slot.place, Place::Free) {
                Place::Ready(work) => {
                    // Nobody is behind it in the end: those are taken out as well.
                    if let Some(hash) = slot.hash {
                        self.hashes.remove(&hash);
                    }
                    out.push((slot.order, work));
                    self.free(index);
                }
                Place::Behind(work) => {
                    if let Some(behind) = slot.hash.and_then(|h| self.hashes.get_mut(&h)) {
                        *behind = EMPTY;
                    }
                    out.push((slot.order, work));
                    self.free(index);
                }
                other => slot.place = other,
            }
        }
        self.ready = [EMPTY; 2];
        out.sort_unstable_by_key(|&(order, _)| order);
        out.into_iter().map(|(_, work)| work).collect()
    }

    /// No more work from now on. Gives the sleeping workers, to be woken so that they leave.
    pub(crate) fn close(&mut self) -> Vec<Arc<W>> {
        self.closed = true;
        std::mem::take(&mut self.idle)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn sleep(&mut self, worker: &Arc<W>) {
        self.idle.push(Arc::clone(worker));
    }

    /// Takes a worker off the idle list; false when somebody who called it has done so.
    pub(crate) fn stop_sleeping(&mut self, worker: &Arc<W>) -> bool {
        // Those that sleep longest, and so time out first, are at the front.
        let found = self.idle.iter().position(|w| Arc::ptr_eq(w, worker));
        found.map(|i| self.idle.remove(i)).is_some()
    }

    /// A worker leaves.
    pub(crate) fn leave(&mut self) {
        self.threads -= 1;
    }

    /// The workers that run something.
    pub(crate) fn running_workers(&self) -> impl Iterator<Item = &Arc<W>> {
        self.slots.iter().filter_map(|slot| match &slot.place {
            Place::Running(worker) => Some(worker),
            _ => None,
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        let behind: u32 = self.hashes.values().map(|list| list.len).sum();
        Counts {
            threads: self.threads,
            idle: self.idle.len() as u32,
            running: self.running,
            ready: [self.ready[0].len, self.ready[1].len],
            behind,
            queued: self.order_next,
            started: self.started,
        }
    }

    fn alloc(&mut self) -> u32 {
        if self.free_head != NIL {
            let index = self.free_head;
            self.free_head = self.slots[index as usize].next;
            return index;
        }
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 works");
        assert!(index != NIL, "fewer than 2^32 - 1 works");
        self.slots.push(Slot {
            generation: 1,
            prev: NIL,
            next: NIL,
            class: Class::Bounded,
            hash: None,
            order: 0,
            place: Place::Free,
        });
        index
    }

    fn free(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.place = Place::Free;
        // Generation 0 is for tickets that name nothing.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.next = self.free_head;
        self.free_head = index;
    }
}

/// Momentary numbers, for statistics and tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) threads: u32,
    pub(crate) idle: u32,
    pub(crate) running: [u32; 2],
    pub(crate) ready: [u32; 2],
    pub(crate) behind: u32,
    /// Works queued and works started since the beginning.
    pub(crate) queued: u64,
    pub(crate) started: u64,
}

fn append<W>(slots: &mut [Slot<W>], list: &mut List, index: u32) {
    let slot = &mut slots[index as usize];
    slot.prev = list.tail;
    slot.next = NIL;
    if list.tail == NIL {
        list.head = index;
    } else {
        slots[list.tail as usize].next = index;
    }
    list.tail = index;
    list.len += 1;
}

fn unlink<W>(slots: &mut [Slot<W>], list: &mut List, index: u32) {
    let (prev, next) = (slots[index as usize].prev, slots[index as usize].next);
    if prev == NIL {
        list.head = next;
    } else {
        slots[prev as usize].next = next;
    }
    if next == NIL {
        list.tail = prev;
    } else {
        slots[next as usize].prev = prev;
    }
    list.len -= 1;
}

//! Watches: which files a ring waits on for readiness, and the requests that wait on each.
//!
//! One epoll registration serves all requests armed on a file. It stays when they are done, so arming
//! the next one is a single EPOLL_CTL_MOD, which is a check as well: epoll knows an entry by (open file,
//! number), so a number that was closed and reused in the meantime gives ENOENT, and a file that became
//! ready unseen is reported again. What MOD finds is never lost: no edge falls between attempt and arming.
//!
//! **Who holds the file.** A watch with waiters holds its file through one duplicate, taken before the
//! program can close the number and closed with the last waiter (the peer of a socket sees its end then).
//! A program that announces its closes ([`set_close_notified`]) needs none until it closes: see
//! [`Watches::closing`]. While waiters have no duplicate, the number is theirs, and arming another one
//! on it costs nothing.
//!
//! **What must not be shared.** Multishot polls report edges as they come; the readiness that MOD
//! reports again would be a false one. Such a poll has its watch for itself: who comes second gets a watch
//! that is registered under a duplicate ([`Watches::attach_alone`]).
//!
//! Exclusive to the holder of the ring lock.

use crate::req::{File, NIL};
use crate::slab::Slab;
use crate::{fds, sys};
use soloring_abi::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// So many attempts in vain, and the next ones are left out.
const VAIN: u8 = 3;
/// So many are left out, and the next one is made.
const UNTRIED: u8 = 30;

const EDGE: u32 = libc::EPOLLET as u32;

static CLOSE_NOTIFIED: AtomicBool = AtomicBool::new(false);

/// From now on every close of a watched descriptor is announced before it happens.
pub fn set_close_notified(yes: bool) {
    CLOSE_NOTIFIED.store(yes, Ordering::Relaxed);
}

#[inline]
pub fn close_notified() -> bool {
    CLOSE_NOTIFIED.load(Ordering::Relaxed)
}

/// What is known about a file that a request comes to wait on.
#[derive(Clone, Copy, Default, Debug)]
pub struct How {
    /// The request was tried a moment ago and found the file not ready.
    pub tried: bool,
    /// The number is not the program's, and has named the same file ever since it was attached first.
    pub ours: bool,
}

/// How a waiter takes an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It takes what is there to read; when it finds nothing, nobody else would.
    Reader,
    /// A multishot poll.
    Edges,
    Other,
}

/// One watched file.
struct Watch {
    /// Changes with every registration: events of earlier ones are recognised as stale.
    generation: u32,
    /// The number it is found under; -1 once the number no longer names the file, or for a lone watch.
    key: i32,
    /// The number it is registered under in epoll; -1 when it is not.
    registered: i32,
    /// The duplicate that holds the file; -1 while there is none.
    dup: i32,
    /// Events of the registration.
    mask: u32,
    /// Serves one multishot poll, and nobody else.
    edges: bool,
    /// Is in `unheld`.
    listed: bool,
    /// Events that nobody waited for since the last arming.
    idle: u8,
    /// First attempts to receive that found nothing, in a row: see [`Watches::expects_to_wait`].
    vain: u8,
    head: u32,
    tail: u32,
    waiters: u32,
    /// Waiters that are not plain readers: see [`Watches::only_readers`].
    others: u32,
}

/// A request's place among the waiters of its watch, by slot.
#[derive(Clone, Copy)]
struct Link {
    watch: u32,
    prev: u32,
    next: u32,
    events: u32,
    reader: bool,
}

const UNLINKED: Link = Link { watch: NIL, prev: NIL, next: NIL, events: 0, reader: false };

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

/// All watches of one ring.
pub struct Watches {
    /// Id of the ring, for the marks in the table of descriptors.
    ring: u64,
    list: Vec<Watch>,
    free: Vec<u32>,
    by_number: Numbers,
    links: Vec<Link>,
    /// Watches that got waiters and hold nothing yet.
    unheld: Vec<u32>,
}

impl Watches {
    pub fn new(ring: u64) -> Self {
        Watches {
            ring,
            list: Vec::new(),
            free: Vec::new(),
            by_number: Numbers::default(),
            links: Vec::new(),
            unheld: Vec::new(),
        }
    }

    /// Id of the ring that these are the watches of.
    pub fn ring(&self) -> u64 {
        self.ring
    }

    fn at(&mut self, watch: u32) -> &mut Watch {
        &mut self.list[watch as usize]
    }

    fn make(&mut self, key: i32) -> u32 {
        let mut fresh = Watch {
            generation: 0,
            key,
            registered: -1,
            dup: -1,
            mask: 0,
            edges: false,
            listed: false,
            idle: 0,
            vain: 0,
            head: NIL,
            tail: NIL,
            waiters: 0,
            others: 0,
        };
        let index = if let Some(index) = self.free.pop() {
            fresh.generation = self.list[index as usize].generation;
            fresh.listed = self.list[index as usize].listed;
            self.list[index as usize] = fresh;
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
    fn forget_number(&mut self, watch: u32) {
        let key = std::mem::replace(&mut self.at(watch).key, -1);
        if key >= 0 {
            self.by_number.set(key, NIL);
            fds::unmark_watched(key, self.ring);
        }
    }

    /// Registers `watch` for `mask` under `number` with a new name, and leaves it as it was on error.
    fn ctl(&mut self, epfd: i32, watch: u32, op: i32, number: i32, mask: u32) -> Result<(), Errno> {
        let w = self.at(watch);
        let generation = w.generation.wrapping_add(1).max(1);
        let data = (generation as u64) << 32 | watch as u64;
        sys::epoll_ctl(epfd, op, number, mask | EDGE, data)?;
        w.generation = generation;
        w.registered = number;
        w.mask = mask;
        w.idle = 0;
        Ok(())
    }

    /// As [`Self::ctl`] with ADD, for a number whose entry may be there already from earlier.
    fn add(&mut self, epfd: i32, watch: u32, number: i32, mask: u32) -> Result<(), Errno> {
        match self.ctl(epfd, watch, libc::EPOLL_CTL_ADD, number, mask) {
            Err(Errno::EEXIST) => self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, number, mask),
            other => other,
        }
    }

    /// The watch of the file that `fd` names now, registered for `events` at least.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EPERM for a file that cannot be polled, EBADF, ENOMEM, ENOSPC, ELOOP, EINVAL.
    pub fn attach(
        &mut self,
        epfd: i32,
        fd: i32,
        events: u32,
        how: How,
        slab: &mut Slab,
    ) -> Result<u32, Errno> {
        let found = self.by_number.get(fd);
        if found == NIL {
            let watch = self.make(fd);
            return match self.add(epfd, watch, fd, events) {
                Ok(()) => Ok(watch),
                Err(e) => {
                    self.discard(watch);
                    Err(e)
                }
            };
        }
        let w = self.at(found);
        let wanted = if w.waiters > 0 { w.mask | events } else { events };
        if w.registered < 0 {
            self.add(epfd, found, fd, wanted)?;
            return Ok(found);
        }
        // With waiters and no duplicate: the program has not run since they were armed, or would have told.
        let same = how.ours || w.waiters > 0 && w.dup < 0;
        if how.tried && same && w.mask & events == events {
            return Ok(found);
        }
        match self.ctl(epfd, found, libc::EPOLL_CTL_MOD, fd, wanted) {
            Ok(()) => Ok(found),
            Err(e) => {
                // The number names another file now, or none.
                if self.at(found).dup < 0 {
                    self.move_waiters(found, -1, slab);
                }
                let _ = self.abandon(epfd, found);
                if e != Errno::ENOENT {
                    return Err(e);
                }
                self.attach(epfd, fd, events, How::default(), slab)
            }
        }
    }

    /// Parts a watch from its number, which names its file no longer or is about to. Waiters go on through
    /// the duplicate: under its number in epoll too, as the old one may come to name this file again.
    fn abandon(&mut self, epfd: i32, watch: u32) -> Result<(), Errno> {
        self.forget_number(watch);
        let w = self.at(watch);
        let (dup, mask) = (w.dup, w.mask);
        if w.waiters == 0 {
            self.discard(watch);
            return Ok(());
        }
        w.registered = -1;
        self.ctl(epfd, watch, libc::EPOLL_CTL_ADD, dup, mask)
    }

    /// A watch of its own for one request on `fd`, through a duplicate.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) (EINVAL: too many registrations of one file) and EMFILE.
    pub fn attach_alone(&mut self, epfd: i32, fd: i32, events: u32) -> Result<u32, Errno> {
        let dup = fds::dup_private(fd)?;
        let watch = self.make(-1);
        self.at(watch).dup = dup;
        if let Err(e) = self.add(epfd, watch, dup, events) {
            self.discard(watch);
            return Err(e);
        }
        Ok(watch)
    }

    /// Sets the registration of a watch with waiters to `mask` and has what is ready reported.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn ask(&mut self, epfd: i32, watch: u32, mask: u32) -> Result<(), Errno> {
        let registered = self.at(watch).registered;
        match self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, registered, mask) {
            // The number names another file now, or none.
            Err(Errno::ENOENT | Errno::EBADF) if registered != self.at(watch).dup => {
                self.at(watch).mask = mask;
                self.abandon(epfd, watch)
            }
            other => other,
        }
    }

    /// Whether the watch of `fd` has waiters that a waiter of this kind must not come to.
    pub fn is_taken(&self, fd: i32, edges: bool) -> bool {
        let w = self.list.get(self.by_number.get(fd) as usize);
        w.is_some_and(|w| w.waiters > 0 && (edges || w.edges))
    }

    /// Whether an attempt to receive from `fd` is better left out, as the last ones found nothing: arming it
    /// asks for its readiness anyway. Every now and then it is tried all the same.
    #[inline]
    pub fn expects_to_wait(&mut self, fd: i32) -> bool {
        let found = self.by_number.get(fd);
        let Some(w) = self.list.get_mut(found as usize) else { return false };
        w.vain += (w.vain >= VAIN) as u8;
        if w.vain > VAIN + UNTRIED {
            w.vain = VAIN - 1;
        }
        w.vain >= VAIN
    }

    /// What a first attempt to receive from `fd` came to.
    #[inline]
    pub fn note_attempt(&mut self, fd: i32, vain: bool) {
        let found = self.by_number.get(fd);
        if let Some(w) = self.list.get_mut(found as usize) {
            w.vain = if vain { w.vain + 1 } else { 0 };
        }
    }

    /// Adds `slot` to the waiters of `watch`.
    pub fn enlist(&mut self, watch: u32, slot: u32, events: u32, kind: Kind) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize((at + 1).next_power_of_two(), UNLINKED);
        }
        debug_assert!(self.links[at].watch == NIL);
        let w = &mut self.list[watch as usize];
        let prev = std::mem::replace(&mut w.tail, slot);
        if prev == NIL {
            w.head = slot;
        }
        w.edges = kind == Kind::Edges && w.waiters == 0;
        w.waiters += 1;
        w.idle = 0;
        let reader = kind == Kind::Reader;
        w.others += !reader as u32;
        self.links[at] = Link { watch, prev, next: NIL, events, reader };
        if prev != NIL {
            self.links[prev as usize].next = slot;
        }
    }

    /// Changes what a waiter waits for.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the waiter is as it was.
    pub fn change(&mut self, epfd: i32, slot: u32, events: u32) -> Result<(), Errno> {
        let Link { watch, events: old, .. } = self.links[slot as usize];
        let w = self.at(watch);
        let missing = if w.edges { events != w.mask } else { events & !w.mask != 0 };
        if old != events && missing {
            let mask = if w.edges { events } else { w.mask | events };
            self.ask(epfd, watch, mask)?;
        }
        self.links[slot as usize].events = events;
        Ok(())
    }

    /// As [`Self::change`]; a multishot poll starts anew: what is ready now is reported once more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the waiter is as it was.
    pub fn update(&mut self, epfd: i32, slot: u32, events: u32) -> Result<(), Errno> {
        let watch = self.links[slot as usize].watch;
        if self.at(watch).edges && self.at(watch).mask == events {
            return self.ask(epfd, watch, events);
        }
        self.change(epfd, slot, events)
    }

    /// Has what is ready now reported once more, to all waiters of the watch that `slot` is with.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn again(&mut self, epfd: i32, slot: u32) -> Result<(), Errno> {
        let watch = self.links[slot as usize].watch;
        let mask = self.at(watch).mask;
        self.ask(epfd, watch, mask)
    }

    /// Takes a waiter out. With the last one the watch lets go of its file.
    pub fn leave(&mut self, epfd: i32, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else { return };
        let link = std::mem::replace(link, UNLINKED);
        if link.watch == NIL {
            return;
        }
        let w = &mut self.list[link.watch as usize];
        match link.prev {
            NIL => w.head = link.next,
            prev => self.links[prev as usize].next = link.next,
        }
        match link.next {
            NIL => w.tail = link.prev,
            next => self.links[next as usize].prev = link.prev,
        }
        w.waiters -= 1;
        w.others -= !link.reader as u32;
        if w.waiters > 0 {
            return;
        }
        let dup = std::mem::replace(&mut w.dup, -1);
        if dup >= 0 {
            if w.registered == dup {
                // The file may live on in the program: closing our duplicate alone would leave the entry.
                let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, dup, 0, 0);
                w.registered = -1;
            }
            fds::close_private(dup);
        }
        if w.key < 0 {
            self.discard(link.watch);
        }
    }

    /// Frees a watch that nobody waits on. What is left of its registration has become stale.
    fn discard(&mut self, watch: u32) {
        self.forget_number(watch);
        let w = self.at(watch);
        debug_assert!(w.waiters == 0);
        fds::close_private(std::mem::replace(&mut w.dup, -1));
        w.generation = w.generation.wrapping_add(1).max(1);
        w.registered = -1;
        self.free.push(watch);
    }

    /// The duplicate that waiters of `watch` use, if it has one.
    pub fn duplicate(&self, watch: u32) -> Option<i32> {
        let dup = self.list[watch as usize].dup;
        (dup >= 0).then_some(dup)
    }

    /// Remembers to [`Self::hold`] this watch before the program runs again.
    pub fn hold_later(&mut self, watch: u32) {
        let w = &mut self.list[watch as usize];
        if !w.listed {
            w.listed = true;
            self.unheld.push(watch);
        }
    }

    /// Takes the duplicate through which the waiters of `watch` hold their file from now on.
    ///
    /// # Errors
    /// EBADF, EMFILE.
    pub fn hold(&mut self, watch: u32, slab: &mut Slab) -> Result<i32, Errno> {
        let w = &mut self.list[watch as usize];
        if w.dup < 0 {
            w.dup = fds::dup_private(w.key)?;
            let dup = w.dup;
            self.move_waiters(watch, dup, slab);
        }
        Ok(self.list[watch as usize].dup)
    }

    /// From now on the waiters do their work through `fd`.
    fn move_waiters(&self, watch: u32, fd: i32, slab: &mut Slab) {
        let mut slot = self.list[watch as usize].head;
        while slot != NIL {
            let req = slab.get_mut(slot);
            if matches!(req.file, File::Fd(_)) {
                req.file = File::Fd(fd);
            }
            slot = self.links[slot as usize].next;
        }
    }

    /// Before the program runs again: takes the duplicates that were put off.
    #[inline]
    pub fn hold_all(&mut self, slab: &mut Slab) {
        if !self.unheld.is_empty() {
            self.hold_listed(slab);
        }
    }

    fn hold_listed(&mut self, slab: &mut Slab) {
        while let Some(watch) = self.unheld.pop() {
            let w = self.at(watch);
            w.listed = false;
            if w.waiters > 0 && w.dup < 0 && w.key >= 0 && self.hold(watch, slab).is_err() {
                // No descriptor is left: the next time there may be one.
                return self.hold_later(watch);
            }
        }
    }

    /// `fd` is about to be closed or to name another file: waiters keep theirs through a duplicate.
    pub fn closing(&mut self, epfd: i32, fd: i32, slab: &mut Slab) {
        let watch = self.by_number.get(fd);
        if watch == NIL {
            return;
        }
        if self.at(watch).waiters > 0 && self.hold(watch, slab).is_err() {
            // Nothing can hold the file. What its waiters must not do is use the next one's number.
            self.move_waiters(watch, -1, slab);
        }
        if self.at(watch).registered == fd {
            // The file may live on under another number, and would go on waking us.
            let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, fd, 0, 0);
        }
        let _ = self.abandon(epfd, watch);
    }

    /// Watched numbers from `first` to `last`.
    pub fn numbers_within(&self, first: u32, last: u32) -> Vec<i32> {
        let within = |w: &&Watch| w.key >= 0 && (first..=last).contains(&(w.key as u32));
        self.list.iter().filter(within).map(|w| w.key).collect()
    }

    /// The watch that an event of the epoll instance names, unless the event is stale. `None` as well
    /// when nobody waits on it; a file that goes on like this is not watched any more.
    pub fn named(&mut self, epfd: i32, data: u64) -> Option<u32> {
        let watch = data as u32;
        let w = self.list.get_mut(watch as usize)?;
        if w.generation != (data >> 32) as u32 {
            return None;
        }
        if w.waiters > 0 {
            return Some(watch);
        }
        w.idle += 1;
        if w.idle > 2 && w.registered >= 0 {
            let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, w.registered, 0, 0);
            w.registered = -1;
            w.idle = 0;
        }
        None
    }

    pub fn first(&self, watch: u32) -> u32 {
        self.list[watch as usize].head
    }

    /// The waiter of `watch` behind `slot`; [`NIL`] when that has left it.
    pub fn next(&self, watch: u32, slot: u32) -> u32 {
        match self.links[slot as usize] {
            link if link.watch == watch => link.next,
            _ => NIL,
        }
    }

    pub fn is_waiting(&self, watch: u32, slot: u32) -> bool {
        self.links[slot as usize].watch == watch
    }

    /// What `slot` waits for, and whether it is a plain reader.
    pub fn interest(&self, slot: u32) -> (u32, bool) {
        let link = &self.links[slot as usize];
        (link.events, link.reader)
    }

    /// Whether nobody but plain readers waits: once one of them finds nothing, none would.
    pub fn only_readers(&self, watch: u32) -> bool {
        self.list[watch as usize].others == 0
    }

    /// Closes all duplicates and takes back all marks. The registrations end with the epoll instance.
    pub fn clear(&mut self) {
        for w in &mut self.list {
            fds::close_private(std::mem::replace(&mut w.dup, -1));
            let key = std::mem::replace(&mut w.key, -1);
            if key >= 0 {
                fds::unmark_watched(key, self.ring);
            }
        }
        *self = Watches::new(self.ring);
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
        std::mem::forget(std::mem::replace(self, Watches::new(self.ring)));
    }
}

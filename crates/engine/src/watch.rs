//! Watches: the readiness of files, asked of epoll for the requests that wait on each.
//!
//! One epoll registration serves all requests armed on a file. It stays when they are done, so arming
//! the next one is at most one EPOLL_CTL_MOD, which is a check as well: epoll knows an entry by (open file,
//! number), so a number that was closed and reused in the meantime gives ENOENT, and a file that became
//! ready unseen is reported again. What MOD finds is never lost: no edge falls between attempt and arming.
//!
//! **Levels.** Where all who wait take what is there ([`Kind::takes_all`]), the registration tells readiness
//! for as long as it lasts. Then nothing that was left or came since can go unseen, whatever was tried
//! before, and arming the next reader asks epoll nothing. The price is an event whenever there is
//! something and nobody takes it; one such event, and the registration is silent or tells edges again.
//!
//! **Who holds the file.** A watch with waiters holds its file through one duplicate, taken before the
//! program can close the number and closed with the last waiter (the peer of a socket sees its end then).
//! A program that announces its closes ([`set_close_notified`]) needs none until it closes: see
//! [`Watches::closing`]. While waiters have no duplicate, the number is theirs, and arming another one
//! on it costs nothing.
//!
//! **Whose number it is.** That a number still names the watched file is known while it is ours or has
//! waiters that hold nothing. Where closes are announced it is taken for granted, and asked a little later
//! ([`Watches::settle_doubts`]): a program that broke its promise loses time once, and our trust for good.
//!
//! **What must not be shared.** Multishot polls report edges as they come; the readiness that MOD
//! reports again would be a false one. Such a poll has its watch for itself: who comes second gets a watch
//! that is registered under a duplicate ([`Watches::attach_alone`]).
//!
//! Exclusive to the holder of the ring lock.
#![allow(unsafe_code)]

use crate::fds;
use crate::req::{File, NIL};
use crate::slab::Slab;
use crate::sys::{self, sys};
use crate::waiters::{Kind, Waiters};
use crate::watchlist::{Watch, WatchList};
use soloring_abi::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

/// So many attempts in vain, and the next ones are left out.
const VAIN: u8 = 3;
/// So many are left out, and the next one is made.
const UNTRIED: u8 = 30;

/// What an event that nobody could use costs, where an arming that was free earns 1.
const USELESS: u8 = 8;
/// From here on a file's registration tells edges only.
const UNSTEADY: u8 = 32;

const EDGE: u32 = libc::EPOLLET as u32;

/// What the epoll instance calls the clock of [`Watches::settle_doubts`]: no watch has this name.
pub const DOUBTS: u64 = 2;
const DOUBT_MS: u64 = 100;

static CLOSE_NOTIFIED: AtomicBool = AtomicBool::new(false);

/// From now on every close of a watched descriptor is announced before it happens.
pub fn set_close_notified(yes: bool) {
    CLOSE_NOTIFIED.store(yes, Ordering::Relaxed);
}

#[inline]
pub fn close_notified() -> bool {
    CLOSE_NOTIFIED.load(Ordering::Relaxed)
}

/// What is known about a file that a request comes to wait on, and of the request.
#[derive(Clone, Copy, Default, Debug)]
pub struct How {
    /// The request was tried a moment ago and found the file not ready.
    pub tried: bool,
    /// The number is not the program's, and has named the same file ever since it was attached first.
    pub ours: bool,
    /// The number names the same file until the program says otherwise.
    pub announced: bool,
    /// The request would use a level: see the head of this file.
    pub level: bool,
}

/// All watches of one ring.
pub struct Watches {
    list: WatchList,
    waiters: Waiters,
    /// Watches that got waiters and hold nothing yet.
    unheld: Vec<u32>,
    /// Watches with waiters whose number was taken for granted.
    doubtful: Vec<u32>,
    /// Timer of [`Self::settle_doubts`]; -1 until it is needed first.
    clock: i32,
    clock_runs: bool,
}

impl Watches {
    pub fn new(ring: u64) -> Self {
        Watches {
            list: WatchList::new(ring),
            waiters: Waiters::default(),
            unheld: Vec::new(),
            doubtful: Vec::new(),
            clock: -1,
            clock_runs: false,
        }
    }

    /// Id of the ring that these are the watches of.
    pub fn ring(&self) -> u64 {
        self.list.ring()
    }

    /// Registers `watch` for `mask` under `number` with a new name, and leaves it as it was on error.
    fn ctl(
        &mut self,
        epfd: i32,
        watch: u32,
        op: i32,
        number: i32,
        (mask, level): (u32, bool),
    ) -> Result<(), Errno> {
        let w = self.list.at(watch);
        let generation = w.next_generation();
        let data = (generation as u64) << 32 | watch as u64;
        sys::epoll_ctl(epfd, op, number, if level { mask } else { mask | EDGE }, data)?;
        w.generation = generation;
        w.registered = number;
        w.mask = mask;
        w.level = level;
        w.idle = 0;
        Ok(())
    }

    /// As [`Self::ctl`] with ADD, for a number whose entry may be there already from earlier.
    fn add(&mut self, epfd: i32, watch: u32, number: i32, how: (u32, bool)) -> Result<(), Errno> {
        match self.ctl(epfd, watch, libc::EPOLL_CTL_ADD, number, how) {
            Err(Errno::EEXIST) => self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, number, how),
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
        let found = self.list.find(fd);
        if found == NIL {
            let watch = self.list.make(fd);
            return match self.add(epfd, watch, fd, (events, how.level)) {
                Ok(()) => Ok(watch),
                Err(e) => {
                    self.list.discard(watch);
                    Err(e)
                }
            };
        }
        let w = self.list.get(found);
        let shared = w.is_waited_on();
        let wanted = if shared { w.mask | events } else { events };
        let level = how.level && if shared { w.level } else { w.unsteady < UNSTEADY };
        if w.registered < 0 {
            self.add(epfd, found, fd, (wanted, level))?;
            return Ok(found);
        }
        // Either readiness is told as long as it lasts, or its next edge will be.
        let told = if level { w.level } else { !w.level && how.tried };
        if told && w.mask & events == events {
            // With waiters and no duplicate: the program has not run since they were armed, or would have told.
            if how.ours || shared && w.dup < 0 {
                return Ok(found);
            }
            if how.announced && self.trust(epfd, found) {
                return Ok(found);
            }
        }
        match self.ctl(epfd, found, libc::EPOLL_CTL_MOD, fd, (wanted, level)) {
            Ok(()) => Ok(found),
            Err(e) => {
                // The number names another file now, or none.
                if self.list.at(found).dup < 0 {
                    self.move_waiters(found, -1, slab);
                }
                let _ = self.abandon(epfd, found);
                if e != Errno::ENOENT {
                    return Err(e);
                }
                let how = How { level: how.level, ..How::default() };
                self.attach(epfd, fd, events, how, slab)
            }
        }
    }

    /// Takes for granted that the number of `watch` still names its file, until the clock strikes.
    fn trust(&mut self, epfd: i32, watch: u32) -> bool {
        if !self.list.is_marked(watch) || !self.clock_runs && !self.start_clock(epfd) {
            return false;
        }
        let w = self.list.at(watch);
        w.unsteady = w.unsteady.saturating_sub(1);
        if !w.doubted {
            w.doubted = true;
            self.doubtful.push(watch);
        }
        true
    }

    #[cold]
    fn start_clock(&mut self, epfd: i32) -> bool {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        if self.clock < 0 {
            // SAFETY: no memory involved.
            let made = unsafe { sys!(timerfd_create, libc::CLOCK_MONOTONIC, flags) };
            let Ok(fd) = made.and_then(|fd| fds::make_private(fd as i32)) else { return false };
            let mask = libc::EPOLLIN as u32 | EDGE;
            if sys::epoll_ctl(epfd, libc::EPOLL_CTL_ADD, fd, mask, DOUBTS).is_err() {
                fds::close_private(fd);
                return false;
            }
            self.clock = fd;
        }
        let spec = [0u64, 0, 0, DOUBT_MS * 1_000_000];
        // SAFETY: reads one itimerspec (four words) from our stack.
        let set = unsafe { sys!(timerfd_settime, self.clock, 0, spec.as_ptr(), 0usize) };
        self.clock_runs = set.is_ok();
        self.clock_runs
    }

    /// The clock struck: asks whether the numbers that were taken for granted name their files, and has
    /// what is ready there told once more.
    pub fn settle_doubts(&mut self, epfd: i32) {
        self.clock_runs = false;
        while let Some(watch) = self.doubtful.pop() {
            let w = self.list.at(watch);
            w.doubted = false;
            let (key, how) = (w.key, (w.mask, w.level));
            if !w.is_waited_on() || key < 0 || w.registered != key {
                continue;
            }
            if self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, key, how).is_ok() {
                continue;
            }
            // Closed without a word. Whoever waits came when the number had its new file already.
            set_close_notified(false);
            self.list.at(watch).registered = -1;
            let _ = self.add(epfd, watch, key, how);
        }
    }

    /// Parts a watch from its number, which names its file no longer or is about to. Waiters go on through
    /// the duplicate: under its number in epoll too, as the old one may come to name this file again.
    fn abandon(&mut self, epfd: i32, watch: u32) -> Result<(), Errno> {
        self.list.forget_number(watch);
        let w = self.list.at(watch);
        let (dup, mask) = (w.dup, w.mask);
        if !w.is_waited_on() {
            self.list.discard(watch);
            return Ok(());
        }
        w.registered = -1;
        self.ctl(epfd, watch, libc::EPOLL_CTL_ADD, dup, (mask, false))
    }

    /// A watch of its own for one request on `fd`, through a duplicate.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) (EINVAL: too many registrations of one file) and EMFILE.
    pub fn attach_alone(&mut self, epfd: i32, fd: i32, events: u32) -> Result<u32, Errno> {
        let dup = fds::dup_private(fd)?;
        let watch = self.list.make(-1);
        self.list.at(watch).dup = dup;
        if let Err(e) = self.add(epfd, watch, dup, (events, false)) {
            self.list.discard(watch);
            return Err(e);
        }
        Ok(watch)
    }

    /// Sets the registration of a watch with waiters and has what is ready reported.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    fn ask(&mut self, epfd: i32, watch: u32, mask: u32, level: bool) -> Result<(), Errno> {
        let registered = self.list.at(watch).registered;
        match self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, registered, (mask, level)) {
            // The number names another file now, or none.
            Err(Errno::ENOENT | Errno::EBADF) if registered != self.list.at(watch).dup => {
                self.list.at(watch).mask = mask;
                self.abandon(epfd, watch)
            }
            other => other,
        }
    }

    /// Whether the watch of `fd` has waiters that a waiter of this kind must not come to.
    pub fn is_taken(&self, fd: i32, edges: bool) -> bool {
        let found = self.list.find(fd);
        found != NIL && {
            let w = self.list.get(found);
            w.is_waited_on() && (edges || w.edges)
        }
    }

    /// Whether an attempt to receive from `fd` is better left out, as the last ones found nothing: arming it
    /// asks for its readiness anyway. Every now and then it is tried all the same.
    #[inline]
    pub fn expects_to_wait(&mut self, fd: i32) -> bool {
        let found = self.list.find(fd);
        let Some(w) = self.list.get_mut(found) else { return false };
        w.vain += (w.vain >= VAIN) as u8;
        if w.vain > VAIN + UNTRIED {
            w.vain = VAIN - 1;
        }
        w.vain >= VAIN
    }

    /// What a first attempt to receive from `fd` came to.
    #[inline]
    pub fn note_attempt(&mut self, fd: i32, vain: bool) {
        let found = self.list.find(fd);
        if let Some(w) = self.list.get_mut(found) {
            w.vain = if vain { w.vain + 1 } else { 0 };
        }
    }

    /// Adds `slot` to the waiters of `watch`.
    pub fn enlist(&mut self, watch: u32, slot: u32, events: u32, kind: Kind) {
        let w = self.list.at(watch);
        debug_assert!(!w.level || kind.takes_all());
        w.edges = kind == Kind::Edges && !w.is_waited_on();
        w.idle = 0;
        self.waiters.enlist(&mut w.queue, watch, slot, events, kind);
    }

    /// Changes what a waiter waits for.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the waiter is as it was.
    pub fn change(&mut self, epfd: i32, slot: u32, events: u32) -> Result<(), Errno> {
        let watch = self.waiters.watch_of(slot);
        let (old, _) = self.waiters.interest(slot);
        let w = self.list.get(watch);
        let missing = if w.edges { events != w.mask } else { events & !w.mask != 0 };
        if old != events && missing {
            let mask = if w.edges { events } else { w.mask | events };
            self.ask(epfd, watch, mask, false)?;
        }
        self.waiters.set_events(slot, events);
        Ok(())
    }

    /// As [`Self::change`]; a multishot poll starts anew: what is ready now is reported once more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the waiter is as it was.
    pub fn update(&mut self, epfd: i32, slot: u32, events: u32) -> Result<(), Errno> {
        let watch = self.waiters.watch_of(slot);
        let w = self.list.get(watch);
        if w.edges && w.mask == events {
            return self.ask(epfd, watch, events, false);
        }
        self.change(epfd, slot, events)
    }

    /// Has what is ready now reported once more, to all waiters of the watch that `slot` is with.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn again(&mut self, epfd: i32, slot: u32) -> Result<(), Errno> {
        let watch = self.waiters.watch_of(slot);
        let Watch { mask, level, .. } = *self.list.get(watch);
        self.ask(epfd, watch, mask, level)
    }

    /// Takes a waiter out. With the last one the watch lets go of its file.
    pub fn leave(&mut self, epfd: i32, slot: u32) {
        let watch = self.waiters.watch_of(slot);
        if watch == NIL {
            return;
        }
        let w = self.list.at(watch);
        self.waiters.leave(&mut w.queue, slot);
        if w.is_waited_on() {
            return;
        }
        if w.dup >= 0 {
            if w.registered == w.dup {
                // The file may live on in the program: closing our duplicate alone would leave the entry.
                let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, w.dup, 0, 0);
                w.registered = -1;
            }
            w.close_dup();
        }
        if w.key < 0 {
            self.list.discard(watch);
        }
    }

    /// A descriptor of the file that requests wait on under the number `fd`, if any do.
    pub fn waited_on_as(&self, fd: i32) -> Option<i32> {
        let found = self.list.find(fd);
        let w = if found == NIL { return None } else { self.list.get(found) };
        w.is_waited_on().then_some(if w.dup >= 0 { w.dup } else { w.registered })
    }

    /// The duplicate that waiters of `watch` use, if it has one.
    pub fn duplicate(&self, watch: u32) -> Option<i32> {
        let dup = self.list.get(watch).dup;
        (dup >= 0).then_some(dup)
    }

    /// Remembers to [`Self::hold`] this watch before the program runs again.
    pub fn hold_later(&mut self, watch: u32) {
        let w = self.list.at(watch);
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
        let w = self.list.at(watch);
        if w.dup < 0 {
            let dup = fds::dup_private(w.key)?;
            w.dup = dup;
            self.move_waiters(watch, dup, slab);
        }
        Ok(self.list.get(watch).dup)
    }

    /// From now on the waiters do their work through `fd`.
    fn move_waiters(&self, watch: u32, fd: i32, slab: &mut Slab) {
        let mut slot = self.list.get(watch).queue.first();
        while slot != NIL {
            let req = slab.get_mut(slot);
            if matches!(req.file, File::Fd(_)) {
                req.file = File::Fd(fd);
            }
            slot = self.waiters.next(slot);
        }
    }

    /// Whether duplicates were put off.
    #[inline]
    pub fn has_unheld(&self) -> bool {
        !self.unheld.is_empty()
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
            let w = self.list.at(watch);
            w.listed = false;
            if w.is_waited_on() && w.dup < 0 && w.key >= 0 && self.hold(watch, slab).is_err() {
                // No descriptor is left: the next time there may be one.
                return self.hold_later(watch);
            }
        }
    }

    /// `fd` is about to be closed or to name another file: waiters keep theirs through a duplicate.
    pub fn closing(&mut self, epfd: i32, fd: i32, slab: &mut Slab) {
        let watch = self.list.find(fd);
        if watch == NIL {
            return;
        }
        if self.list.get(watch).is_waited_on() && self.hold(watch, slab).is_err() {
            // Nothing can hold the file. What its waiters must not do is use the next one's number.
            self.move_waiters(watch, -1, slab);
        }
        if self.list.get(watch).registered == fd {
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
        let w = self.list.get_mut(watch)?;
        if w.generation != (data >> 32) as u32 {
            return None;
        }
        if w.is_waited_on() {
            return Some(watch);
        }
        if w.level {
            // Nothing but errors, and those once, until somebody comes and asks.
            w.unsteady = w.unsteady.saturating_add(USELESS);
            let number = w.registered;
            let _ = self.ctl(epfd, watch, libc::EPOLL_CTL_MOD, number, (0, false));
            return None;
        }
        w.idle += 1;
        if w.idle > 2 && w.registered >= 0 {
            let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, w.registered, 0, 0);
            w.registered = -1;
            w.idle = 0;
        }
        None
    }

    /// Whether readiness of `watch` is told for as long as it lasts.
    #[inline]
    pub fn is_level(&self, watch: u32) -> bool {
        self.list.get(watch).level
    }

    /// An event of `watch` brought its waiters no further: from now on edges are told.
    #[cold]
    pub fn level_was_useless(&mut self, epfd: i32, watch: u32) {
        let w = self.list.at(watch);
        if w.is_waited_on() && w.level {
            w.unsteady = w.unsteady.saturating_add(USELESS);
            let mask = w.mask;
            let _ = self.ask(epfd, watch, mask, false);
        }
    }

    pub fn first(&self, watch: u32) -> u32 {
        self.list.get(watch).queue.first()
    }

    /// The waiter of `watch` behind `slot`; [`NIL`] when that has left it.
    pub fn next(&self, watch: u32, slot: u32) -> u32 {
        if self.is_waiting(watch, slot) { self.waiters.next(slot) } else { NIL }
    }

    pub fn is_waiting(&self, watch: u32, slot: u32) -> bool {
        self.waiters.watch_of(slot) == watch
    }

    /// What `slot` waits for, and whether it is a plain reader.
    pub fn interest(&self, slot: u32) -> (u32, bool) {
        self.waiters.interest(slot)
    }

    /// Whether nobody but plain readers waits: once one of them finds nothing, none would.
    pub fn only_readers(&self, watch: u32) -> bool {
        self.list.get(watch).queue.only_readers()
    }

    /// Closes all duplicates and takes back all marks. The registrations end with the epoll instance.
    pub fn clear(&mut self) {
        self.list.clear();
        fds::close_private(self.clock);
        *self = Watches::new(self.ring());
    }

    /// In a forked child: the watches are the parent's. Memory that another thread of it may have been
    /// changing is leaked.
    pub fn forget_after_fork(&mut self) {
        self.list.forget_after_fork();
        fds::close_private(self.clock);
        std::mem::forget(std::mem::replace(self, Watches::new(self.ring())));
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

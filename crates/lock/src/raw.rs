//! The lock without its value: three ways in (owner, foreign, plain mutex) and the way out of each.

use super::bias::{BiasWord, SlotIndex, Snapshot};
use super::cells::{Counter, Padded};
use super::hold::{Hold, Reentered};
use super::mutex::Mutex;
use super::policy::Tally;
use super::prims::{
    SPINS_MAX, current_thread, handshake_looks, heavy_available, heavy_fence, light_fence, now_ns,
    spin_loop, token_bits,
};
use super::slot::{Entered, OwnerSlot};
use super::stats::{LockMode, LockStats};
use super::token::ThreadToken;

/// How many different threads can be owners in the life of one lock. A thread that has read the
/// bias word may be suspended before it writes `busy` for any length of time, so a `busy` word,
/// once given to a thread, is that thread's for good.
pub(crate) const OWNER_SLOTS: usize = 2;

/// How far an acquisition by the mutex has come after closing the owner's path.
enum Entry {
    /// The lock is held.
    Inside(Hold),
    /// A foreign locker has closed the owner's path; the owner may still be inside.
    Closed { seen: Snapshot, passed: Passed },
}

/// How a foreign locker knows that the owner has seen the path closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    /// The owner has said so.
    Acknowledged,
    /// By the heavy fence.
    Fenced,
    /// By a substitute, this one time: the kernel has refused the fence.
    Refused,
}

/// What the holder of the mutex writes.
#[derive(Debug)]
struct Shared {
    mutex: Mutex,
    /// The recorded owner's token, biased or not; 0: none.
    owner: Counter,
    tally: Tally,
    owner_taken: Counter,
    foreign: Counter,
    heavy_fences: Counter,
    revocations: Counter,
    waited_ns: Counter,
}

/// The lock words and counters.
#[derive(Debug)]
pub(crate) struct RawLock {
    slots: [Padded<OwnerSlot>; OWNER_SLOTS],
    bias: Padded<BiasWord>,
    shared: Padded<Shared>,
    forced: bool,
}

#[cold]
#[inline(never)]
fn wake_foreign(bias: &BiasWord, slot: &OwnerSlot) {
    slot.acknowledge(bias.last_closing());
    slot.wake();
}

impl RawLock {
    /// Free, without an owner; `forced`: for ever.
    pub(crate) fn new(forced: bool) -> Self {
        let slot = || Padded(OwnerSlot::new());
        Self {
            slots: [slot(), slot()],
            bias: Padded(BiasWord::new()),
            shared: Padded(Shared {
                mutex: Mutex::new(),
                owner: Counter::default(),
                tally: Tally::default(),
                owner_taken: Counter::default(),
                foreign: Counter::default(),
                heavy_fences: Counter::default(),
                revocations: Counter::default(),
                waited_ns: Counter::default(),
            }),
            forced,
        }
    }

    /// The recorded owner, biased or not.
    pub(crate) fn owner(&self) -> Option<ThreadToken> {
        ThreadToken::from_bits(self.shared.owner.get())
    }

    pub(crate) fn stats(&self) -> LockStats {
        LockStats {
            owner_elided: self.slots.iter().map(|slot| slot.elided()).sum(),
            owner_taken: self.shared.owner_taken.get(),
            foreign: self.shared.foreign.get(),
            heavy_fences: self.shared.heavy_fences.get(),
            revocations: self.shared.revocations.get(),
            waited_ns: self.shared.waited_ns.get(),
            mode: self.lock_mode(),
        }
    }

    fn lock_mode(&self) -> LockMode {
        if self.forced {
            LockMode::Forced
        } else if !self.bias.peek().is_unbiased() {
            LockMode::Biased
        } else if !heavy_available() {
            LockMode::NoMembarrier
        } else if self.shared.owner.get() == 0 {
            LockMode::Unowned
        } else {
            LockMode::GivenUp
        }
    }

    /// In the child after `fork`, whose only thread calls this and does not hold the lock: free and
    /// unbiased.
    pub(crate) fn reset_after_fork(&self) {
        let me = current_thread();
        for slot in &self.slots {
            slot.reset();
            // The calling thread's own slot stays its own: this may run in a signal handler that
            // interrupted it between its look at the bias word and its `busy`.
            if slot.token.get() != me.bits() {
                slot.token.set(0);
            }
        }
        self.bias.clear();
        self.shared.mutex.reset();
        if self.shared.owner.get() != me.bits() {
            self.shared.owner.set(0);
        }
    }

    /// From here on counts begin at zero; for a forked child, in which nobody else writes them.
    pub(crate) fn forget_counts(&self) {
        self.slots.iter().for_each(|slot| slot.forget_counts());
        let Shared { owner_taken, foreign, heavy_fences, revocations, waited_ns, .. } =
            &*self.shared;
        for count in [owner_taken, foreign, heavy_fences, revocations, waited_ns] {
            count.set(0);
        }
    }

    /// The way in of the lock's first owner. `None`: it is closed, or not this thread's.
    #[inline(always)]
    pub(crate) fn enter_first(&self) -> Result<Option<Entered>, Reentered> {
        let seen = self.bias.peek();
        if !seen.is_open_to_first(token_bits()) {
            return Ok(None);
        }
        self.enter_biased(seen, SlotIndex::First)
    }

    /// The same for its second owner: not inlined, so that the first one's path is short.
    #[inline(never)]
    fn enter_second(&self, seen: Snapshot) -> Result<Option<Entered>, Reentered> {
        self.enter_biased(seen, SlotIndex::Second)
    }

    /// The owner's way in, once the word has been seen open to it.
    #[inline(always)]
    fn enter_biased(&self, seen: Snapshot, slot: SlotIndex) -> Result<Option<Entered>, Reentered> {
        let Some(entered) = self.slot(slot).enter() else {
            return Err(Reentered);
        };
        // With the heavy fence in `close_path`: either our look below sees the closed path, or the
        // foreign locker's look at `busy` sees us. Without it both could go in.
        light_fence();
        if self.bias.still(seen) {
            return Ok(Some(entered));
        }
        self.back_out(slot, entered);
        Ok(None)
    }

    #[cold]
    #[inline(never)]
    fn back_out(&self, slot: SlotIndex, entered: Entered) {
        self.slot(slot).note_failed();
        self.leave_biased(slot, entered);
    }

    /// The owner's way out, and back out of a failed attempt.
    #[inline(always)]
    fn leave_biased(&self, slot: SlotIndex, entered: Entered) {
        let slot = self.slot(slot);
        slot.leave(entered);
        // With the heavy fence in `close_path`: either the look below sees the closed path and
        // wakes, or the foreign locker sees us outside and does not sleep. Without it: lost wake-up.
        light_fence();
        if self.bias.peek().is_closed() {
            wake_foreign(&self.bias, slot);
        }
    }

    /// The way out of the lock's first owner.
    #[inline(always)]
    pub(crate) fn leave_first(&self, entered: Entered) {
        self.leave_biased(SlotIndex::First, entered);
    }

    /// The same for its second owner.
    #[inline(never)]
    fn leave_second(&self, entered: Entered) {
        self.leave_biased(SlotIndex::Second, entered);
    }

    /// Everybody else's way in, and the first owner's when the biased path is closed.
    #[inline(never)]
    pub(crate) fn lock_otherwise(&self) -> Result<(Hold, Entered), Reentered> {
        let seen = self.bias.peek();
        if seen.is_open_to_second(token_bits())
            && let Some(entered) = self.enter_second(seen)?
        {
            return Ok((Hold::Second, entered));
        }
        Ok((self.lock_by_mutex()?, Entered::NOT))
    }

    #[inline(never)]
    pub(crate) fn try_lock_otherwise(&self) -> Result<Option<(Hold, Entered)>, Reentered> {
        let seen = self.bias.peek();
        if seen.is_open_to_second(token_bits())
            && let Some(entered) = self.enter_second(seen)?
        {
            return Ok(Some((Hold::Second, entered)));
        }
        Ok(self.try_lock_by_mutex()?.map(|hold| (hold, Entered::NOT)))
    }

    #[inline(always)]
    fn lock_by_mutex(&self) -> Result<Hold, Reentered> {
        let me = current_thread();
        self.stand_outside(me)?;
        let waited_ns = self.shared.mutex.lock(me, || self.wake_for_owner(me))?;
        if waited_ns != 0 {
            self.shared.waited_ns.add(waited_ns);
        }
        let hold = match self.close_path(me) {
            Entry::Inside(hold) => hold,
            Entry::Closed { seen, passed } => {
                if self.slot(seen.slot()).look().is_some() {
                    self.wait_idle(seen);
                }
                self.enter_foreign(seen, passed)
            }
        };
        Ok(hold)
    }

    fn try_lock_by_mutex(&self) -> Result<Option<Hold>, Reentered> {
        let me = current_thread();
        self.stand_outside(me)?;
        if self.shared.mutex.try_lock(me)?.is_none() {
            return Ok(None);
        }
        let hold = match self.close_path(me) {
            Entry::Inside(hold) => hold,
            Entry::Closed { seen, passed } if self.slot(seen.slot()).look().is_none() => {
                self.enter_foreign(seen, passed)
            }
            Entry::Closed { .. } => {
                self.bias.reopen();
                self.shared.mutex.unlock();
                return Ok(None);
            }
        };
        Ok(Some(hold))
    }

    /// First step of an acquisition by the mutex: is the caller the owner, inside already? A handler
    /// that interrupted its own thread's biased critical section must not queue for the mutex: whoever
    /// holds that waits for this very section to end. If the caller is the owner and outside, a foreign
    /// locker that is closing the path needs no fence to know.
    fn stand_outside(&self, me: ThreadToken) -> Result<(), Reentered> {
        let seen = self.bias.peek();
        // While a thread is inside by the biased path the word names it as the owner: taking the bias
        // away waits until it is outside.
        if seen.is_owned_by(me) {
            let slot = self.slot(seen.slot());
            if slot.is_mine_and_busy() {
                return Err(Reentered);
            }
            slot.acknowledge(self.bias.last_closing());
        }
        Ok(())
    }

    /// Before the caller sleeps on the mutex. If it is a signal handler that interrupted the owner on its
    /// way out, between its `busy` and the wake, then the holder of the mutex may be waiting for that wake,
    /// which cannot come before the handler returns.
    #[cold]
    fn wake_for_owner(&self, me: ThreadToken) {
        let seen = self.bias.peek();
        if seen.is_owned_by(me) {
            self.slot(seen.slot()).wake();
        }
    }

    /// Second step of an acquisition by the mutex, which the caller holds: closes the owner's path,
    /// if there is one.
    #[inline]
    fn close_path(&self, me: ThreadToken) -> Entry {
        let seen = self.bias.peek();
        if seen.is_unbiased() {
            return Entry::Inside(self.enter_unbiased(me));
        }
        self.bias.close(seen);
        if seen.is_owned_by(me) {
            // Only this thread uses the path, and it is here: no fence, nobody to wait for.
            self.shared.owner_taken.add(1);
            return Entry::Inside(Hold::OwnerMutex);
        }
        Entry::Closed { seen, passed: self.pass_owner(seen) }
    }

    /// Waits until what the owner did before it could see the path closed is visible here, and what
    /// it does from now on sees that.
    fn pass_owner(&self, seen: Snapshot) -> Passed {
        let tally = &self.shared.tally;
        // An owner that keeps locking says so within a microsecond; the fence may take ten.
        if tally.wants_handshake() {
            let (slot, closing) = (self.slot(seen.slot()), self.bias.number_closing());
            for look in 0..handshake_looks() {
                if look > 0 {
                    spin_loop();
                }
                if slot.has_acknowledged(closing) {
                    tally.handshake(true);
                    return Passed::Acknowledged;
                }
            }
            tally.handshake(false);
        }
        // With the light fences of the owner's way in and way out.
        let fenced = if tally.wants_sample() {
            let start = now_ns();
            let fenced = heavy_fence();
            tally.sample(now_ns().wrapping_sub(start));
            fenced
        } else {
            heavy_fence()
        };
        if fenced { Passed::Fenced } else { Passed::Refused }
    }

    /// Third step, of a foreign locker only: the path is closed and the owner was seen outside.
    fn enter_foreign(&self, seen: Snapshot, passed: Passed) -> Hold {
        let shared = &self.shared;
        shared.foreign.add(1);
        if passed != Passed::Acknowledged {
            shared.heavy_fences.add(1);
        }
        if passed != Passed::Refused {
            let elided = self.slot(seen.slot()).elided();
            if !shared.tally.foreign_while_biased(elided, passed == Passed::Fenced) {
                return Hold::Foreign;
            }
            shared.tally.lost();
        }
        self.drop_bias();
        Hold::Unbiased
    }

    fn enter_unbiased(&self, me: ThreadToken) -> Hold {
        let shared = &self.shared;
        if shared.owner.get() != me.bits() {
            shared.foreign.add(1);
            shared.tally.foreign_while_given_up();
            return Hold::Unbiased;
        }
        shared.owner_taken.add(1);
        if !self.forced && shared.tally.owner_while_given_up() && self.try_bias(me) {
            return Hold::OwnerMutex;
        }
        Hold::Unbiased
    }

    /// Waits for the owner's critical section to end. No new one can begin: the path is closed.
    #[cold]
    fn wait_idle(&self, seen: Snapshot) {
        let start = now_ns();
        let mut spins = SPINS_MAX;
        let slot = self.slot(seen.slot());
        while let Some(busy) = slot.look() {
            if spins > 0 {
                spins -= 1;
                spin_loop();
            } else {
                slot.sleep(busy);
            }
        }
        self.shared.waited_ns.add(now_ns().wrapping_sub(start));
    }

    /// The caller holds the lock by the mutex, the biased path closed and the owner passed.
    fn drop_bias(&self) {
        self.bias.clear();
        self.shared.revocations.add(1);
    }

    /// Biases the lock to `owner`, path closed. The caller holds the lock by the mutex; the path of
    /// the owner before, if any, is closed. `false`: not possible, the lock is unbiased then.
    fn try_bias(&self, owner: ThreadToken) -> bool {
        let is_or_was = |slot: &Padded<OwnerSlot>| slot.token.get() == owner.bits();
        let is_free = |slot: &Padded<OwnerSlot>| slot.token.get() == 0;
        let slots = &self.slots;
        let slot = slots.iter().position(is_or_was).or_else(|| slots.iter().position(is_free));
        match slot {
            Some(slot) if !self.forced && heavy_available() => {
                slots[slot].token.set(owner.bits());
                let index = if slot == 0 { SlotIndex::First } else { SlotIndex::Second };
                self.bias.set(owner, index);
                self.shared.tally.start_biased(slots[slot].elided());
                true
            }
            _ => {
                self.bias.clear();
                false
            }
        }
    }

    #[inline(always)]
    fn slot(&self, index: SlotIndex) -> &OwnerSlot {
        &self.slots[index as usize]
    }

    /// Every release but the first owner's. Not inlined: the code around an owner's critical section
    /// has no locked instruction in it.
    #[inline(never)]
    pub(crate) fn unlock_otherwise(&self, hold: Hold, entered: Entered) {
        match hold {
            Hold::First => self.leave_first(entered),
            Hold::Second => self.leave_second(entered),
            Hold::FirstWithWish => self.leave_with_wish(SlotIndex::First, entered),
            Hold::SecondWithWish => self.leave_with_wish(SlotIndex::Second, entered),
            by_mutex => self.unlock_by_mutex(by_mutex),
        }
    }

    #[inline(always)]
    fn unlock_by_mutex(&self, hold: Hold) {
        if hold != Hold::Unbiased {
            self.bias.reopen();
        }
        self.shared.mutex.unlock();
    }

    /// Notes what the owner, inside with this slot, wants to become of the bias.
    pub(crate) fn wish(&self, slot: SlotIndex, owner: Option<ThreadToken>) {
        self.slot(slot).wish.set(owner.map_or(0, ThreadToken::bits));
    }

    /// Changes the recorded owner. The caller holds the lock by the mutex, as `hold` says; returns how
    /// it holds it afterwards.
    pub(crate) fn rebias(&self, hold: Hold, owner: Option<ThreadToken>) -> Hold {
        let me = current_thread();
        self.shared.owner.set(owner.map_or(0, ThreadToken::bits));
        match owner {
            Some(owner) if self.try_bias(owner) => {
                if owner == me {
                    Hold::OwnerMutex
                } else {
                    Hold::Foreign
                }
            }
            Some(_) => Hold::Unbiased,
            None => {
                if hold != Hold::Unbiased {
                    self.drop_bias();
                }
                Hold::Unbiased
            }
        }
    }

    /// The owner's way out when it has wished for a change.
    #[cold]
    #[inline(never)]
    fn leave_with_wish(&self, slot: SlotIndex, entered: Entered) {
        let wish = ThreadToken::from_bits(self.slot(slot).wish.get());
        self.leave_biased(slot, entered);
        if wish.is_none() || wish != self.owner() {
            self.rebias_from_outside(wish);
        }
    }

    /// Changes the recorded owner on behalf of the owner, who has just left by the biased path.
    fn rebias_from_outside(&self, owner: Option<ThreadToken>) {
        // `Reentered` here: this is a signal handler that interrupted its own thread on the way into
        // the mutex. It must not wait for that, and the bias stays as it is.
        if let Ok(hold) = self.lock_by_mutex() {
            let hold = self.rebias(hold, owner);
            self.unlock_by_mutex(hold);
        }
    }
}

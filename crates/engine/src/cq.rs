//! The completion queue's producer: entries, the overflow list, and what is published.

use soloring_abi::Cqe;
use soloring_abi::extra::{IORING_CQE_F_32, IORING_CQE_F_SKIP};
use soloring_abi::raw::{IORING_CQ_EVENTFD_DISABLED, IORING_SQ_CQ_OVERFLOW};
use soloring_ringmem::Rings;
use std::collections::VecDeque;

/// Producer state of the CQ. Owned by whoever holds the ring lock.
pub struct Cq {
    /// Slots filled so far: completions posted, unless they differ in size. The low 32 bits are the position of the next entry, ahead of what
    /// the program sees until [`Cq::publish`]; 64 bits never wrap, so sequences compare plainly.
    tail: u64,
    published: u64,
    /// Lower bound of the program's head: the shared word is read only when this says "full".
    head_seen: u32,
    entries: u32,
    /// With fewer slots in use a completion fits, without a closer look. 0 in a mixed ring.
    sure_below: u32,
    overflow: VecDeque<(Cqe, [u64; 2])>,
    /// Timeouts that fired, which counted timeouts do not count and waiters wake for.
    pub timeouts: u64,
}

impl Cq {
    /// `mixed`: completions take one slot or two (CQE_MIXED).
    pub fn new(entries: u32, mixed: bool) -> Self {
        Cq {
            tail: 0,
            published: 0,
            head_seen: 0,
            entries,
            sure_below: if mixed { 0 } else { entries },
            overflow: VecDeque::new(),
            timeouts: 0,
        }
    }

    /// Number of slots filled so far, the overflowed completions not counted.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Sequence of completions that counted timeouts wait for.
    pub fn timeout_seq(&self) -> u64 {
        self.tail.wrapping_sub(self.timeouts)
    }

    #[inline]
    fn used(&self) -> u32 {
        (self.tail as u32).wrapping_sub(self.head_seen)
    }

    fn see_head(&mut self, rings: &Rings) {
        let head = rings.cq_head();
        // A head that the program moved beyond our tail is garbage: count the ring as full.
        if (self.tail as u32).wrapping_sub(head) <= self.entries {
            self.head_seen = head;
        }
    }

    /// Writes a completion if it fits. The overflow list is the caller's business.
    #[inline]
    fn place(&mut self, rings: &Rings, cqe: Cqe, extra: [u64; 2]) -> bool {
        if self.used() < self.sure_below {
            rings.write_cqe(self.tail as u32, cqe, extra);
            self.tail += 1;
            return true;
        }
        self.place_slowly(rings, cqe, extra)
    }

    /// As [`Cq::place`], after a look at the head, and for completions of two slots: they lie in a row, so the last
    /// slot of the ring is filled with one that says to skip it.
    #[inline(never)]
    fn place_slowly(&mut self, rings: &Rings, cqe: Cqe, extra: [u64; 2]) -> bool {
        self.see_head(rings);
        let mixed = self.sure_below == 0;
        let slots = if mixed && cqe.flags & IORING_CQE_F_32 != 0 { 2 } else { 1 };
        if slots == 2 && (self.tail as u32).wrapping_add(1) & (self.entries - 1) == 0 {
            if self.used() == self.entries {
                return false;
            }
            let skip = Cqe { user_data: 0, res: 0, flags: IORING_CQE_F_SKIP };
            rings.write_cqe(self.tail as u32, skip, [0; 2]);
            self.tail += 1;
        }
        if self.used() + slots > self.entries {
            return false;
        }
        rings.write_cqe(self.tail as u32, cqe, extra);
        self.tail += slots as u64;
        true
    }

    /// How many completions of one slot fit; exact below two, otherwise a lower bound.
    #[inline]
    pub fn room(&mut self, rings: &Rings) -> u32 {
        if !self.overflow.is_empty() {
            return 0;
        }
        if self.used() + 1 >= self.entries {
            self.see_head(rings);
        }
        self.entries - self.used()
    }

    /// Posts a completion, on the overflow list when the ring is full: nothing is lost.
    /// Returns false when it overflowed.
    #[inline]
    pub fn post(&mut self, rings: &Rings, cqe: Cqe, extra: [u64; 2]) -> bool {
        if self.overflow.is_empty() && self.place(rings, cqe, extra) {
            return true;
        }
        self.post_overflow(rings, cqe, extra)
    }

    /// As [`Cq::post`] for a completion without a second half.
    #[inline(always)]
    pub fn post_small(&mut self, rings: &Rings, cqe: Cqe) {
        if self.used() < self.sure_below && self.overflow.is_empty() {
            rings.write_small_cqe(self.tail as u32, cqe);
            self.tail += 1;
            return;
        }
        self.post_small_slowly(rings, cqe.user_data, cqe.res, cqe.flags);
    }

    #[inline(never)]
    fn post_small_slowly(&mut self, rings: &Rings, user_data: u64, res: i32, flags: u32) {
        self.post(rings, Cqe { user_data, res, flags }, [0; 2]);
    }

    #[cold]
    fn post_overflow(&mut self, rings: &Rings, cqe: Cqe, extra: [u64; 2]) -> bool {
        if self.overflow.try_reserve(1).is_err() {
            rings.cq_overflow_inc();
            return false;
        }
        if self.overflow.is_empty() {
            rings.sq_flags_set(IORING_SQ_CQ_OVERFLOW);
        }
        self.overflow.push_back((cqe, extra));
        false
    }

    /// Posts one of several completions of a multishot request, only if it fits: false ends the shots.
    #[inline]
    pub fn post_if_room(&mut self, rings: &Rings, cqe: Cqe, extra: [u64; 2]) -> bool {
        self.overflow.is_empty() && self.place(rings, cqe, extra)
    }

    /// Completions on the overflow list.
    pub fn overflowed(&self) -> usize {
        self.overflow.len()
    }

    pub fn has_overflow(&self) -> bool {
        !self.overflow.is_empty()
    }

    /// Moves overflowed completions into the ring as far as there is room.
    pub fn flush_overflow(&mut self, rings: &Rings) {
        if self.overflow.is_empty() {
            return;
        }
        // A program that wrote over the tail takes its head from there, which then makes no sense: there would
        // never be room.
        rings.set_cq_tail(self.published as u32);
        while let Some(&(cqe, extra)) = self.overflow.front()
            && self.place(rings, cqe, extra)
        {
            self.overflow.pop_front();
        }
        if self.overflow.is_empty() {
            rings.sq_flags_clear(IORING_SQ_CQ_OVERFLOW);
        }
    }

    /// Makes everything posted visible. True when there was something new.
    #[inline]
    pub fn publish(&mut self, rings: &Rings) -> bool {
        if self.tail == self.published {
            return false;
        }
        rings.set_cq_tail(self.tail as u32);
        self.published = self.tail;
        true
    }

    /// Completions that the program has not taken yet.
    #[inline]
    pub fn ready(&self, rings: &Rings) -> u32 {
        (self.tail as u32).wrapping_sub(rings.cq_head())
    }

    /// Whether the program switched eventfd notifications off.
    pub fn eventfd_disabled(rings: &Rings) -> bool {
        rings.cq_flags() & IORING_CQ_EVENTFD_DISABLED != 0
    }

    /// Goes on in other memory, which holds everything that was posted.
    pub fn resize(&mut self, rings: &Rings) {
        self.entries = rings.layout().cq_entries;
        self.sure_below = if self.sure_below == 0 { 0 } else { self.entries };
        self.head_seen = rings.cq_head();
    }

    /// Continues where the shared word says: another process may have posted meanwhile.
    pub fn resync(&mut self, rings: &Rings) {
        let ahead = rings.cq_tail().wrapping_sub(self.tail as u32);
        self.tail += ahead as u64;
        self.published = self.tail;
        // Full, until the head has been looked at: the word may be anything, and never is more than `entries` used.
        self.head_seen = (self.tail as u32).wrapping_sub(self.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soloring_ringmem::{CqeSize, Layout, SqeSize};

    /// Room for four completions.
    fn rings() -> Rings {
        let (sqe, cqe) = (SqeSize::B64, CqeSize::B16);
        Rings::create(Layout { sq_entries: 2, cq_entries: 4, sqe, cqe, sq_array: true }, Ok)
            .unwrap()
    }

    #[test]
    fn overflow_keeps_everything_in_order() {
        let rings = rings();
        let mut cq = Cq::new(4, false);
        for i in 0..6 {
            let cqe = Cqe { user_data: i, res: 0, flags: 0 };
            assert_eq!(cq.post(&rings, cqe, [0; 2]), i < 4);
        }
        assert!(cq.publish(&rings) && !cq.publish(&rings));
        assert_eq!(cq.ready(&rings), 4);
        assert!(rings.sq_flags() & IORING_SQ_CQ_OVERFLOW != 0);
        assert!(!cq.post_if_room(&rings, Cqe::default(), [0; 2]));
        cq.flush_overflow(&rings);
        assert!(cq.has_overflow());
    }

    #[test]
    fn any_tail_of_another_process_leaves_the_ring_full_at_most() {
        for tail in [1, 4, 5, 1 << 31, u32::MAX - 1, u32::MAX] {
            let rings = rings();
            let mut cq = Cq::new(4, false);
            rings.set_cq_tail(tail);
            cq.resync(&rings);
            let sound = 4u32.saturating_sub(tail);
            assert_eq!(cq.room(&rings), sound, "{tail}");
            assert_eq!(cq.post(&rings, Cqe::default(), [0; 2]), sound > 0, "{tail}");
        }
    }
}

//! Typed access to the shared rings: heads, tails, flags, and entries by value.
#![allow(unsafe_code)]

use crate::layout::{CqeSize, Layout, off};
use crate::map::Mapping;
use soloring_abi::extra::IORING_CQE_F_32;
use soloring_abi::{Cqe, Errno, Sqe};
use std::sync::atomic::{AtomicU32, Ordering};

/// The rings of one context: two regions and their layout.
///
/// All methods take `&self`; who may call which is the ring lock's business (see LOCKING.md).
pub struct Rings {
    rings: usize,
    pub(crate) sqes: usize,
    pub(crate) layout: Layout,
    pub(crate) sq_mask: u32,
    pub(crate) cq_mask: u32,
    /// What the layout says, as the busy path needs it.
    sqe_shift: u8,
    cqe_shift: u8,
    sq_array: bool,
    one_size_of_cqe: bool,
    array: usize,
    mapping: Mapping,
    sqe_mapping: Option<Mapping>,
}

impl Rings {
    /// Rings in a memory file of ours: ring region first, SQEs in the pages after it.
    ///
    /// # Errors
    /// What [`Mapping::create`] gives.
    pub fn create(
        layout: Layout,
        keep_fd: impl Fn(i32) -> Result<i32, Errno>,
    ) -> Result<Self, Errno> {
        let mapping = Mapping::create(layout.rings_mapped() + layout.sqes_mapped(), keep_fd)?;
        let sqes = mapping.addr() + layout.rings_mapped();
        Ok(Self::init(layout, mapping, None, sqes))
    }

    /// Rings in pages that the program brought: the ring region and the SQEs, each adopted.
    pub fn adopt(layout: Layout, rings: Mapping, sqes: Mapping) -> Self {
        let addr = sqes.addr();
        Self::init(layout, rings, Some(sqes), addr)
    }

    fn init(layout: Layout, mapping: Mapping, sqe_mapping: Option<Mapping>, sqes: usize) -> Self {
        assert!(layout.sq_entries.is_power_of_two() && layout.cq_entries.is_power_of_two());
        assert!(mapping.bytes() >= layout.rings_mapped());
        let this = Rings {
            rings: mapping.addr(),
            sqes,
            layout,
            sq_mask: layout.sq_entries - 1,
            cq_mask: layout.cq_entries - 1,
            sqe_shift: layout.sqe_shift() as u8,
            cqe_shift: layout.cqe_shift() as u8,
            sq_array: layout.sq_array,
            one_size_of_cqe: layout.cqe == CqeSize::B16,
            array: mapping.addr() + layout.array_offset() as usize,
            mapping,
            sqe_mapping,
        };
        for word in [
            off::SQ_HEAD,
            off::SQ_TAIL,
            off::CQ_HEAD,
            off::CQ_TAIL,
            off::SQ_DROPPED,
            off::SQ_FLAGS,
            off::CQ_FLAGS,
            off::CQ_OVERFLOW,
            off::SHARED,
            off::PROCESS_LOCK,
        ] {
            this.word(word).store(0, Ordering::Relaxed);
        }
        this.word(off::SQ_MASK).store(this.sq_mask, Ordering::Relaxed);
        this.word(off::CQ_MASK).store(this.cq_mask, Ordering::Relaxed);
        this.word(off::SQ_ENTRIES).store(layout.sq_entries, Ordering::Relaxed);
        this.word(off::CQ_ENTRIES).store(layout.cq_entries, Ordering::Relaxed);
        this
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The region behind `IORING_OFF_SQ_RING` and `IORING_OFF_CQ_RING`, then `IORING_OFF_SQES`.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The SQE region, when it is a region of its own (NO_MMAP).
    pub fn sqe_mapping(&self) -> Option<&Mapping> {
        self.sqe_mapping.as_ref()
    }

    /// First byte of the completions.
    pub(crate) fn cqes(&self) -> usize {
        self.rings + off::CQES as usize
    }

    #[inline(always)]
    pub(crate) fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: `offset` is one of the header offsets, inside the region that `self.mapping` keeps
        // mapped, and 4-byte aligned; all access from our side goes through this atomic.
        unsafe { AtomicU32::from_ptr((self.rings + offset as usize) as *mut u32) }
    }

    /// Tail of the SQ as the program published it.
    #[inline]
    pub fn sq_tail(&self) -> u32 {
        // Acquire: pairs with the program's release store of the tail, after it wrote the entries.
        self.word(off::SQ_TAIL).load(Ordering::Acquire)
    }

    /// Head of the SQ as last published by us. Used to resume in a forked child.
    pub fn sq_head(&self) -> u32 {
        self.word(off::SQ_HEAD).load(Ordering::Relaxed)
    }

    /// Publishes how far entries were consumed.
    #[inline]
    pub fn set_sq_head(&self, head: u32) {
        // Release: pairs with the program's acquire load of the head before it overwrites an entry.
        self.word(off::SQ_HEAD).store(head, Ordering::Release);
    }

    /// Index of the SQE that SQ position `pos` names, or `None` when the program wrote an index that
    /// does not exist. Without an index array the position itself is the index.
    #[inline]
    pub fn sqe_index(&self, pos: u32) -> Option<u32> {
        let slot = pos & self.sq_mask;
        if !self.sq_array {
            return Some(slot);
        }
        // SAFETY: `slot` is masked, so the word lies in the index array inside the mapped region.
        let word = unsafe { AtomicU32::from_ptr((self.array + slot as usize * 4) as *mut u32) };
        let index = word.load(Ordering::Relaxed);
        (index <= self.sq_mask).then_some(index)
    }

    /// Copies SQE `index` out. The program may be writing it meanwhile: the copy is then some mix of
    /// old and new words, and is checked as a whole afterwards.
    #[inline]
    pub fn sqe(&self, index: u32) -> Sqe {
        let slot = (index & self.sq_mask) as usize;
        let from = (self.sqes + (slot << (self.sqe_shift & 7))) as *const [u64; 8];
        // SAFETY: the masked slot lies in the SQE region; volatile, since the program may write to it;
        // `Sqe` is 64 bytes of plain integers, any bit pattern is a value.
        unsafe { std::mem::transmute::<[u64; 8], Sqe>(std::ptr::read_volatile(from)) }
    }

    pub fn sq_dropped_inc(&self) {
        let word = self.word(off::SQ_DROPPED);
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Sets bits of `sq_ring->flags` (`IORING_SQ_*`).
    pub fn sq_flags_set(&self, bits: u32) {
        // SeqCst pairs with the full fence between the program's store of its tail and its look at these
        // flags (Dekker): either it sees NEED_WAKEUP, or the SQ thread's next look sees the tail.
        self.word(off::SQ_FLAGS).fetch_or(bits, Ordering::SeqCst);
    }

    pub fn sq_flags_clear(&self, bits: u32) {
        // SeqCst: its partner is the same fence of the program's; what was done before (an overflow
        // flushed, task work taken) comes before the bit is gone.
        self.word(off::SQ_FLAGS).fetch_and(!bits, Ordering::SeqCst);
    }

    pub fn sq_flags(&self) -> u32 {
        self.word(off::SQ_FLAGS).load(Ordering::Relaxed)
    }

    /// Head of the CQ as the program published it.
    #[inline]
    pub fn cq_head(&self) -> u32 {
        // Acquire: pairs with the program's release store of the head, after it read the entries.
        self.word(off::CQ_HEAD).load(Ordering::Acquire)
    }

    pub fn cq_tail(&self) -> u32 {
        self.word(off::CQ_TAIL).load(Ordering::Relaxed)
    }

    /// Publishes completions up to `tail`.
    #[inline]
    pub fn set_cq_tail(&self, tail: u32) {
        // Release: pairs with the program's acquire load of the tail before it reads the entries.
        self.word(off::CQ_TAIL).store(tail, Ordering::Release);
    }

    /// Writes the first 16 bytes of a completion at CQ position `pos`: all of it, except in rings with bigger
    /// ones.
    #[inline(always)]
    fn write_first_half(&self, pos: u32, cqe: Cqe) -> usize {
        let slot = (pos & self.cq_mask) as usize;
        let at = self.rings + off::CQES as usize + (slot << (self.cqe_shift & 7));
        let entry = at as *mut Cqe;
        // Word by word: a copy of the whole would first be put together in memory, and waited for.
        // SAFETY: the masked slot lies in the CQE array; volatile, since the program maps it too.
        unsafe {
            (&raw mut (*entry).user_data).write_volatile(cqe.user_data);
            (&raw mut (*entry).res).write_volatile(cqe.res);
            (&raw mut (*entry).flags).write_volatile(cqe.flags);
        }
        at
    }

    /// Writes a completion at CQ position `pos`; `extra` goes to the second half of a 32-byte entry, which in
    /// a mixed ring is the next slot: there `pos` must not name the last.
    #[inline]
    pub fn write_cqe(&self, pos: u32, cqe: Cqe, extra: [u64; 2]) {
        let at = self.write_first_half(pos, cqe);
        if self.one_size_of_cqe {
            return;
        }
        let second = match self.layout.cqe {
            CqeSize::B16 => return,
            CqeSize::B32 => at + 16,
            CqeSize::Mixed if cqe.flags & IORING_CQE_F_32 != 0 => {
                self.cqes() + (((pos.wrapping_add(1) & self.cq_mask) as usize) << 4)
            }
            CqeSize::Mixed => return,
        };
        // SAFETY: the second half of that slot, or another masked slot.
        unsafe { std::ptr::write_volatile(second as *mut [u64; 2], extra) };
    }

    /// As [`Rings::write_cqe`] for a completion without a second half; one of a ring of 32-byte entries ends
    /// with zeroes.
    #[inline(always)]
    pub fn write_small_cqe(&self, pos: u32, cqe: Cqe) {
        let at = self.write_first_half(pos, cqe);
        if !self.one_size_of_cqe {
            self.clear_second_half(at);
        }
    }

    #[cold]
    fn clear_second_half(&self, at: usize) {
        if self.layout.cqe == CqeSize::B32 {
            // SAFETY: the second half of a slot in the CQE array.
            unsafe { std::ptr::write_volatile((at + 16) as *mut [u64; 2], [0; 2]) };
        }
    }

    /// `cq_ring->flags` (`IORING_CQ_*`), written by the program.
    pub fn cq_flags(&self) -> u32 {
        self.word(off::CQ_FLAGS).load(Ordering::Relaxed)
    }

    pub fn cq_overflow_inc(&self) {
        let word = self.word(off::CQ_OVERFLOW);
        word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Values of the word that says whether several processes use the ring: one has come, and the other has seen it.
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

/// Rings that several processes use (inherited over fork). The words lie where the program can reach
/// them, so they decide about waiting and never about memory: a lock that is not given back in time is
/// taken.
impl Rings {
    #[inline]
    pub fn is_shared_by_processes(&self) -> bool {
        self.word(off::SHARED).load(Ordering::Relaxed) != 0
    }

    /// For a process that comes to the ring of another one.
    pub fn set_shared_by_processes(&self) {
        let word = self.word(off::SHARED);
        let _ = word.compare_exchange(0, ASKED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// For the one that was there: from now on it takes the lock word.
    pub fn answer_sharing(&self) {
        // Release: pairs with the acquire in `await_sharing`; what it did without the word comes before.
        self.word(off::SHARED).store(ANSWERED, Ordering::Release);
        self.wake_all(off::SHARED);
    }

    /// For the one that comes: until the other takes the lock word. One that does not answer in time is not inside,
    /// and sees the mark as it comes in.
    pub fn await_sharing(&self) {
        const LIMIT_NS: u64 = 50_000_000;
        let begun = now_ns();
        // Acquire: see `answer_sharing`.
        while self.word(off::SHARED).load(Ordering::Acquire) == ASKED && now_ns() - begun < LIMIT_NS
        {
            self.wait_while(off::SHARED, ASKED);
        }
    }

    /// Takes the lock word. Holders do not sleep with it: one that has kept it for a second is dead or silly, and
    /// loses it. Each holding has a value of its own, for a process that takes it again and again is none of both.
    pub fn process_lock(&self) {
        const KEPT_MAX_NS: u64 = 1_000_000_000;
        /// Values that come and go for so long are no holders.
        const TRIED_MAX_NS: u64 = 4 * KEPT_MAX_NS;
        static HOLDINGS: AtomicU32 = AtomicU32::new(0);
        let word = self.word(off::PROCESS_LOCK);
        // Far apart for two processes, and never free.
        let process = std::process::id().wrapping_mul(0x9e37_79b1);
        let me = process.wrapping_add(HOLDINGS.fetch_add(2, Ordering::Relaxed)) | 1;
        // Acquire: pairs with the release in `process_unlock` of the process that had it before.
        let take = |from| word.compare_exchange(from, me, Ordering::Acquire, Ordering::Relaxed);
        let Err(mut seen) = take(0) else { return };
        let begun = now_ns();
        let mut since = begun;
        loop {
            self.wait_while(off::PROCESS_LOCK, seen);
            let Err(holder) = take(0) else { return };
            let now = now_ns();
            if holder != seen {
                (seen, since) = (holder, now);
            }
            let is_late = now - since >= KEPT_MAX_NS || now - begun >= TRIED_MAX_NS;
            if is_late && take(holder).is_ok() {
                return;
            }
        }
    }

    /// Waits up to 10 ms for the word to change.
    fn wait_while(&self, offset: u32, value: u32) {
        let limit = [0u64, 10_000_000];
        // SAFETY: the word is inside the mapped region; the kernel only reads it and the timespec.
        let _ = unsafe {
            syscalls::raw_syscall!(
                syscalls::Sysno::futex,
                self.rings + offset as usize,
                libc::FUTEX_WAIT,
                value,
                limit.as_ptr()
            )
        };
    }

    pub fn process_unlock(&self) {
        // Release: pairs with the acquire in `process_lock`.
        self.word(off::PROCESS_LOCK).store(0, Ordering::Release);
        self.wake_all(off::PROCESS_LOCK);
    }

    fn wake_all(&self, offset: u32) {
        // SAFETY: the word is inside the mapped region; FUTEX_WAKE does not access it.
        let _ = unsafe {
            syscalls::raw_syscall!(
                syscalls::Sysno::futex,
                self.rings + offset as usize,
                libc::FUTEX_WAKE,
                i32::MAX
            )
        };
    }
}

/// Monotonic clock, in nanoseconds.
fn now_ns() -> u64 {
    let mut ts = [0u64; 2];
    // SAFETY: the kernel writes one timespec (two 64-bit integers) to our stack.
    let _ = unsafe {
        let clock = libc::CLOCK_MONOTONIC;
        syscalls::raw_syscall!(syscalls::Sysno::clock_gettime, clock, ts.as_mut_ptr())
    };
    ts[0] * 1_000_000_000 + ts[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings() -> Rings {
        let layout = Layout {
            sq_entries: 4,
            cq_entries: 8,
            sqe: crate::layout::SqeSize::B64,
            cqe: CqeSize::B16,
            sq_array: true,
        };
        Rings::create(layout, Ok).unwrap()
    }

    #[test]
    fn garbage_indices_stay_inside() {
        let r = rings();
        assert_eq!(r.sqe_index(u32::MAX), Some(0));
        for pos in [0u32, 3, 4, 77, u32::MAX] {
            let _ = r.sqe(pos);
            r.write_cqe(pos, Cqe { user_data: 1, res: 2, flags: 3 }, [0; 2]);
        }
        assert_eq!(r.word(off::SQ_MASK).load(Ordering::Relaxed), 3);
        assert_eq!(r.word(off::CQ_ENTRIES).load(Ordering::Relaxed), 8);
    }

    /// A thread stands for a process here: what is taken is the word alone.
    #[test]
    fn whoever_takes_the_word_again_and_again_is_waited_for() {
        let r = rings();
        let inside = AtomicU32::new(0);
        let turns = || {
            for _ in 0..20_000 {
                r.process_lock();
                assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two inside");
                std::hint::spin_loop();
                inside.fetch_sub(1, Ordering::Relaxed);
                r.process_unlock();
            }
        };
        std::thread::scope(|s| (0..3).for_each(|_| drop(s.spawn(turns))));
    }

    #[test]
    fn a_holder_that_is_gone_loses_the_word() {
        let r = rings();
        r.word(off::PROCESS_LOCK).store(7, Ordering::Relaxed);
        r.process_lock();
        assert_ne!(r.word(off::PROCESS_LOCK).load(Ordering::Relaxed), 7);
        r.process_unlock();
        assert_eq!(r.word(off::PROCESS_LOCK).load(Ordering::Relaxed), 0);
    }

    #[test]
    fn index_beyond_the_entries_is_refused() {
        let r = rings();
        // SAFETY: first word of the index array of a ring that this test owns.
        unsafe { std::ptr::write_volatile(r.array as *mut u32, 4) };
        assert_eq!(r.sqe_index(0), None);
    }
}

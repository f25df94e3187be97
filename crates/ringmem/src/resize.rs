//! What a ring's old memory holds, carried over to memory of another size.
#![allow(unsafe_code)]

use crate::layout::{CqeSize, off};
use crate::rings::Rings;
use soloring_abi::extra::IORING_CQE_F_32;
use soloring_abi::{Cqe, Errno};
use std::sync::atomic::Ordering;

impl Rings {
    /// Copies the entries that wait in `old`, its heads and tails, its flags and counts. Every entry keeps its
    /// position; the index array starts empty. `sq_head` and `cq_tail` are the engine's own cursors.
    ///
    /// # Errors
    /// EOVERFLOW when the entries do not fit, or one would lie across the end. `old` is as it was in any case.
    pub fn take_over(&self, old: &Rings, sq_head: u32, cq_tail: u32) -> Result<(), Errno> {
        let (sq_tail, cq_head) = (old.sq_tail(), old.cq_head());
        let sq_waiting = sq_tail.wrapping_sub(sq_head);
        let cq_waiting = cq_tail.wrapping_sub(cq_head);
        if sq_waiting > self.layout.sq_entries || cq_waiting > self.layout.cq_entries {
            return Err(Errno::EOVERFLOW);
        }
        if self.would_split(old, cq_head, cq_waiting) {
            return Err(Errno::EOVERFLOW);
        }
        for i in 0..sq_waiting {
            self.copy_sqe(old, sq_head.wrapping_add(i));
        }
        for i in 0..cq_waiting {
            self.copy_cqe(old, cq_head.wrapping_add(i));
        }
        for (word, value) in [
            (off::SQ_HEAD, sq_head),
            (off::SQ_TAIL, sq_tail),
            (off::CQ_HEAD, cq_head),
            (off::CQ_TAIL, cq_tail),
        ] {
            self.word(word).store(value, Ordering::Relaxed);
        }
        for word in [off::SQ_DROPPED, off::SQ_FLAGS, off::CQ_FLAGS, off::CQ_OVERFLOW] {
            let value = old.word(word).load(Ordering::Relaxed);
            self.word(word).store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether a completion of two slots would lie across the end of this ring.
    fn would_split(&self, old: &Rings, cq_head: u32, waiting: u32) -> bool {
        if self.layout.cqe != CqeSize::Mixed {
            return false;
        }
        let mut i = 0;
        while i < waiting {
            let pos = cq_head.wrapping_add(i);
            let at = old.cqes() + (((pos & old.cq_mask) as usize) << 4);
            // SAFETY: a masked slot of a ring that the caller borrows; volatile, since the program maps it.
            let cqe = unsafe { std::ptr::read_volatile(at as *const Cqe) };
            let wide = cqe.flags & IORING_CQE_F_32 != 0;
            if wide && pos & self.cq_mask == self.cq_mask {
                return true;
            }
            i += if wide { 2 } else { 1 };
        }
        false
    }

    fn copy_sqe(&self, old: &Rings, pos: u32) {
        let shift = self.layout.sqe_shift();
        assert_eq!(shift, old.layout.sqe_shift(), "entries keep their size");
        let from = old.sqes + (((pos & old.sq_mask) as usize) << shift);
        let to = self.sqes + (((pos & self.sq_mask) as usize) << shift);
        copy(from, to, 1 << (shift - 3));
    }

    fn copy_cqe(&self, old: &Rings, pos: u32) {
        let shift = self.layout.cqe_shift();
        assert_eq!(shift, old.layout.cqe_shift(), "completions keep their size");
        let from = old.cqes() + (((pos & old.cq_mask) as usize) << shift);
        let to = self.cqes() + (((pos & self.cq_mask) as usize) << shift);
        copy(from, to, 1 << (shift - 3));
    }
}

/// Copies so many words of eight bytes.
fn copy(from: usize, to: usize, words: usize) {
    for i in 0..words {
        // SAFETY: both are masked slots of rings that the caller borrows, of `words` words, eight-byte aligned;
        // volatile, since the program maps them too.
        unsafe {
            let word = std::ptr::read_volatile((from as *const u64).add(i));
            std::ptr::write_volatile((to as *mut u64).add(i), word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layout, SqeSize};

    fn rings(entries: u32) -> Rings {
        let layout = Layout {
            sq_entries: entries,
            cq_entries: entries,
            sqe: SqeSize::B64,
            cqe: CqeSize::B16,
            sq_array: false,
        };
        Rings::create(layout, Ok).unwrap()
    }

    #[test]
    fn entries_keep_their_positions_over_the_wrap_of_the_counter() {
        let (old, new) = (rings(4), rings(16));
        let head = u32::MAX - 1;
        old.word(off::CQ_HEAD).store(head, Ordering::Relaxed);
        for i in 0..4 {
            let cqe = Cqe { user_data: i, res: 0, flags: 0 };
            old.write_cqe(head.wrapping_add(i as u32), cqe, [0; 2]);
        }
        new.take_over(&old, 0, head.wrapping_add(4)).unwrap();
        assert_eq!((new.cq_head(), new.cq_tail()), (head, 2));
        for i in 0..4u32 {
            let at = new.cqes() + ((head.wrapping_add(i) & 15) as usize) * 16;
            // SAFETY: a slot of the ring above.
            assert_eq!(unsafe { std::ptr::read_volatile(at as *const u64) }, i as u64);
        }
    }

    #[test]
    fn garbage_in_the_old_words_is_refused() {
        let (old, new) = (rings(4), rings(4));
        old.word(off::SQ_TAIL).store(u32::MAX, Ordering::Relaxed);
        assert_eq!(new.take_over(&old, 0, 0), Err(Errno::EOVERFLOW));
        old.word(off::SQ_TAIL).store(0, Ordering::Relaxed);
        old.word(off::CQ_HEAD).store(1, Ordering::Relaxed);
        assert_eq!(new.take_over(&old, 0, 0), Err(Errno::EOVERFLOW));
    }
}

//! Completions: what they say, and the iterator that takes them out of the ring.

use crate::memory::Memory;
use soloring_abi::{Cqe, raw};
use std::io;

/// A request, or one shot of it, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the request was pushed with.
    pub user_data: u64,
    /// The operation's result, or -errno.
    pub res: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

impl Completion {
    /// The operation's result.
    ///
    /// # Errors
    /// The errno that the request ended with.
    pub fn result(&self) -> io::Result<u32> {
        if self.res < 0 {
            Err(io::Error::from_raw_os_error(-self.res))
        } else {
            Ok(self.res as u32)
        }
    }

    /// More completions of this request will follow (IORING_CQE_F_MORE).
    pub fn more(&self) -> bool {
        self.flags & raw::IORING_CQE_F_MORE != 0
    }
}

/// Takes completions out of the ring, those that are there when it is made. What was not taken stays.
pub struct Completions<'a> {
    memory: &'a mut Memory,
    head: u32,
    tail: u32,
}

impl<'a> Completions<'a> {
    pub(crate) fn new(memory: &'a mut Memory) -> Completions<'a> {
        let (head, tail) = (memory.cq_head(), memory.cq_tail());
        Completions { memory, head, tail }
    }
}

impl Iterator for Completions<'_> {
    type Item = Completion;

    fn next(&mut self) -> Option<Completion> {
        if self.head == self.tail {
            return None;
        }
        let Cqe { user_data, res, flags } = self.memory.cqe(self.head);
        self.head = self.head.wrapping_add(1);
        Some(Completion { user_data, res, flags })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.tail.wrapping_sub(self.head) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Completions<'_> {}

impl Drop for Completions<'_> {
    fn drop(&mut self) {
        self.memory.set_cq_head(self.head);
    }
}

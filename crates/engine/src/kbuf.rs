//! Provided buffers: groups, what a request would get, and what it has used.
//!
//! A buffer is looked at first ([`Groups::peek`], [`Groups::map`]) and taken only when data is in it
//! ([`Groups::commit`]), as both happen under the ring lock: a request that would block gives nothing
//! back because it took nothing. A request that must keep its buffer while it waits takes it at once.
//!
//! The entries of a ring that lies in the program's own memory are never accessed in place, because
//! the program may unmap it at any time: they are copied in batches ([`Window`]), with the check that
//! the copy implies. The program's pages stay what they are; a fork or a free() of them is its business.

use crate::sys::MAX_RW_COUNT;
use crate::{fds, usercopy};
use soloring_abi::raw::{IORING_CQE_BUFFER_SHIFT, IORING_CQE_F_BUF_MORE, IORING_CQE_F_BUFFER};
use soloring_abi::{Errno, IoVec};
use soloring_ringmem::{BUF_ENTRY_BYTES, BUF_TAIL_AT, BufEntry, BufRingMem, Mapping};
use std::collections::VecDeque;

/// Most buffers in a classic group, and most that one bundle uses.
const CLASSIC_MAX: usize = u16::MAX as usize;
pub const BUNDLE_MAX: usize = 256;
/// Entries copied at a time from a ring in the program's memory.
const BATCH: u16 = 64;
const WINDOW: u16 = BUNDLE_MAX as u16;

/// A buffer that a request would get: address, length already cut to the request's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    pub addr: u64,
    pub len: u32,
}

/// Several buffers that a bundle would get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub count: usize,
    pub bytes: u64,
    /// The last one was left out or cut, because of the request's limit.
    pub cut: bool,
}

/// Copies of a ring's entries from the program's memory: positions `[head, filled)`.
struct Window {
    addr: u64,
    mask: u16,
    filled: u16,
    /// The program's tail when it was last read.
    tail: u16,
    entries: Box<[BufEntry; WINDOW as usize]>,
}

impl Window {
    fn new(addr: u64, entries: u32) -> Self {
        let mask = (entries - 1) as u16;
        let entries = Box::new([BufEntry::default(); WINDOW as usize]);
        Window { addr, mask, filled: 0, tail: 0, entries }
    }

    /// Copies entries from position `filled` on, `n` at most. False when the memory is not there.
    fn copy(&mut self, n: u16) -> bool {
        let mut tail = 0u16;
        let tail_at = self.addr + BUF_TAIL_AT as u64;
        // The tail comes first: an entry that it covers is complete by the time it is copied.
        let mut parts = [usercopy::Part::default(); 4];
        parts[0] = usercopy::Part { local: &raw mut tail as usize, remote: tail_at, len: 2 };
        let mut used = 1;
        let mut pos = self.filled;
        let mut left = n;
        let base = self.entries.as_mut_ptr() as usize;
        while left > 0 {
            let slot = pos & self.mask;
            let place = pos % WINDOW;
            let run = left.min(self.mask - slot + 1).min(WINDOW - place);
            parts[used] = usercopy::Part {
                local: base + place as usize * BUF_ENTRY_BYTES,
                remote: self.addr + slot as u64 * BUF_ENTRY_BYTES as u64,
                len: run as usize * BUF_ENTRY_BYTES,
            };
            used += 1;
            pos = pos.wrapping_add(run);
            left -= run;
        }
        if usercopy::read_parts(&parts[..used]).is_err() {
            return false;
        }
        self.tail = tail;
        self.filled = self.filled.wrapping_add(n.min(tail.wrapping_sub(self.filled)));
        true
    }

    /// Whether there are no more than `beyond` buffers from `head` on.
    fn ends_within(&mut self, head: u16, beyond: u16) -> bool {
        let ends = |w: &Window| w.tail.wrapping_sub(head) <= beyond;
        ends(self) && (!self.copy(0) || ends(self))
    }

    #[cold]
    fn refill(&mut self, head: u16, want: u16) {
        let have = self.filled.wrapping_sub(head);
        let room = WINDOW.min(self.mask.saturating_add(1)) - have;
        let n = BATCH.max(want - have).min(room);
        if n > 0 && !self.copy(n) && n > 1 {
            // The end of the batch may lie beyond what is mapped: the next entry alone.
            self.copy(1);
        }
    }
}

enum Mem {
    Ours(BufRingMem),
    Program(Window),
}

/// A registered buffer ring.
pub struct BufRing {
    mem: Mem,
    head: u16,
    /// Buffers are used up piece by piece (IOU_PBUF_RING_INC).
    incremental: bool,
    /// An incremental buffer with no more than this left is used up.
    spent_at: u32,
}

impl BufRing {
    /// A ring in memory of ours.
    ///
    /// # Errors
    /// ENOMEM, EMFILE, ENFILE.
    pub fn create(entries: u32) -> Result<Self, Errno> {
        let mem = BufRingMem::create(entries, fds::make_private)?;
        Ok(BufRing { mem: Mem::Ours(mem), head: 0, incremental: false, spent_at: 0 })
    }

    /// A ring in the program's memory at `addr`.
    pub fn at(addr: u64, entries: u32) -> Self {
        let mem = Mem::Program(Window::new(addr, entries));
        BufRing { mem, head: 0, incremental: false, spent_at: 0 }
    }

    /// Buffers are used up piece by piece, down to `min_left` bytes.
    pub fn incremental(mut self, min_left: u32) -> Self {
        self.incremental = true;
        self.spent_at = min_left.saturating_sub(1);
        self
    }

    /// Number of buffers taken so far, wrapping.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Number of buffers that are there; exact up to `want`, beyond that a lower bound.
    #[inline]
    fn available(&mut self, want: u16) -> u16 {
        match &mut self.mem {
            Mem::Ours(mem) => mem.tail().wrapping_sub(self.head),
            Mem::Program(window) => {
                let have = window.filled.wrapping_sub(self.head);
                if have >= want {
                    return have;
                }
                window.refill(self.head, want);
                window.filled.wrapping_sub(self.head)
            }
        }
    }

    /// Whether there are no more than `beyond` buffers.
    fn ends_within(&mut self, beyond: u16) -> bool {
        match &mut self.mem {
            Mem::Ours(mem) => mem.tail().wrapping_sub(self.head) <= beyond,
            Mem::Program(window) => window.ends_within(self.head, beyond),
        }
    }

    /// The entry at `pos`, which `available` said is there.
    #[inline]
    fn entry(&self, pos: u16) -> BufEntry {
        match &self.mem {
            Mem::Ours(mem) => mem.entry(pos),
            Mem::Program(window) => window.entries[(pos % WINDOW) as usize],
        }
    }

    fn set_rest(&mut self, pos: u16, addr: u64, len: u32) {
        match &mut self.mem {
            Mem::Ours(mem) => mem.set_rest(pos, addr, len),
            Mem::Program(window) => {
                let entry = &mut window.entries[(pos % WINDOW) as usize];
                (entry.addr, entry.len) = (addr, len);
                let at = window.addr + (pos & window.mask) as u64 * BUF_ENTRY_BYTES as u64;
                let mut bytes = [0; 12];
                bytes[..8].copy_from_slice(&addr.to_ne_bytes());
                bytes[8..].copy_from_slice(&len.to_ne_bytes());
                // Memory that is gone has nobody to read the rest.
                let _ = usercopy::write_slice(at, &bytes);
            }
        }
    }

    /// Takes `bytes` of the first buffers, `count` buffers unless incremental. True when the last one
    /// touched has something left for the next request.
    fn commit(&mut self, mut bytes: u64, count: u16) -> bool {
        if !self.incremental {
            self.head = self.head.wrapping_add(count);
            return false;
        }
        loop {
            let entry = self.entry(self.head);
            let step = bytes.min(entry.len as u64) as u32;
            let left = entry.len - step;
            if left > self.spent_at || step == 0 {
                if step > 0 {
                    self.set_rest(self.head, entry.addr.wrapping_add(step as u64), left);
                }
                return left > 0;
            }
            self.set_rest(self.head, entry.addr, 0);
            self.head = self.head.wrapping_add(1);
            bytes -= step as u64;
            if bytes == 0 {
                return false;
            }
        }
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        if let Mem::Ours(mem) = &self.mem {
            fds::close_private(mem.mapping().memfd());
        }
    }
}

/// A group of provided buffers.
pub enum Group {
    /// From PROVIDE_BUFFERS, in the order given.
    Classic(VecDeque<BufEntry>),
    Ring(BufRing),
}

/// All groups of one ring, by number.
#[derive(Default)]
pub struct Groups {
    by_id: Vec<Option<Box<Group>>>,
}

/// `cqe->flags` for a buffer.
fn buffer_flags(bid: u16, more: bool) -> u32 {
    let more = if more { IORING_CQE_F_BUF_MORE } else { 0 };
    IORING_CQE_F_BUFFER | (bid as u32) << IORING_CQE_BUFFER_SHIFT | more
}

fn cut(len: u32, limit: u32) -> u32 {
    if limit == 0 { len } else { len.min(limit) }
}

impl Groups {
    #[inline]
    pub fn get(&self, id: u16) -> Option<&Group> {
        self.by_id.get(id as usize)?.as_deref()
    }

    #[inline]
    fn get_mut(&mut self, id: u16) -> Option<&mut Group> {
        self.by_id.get_mut(id as usize)?.as_deref_mut()
    }

    /// Sets or replaces a group.
    pub fn set(&mut self, id: u16, group: Option<Group>) {
        let id = id as usize;
        if id >= self.by_id.len() {
            if group.is_none() {
                return;
            }
            self.by_id.resize_with(id + 1, || None);
        }
        self.by_id[id] = group.map(Box::new);
    }

    /// The memory behind `IORING_OFF_PBUF_RING` of a group.
    pub fn mapping(&self, id: u16) -> Option<&Mapping> {
        match self.get(id)? {
            Group::Ring(BufRing { mem: Mem::Ours(mem), .. }) => Some(mem.mapping()),
            _ => None,
        }
    }

    pub fn is_ring(&self, id: u16) -> bool {
        matches!(self.get(id), Some(Group::Ring(_)))
    }

    /// Whether buffers of this group are used up piece by piece.
    pub fn is_incremental(&self, id: u16) -> bool {
        matches!(self.get(id), Some(Group::Ring(ring)) if ring.incremental)
    }

    /// Adds `nr` classic buffers of `len` bytes each, numbered from `bid` on. The group is made if need be.
    ///
    /// # Errors
    /// EINVAL for a buffer ring; EOVERFLOW when the group was full before.
    pub fn provide(
        &mut self,
        id: u16,
        addr: u64,
        len: u32,
        nr: u32,
        bid: u16,
    ) -> Result<(), Errno> {
        if self.get(id).is_none() {
            self.set(id, Some(Group::Classic(VecDeque::new())));
        }
        let Some(Group::Classic(list)) = self.get_mut(id) else { return Err(Errno::EINVAL) };
        let fits = (CLASSIC_MAX - list.len()).min(nr as usize);
        if fits == 0 {
            return Err(Errno::EOVERFLOW);
        }
        list.try_reserve(fits).map_err(|_| Errno::ENOMEM)?;
        list.extend((0..fits as u64).map(|i| BufEntry {
            addr: addr + i * len as u64,
            len: len.min(MAX_RW_COUNT as u32),
            bid: bid.wrapping_add(i as u16),
            tail: 0,
        }));
        Ok(())
    }

    /// Takes up to `nr` classic buffers away and returns how many there were.
    ///
    /// # Errors
    /// ENOENT for a group that does not exist, EINVAL for a buffer ring.
    pub fn remove(&mut self, id: u16, nr: u32) -> Result<u32, Errno> {
        match self.get_mut(id) {
            None => Err(Errno::ENOENT),
            Some(Group::Ring(_)) => Err(Errno::EINVAL),
            Some(Group::Classic(list)) => {
                let nr = list.len().min(nr as usize);
                list.drain(..nr);
                Ok(nr as u32)
            }
        }
    }

    /// The buffer that a request for at most `limit` bytes (0: any) would get; `None` for ENOBUFS.
    #[inline]
    pub fn peek(&mut self, id: u16, limit: u32) -> Option<Picked> {
        let entry = match self.get_mut(id)? {
            Group::Classic(list) => *list.front()?,
            Group::Ring(ring) => {
                if ring.available(1) == 0 {
                    return None;
                }
                ring.entry(ring.head)
            }
        };
        Some(Picked { addr: entry.addr, len: cut(entry.len, limit) })
    }

    /// Takes the buffer that `peek` showed, `bytes` of it having been used. Returns its `cqe->flags`.
    #[inline]
    pub fn commit(&mut self, id: u16, bytes: u64) -> u32 {
        self.commit_many(id, bytes, 1)
    }

    /// Takes the first `count` buffers, or as much of them as `bytes` fill when they are incremental.
    /// Returns the `cqe->flags` of the first.
    pub fn commit_many(&mut self, id: u16, bytes: u64, count: usize) -> u32 {
        match self.get_mut(id) {
            None => 0,
            Some(Group::Classic(list)) => {
                list.pop_front().map_or(0, |entry| buffer_flags(entry.bid, false))
            }
            Some(Group::Ring(ring)) => {
                let bid = ring.entry(ring.head).bid;
                let more = ring.commit(bytes, count as u16);
                buffer_flags(bid, more)
            }
        }
    }

    /// Takes the whole buffer that `peek` showed, for a request that goes on filling it later.
    pub fn take(&mut self, id: u16) -> u32 {
        match self.get_mut(id) {
            Some(Group::Ring(ring)) => {
                let entry = ring.entry(ring.head);
                ring.head = ring.head.wrapping_add(1);
                buffer_flags(entry.bid, false)
            }
            _ => self.commit(id, 0),
        }
    }

    /// Fills `iov` with the buffers that a bundle for at most `limit` bytes (0: any) would get.
    /// A classic group gives one. A buffer that is not incremental is only cut when it is the first.
    pub fn map(&mut self, id: u16, limit: u64, iov: &mut [IoVec]) -> Option<Mapped> {
        let ring = match self.get_mut(id)? {
            Group::Ring(ring) => ring,
            Group::Classic(_) => {
                let one = self.peek(id, limit.min(u32::MAX as u64) as u32)?;
                iov[0] = IoVec { base: one.addr, len: one.len as u64 };
                return Some(Mapped { count: 1, bytes: one.len as u64, cut: false });
            }
        };
        let nr = ring.available(iov.len() as u16).min(iov.len() as u16);
        if nr == 0 {
            return None;
        }
        let mut left = if limit == 0 { u64::MAX } else { limit };
        let mut mapped = Mapped { count: 0, bytes: 0, cut: false };
        for i in 0..nr {
            let entry = ring.entry(ring.head.wrapping_add(i));
            let len = (entry.len as u64).min(left);
            if len < entry.len as u64 {
                mapped.cut = true;
                if i > 0 && !ring.incremental {
                    break;
                }
            }
            iov[i as usize] = IoVec { base: entry.addr, len };
            mapped.count += 1;
            mapped.bytes += len;
            left -= len;
            if left == 0 {
                break;
            }
        }
        Some(mapped)
    }

    /// Whether no more than `beyond` buffers are there.
    pub fn ends_within(&mut self, id: u16, beyond: usize) -> bool {
        match self.get_mut(id) {
            None => true,
            Some(Group::Classic(list)) => list.len() <= beyond,
            Some(Group::Ring(ring)) => ring.ends_within(beyond as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u16 = 3;

    fn write(ring: &mut [BufEntry], pos: usize, entry: BufEntry) {
        let slot = pos % ring.len();
        let tail = ring[slot].tail;
        ring[slot] = BufEntry { tail, ..entry };
    }

    fn entry(n: u32) -> BufEntry {
        BufEntry { addr: n as u64 * 0x1000, len: 100, bid: n as u16, tail: 0 }
    }

    /// A ring in (our) program memory with `nr` slots, and its group.
    fn program_ring(nr: u32) -> (Vec<BufEntry>, Groups) {
        let memory = vec![BufEntry::default(); nr as usize];
        let mut groups = Groups::default();
        groups.set(GROUP, Some(Group::Ring(BufRing::at(memory.as_ptr() as u64, nr))));
        (memory, groups)
    }

    fn flags(bid: u32) -> u32 {
        1 | bid << 16
    }

    #[test]
    fn entries_come_in_order_around_every_wrap() {
        let (mut memory, mut groups) = program_ring(128);
        let (mut added, mut used) = (0u32, 0u32);
        while used < 200_000 {
            for _ in 0..(1 + used % 97) {
                if added - used < 128 {
                    write(&mut memory, added as usize, entry(added));
                    added += 1;
                    memory[0].tail = added as u16;
                }
            }
            for _ in 0..(1 + added % 89) {
                let Some(got) = groups.peek(GROUP, 0) else { break };
                assert_eq!(got, Picked { addr: entry(used).addr, len: 100 });
                assert_eq!(groups.commit(GROUP, 5), flags(used & 0xffff));
                used += 1;
            }
        }
        assert!(used <= added);
    }

    #[test]
    fn nothing_is_taken_by_looking() {
        let (mut memory, mut groups) = program_ring(4);
        assert_eq!(groups.peek(GROUP, 0), None);
        write(&mut memory, 0, entry(7));
        memory[0].tail = 1;
        assert_eq!(groups.peek(GROUP, 30).unwrap().len, 30);
        assert_eq!(groups.peek(GROUP, 0).unwrap().len, 100);
        assert_eq!(groups.take(GROUP), flags(7));
        assert_eq!(groups.peek(GROUP, 0), None);
    }

    #[test]
    fn incremental_buffers_are_used_up_piece_by_piece() {
        let (mut memory, mut groups) = program_ring(4);
        let ring = BufRing::at(memory.as_ptr() as u64, 4).incremental(10);
        groups.set(GROUP, Some(Group::Ring(ring)));
        for i in 0..2 {
            write(&mut memory, i, entry(i as u32));
        }
        memory[0].tail = 2;
        assert_eq!(groups.peek(GROUP, 0).unwrap().len, 100);
        assert_eq!(groups.commit(GROUP, 60), flags(0) | IORING_CQE_F_BUF_MORE);
        assert_eq!(groups.peek(GROUP, 0), Some(Picked { addr: 60, len: 40 }));
        assert_eq!((memory[0].addr, memory[0].len, memory[0].tail), (60, 40, 2));
        assert_eq!(groups.commit(GROUP, 31), flags(0), "9 bytes are too few to go on with");
        assert_eq!(groups.commit(GROUP, 0), flags(1) | IORING_CQE_F_BUF_MORE, "nothing used");
        assert_eq!(groups.peek(GROUP, 0).unwrap().len, 100);
        assert_eq!(groups.commit(GROUP, 100), flags(1));
        assert_eq!(groups.peek(GROUP, 0), None);
    }

    #[test]
    fn bundles_take_whole_buffers() {
        let (mut memory, mut groups) = program_ring(8);
        for i in 0..5 {
            write(&mut memory, i, entry(i as u32));
        }
        memory[0].tail = 5;
        let mut iov = [IoVec::default(); 8];
        let mapped = groups.map(GROUP, 250, &mut iov).unwrap();
        assert_eq!(mapped, Mapped { count: 2, bytes: 200, cut: true });
        let mapped = groups.map(GROUP, 30, &mut iov).unwrap();
        assert_eq!(mapped, Mapped { count: 1, bytes: 30, cut: true });
        let mapped = groups.map(GROUP, 0, &mut iov).unwrap();
        assert_eq!(mapped, Mapped { count: 5, bytes: 500, cut: false });
        assert!(groups.ends_within(GROUP, 5) && !groups.ends_within(GROUP, 4));
        assert_eq!(groups.commit_many(GROUP, 150, 2), flags(0));
        assert_eq!(groups.peek(GROUP, 0).unwrap().addr, 0x2000);
    }

    #[test]
    fn memory_that_is_gone_means_no_buffers() {
        let mut groups = Groups::default();
        groups.set(GROUP, Some(Group::Ring(BufRing::at(4096, 64))));
        assert_eq!(groups.peek(GROUP, 0), None);
    }

    #[test]
    fn a_garbage_tail_stays_inside() {
        let (mut memory, mut groups) = program_ring(4);
        memory[0].tail = 40_000;
        for _ in 0..100 {
            assert_eq!(groups.peek(GROUP, 0), Some(Picked { addr: 0, len: 0 }));
            assert_eq!(groups.commit(GROUP, 0), flags(0));
        }
    }

    #[test]
    fn classic_groups_fill_up_and_empty() {
        let mut groups = Groups::default();
        assert_eq!(groups.remove(GROUP, 1), Err(Errno::ENOENT));
        groups.provide(GROUP, 1000, 10, 65_535, 5).unwrap();
        assert_eq!(groups.provide(GROUP, 0, 10, 1, 5), Err(Errno::EOVERFLOW));
        assert_eq!(groups.peek(GROUP, 0), Some(Picked { addr: 1000, len: 10 }));
        assert_eq!(groups.commit(GROUP, 3), flags(5));
        assert_eq!(groups.peek(GROUP, 4), Some(Picked { addr: 1010, len: 4 }));
        assert_eq!(groups.remove(GROUP, 70_000), Ok(65_534));
        assert_eq!(groups.remove(GROUP, 1), Ok(0));
    }
}

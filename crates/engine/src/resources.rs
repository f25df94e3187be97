//! Registered ("fixed") files and buffers: slots, tags, and who keeps a removed one alive.
//!
//! A slot is owned by the table. A request that outlives its inline attempt holds the resource by `Arc`;
//! a tag is posted once the table has let go and no request holds it any more.

use crate::fds;
use crate::sys::{self, FileKind};
use soloring_abi::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// A registered file: a duplicate of the program's descriptor, closed with the last holder.
#[derive(Debug)]
pub struct FixedFile {
    pub fd: i32,
    pub kind: FileKind,
    /// O_DIRECT was set when it was registered.
    pub direct: bool,
    /// The epoll instance that its number was registered in; -1 before it ever was.
    pub watched: AtomicI32,
}

impl FixedFile {
    /// Takes a duplicate of `fd`.
    ///
    /// # Errors
    /// EBADF for a descriptor that is not open, is a ring, or is ours; EMFILE.
    pub fn hold(fd: i32) -> Result<Self, Errno> {
        if fds::ring_id(fd).is_some() || fds::is_private(fd) {
            return Err(Errno::EBADF);
        }
        Self::own(fds::dup_private(fd)?)
    }

    /// Wraps a private descriptor.
    pub fn own(fd: i32) -> Result<Self, Errno> {
        let kind = sys::file_kind(fd);
        let flags = sys::fcntl(fd, libc::F_GETFL, 0);
        match (kind, flags) {
            (Ok(kind), Ok(flags)) => {
                let direct = flags as i32 & libc::O_DIRECT != 0;
                Ok(FixedFile { fd, kind, direct, watched: AtomicI32::new(-1) })
            }
            (Err(e), _) | (_, Err(e)) => {
                fds::close_private(fd);
                Err(e)
            }
        }
    }
}

impl Drop for FixedFile {
    fn drop(&mut self) {
        let epfd = self.watched.load(Ordering::Relaxed);
        if epfd >= 0 {
            // The program may keep the file open: closing our number alone would leave its entry.
            let _ = sys::epoll_ctl(epfd, libc::EPOLL_CTL_DEL, self.fd, 0, 0);
        }
        fds::close_private(self.fd);
    }
}

/// A registered buffer: an address range of the program's, in bytes.
#[derive(Debug)]
pub struct FixedBuf {
    pub addr: u64,
    pub len: u64,
}

impl FixedBuf {
    /// Whether `[addr, addr + len)` lies inside.
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        addr.checked_add(len).is_some_and(|end| addr >= self.addr && end <= self.addr + self.len)
    }
}

/// A resource in a slot, with the tag to post when it is gone.
#[derive(Debug)]
pub struct Node<T> {
    pub item: Arc<T>,
    pub tag: u64,
}

/// Slots of one kind of resource.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<Node<T>>>,
    /// Where FILE_INDEX_ALLOC looks: `[start, end)` and the next candidate.
    alloc: (u32, u32),
    hint: u32,
}

impl<T> Table<T> {
    pub fn new(slots: Vec<Option<Node<T>>>) -> Self {
        let end = slots.len() as u32;
        Table { slots, alloc: (0, end), hint: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub fn get(&self, index: u32) -> Option<&Node<T>> {
        self.slots.get(index as usize)?.as_ref()
    }

    /// Puts `node` (or nothing) into a slot and returns what was there.
    ///
    /// Allocation goes on behind a slot that was filled, and at one that was emptied.
    ///
    /// # Panics
    /// When `index` is out of range: callers check it for their own errno.
    pub fn replace(&mut self, index: u32, node: Option<Node<T>>) -> Option<Node<T>> {
        let fills = node.is_some();
        let old = std::mem::replace(&mut self.slots[index as usize], node);
        if fills != old.is_some() && (self.alloc.0..self.alloc.1).contains(&index) {
            self.hint = if fills { index + 1 } else { index };
        }
        old
    }

    /// Adds empty slots up to `len`.
    pub fn grow(&mut self, len: usize) {
        if self.slots.len() < len {
            self.slots.resize_with(len, || None);
        }
    }

    /// Limits FILE_INDEX_ALLOC to `[start, end)`.
    pub fn set_alloc_range(&mut self, start: u32, end: u32) {
        self.alloc = (start, end);
        self.hint = start;
    }

    /// A free slot in the allocation range.
    ///
    /// # Errors
    /// ENFILE when it is full.
    pub fn find_free(&self) -> Result<u32, Errno> {
        let (start, end) = self.alloc;
        let from = self.hint.clamp(start, end);
        let free = |i: &u32| self.slots[*i as usize].is_none();
        let found = (from..end).find(free).or_else(|| (start..from).find(free));
        found.ok_or(Errno::ENFILE)
    }

    /// All nodes, the table being given up.
    pub fn into_nodes(self) -> impl Iterator<Item = Node<T>> {
        self.slots.into_iter().flatten()
    }
}

/// A removed resource whose tag is still to be posted: when the last request lets go of it.
#[derive(Debug)]
pub enum Retired {
    File(Node<FixedFile>),
    Buf(Node<FixedBuf>),
}

impl Retired {
    /// Whether no request holds it any more.
    pub fn is_idle(&self) -> bool {
        match self {
            Retired::File(n) => Arc::strong_count(&n.item) == 1,
            Retired::Buf(n) => Arc::strong_count(&n.item) == 1,
        }
    }

    pub fn tag(&self) -> u64 {
        match self {
            Retired::File(n) => n.tag,
            Retired::Buf(n) => n.tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(n: usize) -> Table<FixedBuf> {
        Table::new((0..n).map(|_| None).collect())
    }

    fn node() -> Option<Node<FixedBuf>> {
        Some(Node { item: Arc::new(FixedBuf { addr: 100, len: 10 }), tag: 0 })
    }

    #[test]
    fn alloc_stays_in_its_range_and_reports_full() {
        let mut t = table(6);
        t.set_alloc_range(2, 4);
        for expect in [2, 3] {
            let i = t.find_free().unwrap();
            assert_eq!(i, expect);
            t.replace(i, node());
        }
        assert_eq!(t.find_free(), Err(Errno::ENFILE));
        t.replace(2, None);
        assert_eq!(t.find_free(), Ok(2));
        t.replace(5, node());
        t.replace(0, node());
        t.replace(0, None);
        assert_eq!(t.find_free(), Ok(2), "slots outside the range do not move the search");
    }

    #[test]
    fn alloc_goes_on_behind_the_last_slot_filled() {
        let mut t = table(6);
        t.replace(2, node());
        assert_eq!(t.find_free(), Ok(3));
        t.replace(5, node());
        assert_eq!(t.find_free(), Ok(0));
        t.replace(5, node());
        assert_eq!(t.find_free(), Ok(0), "a slot that was full already");
    }

    #[test]
    fn buffer_bounds_do_not_overflow() {
        let b = FixedBuf { addr: 100, len: 10 };
        assert!(b.contains(100, 10) && b.contains(110, 0));
        assert!(!b.contains(100, 11) && !b.contains(99, 1) && !b.contains(u64::MAX, 2));
    }
}

//! The side of a ring that needs no lock: where workers and other threads leave task work.
//!
//! Workers, the reactor and other rings only enqueue here and wake; they never complete a request.

use crate::req::{File, Req};
use crate::slab::ReqId;
use crate::{fds, sys};
use soloring_abi::{Cqe, Errno};
use soloring_ringmem::Rings;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Data of the wake eventfd and the timerfds in the ring's epoll instance; request names have a
/// generation of at least 1 and cannot collide.
pub const WAKE: u64 = 0;
pub const TIMER_FD: u64 = 1;

/// A piece of task work, to be run by whoever holds the ring lock next.
pub enum TaskWork {
    /// A worker finished a request.
    Done { id: ReqId, req: Box<Req>, res: i32 },
    /// A completion from another ring (MSG_RING).
    Message { cqe: Cqe },
}

/// There is task work.
const PENDING: u8 = 1;
/// The program watches the ring descriptor's readiness.
const WATCHED: u8 = 2;
/// The ring is not enabled yet (IORING_SETUP_R_DISABLED): it takes no messages.
const DISABLED: u8 = 4;
/// This is the side of the process that a child was forked from, and the child has none of its own yet.
const INHERITED: u8 = 8;

/// The lock-free side of one ring.
pub struct Shared {
    work: Mutex<Vec<TaskWork>>,
    /// [`PENDING`], [`WATCHED`], [`DISABLED`], [`INHERITED`].
    bits: AtomicU8,
    /// The ring's epoll instance: armed files, the wake eventfd, timerfds.
    pub epfd: i32,
    pub wake_fd: i32,
    /// Nothing is waited for inside.
    rings: Mutex<Arc<Rings>>,
    /// A private duplicate of the ring's eventfd. The program closes its own number while others are still
    /// inside the ring; a write to that number could go to whatever has taken it.
    pub ring_fd: i32,
}

impl Shared {
    /// `ring_fd` is the ring's eventfd by any number; it is duplicated.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new(rings: Arc<Rings>, ring_fd: i32) -> Result<Self, Errno> {
        let epfd = fds::make_private(sys::epoll_create()?)?;
        let wake_fd = match sys::eventfd().and_then(fds::make_private) {
            Ok(fd) => fd,
            Err(e) => {
                fds::close_private(epfd);
                return Err(e);
            }
        };
        let ring_fd = match fds::dup_private(ring_fd) {
            Ok(fd) => fd,
            Err(e) => {
                fds::close_private(epfd);
                fds::close_private(wake_fd);
                return Err(e);
            }
        };
        let in_edges = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let this = Shared {
            work: Mutex::new(Vec::new()),
            bits: AtomicU8::new(0),
            epfd,
            wake_fd,
            rings: Mutex::new(rings),
            ring_fd,
        };
        sys::epoll_ctl(epfd, libc::EPOLL_CTL_ADD, wake_fd, in_edges, WAKE)?;
        Ok(this)
    }

    /// Has the ring descriptor's own eventfd wake this process too: other processes that share the ring
    /// signal it when they post.
    pub fn wake_for_ring_fd(&self) {
        let in_edges = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let _ = sys::epoll_ctl(self.epfd, libc::EPOLL_CTL_ADD, self.ring_fd, in_edges, WAKE);
    }

    /// Leaves task work and wakes whoever waits on the ring's epoll instance. True when there was none before.
    pub fn push(&self, item: TaskWork) -> bool {
        self.work.lock().unwrap_or_else(|e| e.into_inner()).push(item);
        // AcqRel: pairs with the one in `take`; whoever clears the flag sees the item.
        let first = self.bits.fetch_or(PENDING, Ordering::AcqRel) & PENDING == 0;
        if first {
            self.wake();
        }
        first
    }

    /// Takes the messages of other rings, in the order they came, and leaves the rest.
    pub fn take_messages(&self) -> Vec<Cqe> {
        let mut work = self.work.lock().unwrap_or_else(|e| e.into_inner());
        let mut messages = Vec::new();
        work.retain(|item| match item {
            TaskWork::Message { cqe } => {
                messages.push(*cqe);
                false
            }
            TaskWork::Done { .. } => true,
        });
        if work.is_empty() {
            // Inside the mutex: whoever adds something after this sets the flag after this.
            self.bits.fetch_and(!PENDING, Ordering::Relaxed);
        }
        messages
    }

    pub fn set_disabled(&self, disabled: bool) {
        if disabled {
            self.bits.fetch_or(DISABLED, Ordering::Relaxed);
        } else {
            self.bits.fetch_and(!DISABLED, Ordering::Relaxed);
        }
    }

    /// Whether the ring still waits for IORING_REGISTER_ENABLE_RINGS.
    pub fn is_disabled(&self) -> bool {
        self.has(DISABLED)
    }

    /// Wakes the waiter on the ring's epoll instance. The eventfd is registered edge-triggered and
    /// never read: each write is an edge.
    pub fn wake(&self) {
        sys::eventfd_signal(self.wake_fd);
    }

    #[inline(always)]
    fn has(&self, bit: u8) -> bool {
        self.bits.load(Ordering::Relaxed) & bit != 0
    }

    /// Neither is there task work, nor does the program watch the ring descriptor. One plain load.
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        !self.has(PENDING | WATCHED)
    }

    /// Whether there is task work. One plain load: the submitter asks on every enter.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.has(PENDING)
    }

    /// Takes all task work.
    pub fn take(&self, into: &mut Vec<TaskWork>) {
        // AcqRel: pairs with the one in `push`.
        if self.bits.fetch_and(!PENDING, Ordering::AcqRel) & PENDING != 0 {
            into.append(&mut self.work.lock().unwrap_or_else(|e| e.into_inner()));
        }
    }

    fn rings(&self) -> MutexGuard<'_, Arc<Rings>> {
        self.rings.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The ring has other memory from now on.
    pub fn set_rings(&self, rings: Arc<Rings>) {
        *self.rings() = rings;
    }

    /// Whether other processes use this ring too, or may.
    pub fn is_multi(&self) -> bool {
        self.has(INHERITED) || self.rings().is_shared_by_processes()
    }

    /// In a forked child: nothing is to be left here.
    pub fn set_inherited(&self) {
        self.bits.fetch_or(INHERITED, Ordering::Relaxed);
    }

    /// From now on the ring descriptor's readiness is kept in line with the CQ.
    pub fn watch(&self) {
        ANY_WATCHED.store(true, Ordering::Relaxed);
        if self.bits.fetch_or(WATCHED, Ordering::Relaxed) & WATCHED == 0 {
            // Pairs with the light fence of who posts, between publishing the tail and looking at the flag:
            // either that sees the flag, or we see the tail.
            soloring_lock::full_fence_for_all();
            let rings = self.rings();
            if rings.cq_tail() != rings.cq_head() {
                sys::eventfd_signal(self.ring_fd);
            }
        }
    }

    #[inline]
    pub fn is_watched(&self) -> bool {
        self.has(WATCHED)
    }
}

static ANY_WATCHED: AtomicBool = AtomicBool::new(false);
/// Rings by id.
pub type ById = BTreeMap<u64, Weak<Shared>>;
static BY_ID: Mutex<ById> = Mutex::new(BTreeMap::new());

/// Keeps everyone else out of the table; for the length of a fork.
pub fn hold() -> MutexGuard<'static, ById> {
    BY_ID.lock().unwrap_or_else(|e| e.into_inner())
}

/// Makes a ring findable by its id, for those that must not take its lock.
pub fn publish(id: u64, shared: &Arc<Shared>) {
    let mut by_id = hold();
    by_id.retain(|_, s| s.strong_count() > 0);
    by_id.insert(id, Arc::downgrade(shared));
}

/// The lock-free side of ring `id`.
pub fn by_id(id: u64) -> Option<Arc<Shared>> {
    hold().get(&id)?.upgrade()
}

/// Ids of the rings whose descriptor is being watched.
pub fn watched() -> Vec<u64> {
    if !ANY_WATCHED.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let by_id = hold();
    let watched = |s: &Weak<Shared>| s.upgrade().is_some_and(|s| s.is_watched());
    by_id.iter().filter(|(_, s)| watched(s)).map(|(id, _)| *id).collect()
}

/// Notes that the descriptor of ring `id` is being watched for readiness.
pub fn watch_ring(id: u64) {
    if let Some(shared) = by_id(id) {
        shared.watch();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What workers left after the ring was closed: nobody took it, and it holds its files.
        for item in self.work.get_mut().unwrap_or_else(|e| e.into_inner()) {
            if let TaskWork::Done { req, .. } = item
                && let File::Own(fd) = req.file
            {
                fds::close_private(fd);
            }
        }
        for fd in [self.wake_fd, self.epfd, self.ring_fd] {
            fds::close_private(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soloring_abi::Sqe;
    use soloring_ringmem::{CqeSize, Layout, SqeSize};

    /// Several are only there at once when somebody was inside the target's lock.
    #[test]
    fn messages_are_taken_in_order_and_nothing_else_is() {
        let (sqe, cqe) = (SqeSize::B64, CqeSize::B16);
        let layout = Layout { sq_entries: 2, cq_entries: 4, sqe, cqe, sq_array: true };
        let rings = Arc::new(Rings::create(layout, Ok).unwrap());
        let ring_fd = sys::eventfd().unwrap();
        let shared = Shared::new(rings, ring_fd).unwrap();
        for user_data in 1..4 {
            let cqe = Cqe { user_data, ..Cqe::default() };
            assert_eq!(shared.push(TaskWork::Message { cqe }), user_data == 1, "the first tells");
            let req = Box::new(Req::new(Sqe::default()));
            shared.push(TaskWork::Done { id: ReqId { index: 0, generation: 1 }, req, res: 0 });
        }
        let taken: Vec<u64> = shared.take_messages().iter().map(|cqe| cqe.user_data).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(shared.has_work() && shared.take_messages().is_empty());
        let mut rest = Vec::new();
        shared.take(&mut rest);
        assert!(rest.len() == 3 && !shared.has_work());
        sys::close(ring_fd);
    }
}

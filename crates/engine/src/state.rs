//! Everything of a ring that the ring lock guards.
//!
//! Owned by whoever holds the lock: functions of the engine take `&mut State` as the proof.

use crate::counts;
use crate::cq::Cq;
use crate::creds::Personalities;
use crate::facts::Facts;
use crate::fds;
use crate::index::Index;
use crate::kbuf::Groups;
use crate::region::Region;
use crate::req::{AsyncData, File, NIL, Req, flag};
use crate::resources::{FixedBuf, FixedFile, Node, Retired, Table};
use crate::shared::Shared;
use crate::slab::{Slab, Where};
use crate::timers::Timers;
use crate::watch::Watches;
use soloring_abi::extra::IORING_SETUP_CQE_MIXED;
use soloring_abi::{Cqe, Errno, raw};
use soloring_iowq::Wq;
use soloring_lock::ThreadToken;
use soloring_ringmem::Rings;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// A registered eventfd.
#[derive(Clone, Copy, Debug)]
pub struct EventFd {
    /// A private duplicate.
    pub fd: i32,
    /// The number that the program registered; it may name something else by now.
    pub number: i32,
    /// Only signalled for completions that were not posted inline (EVENTFD_ASYNC).
    pub async_only: bool,
    /// Signalled for task work that the submitter has not run yet (DEFER_TASKRUN).
    pub told: bool,
}

/// Registered restrictions (IORING_REGISTER_RESTRICTIONS).
#[derive(Clone, Debug, Default)]
pub struct Restrictions {
    pub registered: bool,
    pub register_ops: u64,
    pub sqe_ops: u128,
    pub sqe_flags_allowed: u8,
    pub sqe_flags_required: u8,
}

/// Assembly of a link chain during one submission.
#[derive(Clone, Copy, Debug)]
pub struct SubmitLink {
    pub head: u32,
    pub last: u32,
}

/// A thread that waits for completions while another one (the leader) waits on the epoll instance.
#[derive(Clone, Copy, Debug)]
pub struct Follower {
    /// Eventfd that this thread sleeps on.
    pub fd: i32,
    /// CQ tail at which it wakes.
    pub target: u64,
    pub timeouts: u64,
}

/// The thread that waits on the ring's epoll instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leader {
    pub present: bool,
    /// Asleep in the kernel right now: others must wake it for what they post.
    pub asleep: bool,
    pub target: u64,
    pub timeouts: u64,
}

/// Where the reactor stands with a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Watch {
    /// Not watched: the program comes in by itself, or nothing is armed.
    #[default]
    Off,
    /// The reactor will be woken by the next event of the ring's epoll instance.
    On,
}

/// The guarded state of one ring.
///
/// In the order of declaration, which is made for the busy ring: what every enter asks for lies together, and
/// the conditions that are all off then lie side by side, so that one load and one compare ask for all of them.
#[repr(C)]
pub struct State {
    // What an enter asks for ([`State::is_plain`]): eight bytes in a row.
    /// Inherited over fork, and not used here yet.
    pub inherited: bool,
    /// Several processes use this ring; and this one holds its lock word right now.
    pub multi: bool,
    pub process_locked: bool,
    /// The submitter is a thread of another process (this one inherited the ring).
    pub submitter_elsewhere: bool,
    /// The ring is closed; a waiter that is still inside finishes the teardown.
    pub dying: bool,
    /// Something may be ready right after it was armed: look before `enter` returns.
    pub recheck: bool,
    /// Work was queued that no worker was called for yet.
    pub kick: bool,
    pub watch: Watch,
    // What a submission asks for ([`State::takes_plain_requests`]): four bytes in a row.
    pub drain_active: bool,
    pub drain_next: bool,
    pub restricted: bool,
    /// IORING_SETUP_IOPOLL: not every opcode is taken.
    pub iopoll: bool,
    pub setup_flags: u32,
    pub rings: Arc<Rings>,
    pub shared: Arc<Shared>,
    pub submitter: Option<ThreadToken>,
    /// Private consumer cursor of the SQ.
    pub sq_head: u32,
    /// Where the submission that is under way ends.
    pub sq_stop: u32,
    /// Set while completions are posted by the submitting thread itself.
    pub inline: bool,
    pub drain_disabled: bool,
    pub link: SubmitLink,
    /// The request that a submission uses again and again.
    pub scratch: Option<Box<Req>>,
    pub cq: Cq,
    /// Requests armed in the epoll instance or with a worker.
    pub armed: usize,
    pub punted: usize,
    pub ready: VecDeque<u32>,
    /// Counted timeouts, ordered by the completion they wait for.
    pub counted: BTreeSet<(u64, u32)>,
    pub timers: Timers,
    pub eventfd: Option<EventFd>,
    pub leader: Leader,
    pub followers: Vec<Follower>,
    /// Of a follower that has left, for the next one.
    pub spare_eventfd: Option<i32>,
    pub facts: Facts,
    pub files: Option<Table<FixedFile>>,
    pub bufs: Option<Table<FixedBuf>>,
    /// Files that armed requests wait on.
    pub watches: Watches,
    pub slab: Slab,
    pub by_user_data: Index,
    pub by_file: Index,
    pub deferred: VecDeque<u32>,
    pub drained: usize,
    /// Provided buffers.
    pub kbuf: Groups,
    pub retired: Vec<Retired>,
    pub restrictions: Restrictions,
    pub wq: Arc<Wq>,
    /// The ring descriptor's eventfd, by the number that [`Shared`] owns (-1: closed), and its present state.
    pub ring_fd: i32,
    pub fd_signalled: bool,
    /// timerfds for the clocks that the epoll timeout cannot express; -1 until needed.
    pub timer_fds: [i32; 3],
    pub timer_set: [u64; 3],
    /// Clock of waits in enter (IORING_REGISTER_CLOCK).
    pub wait_clock: i32,
    pub personalities: Personalities,
    pub region: Option<Region>,
    /// Enters that found enough completions and did not look at the epoll instance.
    pub skipped_polls: u32,
    /// Requests submitted, by opcode.
    pub counts: counts::Own,
}

impl State {
    pub fn new(
        id: u64,
        shared: Arc<Shared>,
        wq: Arc<Wq>,
        rings: Arc<Rings>,
        setup_flags: u32,
    ) -> Self {
        let mixed = setup_flags & IORING_SETUP_CQE_MIXED != 0;
        let cq = Cq::new(rings.layout().cq_entries, mixed);
        State {
            shared,
            wq,
            rings,
            iopoll: setup_flags & raw::IORING_SETUP_IOPOLL != 0,
            setup_flags,
            submitter: None,
            sq_head: 0,
            sq_stop: 0,
            cq,
            slab: Slab::default(),
            by_user_data: Index::default(),
            by_file: Index::default(),
            timers: Timers::default(),
            counted: BTreeSet::new(),
            watches: Watches::new(id),
            ready: VecDeque::new(),
            link: SubmitLink { head: NIL, last: NIL },
            scratch: None,
            deferred: VecDeque::new(),
            drained: 0,
            drain_active: false,
            drain_next: false,
            drain_disabled: false,
            files: None,
            bufs: None,
            kbuf: Groups::default(),
            retired: Vec::new(),
            eventfd: None,
            inline: false,
            restrictions: Restrictions::default(),
            restricted: false,
            leader: Leader::default(),
            followers: Vec::new(),
            spare_eventfd: None,
            watch: Watch::Off,
            ring_fd: -1,
            recheck: false,
            fd_signalled: false,
            armed: 0,
            punted: 0,
            timer_fds: [-1; 3],
            timer_set: [0; 3],
            wait_clock: libc::CLOCK_MONOTONIC,
            personalities: Personalities::default(),
            region: None,
            submitter_elsewhere: false,
            multi: false,
            process_locked: false,
            inherited: false,
            kick: false,
            facts: Facts::default(),
            counts: counts::Own::new(),
            skipped_polls: 0,
            dying: false,
        }
    }

    /// None of the conditions that an enter has to look after: the ring of one living process, nothing to call or to
    /// look at again.
    #[inline(always)]
    pub fn is_plain(&self) -> bool {
        let conditions = [
            self.inherited as u8,
            self.multi as u8,
            self.process_locked as u8,
            self.submitter_elsewhere as u8,
            self.dying as u8,
            self.recheck as u8,
            self.kick as u8,
            self.watch as u8,
        ];
        u64::from_ne_bytes(conditions) == 0
    }

    /// A ring of this process alone, enabled and without an SQ thread, that has nothing to look after before a
    /// submission.
    #[inline(always)]
    pub fn is_calm(&self) -> bool {
        const OTHER: u32 = raw::IORING_SETUP_R_DISABLED | raw::IORING_SETUP_SQPOLL;
        self.is_plain() && !self.setup_has(OTHER) && !self.rings.is_shared_by_processes()
    }

    /// Nothing waits anywhere, nobody inside is to be told of completions, nothing is to be done after a submission.
    #[inline(always)]
    pub fn is_settled(&self) -> bool {
        debug_assert!(self.ready.is_empty());
        debug_assert!(self.counted.is_empty() || !self.timers.is_empty());
        let waiting = self.armed | self.punted | self.timers.len();
        let told = self.cq.overflowed() | self.followers.len();
        waiting | told == 0 && self.is_plain() && !self.leader.asleep && self.eventfd.is_none()
    }

    /// Whether there is something to do before the lock of a ring on which nothing waits is given up.
    #[inline(always)]
    pub fn needs_care(&self) -> bool {
        !self.is_plain() || self.shared.is_watched()
    }

    /// No drain, restriction or chain stands between a plain SQE and its operation.
    #[inline(always)]
    pub fn takes_plain_requests(&self) -> bool {
        let conditions = [
            self.drain_active as u8,
            self.drain_next as u8,
            self.restricted as u8,
            self.iopoll as u8,
        ];
        u32::from_ne_bytes(conditions) == 0 && self.link.head == NIL
    }

    /// A request failed its checks: it is the last of its submission, unless the ring has IORING_SETUP_SUBMIT_ALL.
    #[cold]
    pub fn stop_submission(&mut self) {
        if !self.setup_has(raw::IORING_SETUP_SUBMIT_ALL) {
            self.sq_stop = self.sq_head;
        }
    }

    /// Nothing waits anywhere: no file, worker, timer, task work or overflow needs a look.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.armed + self.punted == 0
            && self.timers.is_empty()
            && !self.shared.has_work()
            && !self.cq.has_overflow()
    }

    #[inline]
    pub fn setup_has(&self, flag: u32) -> bool {
        self.setup_flags & flag != 0
    }

    /// Posts a completion; nothing is lost when the ring is full.
    #[inline]
    pub fn post(&mut self, user_data: u64, res: i32, flags: u32) {
        self.cq.post(&self.rings, Cqe { user_data, res, flags }, [0; 2]);
    }

    /// Posts one completion of a multishot request. False: no room, the request must end.
    pub fn post_more(&mut self, user_data: u64, res: i32, flags: u32) -> bool {
        let flags = flags | soloring_abi::raw::IORING_CQE_F_MORE;
        self.cq.post_if_room(&self.rings, Cqe { user_data, res, flags }, [0; 2])
    }

    /// The key under which requests on a file are indexed: the number the program used for it.
    pub fn file_key(req: &Req) -> u64 {
        let fixed = req.sqe.flags & soloring_abi::sqe_flags::FIXED_FILE != 0;
        (fixed as u64) << 32 | req.sqe.fd as u32 as u64
    }

    /// Makes a request that is about to wait findable by cancel.
    pub fn index(&mut self, slot: u32) {
        let req = self.slab.get(slot);
        let (user_data, file) = (req.sqe.user_data, Self::file_key(req));
        self.by_user_data.insert(user_data, slot);
        self.by_file.insert(file, slot);
    }

    pub fn unindex(&mut self, slot: u32) {
        self.by_user_data.remove(slot);
        self.by_file.remove(slot);
    }

    /// Takes a request out of its slot, leaving every structure it was in.
    pub fn take(&mut self, slot: u32) -> Req {
        match self.slab.at(slot) {
            Where::Armed => {
                self.armed -= 1;
                self.unindex(slot);
            }
            Where::Punted(_) => {
                self.punted -= 1;
                self.unindex(slot);
            }
            Where::Timer(key) => {
                if let Some(key) = key {
                    self.timers.remove(key);
                }
                if !self.counted.is_empty() {
                    let seq = self.slab.get(slot).timeout().map_or(0, |t| t.target_seq);
                    self.counted.remove(&(seq, slot));
                }
                self.unindex(slot);
            }
            _ => {}
        }
        self.slab.take(slot)
    }

    /// Takes a request that was armed out of its watch. It owns or holds its file by now, or is done.
    pub fn disarm(&mut self, slot: u32, req: &mut Req) {
        if req.has(flag::POLLED) {
            req.flags &= !flag::POLLED;
            self.watches.leave(self.shared.epfd, slot);
        }
    }

    /// Lets go of what a finished request held. `slot` is its reserved slot when it had one.
    pub fn release_resources(&mut self, slot: Option<u32>, req: &mut Req) {
        if let Some(slot) = slot {
            self.disarm(slot, req);
        }
        if let File::Own(fd) = req.file {
            // The file may live on in the program: closing our duplicate alone would leave its entry.
            self.watches.closing(self.shared.epfd, fd, &mut self.slab);
            fds::close_private(fd);
            req.file = File::None;
        }
        let holds_input = matches!(req.data, AsyncData::Splice(_));
        if req.held_file.is_some() || req.held_buf.is_some() || holds_input {
            req.data = AsyncData::None;
            req.held_file = None;
            req.held_buf = None;
            self.post_retired();
        }
    }

    /// Posts the tags of removed resources that nobody holds any more.
    pub fn post_retired(&mut self) {
        let mut i = 0;
        while i < self.retired.len() {
            if self.retired[i].is_idle() {
                let tag = self.retired.swap_remove(i).tag();
                if tag != 0 {
                    self.post(tag, 0, 0);
                }
            } else {
                i += 1;
            }
        }
    }

    pub fn retire_file(&mut self, node: Node<FixedFile>) {
        self.retired.push(Retired::File(node));
    }

    pub fn retire_buf(&mut self, node: Node<FixedBuf>) {
        self.retired.push(Retired::Buf(node));
    }

    /// Installs a private descriptor as a registered file; `slot_plus_one` is `sqe->file_index`.
    /// Returns the CQE result: 0 for a chosen slot, the slot for IORING_FILE_INDEX_ALLOC.
    ///
    /// # Errors
    /// ENXIO without a file table (ENFILE for ALLOC), EINVAL beyond it, ENFILE when no slot is free. The file is closed.
    pub fn install_file(&mut self, fd: i32, slot_plus_one: u32) -> Result<i32, Errno> {
        let file = FixedFile::own(fd)?;
        let alloc = slot_plus_one == soloring_abi::raw::IORING_FILE_INDEX_ALLOC as u32;
        let none = if alloc { Errno::ENFILE } else { Errno::ENXIO };
        let table = self.files.as_mut().ok_or(none)?;
        let slot = if alloc { table.find_free()? } else { slot_plus_one - 1 };
        if slot as usize >= table.len() {
            return Err(Errno::EINVAL);
        }
        let old = table.replace(slot, Some(Node { item: Arc::new(file), tag: 0 }));
        if let Some(old) = old {
            self.retire_file(old);
            self.post_retired();
        }
        Ok(if alloc { slot as i32 } else { 0 })
    }
}

//! Cancellation: finding requests by key and taking them out of wherever they wait.

use crate::childinfo::ChildInfo;
use crate::req::{AsyncData, File, Req, flag};
use crate::slab::Where;
use crate::state::State;
use crate::{fds, sys};
use soloring_abi::{Errno, Opcode, raw};
use soloring_iowq::{CancelOutcome, Ticket};

/// What to cancel: `IORING_ASYNC_CANCEL_*` flags and their arguments.
#[derive(Clone, Copy, Debug)]
pub struct Criteria {
    pub flags: u32,
    pub user_data: u64,
    pub fd: i32,
    pub opcode: u8,
    /// Descriptor behind `fd`, once resolved by [`resolve_file`].
    pub file: i32,
}

impl Criteria {
    fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// More than one request is meant.
    pub fn all(&self) -> bool {
        self.has(raw::IORING_ASYNC_CANCEL_ALL | raw::IORING_ASYNC_CANCEL_ANY)
    }

    fn by_user_data(&self) -> bool {
        self.has(raw::IORING_ASYNC_CANCEL_USERDATA)
            || !self.has(raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_OP)
    }

    /// Whether `req` is meant.
    pub fn matches(&self, req: &Req) -> bool {
        if self.has(raw::IORING_ASYNC_CANCEL_ANY) {
            return true;
        }
        if self.has(raw::IORING_ASYNC_CANCEL_FD) && !self.same_file(req) {
            return false;
        }
        if self.has(raw::IORING_ASYNC_CANCEL_OP) && req.sqe.opcode != self.opcode {
            return false;
        }
        !self.by_user_data() || req.sqe.user_data == self.user_data
    }

    /// The key is the open file, not its number: a duplicate names it as well, a reused number does not.
    fn same_file(&self, req: &Req) -> bool {
        let fd = match req.file {
            File::None => return false,
            _ => req.fd(),
        };
        self.file >= 0 && sys::same_file(fd, self.file)
    }
}

/// Finds the file that `criteria` names.
///
/// # Errors
/// EBADF.
pub fn resolve_file(st: &State, criteria: &mut Criteria) -> Result<(), Errno> {
    if !criteria.has(raw::IORING_ASYNC_CANCEL_FD) {
        return Ok(());
    }
    criteria.file = if criteria.has(raw::IORING_ASYNC_CANCEL_FD_FIXED) {
        let node = st.files.as_ref().and_then(|t| t.get(criteria.fd as u32));
        node.map_or(-1, |n| n.item.fd)
    } else if fds::is_private(criteria.fd) || !sys::is_open(criteria.fd) {
        -1
    } else {
        criteria.fd
    };
    if criteria.file >= 0 { Ok(()) } else { Err(Errno::EBADF) }
}

/// Order in which the kernel looks: workers, polls, timeouts.
fn rank(st: &State, slot: u32) -> u32 {
    match st.slab.at(slot) {
        Where::Punted(_) => 0,
        Where::Armed => 1,
        _ => 2,
    }
}

fn cancelable(st: &State, slot: u32, criteria: &Criteria) -> bool {
    let req = st.slab.get(slot);
    match st.slab.at(slot) {
        Where::Punted(_) => !req.has(flag::INTERRUPTED) && criteria.matches(req),
        Where::Armed => criteria.matches(req),
        // Timeouts have no file, link timeouts belong to their request.
        Where::Timer(_) => {
            req.sqe.opcode == Opcode::Timeout as u8
                && !criteria.has(raw::IORING_ASYNC_CANCEL_FD)
                && criteria.matches(req)
        }
        _ => false,
    }
}

/// Whether the request in a slot of the ready queue is meant and would be with a worker by now.
fn is_queued(st: &State, slot: u32, criteria: &Criteria) -> bool {
    let req = st.slab.get(slot);
    req.has(flag::QUEUED) && !req.has(flag::LATER) && criteria.matches(req)
}

fn find(st: &State, criteria: &Criteria) -> Option<u32> {
    if let Some(slot) = st.ready.iter().find(|slot| is_queued(st, **slot, criteria)) {
        return Some(*slot);
    }
    let usable = |slot: &u32| cancelable(st, *slot, criteria);
    let best = |it: &mut dyn Iterator<Item = u32>| it.min_by_key(|s| rank(st, *s));
    if criteria.has(raw::IORING_ASYNC_CANCEL_ANY) {
        return best(&mut st.slab.indices().filter(usable));
    }
    if criteria.by_user_data() {
        return best(&mut st.by_user_data.chain(criteria.user_data).filter(usable));
    }
    if criteria.has(raw::IORING_ASYNC_CANCEL_FD) {
        // The number it was submitted with is the likely key; only another name for it needs the scan.
        let fixed = criteria.has(raw::IORING_ASYNC_CANCEL_FD_FIXED);
        let key = (fixed as u64) << 32 | criteria.fd as u32 as u64;
        if let Some(slot) = best(&mut st.by_file.chain(key).filter(usable)) {
            return Some(slot);
        }
    }
    best(&mut st.slab.indices().filter(usable))
}

/// Cancels one request that waits: it completes with -ECANCELED.
///
/// # Errors
/// EALREADY when a worker runs it: it is interrupted, and completes by itself.
pub fn cancel_slot(st: &mut State, slot: u32) -> Result<(), Errno> {
    if let Where::Punted(ticket) = st.slab.at(slot) {
        if st.slab.get(slot).has(flag::WAITS) {
            return cancel_wait(st, slot, ticket);
        }
        return match st.wq.clone().cancel(ticket) {
            // Its work item reports -ECANCELED as task work.
            CancelOutcome::Removed => {
                st.slab.get_mut(slot).flags |= flag::INTERRUPTED;
                Ok(())
            }
            CancelOutcome::Running | CancelOutcome::NotFound => {
                st.slab.get_mut(slot).flags |= flag::INTERRUPTED;
                Err(Errno::EALREADY)
            }
        };
    }
    if st.slab.at(slot) == Where::Ready {
        // No worker has begun. It completes in its turn.
        let req = st.slab.get_mut(slot);
        (req.flags, req.res) = (req.flags & !flag::NO_FAIL | flag::LATER, Errno::ECANCELED.neg());
        return Ok(());
    }
    cancel_as_task_work(st, slot);
    Ok(())
}

/// A worker waits for the request and holds nothing of it: it is told to stop, and forgotten.
fn cancel_wait(st: &mut State, slot: u32, ticket: Ticket) -> Result<(), Errno> {
    if !withdraw(st, slot, ticket) {
        st.slab.get_mut(slot).flags |= flag::INTERRUPTED;
        return Err(Errno::ENOENT);
    }
    cancel_as_task_work(st, slot);
    Ok(())
}

/// Ends a worker's wait without completing the request, which is the caller's then. False: it was woken first, and
/// completes by itself.
pub fn withdraw(st: &State, slot: u32, ticket: Ticket) -> bool {
    let AsyncData::Futex(wait) = &st.slab.get(slot).data else {
        st.wq.cancel(ticket);
        return true;
    };
    if !wait.leave() {
        return false;
    }
    st.wq.cancel(ticket);
    wait.has_left()
}

/// The canceller's own completion comes first, as it does in the kernel.
fn cancel_as_task_work(st: &mut State, slot: u32) {
    let mut req = st.take(slot);
    if req.sqe.opcode == Opcode::Waitid as u8 {
        // The kernel tells of a child that is none, where it can; the result does not depend on it.
        let _ = ChildInfo::default().tell(req.sqe.off);
    }
    // A wait for futexes has not failed by that.
    let whole = if matches!(req.data, AsyncData::Futex(_)) { flag::NO_FAIL } else { 0 };
    req.flags = req.flags & !flag::NO_FAIL | flag::LATER | whole;
    req.res = Errno::ECANCELED.neg();
    st.slab.put(slot, req, Where::Ready);
    st.ready.push_back(slot);
}

/// What a cancellation of the request in `slot` results in: 0, but 1 for a wait for a child or a futex.
pub fn hit_result(st: &State, slot: u32) -> i32 {
    st.slab.get(slot).has(flag::WAITS) as i32
}

/// IORING_OP_ASYNC_CANCEL and IORING_REGISTER_SYNC_CANCEL: the operation's result.
///
/// Without ALL or ANY: 0 (1 for a wait for a child or a futex), -ENOENT or -EALREADY. With them: the number of
/// requests hit, 0 for none, in which those count as one that no worker has begun, and those that one has; with ALL
/// also the waits for children, and those for futexes.
pub fn cancel(st: &mut State, criteria: &Criteria) -> i32 {
    if !criteria.all() {
        return match find(st, criteria) {
            None => Errno::ENOENT.neg(),
            Some(slot) => {
                let hit = hit_result(st, slot);
                cancel_slot(st, slot).map_or_else(Errno::neg, |()| hit)
            }
        };
    }
    let mut hit = 0;
    let (mut children, mut futexes, mut waiting, mut running) = (false, false, false, false);
    while let Some(slot) = find(st, criteria) {
        let req = st.slab.get(slot);
        let waits = req.has(flag::WAITS);
        let child = req.sqe.opcode == Opcode::Waitid as u8;
        let work = matches!(st.slab.at(slot), Where::Punted(_) | Where::Ready);
        let once = match cancel_slot(st, slot) {
            Err(Errno::ENOENT) => continue,
            Ok(()) if waits && !criteria.has(raw::IORING_ASYNC_CANCEL_ALL) => None,
            Ok(()) if waits => Some(if child { &mut children } else { &mut futexes }),
            Ok(()) if work => Some(&mut waiting),
            Ok(()) => None,
            Err(_) => Some(&mut running),
        };
        hit += once.is_none_or(|counted| !std::mem::replace(counted, true)) as i32;
    }
    hit
}

/// The armed POLL_ADD with `user_data`, if any.
pub fn find_poll(st: &State, user_data: u64) -> Option<u32> {
    st.by_user_data.chain(user_data).find(|slot| {
        st.slab.at(*slot) == Where::Armed && st.slab.get(*slot).sqe.opcode == Opcode::PollAdd as u8
    })
}

/// The pending timeout (`opcode` Timeout or LinkTimeout) with `user_data`, if any.
pub fn find_timeout(st: &State, user_data: u64, opcode: Opcode) -> Option<u32> {
    st.by_user_data.chain(user_data).find(|slot| {
        matches!(st.slab.at(*slot), Where::Timer(_))
            && st.slab.get(*slot).sqe.opcode == opcode as u8
    })
}

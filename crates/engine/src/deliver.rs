//! Messages between rings (MSG_RING): found, left with the target, and posted there.
//!
//! A sender holds its own ring's lock and must not wait for another one. So a message is left with the
//! target's task work first, which keeps the order of one sender's messages, and then posted by whoever gets
//! the target's lock: the sender if that needs no waiting, else a worker that holds nothing. A ring with
//! DEFER_TASKRUN posts its messages itself, and is only told that there are some.

use crate::ctx::Ctx;
use crate::notify::{flush, tell_submitter};
use crate::procs;
use crate::resources::{FixedFile, Node};
use crate::shared::{self, Shared, TaskWork};
use crate::state::State;
use crate::{fds, registry, sys};
use soloring_abi::raw::{self, IORING_SETUP_DEFER_TASKRUN};
use soloring_abi::{Cqe, Errno};
use soloring_lock::Guard;
use std::sync::Arc;

/// A ring that is sent to.
pub struct Target {
    pub ctx: Arc<Ctx>,
    pub shared: Arc<Shared>,
}

/// The ring behind the program's descriptor.
///
/// # Errors
/// EBADF when it is not open, EBADFD when it is no ring.
pub fn target(fd: i32) -> Result<Target, Errno> {
    let Some(id) = fds::ring_id(fd) else {
        let open = fd >= 0 && !fds::is_private(fd) && sys::is_open(fd);
        return Err(if open { Errno::EBADFD } else { Errno::EBADF });
    };
    by_id(id).ok_or(Errno::EBADF)
}

/// The ring with this id, unless it was closed.
pub fn by_id(id: u64) -> Option<Target> {
    Some(Target { ctx: registry::by_id(id)?, shared: shared::by_id(id)? })
}

/// What became of an attempt that must not wait.
pub enum Attempted<T> {
    Done(T),
    /// Another thread is inside the target's lock, or another process may be.
    Busy,
}

/// Leaves a message with `to` and has it posted if that needs no waiting.
pub fn try_send(to: &Target, cqe: Cqe) -> Attempted<()> {
    if to.shared.is_multi() {
        return Attempted::Busy;
    }
    let first = to.shared.push(TaskWork::Message { cqe });
    match to.ctx.lock.try_lock() {
        Ok(Some(mut st)) => {
            // Another process may have come just now.
            let _ = procs::enter(&to.ctx, &mut st);
            post_left(&mut st, first);
            procs::leave(&mut st);
            Attempted::Done(())
        }
        Ok(None) | Err(_) => Attempted::Busy,
    }
}

/// As [`try_send`], waiting for the target's lock: the caller holds no ring lock. Without a message it posts
/// what `try_send` has left.
pub fn send(to: &Target, cqe: Option<Cqe>) {
    // A signal handler inside this very ring: its message is posted by the call that it interrupted, or the next.
    let Ok(mut st) = lock(&to.ctx) else {
        if let Some(cqe) = cqe {
            to.shared.push(TaskWork::Message { cqe });
        }
        return;
    };
    if let Some(cqe) = cqe {
        st.shared.push(TaskWork::Message { cqe });
    }
    post_left(&mut st, true);
    procs::leave(&mut st);
}

fn lock(ctx: &Ctx) -> Result<Guard<'_, State>, Errno> {
    let mut guard = ctx.lock.lock().map_err(|_| Errno::EBUSY)?;
    procs::enter(ctx, &mut guard)?;
    Ok(guard)
}

/// Posts the messages that were left with a ring, or tells its submitter.
fn post_left(st: &mut State, news: bool) {
    if st.dying {
        return;
    }
    // A submitter in another process has task work of its own, and sees what is posted here.
    if st.setup_has(IORING_SETUP_DEFER_TASKRUN) && !st.submitter_elsewhere {
        if news {
            tell_submitter(st);
        }
        return;
    }
    st.inline = false;
    for cqe in st.shared.clone().take_messages() {
        st.post(cqe.user_data, cqe.res, cqe.flags);
    }
    flush(st);
}

/// A file for a slot of another ring, with the completion that announces it there.
pub struct Parcel {
    /// The sender's file. The target gets a duplicate: tags are posted per ring.
    pub file: Arc<FixedFile>,
    /// `sqe->file_index`: slot + 1, or IORING_FILE_INDEX_ALLOC.
    pub slot_plus_one: u32,
    pub user_data: u64,
    /// IORING_MSG_RING_CQE_SKIP.
    pub silent: bool,
}

/// Puts the file into the target's table if that needs no waiting.
pub fn try_install(to: &Target, parcel: &Parcel) -> Attempted<Result<i32, Errno>> {
    if to.shared.is_multi() {
        return Attempted::Busy;
    }
    match to.ctx.lock.try_lock() {
        Ok(Some(mut st)) => {
            let _ = procs::enter(&to.ctx, &mut st);
            let result = install_in(&mut st, parcel);
            procs::leave(&mut st);
            Attempted::Done(result)
        }
        Ok(None) | Err(_) => Attempted::Busy,
    }
}

/// Puts the file into the target's table. The caller holds no ring lock.
///
/// # Errors
/// As [`install_in`]; EBUSY in a signal handler inside the target.
pub fn install(to: &Target, parcel: &Parcel) -> Result<i32, Errno> {
    let mut st = lock(&to.ctx)?;
    let result = install_in(&mut st, parcel);
    procs::leave(&mut st);
    result
}

/// Returns 0, or the slot that was found for IORING_FILE_INDEX_ALLOC.
///
/// # Errors
/// ENXIO without a file table (ENFILE for ALLOC), EINVAL beyond it, ENFILE when no slot is free, EMFILE.
fn install_in(st: &mut State, parcel: &Parcel) -> Result<i32, Errno> {
    let alloc = parcel.slot_plus_one == raw::IORING_FILE_INDEX_ALLOC as u32;
    let none = if alloc { Errno::ENFILE } else { Errno::ENXIO };
    let table = st.files.as_ref().ok_or(none)?;
    let slot = if alloc { table.find_free()? } else { parcel.slot_plus_one.wrapping_sub(1) };
    if slot as usize >= table.len() {
        return Err(Errno::EINVAL);
    }
    let item = Arc::new(FixedFile::own(fds::dup_private(parcel.file.fd)?)?);
    let table = st.files.as_mut().ok_or(none)?;
    if let Some(old) = table.replace(slot, Some(Node { item, tag: 0 })) {
        st.retire_file(old);
        st.post_retired();
    }
    let res = if alloc { slot as i32 } else { 0 };
    if !parcel.silent {
        let cqe = Cqe { user_data: parcel.user_data, res, flags: 0 };
        let first = st.shared.push(TaskWork::Message { cqe });
        post_left(st, first);
    } else {
        flush(st);
    }
    Ok(res)
}

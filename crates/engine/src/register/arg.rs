//! What every register operation starts with: its arguments, and the right to register.

use crate::ctx::Ctx;
use crate::state::State;
use soloring_abi::Errno;
use soloring_lock::{Guard, current_thread};

/// A register call's arguments, as the program gave them.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub at: u64,
    pub nr: u32,
}

impl Arg {
    /// # Errors
    /// EINVAL unless there is neither argument nor count.
    pub fn none(self) -> Result<(), Errno> {
        if self.at != 0 || self.nr != 0 { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// Takes the lock if this caller may register.
///
/// # Errors
/// EEXIST for another thread than the submitter of a SINGLE_ISSUER ring; EACCES under restrictions; EBUSY
/// when a signal handler interrupted this very ring.
pub fn lock_for_register(ctx: &Ctx, opcode: u32) -> Result<Guard<'_, State>, Errno> {
    let guard = ctx.lock.lock().map_err(|_| Errno::EBUSY)?;
    if guard.submitter.is_some_and(|owner| owner != current_thread()) || guard.submitter_elsewhere {
        return Err(Errno::EEXIST);
    }
    if guard.restricted && guard.restrictions.register_ops >> opcode & 1 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(guard)
}

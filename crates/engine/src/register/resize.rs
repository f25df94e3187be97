//! REGISTER_RESIZE_RINGS: new memory, of other sizes, for a ring in use.

use super::arg::Arg;
use crate::exit::close_memory;
use crate::notify;
use crate::setup;
use crate::state::State;
use crate::usercopy;
use soloring_abi::extra::IORING_SETUP_CQE_MIXED;
use soloring_abi::{Errno, Params, raw};
use std::sync::Arc;

/// What the program may ask for.
const FLAGS: u32 = raw::IORING_SETUP_CQSIZE | raw::IORING_SETUP_CLAMP;
/// What the ring keeps.
const INHERITED: u32 = raw::IORING_SETUP_NO_SQARRAY
    | raw::IORING_SETUP_SQE128
    | raw::IORING_SETUP_CQE32
    | IORING_SETUP_CQE_MIXED
    | raw::IORING_SETUP_NO_MMAP;

/// Entries and completions that wait keep their positions; the program maps the new memory. Only rings with
/// DEFER_TASKRUN, whose completions nobody but the caller posts, and none that other processes use: they could
/// not be told.
///
/// # Errors
/// EINVAL for other rings, flags and sizes; EFAULT; EOVERFLOW when what waits does not fit; ENOMEM, EMFILE,
/// ENFILE. The ring is as it was then.
pub fn resize(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0
        || arg.nr != 1
        || !st.setup_has(raw::IORING_SETUP_DEFER_TASKRUN)
        || st.rings.is_shared_by_processes()
    {
        return Err(Errno::EINVAL);
    }
    let mut p: Params = usercopy::read(arg.at)?;
    if p.flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    p.flags |= st.setup_flags & INHERITED;
    (p.sq_entries, p.cq_entries) = setup::sizes(p.sq_entries, &p)?;
    let layout = setup::layout(&p);
    let rings = setup::rings(&p, layout)?;
    setup::tell_offsets(&mut p, &layout);
    // As the kernel leaves it.
    p.sq_off.array = 0;
    // Everything that was posted is in the old ring, and published.
    notify::flush(st);
    let moved = usercopy::write(arg.at, &p)
        .and_then(|()| rings.take_over(&st.rings, st.sq_head, st.cq.tail() as u32));
    if let Err(e) = moved {
        close_memory(&rings);
        return Err(e);
    }
    st.cq.resize(&rings);
    let old = std::mem::replace(&mut st.rings, Arc::new(rings));
    st.shared.set_rings(Arc::clone(&st.rings));
    close_memory(&old);
    Ok(0)
}

//! REGISTER_PBUF_RING, UNREGISTER_PBUF_RING, REGISTER_PBUF_STATUS.

use super::arg::Arg;
use super::bufs;
use crate::kbuf::{BufRing, Group};
use crate::state::State;
use crate::usercopy;
use soloring_abi::Errno;
use soloring_abi::raw::{io_uring_buf_reg, io_uring_buf_status};
use soloring_ringmem::BUF_ENTRY_BYTES;

/// `IOU_PBUF_RING_MMAP`: memory of the ring's, which the program maps.
const MMAP: u16 = 1;
/// `IOU_PBUF_RING_INC`: buffers are used up piece by piece.
const INC: u16 = 2;
/// Full and empty must differ in 16 bits.
const ENTRIES_MAX: u32 = 1 << 15;
const PAGE: u64 = 4096;

fn read_reg(arg: Arg) -> Result<(io_uring_buf_reg, u32), Errno> {
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    let reg: io_uring_buf_reg = usercopy::read(arg.at)?;
    // The first reserved word became `min_left` (bytes).
    if reg.resv[0] >> 32 != 0 || reg.resv[1] != 0 || reg.resv[2] != 0 {
        return Err(Errno::EINVAL);
    }
    let min_left = reg.resv[0] as u32;
    Ok((reg, min_left))
}

/// Makes a buffer ring in the program's memory or (IOU_PBUF_RING_MMAP) in ours.
///
/// # Errors
/// EINVAL for flags, sizes and alignment; EEXIST when the group has buffers or a ring; EFAULT for memory
/// that is not there; ENOMEM.
pub fn register(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let (reg, min_left) = read_reg(arg)?;
    if reg.flags & !(MMAP | INC) != 0 || min_left != 0 && reg.flags & INC == 0 {
        return Err(Errno::EINVAL);
    }
    if !reg.ring_entries.is_power_of_two() || reg.ring_entries > ENTRIES_MAX {
        return Err(Errno::EINVAL);
    }
    match st.kbuf.get(reg.bgid) {
        Some(Group::Ring(_)) => return Err(Errno::EEXIST),
        Some(Group::Classic(list)) if !list.is_empty() => return Err(Errno::EEXIST),
        _ => {}
    }
    let ring = if reg.flags & MMAP != 0 {
        BufRing::create(reg.ring_entries)?
    } else {
        let bytes = (reg.ring_entries as u64 * BUF_ENTRY_BYTES as u64).next_multiple_of(PAGE);
        if reg.ring_addr == 0 {
            return Err(Errno::EFAULT);
        }
        if !reg.ring_addr.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if reg.ring_addr.checked_add(bytes).is_none() || !bufs::writable(reg.ring_addr, bytes) {
            return Err(Errno::EFAULT);
        }
        BufRing::at(reg.ring_addr, reg.ring_entries)
    };
    let ring = if reg.flags & INC != 0 { ring.incremental(min_left) } else { ring };
    st.kbuf.set(reg.bgid, Some(Group::Ring(ring)));
    Ok(0)
}

/// # Errors
/// ENOENT for a group that does not exist, EINVAL for a classic one and for flags.
pub fn unregister(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let (reg, _) = read_reg(arg)?;
    if reg.flags != 0 {
        return Err(Errno::EINVAL);
    }
    match st.kbuf.get(reg.bgid) {
        None => Err(Errno::ENOENT),
        Some(Group::Classic(_)) => Err(Errno::EINVAL),
        Some(Group::Ring(_)) => {
            st.kbuf.set(reg.bgid, None);
            Ok(0)
        }
    }
}

/// Tells how many buffers were taken from a ring so far.
///
/// # Errors
/// As [`unregister`]; EFAULT.
pub fn status(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    let mut status: io_uring_buf_status = usercopy::read(arg.at)?;
    if status.resv.iter().any(|r| *r != 0) {
        return Err(Errno::EINVAL);
    }
    let group = u16::try_from(status.buf_group).map_err(|_| Errno::ENOENT)?;
    match st.kbuf.get(group) {
        None => Err(Errno::ENOENT),
        Some(Group::Classic(_)) => Err(Errno::EINVAL),
        Some(Group::Ring(ring)) => {
            status.head = ring.head() as u32;
            usercopy::write(arg.at, &status).map(|()| 0)
        }
    }
}

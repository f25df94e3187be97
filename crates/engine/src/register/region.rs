//! REGISTER_MEM_REGION.

use super::arg::Arg;
use super::bufs;
use crate::region::{OFF_REGION, Region};
use crate::state::State;
use crate::usercopy;
use soloring_abi::{Errno, raw};

/// `IORING_MEM_REGION_TYPE_USER`: the program brings the memory.
const USER: u32 = 1;
/// `IORING_MEM_REGION_REG_WAIT_ARG`: waits find their arguments there.
const WAIT_ARG: u64 = 1;
const PAGE: u64 = 4096;
/// The most of its own memory that Linux 6.18 finds for a region: one piece of the page allocator's.
const OWN_MAX: u64 = 4 << 20;

/// # Errors
/// EBUSY when there is a region; EINVAL for what does not exist, and for the arguments of waits once the ring is
/// enabled; EFAULT for memory that is not there; E2BIG, EOVERFLOW, ENOMEM, EMFILE, ENFILE.
pub fn register(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 1 {
        return Err(Errno::EINVAL);
    }
    if st.region.is_some() {
        return Err(Errno::EBUSY);
    }
    let reg: raw::io_uring_mem_region_reg = usercopy::read(arg.at)?;
    let mut desc: raw::io_uring_region_desc = usercopy::read(reg.region_uptr)?;
    let for_waits = reg.flags & WAIT_ARG != 0;
    if reg.__resv != [0; 2]
        || reg.flags & !WAIT_ARG != 0
        // Nobody waits as long as the ring is disabled.
        || for_waits && !st.setup_has(raw::IORING_SETUP_R_DISABLED)
    {
        return Err(Errno::EINVAL);
    }
    let region = make(&desc, for_waits)?;
    if region.mapping().is_some() {
        desc.mmap_offset = OFF_REGION;
    }
    usercopy::write(reg.region_uptr, &desc)?;
    st.region = Some(region);
    Ok(0)
}

fn make(desc: &raw::io_uring_region_desc, for_waits: bool) -> Result<Region, Errno> {
    if desc.__resv != [0; 4] || desc.flags & !USER != 0 {
        return Err(Errno::EINVAL);
    }
    if (desc.flags & USER != 0) != (desc.user_addr != 0) {
        return Err(Errno::EFAULT);
    }
    if desc.size == 0 || desc.mmap_offset != 0 || desc.id != 0 {
        return Err(Errno::EINVAL);
    }
    if desc.size / PAGE > i32::MAX as u64 {
        return Err(Errno::E2BIG);
    }
    if !(desc.user_addr | desc.size).is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    desc.user_addr.checked_add(desc.size).ok_or(Errno::EOVERFLOW)?;
    if desc.user_addr == 0 {
        if desc.size > OWN_MAX {
            return Err(Errno::ENOMEM);
        }
        return Region::create(desc.size, for_waits);
    }
    if !bufs::writable(desc.user_addr, desc.size) {
        return Err(Errno::EFAULT);
    }
    Ok(Region::of_program(desc.user_addr, desc.size, for_waits))
}

//! REGISTER_RESTRICTIONS: what a ring may do once it is enabled.

use super::arg::Arg;
use crate::state::{Restrictions, State};
use crate::usercopy;
use soloring_abi::{Errno, extra, op, raw};

const MAX_RESTRICTIONS: u32 = extra::IORING_REGISTER_LAST + op::LAST as u32;

/// `struct io_uring_restriction` as 16 bytes: opcode, operand, reserved.
fn parse(bytes: &[u8], into: &mut Restrictions) -> Result<(), Errno> {
    const REGISTER_OP: u16 = 0;
    const SQE_OP: u16 = 1;
    const SQE_FLAGS_ALLOWED: u16 = 2;
    const SQE_FLAGS_REQUIRED: u16 = 3;
    let opcode = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let operand = bytes[2];
    match opcode {
        REGISTER_OP if (operand as u32) < extra::IORING_REGISTER_LAST => {
            into.register_ops |= 1 << operand;
        }
        SQE_OP if operand < op::LAST => into.sqe_ops |= 1 << operand,
        SQE_FLAGS_ALLOWED => into.sqe_flags_allowed = operand,
        SQE_FLAGS_REQUIRED => into.sqe_flags_required = operand,
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// # Errors
/// EBADFD unless the ring is disabled, EBUSY the second time, EINVAL, EFAULT.
pub fn register(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if !st.setup_has(raw::IORING_SETUP_R_DISABLED) {
        return Err(Errno::EBADFD);
    }
    if st.restrictions.registered {
        return Err(Errno::EBUSY);
    }
    if arg.at == 0 || arg.nr > MAX_RESTRICTIONS {
        return Err(Errno::EINVAL);
    }
    let bytes: Vec<u8> = usercopy::read_vec(arg.at, arg.nr as usize * 16)?;
    let mut new = Restrictions { registered: true, ..Restrictions::default() };
    for one in bytes.chunks_exact(16) {
        parse(one, &mut new)?;
    }
    st.restrictions = new;
    Ok(0)
}

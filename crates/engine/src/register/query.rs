//! IORING_REGISTER_QUERY: what this io_uring offers, asked without trying.

use super::arg::Arg;
use crate::{enter, setup, usercopy};
use soloring_abi::{Errno, extra, op, sqe_flags};

/// Headers in one chain.
const MAX_ENTRIES: u32 = 1000;
/// `IO_URING_QUERY_OPCODES`, the only question of Linux 6.18.
const OPCODES: u32 = 0;
/// Bytes of its answer.
const ANSWER: usize = 48;

/// Answers a chain of `struct io_uring_query_hdr` (40 bytes: next, data, operation, size, result, reserved).
///
/// # Errors
/// EINVAL with a count; EFAULT; ERANGE for a chain that does not end.
pub fn query(arg: Arg) -> Result<i32, Errno> {
    if arg.nr != 0 {
        return Err(Errno::EINVAL);
    }
    let mut at = arg.at;
    for _ in 0..MAX_ENTRIES {
        if at == 0 {
            return Ok(0);
        }
        at = query_one(at)?;
    }
    Err(Errno::ERANGE)
}

fn query_one(at: u64) -> Result<u64, Errno> {
    let [next, data]: [u64; 2] = usercopy::read(at)?;
    let rest: Vec<u32> = usercopy::read_vec(at + 16, 6)?;
    let (operation, size) = (rest[0], rest[1] as usize);
    let used = size.min(ANSWER);
    let clean = rest[2..].iter().all(|w| *w == 0) && used != 0;
    let mut bytes = vec![0u8; used];
    let (result, len) = if operation != OPCODES {
        (Errno::EOPNOTSUPP.neg(), 0)
    } else if !clean {
        (Errno::EINVAL.neg(), 0)
    } else {
        let _: Vec<u8> = usercopy::read_vec(data, used)?;
        bytes[..used].copy_from_slice(&answer()[..used]);
        (0, used)
    };
    usercopy::write_slice(data, &bytes)?;
    // What the program has room for beyond the answer is cleared.
    for at in (used..size).step_by(4096) {
        usercopy::write_slice(data + at as u64, &[0u8; 4096][..(size - at).min(4096)])?;
    }
    usercopy::write_slice(at + 20, &[len as u32, result as u32])?;
    Ok(next)
}

fn answer() -> Vec<u8> {
    let counts = [op::LAST as u32, extra::IORING_REGISTER_LAST];
    let flags =
        [setup::FEATURES as u64, setup::FLAGS as u64, enter::FLAGS as u64, sqe_flags::ALL as u64];
    let counts = counts.iter().flat_map(|n| n.to_ne_bytes());
    let flags = flags.iter().flat_map(|n| n.to_ne_bytes());
    // Last, the number of questions that are answered, and padding.
    let questions = [OPCODES + 1, 0];
    counts.chain(flags).chain(questions.iter().flat_map(|n| n.to_ne_bytes())).collect()
}

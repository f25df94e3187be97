//! TX_TIMESTAMP: the times at which a socket's packets went out, from its error queue.
#![allow(unsafe_code)]

use super::{Attempt, Outcome};
use crate::req::{Req, flag};
use crate::state::State;
use crate::sys::sys;
use soloring_abi::extra::{IORING_CQE_F_32, IORING_SETUP_CQE_MIXED};
use soloring_abi::{Cqe, Errno, raw};

/// SOF_TIMESTAMPING_*: software and hardware times are reported; without the packet's data.
const SOFTWARE: u32 = 1 << 4;
const RAW_HARDWARE: u32 = 1 << 6;
const OPT_TSONLY: u32 = 1 << 11;
/// `IORING_CQE_F_TSTAMP_HW`.
const FROM_HARDWARE: u32 = 1 << raw::IORING_TIMESTAMP_HW_SHIFT;
/// `SO_EE_ORIGIN_TIMESTAMPING`.
const ORIGIN_TIMESTAMPING: u8 = 4;
/// `struct scm_timestamping` on a 64-bit machine, by either of its numbers.
const SCM_TIMESTAMPING: [i32; 2] = [37, 65];

/// Waits for timestamps and posts a completion for each. Those that are there already are told of by the first event,
/// so that each is looked for once.
pub fn issue(st: &mut State, req: &mut Req, attempt: Attempt) -> Outcome {
    if !st.setup_has(raw::IORING_SETUP_CQE32 | IORING_SETUP_CQE_MIXED) {
        return Outcome::err(Errno::EINVAL);
    }
    let done = match attempt {
        Attempt::First => {
            req.flags |= flag::MULTISHOT | flag::REQUEUE;
            holds_only_stamps(req.fd()).map(drop)
        }
        Attempt::Ready(_) => drain(st, req),
    };
    match done {
        Ok(()) => Outcome::Arm(libc::EPOLLERR as u32),
        Err(e) => Outcome::err(e),
    }
}

fn drain(st: &mut State, req: &Req) -> Result<(), Errno> {
    let fd = req.fd();
    if !holds_only_stamps(fd)? {
        return Ok(());
    }
    let mixed = st.setup_has(IORING_SETUP_CQE_MIXED);
    // What does not fit stays with the socket until the next one comes.
    let (size, slots) = if mixed { (IORING_CQE_F_32, 2) } else { (0, 1) };
    while st.cq.room(&st.rings) >= slots {
        let Some(stamp) = receive(fd) else { break };
        let kind = stamp.kind << raw::IORING_TIMESTAMP_TYPE_SHIFT;
        let flags = raw::IORING_CQE_F_MORE | size | kind | stamp.source;
        let cqe = Cqe { user_data: req.sqe.user_data, res: stamp.key as i32, flags };
        st.cq.post(&st.rings, cqe, stamp.time);
    }
    Ok(())
}

/// Whether everything in the socket's error queue is for us. False: nothing is.
///
/// # Errors
/// EOPNOTSUPP when something else may be among it: who reads the queue takes what comes first.
fn holds_only_stamps(fd: i32) -> Result<bool, Errno> {
    let family = option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN).unwrap_or(0) as i32;
    let on = |level, name| option(fd, level, name).is_some_and(|value| value != 0);
    if !matches!(family, libc::AF_INET | libc::AF_INET6)
        || on(libc::SOL_IP, libc::IP_RECVERR)
        || family == libc::AF_INET6 && on(libc::SOL_IPV6, libc::IPV6_RECVERR)
        || on(libc::SOL_SOCKET, libc::SO_ZEROCOPY)
    {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING).unwrap_or(0);
    Ok(flags & OPT_TSONLY != 0 && flags & (SOFTWARE | RAW_HARDWARE) != 0)
}

/// First 32 bits of a socket option; `None` where the socket does not know it.
fn option(fd: i32, level: i32, name: i32) -> Option<u32> {
    let (mut value, mut len) = ([0u32; 2], 8u32);
    let at = (value.as_mut_ptr(), &raw mut len);
    // SAFETY: the kernel writes at most eight bytes and a length to our stack.
    unsafe { sys!(getsockopt, fd, level, name, at.0, at.1) }.ok()?;
    Some(value[0])
}

#[derive(Default)]
struct Stamp {
    /// Which packet: SOF_TIMESTAMPING_OPT_ID counts them.
    key: u32,
    /// SCM_TSTAMP_*.
    kind: u32,
    /// Seconds and nanoseconds.
    time: [u64; 2],
    source: u32,
}

/// Takes the next timestamp out of the error queue.
fn receive(fd: i32) -> Option<Stamp> {
    loop {
        let mut control = [0u64; 64];
        // SAFETY: all-zero is a valid empty header.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the header and what it names are on our stack; no data is asked for.
        unsafe { sys!(recvmsg, fd, &raw mut header, flags) }.ok()?;
        let len = header.msg_controllen.min(size_of_val(&control));
        if let Some(stamp) = parse(&control[..len.div_ceil(8)]) {
            return Some(stamp);
        }
    }
}

/// The timestamp in the control messages: each is a length (with its 16 bytes of head), level and type, and its
/// data, padded to whole words.
fn parse(mut control: &[u64]) -> Option<Stamp> {
    let mut stamp = Stamp::default();
    let (mut timed, mut named) = (false, false);
    while control.len() > 2 {
        let len = (control[0] as usize).div_ceil(8);
        let data = control.get(2..len)?;
        let (level, kind) = (control[1] as i32, (control[1] >> 32) as i32);
        let is_error = (level, kind) == (libc::SOL_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::SOL_IPV6, libc::IPV6_RECVERR);
        if level == libc::SOL_SOCKET && SCM_TIMESTAMPING.contains(&kind) && data.len() >= 6 {
            // Software, nothing, hardware: two words each.
            let hardware = data[..2] == [0, 0];
            let from = if hardware { 4 } else { 0 };
            stamp.time = [data[from], data[from + 1]];
            stamp.source = if hardware { FROM_HARDWARE } else { 0 };
            timed = stamp.time != [0, 0];
        } else if is_error && data.len() >= 2 {
            // struct sock_extended_err: errno, origin with three more bytes, info, data.
            named = (data[0] >> 32) as u8 == ORIGIN_TIMESTAMPING;
            (stamp.kind, stamp.key) = (data[1] as u32, (data[1] >> 32) as u32);
        }
        control = control.get(len..).unwrap_or(&[]);
    }
    (timed && named).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_are_read_in_any_order_and_bad_ones_end_the_search() {
        let head = |len: u64, level: i32, kind: i32| [len, (kind as u64) << 32 | level as u64];
        let [a, b] = head(16 + 48, libc::SOL_SOCKET, 37);
        let [c, d] = head(16 + 32, libc::SOL_IP, libc::IP_RECVERR);
        let error = [c, d, 4 << 32 | 42, 7 << 32 | 1, 0, 0];
        let mut all = vec![a, b, 0, 0, 0, 0, 5, 6];
        all.extend(error);
        let stamp = parse(&all).expect("both parts");
        assert_eq!((stamp.key, stamp.kind, stamp.time), (7, 1, [5, 6]));
        assert_eq!(stamp.source, FROM_HARDWARE);
        all.rotate_left(8);
        assert!(parse(&all).is_some());
        assert!(parse(&error).is_none());
        assert!(parse(&[u64::MAX, 0, 0]).is_none());
        assert!(parse(&[0, 0, 0]).is_none());
    }
}

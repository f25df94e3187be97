//! Descriptors in a message (SCM_RIGHTS): a ring cannot be sent, as in the kernel.
//!
//! Ours would arrive as the eventfd that it is. What the engine opened for itself is no descriptor of the
//! program's.

use crate::ops::sockio::socket_option;
use crate::req::MsgData;
use crate::{fds, sys, usercopy};
use soloring_abi::Errno;

/// `sizeof(struct cmsghdr)`; control messages begin at multiples of 8.
const HEADER: usize = 16;
/// More control data than a socket takes by default; the call itself refuses it, or knows no limit that we do.
const CONTROL_MAX: u64 = 1 << 20;

/// Looks at the descriptors that a message on socket `fd` is to carry.
///
/// # Errors
/// EINVAL for a ring, EBADF for a descriptor that is not the program's.
pub fn check(fd: i32, msg: &MsgData) -> Result<(), Errno> {
    if msg.control == 0 || msg.control_len < HEADER as u64 || msg.control_len > CONTROL_MAX {
        return Ok(());
    }
    // What cannot be read is the call's to refuse.
    let Ok(control) = usercopy::read_vec::<u8>(msg.control, msg.control_len as usize) else {
        return Ok(());
    };
    match descriptors(&control).find_map(refusal) {
        // Only these sockets carry descriptors; the others do not look at them.
        Some(e) if socket_option(fd, libc::SO_DOMAIN) == Ok(libc::AF_UNIX) => Err(e),
        _ => Ok(()),
    }
}

fn refusal(fd: i32) -> Option<Errno> {
    if fds::ring_id(fd).is_some() {
        Some(Errno::EINVAL)
    } else if fds::is_private(fd) || sys::fcntl(fd, libc::F_GETFD, 0).is_err() {
        Some(Errno::EBADF)
    } else {
        None
    }
}

/// All descriptors of all SCM_RIGHTS messages in `control`, in their order, up to where it is malformed.
fn descriptors(control: &[u8]) -> impl Iterator<Item = i32> {
    let mut rest = control;
    let messages = std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(rest.get(..8)?.try_into().ok()?);
        let whole = rest.get(..len).filter(|_| len >= HEADER)?;
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
        Some(whole)
    });
    let number = |bytes: &[u8]| i32::from_ne_bytes(bytes.try_into().expect("four bytes"));
    messages
        .filter(move |m| {
            (number(&m[8..12]), number(&m[12..16])) == (libc::SOL_SOCKET, libc::SCM_RIGHTS)
        })
        .flat_map(move |m| m[HEADER..].chunks_exact(4).map(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, fds: &[i32]) -> Vec<u8> {
        let mut bytes = (HEADER + 4 * fds.len()).to_ne_bytes().to_vec();
        for number in [level, kind].iter().chain(fds) {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn descriptors_of_all_messages() {
        let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let mut control = message(rights.0, rights.1, &[3, 4, 5]);
        control.extend(message(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &[9, 9]));
        control.extend(message(rights.0, rights.1, &[6]));
        assert_eq!(descriptors(&control).collect::<Vec<_>>(), [3, 4, 5, 6]);
        for cut in 0..control.len() {
            assert!(descriptors(&control[..cut]).count() <= 4);
        }
        let mut endless = control.clone();
        endless[..8].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(descriptors(&endless).count(), 0);
    }
}

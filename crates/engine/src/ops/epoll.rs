//! EPOLL_CTL and EPOLL_WAIT.
#![allow(unsafe_code)]

use super::{Attempt, BASE, OpDef, Outcome, must_be_zero};
use crate::creds::sys_as;
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::sys::{self, sys};
use crate::{fds, shared, usercopy};
use soloring_abi::Errno;
use soloring_abi::cookie::COOKIE;

pub const EPOLL_CTL: OpDef = OpDef { prep: ctl_prep, issue: ctl_issue, ..BASE };
pub const EPOLL_WAIT: OpDef =
    OpDef { prep: wait_prep, issue: wait_issue, needs_file: true, pollable: true, ..BASE };

/// Size of `struct epoll_event`: packed, the data behind 32 bits of events.
const EVENT_SIZE: usize = 12;

fn ctl_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    must_be_zero(&[req.sqe.buf_index as u64, req.sqe.file_index as u64])?;
    if req.sqe.len != libc::EPOLL_CTL_DEL as u32 {
        let bytes: Vec<u8> = usercopy::read_vec(req.sqe.addr, EVENT_SIZE)?;
        let (events, data) = bytes.split_at(4);
        req.data = AsyncData::Event(
            u32::from_ne_bytes(events.try_into().expect("4 bytes")),
            u64::from_ne_bytes(data.try_into().expect("8 bytes")),
        );
    }
    req.flags |= flag::STABLE;
    Ok(())
}

fn ctl_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let (epfd, op, fd) = (req.sqe.fd, req.sqe.len as i32, req.sqe.off as i32);
    if fds::is_private(epfd) || fds::is_private(fd) {
        return Outcome::err(Errno::EBADF);
    }
    let (events, data) = match req.data {
        AsyncData::Event(events, data) => (events, data),
        _ => (0, 0),
    };
    if let Some(id) = fds::ring_id(fd) {
        shared::watch_ring(id);
    }
    let event = libc::epoll_event { events, u64: data };
    let at = &raw const event;
    // SAFETY: the event is on our stack and only read.
    Outcome::Done(sys::as_res(unsafe { sys_as!(req, epoll_ctl, epfd, op, fd, at, 0, COOKIE) }), 0)
}

fn wait_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let sqe = &req.sqe;
    must_be_zero(&[sqe.off, sqe.op_flags as u64, sqe.buf_index as u64, sqe.file_index as u64])
}

fn wait_issue(_: &mut State, req: &mut Req, _: Attempt) -> Outcome {
    let (fd, events, room) = (req.fd(), req.sqe.addr, req.sqe.len as i32);
    // SAFETY: the kernel checks the program's buffer; timeout 0 never blocks.
    match unsafe { sys!(epoll_pwait, fd, events, room, 0, 0usize, 0) } {
        Ok(0) => Outcome::Arm(libc::POLLIN as u32),
        done => Outcome::Done(sys::as_res(done), 0),
    }
}

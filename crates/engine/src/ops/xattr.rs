//! SETXATTR, FSETXATTR, GETXATTR, FGETXATTR: names and values are copied at submission.
#![allow(unsafe_code)]

use super::fs::{no_fixed_file, punt_bounded};
use super::path::read_name;
use super::{BASE, OpDef, retry_eintr, unfailing};
use crate::creds::sys_as;
use crate::opdata::XattrData;
use crate::req::{AsyncData, Req, flag};
use crate::state::State;
use crate::usercopy;
use soloring_abi::Errno;
use soloring_iowq::Interrupt;
use std::ffi::CString;

const BY_PATH: OpDef = OpDef { issue: punt_bounded, has_run: true, always_async: true, ..BASE };
const BY_FILE: OpDef = OpDef { needs_file: true, ..BY_PATH };

pub const SETXATTR: OpDef = OpDef { prep: set_prep, run: set_run, ..BY_PATH };
pub const GETXATTR: OpDef = OpDef { prep: get_prep, run: get_run, ..BY_PATH };
pub const FSETXATTR: OpDef = OpDef { prep: fset_prep, run: fset_run, ..BY_FILE };
pub const FGETXATTR: OpDef = OpDef { prep: fget_prep, run: fget_run, ..BY_FILE };

/// Longest name of an attribute (XATTR_NAME_MAX), in bytes without the NUL.
const NAME_MAX: usize = 255;
/// Longest value (XATTR_SIZE_MAX), in bytes.
const VALUE_MAX: u32 = 65536;

/// Copies an attribute's name.
///
/// # Errors
/// EFAULT; ERANGE for an empty name and for one that is too long.
fn read_attribute(addr: u64) -> Result<CString, Errno> {
    const TOO_LONG: Errno = Errno(libc::ENAMETOOLONG);
    match usercopy::read_path(addr) {
        Ok(name) if name.is_empty() || name.as_bytes().len() > NAME_MAX => Err(Errno::ERANGE),
        Err(TOO_LONG) => Err(Errno::ERANGE),
        other => other,
    }
}

fn read_set(req: &Req) -> Result<XattrData, Errno> {
    let sqe = &req.sqe;
    if sqe.op_flags & !((libc::XATTR_CREATE | libc::XATTR_REPLACE) as u32) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_attribute(sqe.addr)?;
    if sqe.len > VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    let value = usercopy::read_vec(sqe.off, sqe.len as usize)?;
    Ok(XattrData { path: CString::default(), name, value })
}

fn read_get(req: &Req) -> Result<XattrData, Errno> {
    if req.sqe.op_flags != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_attribute(req.sqe.addr)?;
    Ok(XattrData { path: CString::default(), name, value: Vec::new() })
}

fn keep(req: &mut Req, data: XattrData) -> Result<(), Errno> {
    req.data = AsyncData::Xattr(Box::new(data));
    req.flags |= flag::STABLE;
    Ok(())
}

fn kept(req: &Req) -> &XattrData {
    match &req.data {
        AsyncData::Xattr(x) => x,
        _ => unreachable!("prep copied the name"),
    }
}

fn set_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    no_fixed_file(req)?;
    let data = read_set(req)?;
    let path = read_name(req.sqe.addr3)?;
    keep(req, XattrData { path, ..data })
}

fn get_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    no_fixed_file(req)?;
    let data = read_get(req)?;
    let path = read_name(req.sqe.addr3)?;
    keep(req, XattrData { path, ..data })
}

fn fset_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let data = read_set(req)?;
    keep(req, data)
}

fn fget_prep(_: &mut State, req: &mut Req) -> Result<(), Errno> {
    let data = read_get(req)?;
    keep(req, data)
}

fn set_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (x, flags) = (kept(req), req.sqe.op_flags);
    let (path, name) = (x.path.as_ptr(), x.name.as_ptr());
    let (value, len) = (x.value.as_ptr(), x.value.len());
    // SAFETY: path, name and value are our copies.
    let done =
        retry_eintr(interrupt, || unsafe { sys_as!(req, setxattr, path, name, value, len, flags) });
    unfailing(req, done)
}

fn fset_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (fd, x, flags) = (req.fd(), kept(req), req.sqe.op_flags);
    let (name, value, len) = (x.name.as_ptr(), x.value.as_ptr(), x.value.len());
    // SAFETY: name and value are our copies.
    let done =
        retry_eintr(interrupt, || unsafe { sys_as!(req, fsetxattr, fd, name, value, len, flags) });
    unfailing(req, done)
}

fn get_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (x, into, len) = (kept(req), req.sqe.off, req.sqe.len);
    let (path, name) = (x.path.as_ptr(), x.name.as_ptr());
    // SAFETY: path and name are our copies; the kernel checks the program's buffer.
    let done = retry_eintr(interrupt, || unsafe { sys_as!(req, getxattr, path, name, into, len) });
    unfailing(req, done)
}

fn fget_run(req: &mut Req, interrupt: &Interrupt) -> i32 {
    let (fd, x, into, len) = (req.fd(), kept(req), req.sqe.off, req.sqe.len);
    let name = x.name.as_ptr();
    // SAFETY: the name is our copy; the kernel checks the program's buffer.
    let done = retry_eintr(interrupt, || unsafe { sys_as!(req, fgetxattr, fd, name, into, len) });
    unfailing(req, done)
}

//! REGISTER_BUFFERS and its relatives.
#![allow(unsafe_code)]

use super::arg::Arg;
use crate::resources::{FixedBuf, Node, Table};
use crate::state::State;
use crate::sys::sys;
use crate::{pinning, usercopy};
use soloring_abi::{Errno, IoVec, RsrcRegister, RsrcUpdate2, raw};
use std::sync::Arc;

const MAX_BUFFERS: u32 = 1 << 14;
const MAX_BYTES: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// Checks the numbers of one buffer. Returns its pages as start and end, `None` for an empty slot.
fn check(iov: IoVec) -> Result<Option<(u64, u64)>, Errno> {
    if iov.len > isize::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if iov.base == 0 {
        return if iov.len == 0 { Ok(None) } else { Err(Errno::EFAULT) };
    }
    if iov.len == 0 || iov.len > MAX_BYTES {
        return Err(Errno::EFAULT);
    }
    let end = iov.base.checked_add(iov.len + PAGE - 1).ok_or(Errno::EOVERFLOW)? & !(PAGE - 1);
    Ok(Some((iov.base & !(PAGE - 1), end)))
}

/// Checks one buffer as the kernel does when it pins it: `None` for an empty slot.
fn pin(iov: IoVec) -> Result<Option<FixedBuf>, Errno> {
    let Some((start, end)) = check(iov)? else { return Ok(None) };
    if !writable(start, end - start) {
        return Err(Errno::EFAULT);
    }
    Ok(Some(FixedBuf { addr: iov.base, len: iov.len }))
}

/// Whether these whole pages are there and can be written to, as when the kernel pins them.
pub fn writable(start: u64, len: u64) -> bool {
    const MADV_POPULATE_WRITE: i32 = 23;
    if !pinning::allowed(start, len) {
        return false;
    }
    // SAFETY: populating pages changes no contents; the kernel checks the range.
    match unsafe { sys!(madvise, start, len, MADV_POPULATE_WRITE) } {
        Ok(_) => true,
        // A kernel without MADV_POPULATE_WRITE (before 5.14) says EINVAL for every range.
        Err(Errno::EINVAL) => touchable(start, len),
        Err(_) => false,
    }
}

/// Whether every page can be read and written back.
fn touchable(start: u64, len: u64) -> bool {
    (start..start + len).step_by(PAGE as usize).all(|page| {
        usercopy::read::<u8>(page).is_ok_and(|byte| usercopy::write(page, &byte).is_ok())
    })
}

fn read_tag(tags: u64, i: u64) -> Result<u64, Errno> {
    if tags == 0 { Ok(0) } else { usercopy::read(tags + i * 8) }
}

/// A buffer and its tag, the `i`th: that is read between the check of the numbers and the look at the memory.
fn node(iov: IoVec, tags: u64, i: u64) -> Result<Option<Node<FixedBuf>>, Errno> {
    check(iov)?;
    let tag = read_tag(tags, i)?;
    match pin(iov)? {
        Some(buf) => Ok(Some(Node { item: Arc::new(buf), tag })),
        None if tag != 0 => Err(Errno::EINVAL),
        None => Ok(None),
    }
}

fn fill(st: &mut State, data: u64, nr: u32, tags: u64) -> Result<i32, Errno> {
    if st.bufs.is_some() {
        return Err(Errno::EBUSY);
    }
    if nr == 0 || nr > MAX_BUFFERS {
        return Err(Errno::EINVAL);
    }
    let mut slots = Vec::with_capacity(nr as usize);
    for i in 0..nr as u64 {
        let iov = if data == 0 { IoVec::default() } else { usercopy::read(data + i * 16)? };
        slots.push(node(iov, tags, i)?);
    }
    st.bufs = Some(Table::new(slots));
    Ok(0)
}

pub fn register(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 {
        return Err(Errno::EFAULT);
    }
    fill(st, arg.at, arg.nr, 0)
}

/// The argument of FILES2 and BUFFERS2.
pub fn read_register2(arg: Arg) -> Result<RsrcRegister, Errno> {
    if arg.nr as usize != size_of::<RsrcRegister>() {
        return Err(Errno::EINVAL);
    }
    let rr: RsrcRegister = usercopy::read(arg.at)?;
    let sparse = rr.flags & raw::IORING_RSRC_REGISTER_SPARSE != 0;
    if rr.nr == 0
        || rr.resv2 != 0
        || rr.flags & !raw::IORING_RSRC_REGISTER_SPARSE != 0
        || sparse && rr.data != 0
    {
        return Err(Errno::EINVAL);
    }
    Ok(rr)
}

/// The argument of FILES_UPDATE2 and BUFFERS_UPDATE.
pub fn read_update2(arg: Arg) -> Result<RsrcUpdate2, Errno> {
    if arg.nr as usize != size_of::<RsrcUpdate2>() {
        return Err(Errno::EINVAL);
    }
    let up: RsrcUpdate2 = usercopy::read(arg.at)?;
    if up.nr == 0 || up.resv != 0 || up.resv2 != 0 {
        return Err(Errno::EINVAL);
    }
    up.offset.checked_add(up.nr).ok_or(Errno::EOVERFLOW)?;
    Ok(up)
}

pub fn register2(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let rr = read_register2(arg)?;
    fill(st, rr.data, rr.nr, rr.tags)
}

pub fn update2(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let up = read_update2(arg)?;
    let table = st.bufs.as_ref().ok_or(Errno::ENXIO)?;
    if (up.offset + up.nr) as usize > table.len() {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    let result = (0..up.nr).try_for_each(|i| {
        let iov: IoVec = usercopy::read(up.data + i as u64 * 16)?;
        let new = node(iov, up.tags, i as u64)?;
        let table = st.bufs.as_mut().ok_or(Errno::ENXIO)?;
        if let Some(old) = table.replace(up.offset + i, new) {
            st.retire_buf(old);
        }
        done += 1;
        Ok(())
    });
    st.post_retired();
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

pub fn unregister(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    arg.none()?;
    let table = st.bufs.take().ok_or(Errno::ENXIO)?;
    for node in table.into_nodes() {
        st.retire_buf(node);
    }
    st.post_retired();
    Ok(0)
}

//! REGISTER_FILES and its relatives.

use super::Arg;
use super::bufs::{read_register2, read_update2};
use crate::resources::{FixedFile, Node, Table};
use crate::state::State;
use crate::usercopy;
use soloring_abi::{Errno, FileIndexRange, raw};
use std::sync::Arc;

const MAX_FILES: u32 = 1 << 20;

fn read_tag(tags: u64, i: u64) -> Result<u64, Errno> {
    if tags == 0 { Ok(0) } else { usercopy::read(tags + i * 8) }
}

fn node(fd: i32, tag: u64) -> Result<Option<Node<FixedFile>>, Errno> {
    if fd == -1 {
        return if tag != 0 { Err(Errno::EINVAL) } else { Ok(None) };
    }
    Ok(Some(Node { item: Arc::new(FixedFile::hold(fd)?), tag }))
}

fn fill(st: &mut State, data: u64, nr: u32, tags: u64) -> Result<i32, Errno> {
    if st.files.is_some() {
        return Err(Errno::EBUSY);
    }
    if nr == 0 {
        return Err(Errno::EINVAL);
    }
    if nr > MAX_FILES || nr as u64 > crate::fds::soft_limit() {
        return Err(Errno::EMFILE);
    }
    let mut slots = Vec::with_capacity(nr as usize);
    for i in 0..nr as u64 {
        let fd = if data == 0 { -1 } else { usercopy::read::<i32>(data + i * 4)? };
        slots.push(node(fd, read_tag(tags, i)?)?);
    }
    st.files = Some(Table::new(slots));
    Ok(0)
}

pub fn register(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 {
        return Err(Errno::EFAULT);
    }
    fill(st, arg.at, arg.nr, 0)
}

pub fn register2(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let rr = read_register2(arg)?;
    fill(st, rr.data, rr.nr, rr.tags)
}

pub fn unregister(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    arg.none()?;
    let table = st.files.take().ok_or(Errno::ENXIO)?;
    for node in table.into_nodes() {
        st.retire_file(node);
    }
    st.post_retired();
    Ok(0)
}

/// Replaces `nr` slots from `offset` on. Returns how many were replaced before the first error.
fn replace(st: &mut State, offset: u32, nr: u32, data: u64, tags: u64) -> Result<i32, Errno> {
    let table = st.files.as_ref().ok_or(Errno::ENXIO)?;
    let end = offset.checked_add(nr).ok_or(Errno::EOVERFLOW)?;
    if end as usize > table.len() {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    let result = (0..nr).try_for_each(|i| {
        let tag = read_tag(tags, i as u64)?;
        let fd: i32 = usercopy::read(data + i as u64 * 4)?;
        if (fd == raw::IORING_REGISTER_FILES_SKIP || fd == -1) && tag != 0 {
            return Err(Errno::EINVAL);
        }
        if fd != raw::IORING_REGISTER_FILES_SKIP {
            // The old file goes first: a new one that cannot be held leaves the slot empty.
            let table = st.files.as_mut().ok_or(Errno::ENXIO)?;
            if let Some(old) = table.replace(offset + i, None) {
                st.retire_file(old);
            }
            let new = node(fd, tag)?;
            let table = st.files.as_mut().ok_or(Errno::ENXIO)?;
            table.replace(offset + i, new);
        }
        done += 1;
        Ok(())
    });
    st.post_retired();
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

pub fn update(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.nr == 0 {
        return Err(Errno::EINVAL);
    }
    let up: soloring_abi::FilesUpdate = usercopy::read(arg.at)?;
    if up.resv != 0 {
        return Err(Errno::EINVAL);
    }
    replace(st, up.offset, arg.nr, up.fds, 0)
}

pub fn update2(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    let up = read_update2(arg)?;
    replace(st, up.offset, up.nr, up.data, up.tags)
}

pub fn alloc_range(st: &mut State, arg: Arg) -> Result<i32, Errno> {
    if arg.at == 0 || arg.nr != 0 {
        return Err(Errno::EINVAL);
    }
    let range: FileIndexRange = usercopy::read(arg.at)?;
    let end = range.off.checked_add(range.len).ok_or(Errno::EOVERFLOW)?;
    let len = st.files.as_ref().map_or(0, Table::len);
    if range.resv != 0 || end as usize > len {
        return Err(Errno::EINVAL);
    }
    if let Some(table) = &mut st.files {
        table.set_alloc_range(range.off, end);
    }
    Ok(0)
}

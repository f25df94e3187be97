//! REGISTER_FILES and its relatives.

use super::arg::Arg;
use super::bufs::{read_register2, read_update2};
use crate::filetable::{node, read_tag, replace};
use crate::resources::Table;
use crate::state::State;
use crate::usercopy;
use soloring_abi::{Errno, FileIndexRange};

const MAX_FILES: u32 = 1 << 20;

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

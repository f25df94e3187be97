//! Changing slots of the registered file table, for the register call and for operations.

use crate::resources::{FixedFile, Node};
use crate::state::State;
use crate::usercopy;
use soloring_abi::{Errno, raw};
use std::sync::Arc;

/// The tag of slot `i` of an update; 0 without tags.
pub fn read_tag(tags: u64, i: u64) -> Result<u64, Errno> {
    if tags == 0 { Ok(0) } else { usercopy::read(tags + i * 8) }
}

/// What a descriptor of the program's puts into a slot: a file, or nothing for -1.
///
/// # Errors
/// EBADF, EMFILE; EINVAL for a tag without a file.
pub fn node(fd: i32, tag: u64) -> Result<Option<Node<FixedFile>>, Errno> {
    if fd == -1 {
        return if tag != 0 { Err(Errno::EINVAL) } else { Ok(None) };
    }
    Ok(Some(Node { item: Arc::new(FixedFile::hold(fd)?), tag }))
}

/// Replaces `nr` slots from `offset` on by the descriptors at `data`, with the tags at `tags` unless that is 0.
/// Returns how many were replaced before the first error.
///
/// # Errors
/// EOVERFLOW, ENXIO without a table, EINVAL beyond it; of the first slot: EFAULT, EBADF, EINVAL for a tag without a file.
pub fn replace(st: &mut State, offset: u32, nr: u32, data: u64, tags: u64) -> Result<i32, Errno> {
    let end = offset.checked_add(nr).ok_or(Errno::EOVERFLOW)?;
    let table = st.files.as_ref().ok_or(Errno::ENXIO)?;
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

/// Puts descriptors into free slots: for each of the `nr` at `data` the slot is written back in its place.
/// Returns how many went in before the first error.
///
/// # Errors
/// ENXIO without a table; of the first descriptor: EFAULT, EBADF, EMFILE, ENFILE when no slot is free.
pub fn fill_free(st: &mut State, nr: u32, data: u64) -> Result<i32, Errno> {
    if st.files.is_none() {
        return Err(Errno::ENXIO);
    }
    let mut done = 0;
    let result = (0..nr as u64).try_for_each(|i| {
        let at = data + i * 4;
        let file = FixedFile::hold(usercopy::read(at)?)?;
        let table = st.files.as_mut().ok_or(Errno::ENXIO)?;
        let slot = table.find_free()?;
        table.replace(slot, Some(Node { item: Arc::new(file), tag: 0 }));
        if let Err(e) = usercopy::write(at, &(slot as i32)) {
            table.replace(slot, None);
            return Err(e);
        }
        done += 1;
        Ok(())
    });
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

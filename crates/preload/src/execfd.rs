//! The path of a program that is executed by descriptor, for the command that supervises what cannot load us.
//!
//! May run in a child of `vfork`: allocates nothing and uses plain system calls.
#![allow(unsafe_code)]

use libc::c_int;
use soloring_intercept::raw;
use soloring_intercept::target::{self, Refusal};
use std::ffi::CStr;
use std::io::{Cursor, Write};

const PATH_MAX: usize = libc::PATH_MAX as usize;

/// A path in a buffer of its own, NUL-terminated.
pub(crate) struct Place([u8; PATH_MAX]);

impl Place {
    fn new() -> Place {
        Place([0; PATH_MAX])
    }

    /// The path.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }

    fn write(write: impl FnOnce(&mut Cursor<&mut [u8]>) -> std::io::Result<()>) -> Option<Place> {
        let mut place = Place::new();
        let room = PATH_MAX - 1;
        write(&mut Cursor::new(&mut place.0[..room])).ok().map(|()| place)
    }
}

fn in_proc(fd: c_int) -> Option<Place> {
    Place::write(|out| write!(out, "/proc/self/fd/{fd}"))
}

/// Where the file of `fd` lies in the file system, as far as it can be said.
fn link_of(fd: c_int) -> Option<Place> {
    let (link, mut target) = (in_proc(fd)?, Place::new());
    let args = [
        libc::AT_FDCWD as usize,
        link.as_c_str().as_ptr() as usize,
        target.0.as_mut_ptr() as usize,
        PATH_MAX - 1,
        0,
        0,
    ];
    // SAFETY: the kernel writes less than the buffer's length, so a NUL stays at its end.
    let len = unsafe { raw::any(libc::SYS_readlinkat as usize, args) };
    (len > 0 && target.0[0] == b'/').then_some(target)
}

fn same_file(path: &CStr, fd: c_int) -> bool {
    let id = |dir: c_int, path: &CStr, flags: c_int| {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
        let at = [dir as usize, path.as_ptr() as usize, stat.as_mut_ptr() as usize];
        let args = [at[0], at[1], at[2], flags as usize, 0, 0];
        // SAFETY: the path is NUL-terminated; the buffer is written by a call that succeeds.
        unsafe {
            if raw::any(libc::SYS_newfstatat as usize, args) != 0 {
                return None;
            }
            let stat = stat.assume_init();
            Some((stat.st_dev, stat.st_ino))
        }
    };
    let wanted = id(fd, c"", libc::AT_EMPTY_PATH);
    wanted.is_some() && id(libc::AT_FDCWD, path, 0) == wanted
}

/// A path by which another program can execute the file of `fd`. Where the file has none (a memory file, a file
/// that was removed) and cannot load us, a duplicate that outlives `exec` stands for it, and stays with the
/// program.
pub(crate) fn of_descriptor(fd: c_int) -> Option<Place> {
    if let Some(place) = link_of(fd).filter(|place| same_file(place.as_c_str(), fd)) {
        return Some(place);
    }
    let verdict = target::examine(in_proc(fd)?.as_c_str());
    if !matches!(verdict, Err(Refusal::Static | Refusal::OtherLoader)) {
        return None;
    }
    // SAFETY: a plain duplicate.
    let dup = unsafe { raw::any(libc::SYS_dup as usize, [fd as usize, 0, 0, 0, 0, 0]) };
    if dup < 0 { None } else { in_proc(dup as c_int) }
}

/// As [`of_descriptor`], for `path` as `execveat` takes it.
pub(crate) fn of_execveat(dir: c_int, path: &CStr, flags: c_int) -> Option<Place> {
    let name = path.to_bytes();
    match flags {
        libc::AT_EMPTY_PATH if name.is_empty() => of_descriptor(dir),
        0 | libc::AT_EMPTY_PATH if name.starts_with(b"/") || dir == libc::AT_FDCWD => {
            Place::write(|out| out.write_all(name))
        }
        0 | libc::AT_EMPTY_PATH => {
            let dir = link_of(dir)?;
            Place::write(|out| {
                out.write_all(dir.as_c_str().to_bytes())?;
                out.write_all(b"/")?;
                out.write_all(name)
            })
        }
        // Flags that change what a path means: the call itself answers.
        _ => None,
    }
}

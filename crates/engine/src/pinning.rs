//! Whether the kernel would pin this memory for writing: not pages of a file that have to be written back.
//!
//! Linux refuses long-term pins of shared, writable file mappings (since 6.5), unless the file lives in memory
//! only. Asked by PROCMAP_QUERY (Linux 6.11); where that is missing, or no `/proc`, nothing is refused.
#![allow(unsafe_code)]

use crate::sys::{self, sys};
use soloring_abi::Errno;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_addr: u64,
    build_id_addr: u64,
}

/// `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u64 = 3 << 30 | (size_of::<Query>() as u64) << 16 | (b'f' as u64) << 8 | 17;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 16;
const FILE_BACKED: u64 = 32;

/// Files of these never have to be written back.
const IN_MEMORY: [&str; 4] = ["tmpfs", "ramfs", "hugetlbfs", "devtmpfs"];

/// Whether `len` bytes from `start` may be pinned, as far as their mappings say.
pub fn allowed(start: u64, len: u64) -> bool {
    let Ok(maps) = open(c"/proc/self/maps") else { return true };
    let found = first_written_back(maps, start, start.saturating_add(len));
    sys::close(maps);
    !found
}

/// Walks the shared, writable file mappings between `at` and `end`.
fn first_written_back(maps: i32, mut at: u64, end: u64) -> bool {
    while at < end {
        let mut query = Query {
            size: size_of::<Query>() as u64,
            flags: COVERING_OR_NEXT | FILE_BACKED | SHARED | WRITABLE,
            addr: at,
            ..Query::default()
        };
        // SAFETY: reads and writes one query on our stack, which asks for no name.
        let asked = unsafe { sys!(ioctl, maps, PROCMAP_QUERY, &raw mut query) };
        if asked.is_err() || query.start >= end || query.end <= at {
            return false;
        }
        if is_written_back(query.dev_major, query.dev_minor) {
            return true;
        }
        at = query.end;
    }
    false
}

/// Whether the file system of a device has storage behind it. Those that are mounted nowhere (memory files,
/// shared anonymous memory) have none.
fn is_written_back(major: u32, minor: u32) -> bool {
    let Ok(mounts) = read_all(c"/proc/self/mountinfo") else { return false };
    let mounts = String::from_utf8_lossy(&mounts);
    let kind = file_system(&mounts, major, minor);
    kind.is_some_and(|kind| !IN_MEMORY.contains(&kind))
}

/// The type of the file system with this device number, from proc_pid_mountinfo(5).
fn file_system(mounts: &str, major: u32, minor: u32) -> Option<&str> {
    let device = format!("{major}:{minor}");
    let line = mounts.lines().find(|l| l.split(' ').nth(2) == Some(&device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

fn open(path: &std::ffi::CStr) -> Result<i32, Errno> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a constant path.
    unsafe { sys!(openat, libc::AT_FDCWD, path.as_ptr(), flags, 0) }.map(|fd| fd as i32)
}

fn read_all(path: &std::ffi::CStr) -> Result<Vec<u8>, Errno> {
    let fd = open(path)?;
    let mut bytes = Vec::new();
    let mut part = [0u8; 4096];
    let result = loop {
        // SAFETY: writes at most the size of our buffer.
        match unsafe { sys!(read, fd, part.as_mut_ptr(), part.len()) } {
            Ok(0) => break Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&part[..n]),
            Err(Errno::EINTR) => {}
            Err(e) => break Err(e),
        }
    };
    sys::close(fd);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_by_device() {
        let mounts = "22 28 0:20 / /proc rw,nosuid shared:12 - proc proc rw\n\
                      28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 28 0:25 / /dev/shm rw - tmpfs tmpfs rw,inode64\n";
        assert_eq!(file_system(mounts, 254, 0), Some("ext4"));
        assert_eq!(file_system(mounts, 0, 25), Some("tmpfs"));
        assert_eq!(file_system(mounts, 0, 2), None);
        assert_eq!(file_system("garbage\n\n1 2 0:9 - \n", 0, 9), Some(""));
    }
}

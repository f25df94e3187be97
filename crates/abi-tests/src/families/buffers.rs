//! Registered buffers: the table, READ_FIXED and WRITE_FIXED, updates, tags.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, read_fixed, write_fixed};
use crate::sys;
use libc::{EBADF, EBUSY, EFAULT, EINVAL, ENXIO, EOVERFLOW};
use soloring_abi::raw;
use soloring_abi::raw::io_uring_register_op as reg;

const BUFFERS: u32 = reg::IORING_REGISTER_BUFFERS as u32;
const UNREGISTER: u32 = reg::IORING_UNREGISTER_BUFFERS as u32;
const BUFFERS2: u32 = reg::IORING_REGISTER_BUFFERS2 as u32;
const UPDATE2: u32 = reg::IORING_REGISTER_BUFFERS_UPDATE as u32;
const SPARSE: u32 = raw::IORING_RSRC_REGISTER_SPARSE;
const NULL: *const u8 = std::ptr::null();
const TEXT: &[u8] = b"0123456789abcdef";

fn vector(at: u64, len: usize) -> libc::iovec {
    libc::iovec { iov_base: at as *mut _, iov_len: len }
}

/// A page of memory as a vector.
fn page() -> libc::iovec {
    sys::iovec(sys::buffer(4096))
}

fn register(ring: &Ring, iov: &[libc::iovec]) -> Res {
    ring.register(BUFFERS, iov.as_ptr(), iov.len() as u32)
}

fn register2(ring: &Ring, nr: u32, flags: u32, iov: &[libc::iovec], tags: &[u64]) -> Res {
    ring.register_tagged(BUFFERS2, nr, flags, iov, tags)
}

fn update(ring: &Ring, offset: u32, iov: &[libc::iovec], tags: &[u64]) -> Res {
    ring.update_tagged(UPDATE2, offset, iov, tags)
}

fn data_goes_through_registered_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(8192);
    let at = memory.as_ptr() as u64;
    check_eq!(register(&ring, &[vector(at, 4096), vector(at + 4096, 4096)]), Res(0));
    let fd = sys::file_with(TEXT);
    check_eq!(ring.res(read_fixed(fd, at, 16, 0, 0)), Res(16), "from the start");
    check_eq!(&memory[..16], TEXT);
    check_eq!(ring.res(read_fixed(fd, at + 100, 4, 3, 0)), Res(4), "inside");
    check_eq!(&memory[100..104], b"3456");
    check_eq!(ring.res(read_fixed(fd, at + 4096, 4, 3, 1)), Res(4), "second buffer");
    memory[4096..4100].copy_from_slice(b"WXYZ");
    check_eq!(ring.res(write_fixed(fd, at + 4096, 4, 0, 1)), Res(4), "write");
    let mut back = [0; 6];
    sys::pread(fd, &mut back, 0);
    check_eq!(&back, b"WXYZ45");
    check_eq!(ring.res(read_fixed(fd, at, 16, 14, 0)), Res(2), "short at the end of the file");
    check_eq!(ring.res(read_fixed(fd, at, 16, 99, 0)), Res(0), "behind the end of the file");
}

fn bounds_are_checked(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let at = sys::buffer(8192).as_ptr() as u64;
    check_eq!(register(&ring, &[vector(at + 100, 1000)]), Res(0));
    let fd = sys::file_with(TEXT);
    for (what, addr, len, want) in [
        ("the whole", at + 100, 1000, Res(16)),
        ("one before", at + 99, 10, err(EFAULT)),
        ("one over the end", at + 100, 1001, err(EFAULT)),
        ("at the end", at + 1100, 1, err(EFAULT)),
        ("nothing at the end", at + 1100, 0, Res(0)),
        ("wraps around", u64::MAX - 5, 10, err(EFAULT)),
        ("elsewhere", at + 4096, 10, err(EFAULT)),
        ("huge", at + 100, u32::MAX, err(EFAULT)),
        ("null", 0, 10, err(EFAULT)),
    ] {
        check_eq!(ring.res(read_fixed(fd, addr, len, 0, 0)), want, "read: {what}");
        if want != Res(16) {
            check_eq!(ring.res(write_fixed(fd, addr, len, 0, 0)), want, "write: {what}");
        }
    }
}

fn bad_indices(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let iov = page();
    let at = iov.iov_base as u64;
    let fd = sys::file_with(TEXT);
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 0)), err(EFAULT), "no table");
    check_eq!(register(&ring, &[iov]), Res(0));
    for index in [1, 100, u16::MAX] {
        check_eq!(ring.res(read_fixed(fd, at, 4, 0, index)), err(EFAULT), "index {index}");
    }
    check_eq!(ring.res(read_fixed(-1, at, 4, 0, 0)), err(EBADF), "bad descriptor");
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 0).forced_async()), Res(4), "on a worker");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 0)), err(EFAULT), "unregistered");
}

fn pipes_through_registered_memory(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = sys::buffer(4096);
    let at = memory.as_ptr() as u64;
    check_eq!(register(&ring, &[vector(at, 4096)]), Res(0));
    let (r, w) = sys::pipe();
    ring.submit_all(&[read_fixed(r, at, 8, 0, 0).ud(1)]);
    check!(ring.quiet(), "early");
    sys::write(w, b"later");
    check_eq!(ring.wait().res, Res(5));
    check_eq!(&memory[..5], b"later");
}

fn registration_errors(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let good = page();
    check_eq!(ring.register(BUFFERS, &good, 0), err(EINVAL), "none");
    check_eq!(ring.register(BUFFERS, NULL, 1), err(EFAULT), "null vectors");
    check_eq!(ring.register(BUFFERS, sys::BAD, 1), err(EFAULT), "bad vectors");
    check_eq!(ring.register(BUFFERS, &good, 16385), err(EINVAL), "too many");
    check_eq!(ring.register(UNREGISTER, NULL, 0), err(ENXIO), "nothing registered");
    let at = good.iov_base as u64;
    for (what, bad, want) in [
        ("null with a length", vector(0, 4096), EFAULT),
        ("no length", vector(at, 0), EFAULT),
        ("too long", vector(at, (1 << 30) + 1), EFAULT),
        ("wraps around", vector(u64::MAX - 4095, 4096), EOVERFLOW),
        ("unmapped", vector(sys::forbidden_page(), 4096), EFAULT),
        ("read-only", vector(sys::read_only_page(), 4096), EFAULT),
    ] {
        check_eq!(register(&ring, &[bad]), err(want), "{what}");
        check_eq!(register(&ring, &[good, bad]), err(want), "{what}, second");
    }
    check_eq!(register(&ring, &[good]), Res(0), "after failures");
    check_eq!(register(&ring, &[good]), err(EBUSY), "twice");
    check_eq!(ring.register(UNREGISTER, NULL, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(UNREGISTER, sys::BAD, 0), err(EINVAL), "argument");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(ring.register(UNREGISTER, NULL, 0), err(ENXIO), "twice");
}

fn empty_slots(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let good = page();
    let fd = sys::file_with(TEXT);
    check_eq!(register(&ring, &[vector(0, 0), good]), Res(0), "an empty slot among others");
    let at = good.iov_base as u64;
    check_eq!(ring.res(read_fixed(fd, 0, 0, 0, 0)), err(EFAULT), "the empty one");
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 1)), Res(4), "the other");
}

fn sparse_tables_and_updates(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = sys::file_with(TEXT);
    check_eq!(register2(&ring, 4, SPARSE, &[], &[]), Res(0));
    let good = page();
    let at = good.iov_base as u64;
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 2)), err(EFAULT), "empty");
    check_eq!(update(&ring, 2, &[good], &[]), Res(1));
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 2)), Res(4), "filled");
    check_eq!(update(&ring, 2, &[vector(0, 0)], &[]), Res(1));
    check_eq!(ring.res(read_fixed(fd, at, 4, 0, 2)), err(EFAULT), "emptied");
    check_eq!(update(&ring, 4, &[good], &[]), err(EINVAL), "beyond the table");
    check_eq!(update(&ring, 3, &[good, good], &[]), err(EINVAL), "over the end");
    check_eq!(update(&ring, u32::MAX, &[good], &[]), err(EOVERFLOW), "wraps around");
    check_eq!(update(&ring, 0, &[vector(at, 0)], &[]), err(EFAULT), "a bad vector");
    check_eq!(update(&ring, 0, &[good, vector(at, 0)], &[]), Res(1), "a good one, a bad one");
    check_eq!(update(&ring, 0, &[], &[]), err(EINVAL), "none");
    check_eq!(register2(&ring, 4, SPARSE, &[], &[]), err(EBUSY), "twice");
    let ring = Ring::new(abi, 8);
    check_eq!(register2(&ring, 1, SPARSE, &[good], &[]), err(EINVAL), "sparse with vectors");
    check_eq!(register2(&ring, 1, 1 << 4, &[good], &[]), err(EINVAL), "unknown flag");
    check_eq!(update(&ring, 0, &[good], &[]), err(ENXIO), "no table");
    check_eq!(register2(&ring, 1, 0, &[vector(0, 0)], &[5]), err(EINVAL), "tag of an empty slot");
}

fn numbers_come_before_tags(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let nowhere = sys::forbidden_page();
    let add = raw::io_uring_register_op::IORING_REGISTER_BUFFERS2 as u32;
    let page = sys::buffer(4096);
    let long = libc::iovec { iov_base: page.as_mut_ptr().cast(), iov_len: usize::MAX };
    for (iov, want) in [(long, EINVAL), (sys::iovec(page), EFAULT)] {
        let data = std::ptr::from_ref(&iov) as u64;
        let arg = soloring_abi::RsrcRegister { nr: 1, flags: 0, resv2: 0, data, tags: nowhere };
        check_eq!(ring.register(add, &arg, size_of_val(&arg) as u32), err(want));
    }
}

fn tags_are_posted_when_a_buffer_goes(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let iov = [page(), page()];
    check_eq!(register2(&ring, 2, 0, &iov, &[11, 12]), Res(0));
    check!(ring.pop().is_none(), "a tag at registration");
    check_eq!(update(&ring, 0, &[page()], &[21]), Res(1));
    check_eq!(ring.results(1), [(11, Res(0))], "replaced");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(ring.results(2), [(12, Res(0)), (21, Res(0))], "unregistered");
}

fn tags_wait_for_requests_in_flight(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let iov = [page()];
    let at = iov[0].iov_base as u64;
    check_eq!(register2(&ring, 1, 0, &iov, &[11]), Res(0));
    let (r, w) = sys::pipe();
    ring.submit_all(&[read_fixed(r, at, 4, 0, 0).ud(1)]);
    check!(ring.quiet(), "early");
    check_eq!(update(&ring, 0, &[vector(0, 0)], &[]), Res(1));
    check!(ring.quiet(), "the tag came while a request was using the buffer");
    sys::write(w, b"x");
    let got: Vec<_> = ring.wait_n(2).iter().map(|d| (d.ud, d.res)).collect();
    check_eq!(got, [(1, Res(1)), (11, Res(0))], "the request, then the tag");
}

/// Shared pages of a file that has storage behind it would have to be written back while they are pinned.
fn pages_of_files(abi: &Abi) {
    let ring = Ring::new(abi, 4);
    let file = sys::file_with(&[0; 3 * 4096]);
    // Before 6.11 a process cannot ask what its mappings are; the kernel's ring knows them.
    let known = abi.is_kernel() || sys::kernel_version() >= (6, 11);
    let refused = if known && !sys::is_in_memory(file) { err(EFAULT) } else { Res(0) };
    let memory = sys::memory_file(3 * 4096);
    for (what, fd, flags, want) in [
        ("a file, shared", file, libc::MAP_SHARED, refused),
        ("a file, private", file, libc::MAP_PRIVATE, Res(0)),
        ("a memory file, shared", memory, libc::MAP_SHARED, Res(0)),
        ("nothing, shared", -1, libc::MAP_SHARED | libc::MAP_ANONYMOUS, Res(0)),
    ] {
        // Between pages that are nobody's but the process's own.
        let at = sys::buffer(5 * 4096).as_mut_ptr() as u64;
        sys::map_over(at + 4096, 3 * 4096, flags, fd);
        for (first, pages, want) in [(1, 3, want), (2, 1, want), (0, 2, want), (3, 2, want)] {
            let iov = vector(at + first * 4096 + 8, pages * 4096 - 16);
            check_eq!(register(&ring, &[iov]), want, "{what}, {pages} page(s) from {first}");
            ring.register(UNREGISTER, NULL, 0);
        }
        for first in [0, 4] {
            check_eq!(register(&ring, &[vector(at + first * 4096, 4096)]), Res(0), "beside {what}");
            ring.register(UNREGISTER, NULL, 0);
        }
    }
}

fn many_buffers(abi: &Abi) {
    let mut ring = Ring::new(abi, 64);
    let memory = sys::buffer(64 * 64);
    let at = memory.as_ptr() as u64;
    let iov: Vec<_> = (0..64).map(|i| vector(at + i * 64, 64)).collect();
    check_eq!(register(&ring, &iov), Res(0));
    let data: Vec<u8> = (0..4096).map(|i| (i / 64) as u8).collect();
    let fd = sys::file_with(&data);
    let sqes: Vec<_> =
        (0..64).map(|i| read_fixed(fd, at + i * 64, 64, i * 64, i as u16).ud(i)).collect();
    ring.submit_all(&sqes);
    check_eq!(ring.results(64), (0..64).map(|i| (i, Res(64))).collect::<Vec<_>>());
    check_eq!(memory[..], data[..]);
}

family!["buffers", modes;
    data_goes_through_registered_memory,
    bounds_are_checked,
    bad_indices,
    pipes_through_registered_memory,
    registration_errors,
    empty_slots,
    sparse_tables_and_updates,
    numbers_come_before_tags,
    tags_are_posted_when_a_buffer_goes,
    tags_wait_for_requests_in_flight,
    pages_of_files,
    many_buffers,
];

//! Registered files: the table, its updates, ranges for allocation, tags.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{self, CURRENT, SqeExt};
use crate::sys;
use libc::{EBADF, EBUSY, EFAULT, EINVAL, EMFILE, ENFILE, ENXIO, EOVERFLOW};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{FileIndexRange, FilesUpdate, Opcode, RsrcRegister, raw};

const FILES: u32 = reg::IORING_REGISTER_FILES as u32;
const UNREGISTER: u32 = reg::IORING_UNREGISTER_FILES as u32;
const UPDATE: u32 = reg::IORING_REGISTER_FILES_UPDATE as u32;
const FILES2: u32 = reg::IORING_REGISTER_FILES2 as u32;
const UPDATE2: u32 = reg::IORING_REGISTER_FILES_UPDATE2 as u32;
const RANGE: u32 = reg::IORING_REGISTER_FILE_ALLOC_RANGE as u32;
const SPARSE: u32 = raw::IORING_RSRC_REGISTER_SPARSE;
const SKIP: i32 = raw::IORING_REGISTER_FILES_SKIP;
const NULL: *const u8 = std::ptr::null();

fn update(ring: &Ring, offset: u32, fds: &[i32]) -> Res {
    let arg = FilesUpdate { offset, resv: 0, fds: fds.as_ptr() as u64 };
    ring.register(UPDATE, &arg, fds.len() as u32)
}

fn register2(ring: &Ring, nr: u32, flags: u32, fds: &[i32], tags: &[u64]) -> Res {
    ring.register_tagged(FILES2, nr, flags, fds, tags)
}

fn update2(ring: &Ring, offset: u32, fds: &[i32], tags: &[u64]) -> Res {
    ring.update_tagged(UPDATE2, offset, fds, tags)
}

/// Whether a slot holds a file that can be written.
fn usable(ring: &mut Ring, slot: i32) -> Res {
    ring.res(sqe::write(slot, b"x", CURRENT).fixed())
}

fn null() -> i32 {
    sys::open("/dev/null", libc::O_RDWR)
}

fn a_table_of_files(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(ring.register(FILES, [r, w, -1].as_ptr(), 3), Res(0));
    check_eq!(usable(&mut ring, 1), Res(1));
    let mut buf = [0; 4];
    check_eq!(ring.res(sqe::read(0, &mut buf, 0).fixed()), Res(1));
    check_eq!(usable(&mut ring, 2), err(EBADF), "an empty slot");
    check_eq!(usable(&mut ring, 3), err(EBADF), "beyond the table");
    check_eq!(usable(&mut ring, -1), err(EBADF), "-1");
    check_eq!(usable(&mut ring, i32::MAX), err(EBADF), "far beyond");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(usable(&mut ring, 1), err(EBADF), "unregistered");
}

fn registered_files_outlive_their_descriptors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(ring.register(FILES, [w].as_ptr(), 1), Res(0));
    sys::close(w);
    check_eq!(usable(&mut ring, 0), Res(1));
    check_eq!(sys::read(r, &mut [0; 4]), Res(1));
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(sys::read(r, &mut [0; 4]), Res(0), "the last writer is gone");
}

fn registration_errors(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let fd = null();
    check_eq!(ring.register(FILES, [fd].as_ptr(), 0), err(EINVAL), "none");
    check_eq!(ring.register(FILES, NULL, 1), err(EFAULT), "null");
    check_eq!(ring.register(FILES, sys::BAD, 1), err(EFAULT), "bad pointer");
    let unused = sys::unused_fd();
    check_eq!(ring.register(FILES, [fd, unused].as_ptr(), 2), err(EBADF), "a bad descriptor");
    check_eq!(ring.register(FILES, [-2].as_ptr(), 1), err(EBADF), "-2");
    check_eq!(ring.register(FILES, [ring.fd].as_ptr(), 1), err(EBADF), "the ring itself");
    check_eq!(ring.register(UNREGISTER, NULL, 0), err(ENXIO), "nothing registered");
    check_eq!(ring.register(FILES, [fd].as_ptr(), 1 << 20), err(EMFILE), "far too many");
    check_eq!(ring.register(FILES, [fd].as_ptr(), 1), Res(0));
    check_eq!(ring.register(FILES, [fd].as_ptr(), 1), err(EBUSY), "twice");
    check_eq!(ring.register(UNREGISTER, NULL, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(UNREGISTER, sys::BAD, 0), err(EINVAL), "argument");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
}

fn a_failed_registration_keeps_no_file(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    let unused = sys::unused_fd();
    check_eq!(ring.register(FILES, [w, unused].as_ptr(), 2), err(EBADF));
    sys::close(w);
    sys::set_nonblocking(r);
    check_eq!(sys::read(r, &mut [0; 4]), Res(0), "the write end is gone");
}

fn updates_fill_replace_and_empty(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    check_eq!(ring.register(FILES, [-1, -1, -1, -1].as_ptr(), 4), Res(0), "an empty table");
    let fd = null();
    check_eq!(update(&ring, 1, &[fd, fd]), Res(2));
    check_eq!(usable(&mut ring, 0), err(EBADF));
    check_eq!(usable(&mut ring, 1), Res(1));
    check_eq!(usable(&mut ring, 2), Res(1));
    check_eq!(update(&ring, 1, &[SKIP, -1]), Res(2), "skip one, empty one");
    check_eq!(usable(&mut ring, 1), Res(1), "skipped");
    check_eq!(usable(&mut ring, 2), err(EBADF), "emptied");
    let (r, w) = sys::pipe();
    check_eq!(update(&ring, 1, &[w]), Res(1), "replaced");
    check_eq!(usable(&mut ring, 1), Res(1));
    check_eq!(sys::read(r, &mut [0; 4]), Res(1), "the new file");
}

fn update_errors(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = null();
    check_eq!(update(&ring, 0, &[fd]), err(ENXIO), "no table");
    check_eq!(ring.register(FILES, [-1, -1].as_ptr(), 2), Res(0));
    check_eq!(update(&ring, 0, &[]), err(EINVAL), "none");
    check_eq!(update(&ring, 2, &[fd]), err(EINVAL), "beyond the table");
    check_eq!(update(&ring, 1, &[fd, fd]), err(EINVAL), "over the end");
    check_eq!(update(&ring, u32::MAX, &[fd]), err(EOVERFLOW), "wraps around");
    let unused = sys::unused_fd();
    check_eq!(update(&ring, 0, &[unused]), err(EBADF), "a bad descriptor");
    check_eq!(update(&ring, 0, &[fd, unused]), Res(1), "a good one, then a bad one");
    check_eq!(usable(&mut ring, 0), Res(1), "the good one is there");
    check_eq!(update(&ring, 0, &[ring.fd]), err(EBADF), "the ring itself");
    let fds = [fd];
    let arg = FilesUpdate { offset: 0, resv: 1, fds: fds.as_ptr() as u64 };
    check_eq!(ring.register(UPDATE, &arg, 1), err(EINVAL), "reserved");
    let arg = FilesUpdate { offset: 0, resv: 0, fds: 1 };
    check_eq!(ring.register(UPDATE, &arg, 1), err(EFAULT), "bad descriptors pointer");
    check_eq!(ring.register(UPDATE, sys::BAD, 1), err(EFAULT), "bad argument pointer");
}

fn sparse_tables(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    check_eq!(register2(&ring, 16, SPARSE, &[], &[]), Res(0));
    check_eq!(usable(&mut ring, 3), err(EBADF));
    check_eq!(update(&ring, 3, &[null()]), Res(1));
    check_eq!(usable(&mut ring, 3), Res(1));
    let ring = Ring::new(abi, 8);
    check_eq!(register2(&ring, 0, SPARSE, &[], &[]), err(EINVAL), "none");
    check_eq!(register2(&ring, 4, SPARSE, &[null()], &[]), err(EINVAL), "sparse with descriptors");
    check_eq!(register2(&ring, 4, 1 << 5, &[], &[]), err(EINVAL), "unknown flag");
}

fn tagged_registration_errors(abi: &Abi) {
    let ring = Ring::new(abi, 8);
    let fds = [null()];
    let arg = RsrcRegister { nr: 1, flags: 0, resv2: 0, data: fds.as_ptr() as u64, tags: 0 };
    for size in [0, 1, 16, 31, 33] {
        check_eq!(ring.register(FILES2, &arg, size), err(EINVAL), "size {size}");
    }
    check_eq!(
        ring.register(FILES2, &RsrcRegister { resv2: 1, ..arg }, 32),
        err(EINVAL),
        "reserved"
    );
    check_eq!(ring.register(FILES2, &RsrcRegister { nr: 0, ..arg }, 32), err(EINVAL), "none");
    check_eq!(ring.register(FILES2, sys::BAD, 32), err(EFAULT), "bad pointer");
    check_eq!(ring.register(FILES2, &RsrcRegister { tags: 1, ..arg }, 32), err(EFAULT), "bad tags");
    check_eq!(register2(&ring, 1, 0, &[-1], &[5]), err(EINVAL), "a tag for an empty slot");
    check_eq!(register2(&ring, 1, 0, &fds, &[5]), Res(0));
    check_eq!(register2(&ring, 1, 0, &fds, &[5]), err(EBUSY), "twice");
    for size in [0, 31, 33] {
        check_eq!(ring.register(UPDATE2, &arg, size), err(EINVAL), "update of size {size}");
    }
    check_eq!(update2(&ring, 0, &[SKIP], &[7]), err(EINVAL), "a tag for a skipped slot");
    check_eq!(update2(&ring, 0, &[-1], &[7]), err(EINVAL), "a tag for an emptied slot");
}

fn tags_are_posted_when_a_file_goes(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fd = null();
    check_eq!(register2(&ring, 3, 0, &[fd, fd, fd], &[11, 0, 13]), Res(0));
    check!(ring.pop().is_none(), "a tag at registration");
    check_eq!(update2(&ring, 0, &[fd], &[21]), Res(1));
    let done = ring.wait();
    check_eq!((done.ud, done.res, done.flags), (11, Res(0), 0), "replaced");
    check_eq!(update(&ring, 1, &[-1]), Res(1));
    check!(ring.quiet(), "a file without a tag");
    ring.submit_all(&[sqe::close_slot(2).ud(99)]);
    check_eq!(ring.results(2), [(13, Res(0)), (99, Res(0))], "closed by an operation");
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(ring.results(1), [(21, Res(0))], "unregistered");
    check!(ring.quiet(), "more tags");
}

fn tags_wait_for_requests_in_flight(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(register2(&ring, 1, 0, &[r], &[11]), Res(0));
    let mut buf = [0; 4];
    ring.submit_all(&[sqe::read(0, &mut buf, 0).fixed().ud(1)]);
    check_eq!(update(&ring, 0, &[-1]), Res(1));
    check!(ring.quiet(), "the tag came while a request was using the file");
    sys::write(w, b"x");
    let got: Vec<_> = ring.wait_n(2).iter().map(|d| (d.ud, d.res)).collect();
    check_eq!(got, [(1, Res(1)), (11, Res(0))], "the request, then the tag");
}

fn a_request_in_flight_keeps_its_slots_file(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let (r, w) = sys::pipe();
    check_eq!(ring.register(FILES, [r].as_ptr(), 1), Res(0));
    let mut buf = [0; 4];
    ring.submit_all(&[sqe::read(0, &mut buf, 0).fixed().ud(1)]);
    check_eq!(ring.register(UNREGISTER, NULL, 0), Res(0), "unregistering waits for nobody");
    sys::write(w, b"x");
    check_eq!(ring.results(1), [(1, Res(1))]);
}

fn ranges_for_allocation(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let range =
        |ring: &Ring, off, len| ring.register(RANGE, &FileIndexRange { off, len, resv: 0 }, 0);
    check_eq!(range(&ring, 0, 1), err(EINVAL), "no table");
    check_eq!(register2(&ring, 10, SPARSE, &[], &[]), Res(0));
    check_eq!(range(&ring, 4, 2), Res(0));
    let path = sys::c("/dev/null");
    let any = sqe::openat(libc::AT_FDCWD, &path, 0, 0).with(|s| s.file_index = u32::MAX);
    check_eq!(ring.res(any), Res(4));
    check_eq!(ring.res(any), Res(5));
    check_eq!(ring.res(any), err(ENFILE), "the range is full");
    check_eq!(range(&ring, 8, 2), Res(0));
    check_eq!(ring.res(any), Res(8));
    check_eq!(range(&ring, 0, 0), Res(0), "an empty range");
    check_eq!(ring.res(any), err(ENFILE), "an empty range");
    check_eq!(range(&ring, 8, 3), err(EINVAL), "over the end");
    check_eq!(range(&ring, 11, 0), err(EINVAL), "beyond the end");
    check_eq!(range(&ring, u32::MAX, 2), err(EOVERFLOW), "wraps around");
    let reserved = FileIndexRange { off: 0, len: 1, resv: 1 };
    check_eq!(ring.register(RANGE, &reserved, 0), err(EINVAL), "reserved");
    check_eq!(ring.register(RANGE, &reserved, 1), err(EINVAL), "nr_args");
    check_eq!(ring.register(RANGE, sys::BAD, 0), err(EFAULT), "bad pointer");
    check_eq!(ring.register(RANGE, NULL, 0), err(EINVAL), "null");
}

fn updates_by_an_operation(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let fds = [null(), null()];
    let op = |addr: u64, len, off| sqe::op(Opcode::FilesUpdate, -1, addr, len, off);
    let probe = ring.res(op(fds.as_ptr() as u64, 2, 0));
    check_eq!(probe, err(ENXIO), "no table");
    check_eq!(register2(&ring, 4, SPARSE, &[], &[]), Res(0));
    check_eq!(ring.res(op(fds.as_ptr() as u64, 2, 1)), Res(2));
    check_eq!(usable(&mut ring, 2), Res(1));
    check_eq!(ring.res(op(fds.as_ptr() as u64, 2, 3)), err(EINVAL), "over the end");
    check_eq!(ring.res(op(1, 2, 0)), err(EFAULT), "bad pointer");
    check_eq!(ring.res(op(fds.as_ptr() as u64, 0, 0)), err(EINVAL), "none");
}

family!["slots", modes;
    a_table_of_files,
    registered_files_outlive_their_descriptors,
    registration_errors,
    a_failed_registration_keeps_no_file,
    updates_fill_replace_and_empty,
    update_errors,
    sparse_tables,
    tagged_registration_errors,
    tags_are_posted_when_a_file_goes,
    tags_wait_for_requests_in_flight,
    a_request_in_flight_keeps_its_slots_file,
    ranges_for_allocation,
    updates_by_an_operation,
];

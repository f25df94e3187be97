//! CLONE_BUFFERS: one ring's registered buffers in another ring.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe;
use crate::sys;
use libc::{EBADF, EBUSY, EEXIST, EFAULT, EINVAL, ENXIO, EOPNOTSUPP, EOVERFLOW};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{CloneBuffers, RsrcRegister, raw};

const BUFFERS2: u32 = reg::IORING_REGISTER_BUFFERS2 as u32;
const UNREGISTER: u32 = reg::IORING_UNREGISTER_BUFFERS as u32;
const CLONE: u32 = reg::IORING_REGISTER_CLONE_BUFFERS as u32;
const RING_FDS: u32 = reg::IORING_REGISTER_RING_FDS as u32;
const SRC_REGISTERED: u32 = 1;
const REPLACE: u32 = 2;
const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const NULL: *const u8 = std::ptr::null();
const SIZE: usize = 64;

/// Registers `n` buffers of [`SIZE`] bytes, with these tags; returns their memory.
fn with_buffers(ring: &Ring, n: usize, tags: &[u64]) -> &'static mut [u8] {
    let memory = sys::buffer(n * SIZE);
    let iovs: Vec<_> = memory.chunks_mut(SIZE).map(sys::iovec).collect();
    let arg = RsrcRegister {
        nr: n as u32,
        flags: 0,
        resv2: 0,
        data: iovs.as_ptr() as u64,
        tags: if tags.is_empty() { 0 } else { tags.as_ptr() as u64 },
    };
    check_eq!(ring.register(BUFFERS2, &arg, size_of::<RsrcRegister>() as u32), Res(0));
    memory
}

fn arg(src: &Ring) -> CloneBuffers {
    CloneBuffers { src_fd: src.fd as u32, flags: 0, src_off: 0, dst_off: 0, nr: 0, pad: [0; 3] }
}

fn clone(dst: &Ring, arg: CloneBuffers) -> Res {
    dst.register(CLONE, &arg, 1)
}

/// Whether buffer `index` of the ring is the `i`th chunk of the memory.
fn usable(ring: &mut Ring, index: u16, memory: &[u8], i: usize) -> Res {
    let (r, w) = sys::pipe();
    sys::write(w, b"x");
    let at = memory.as_ptr() as u64 + (i * SIZE) as u64;
    ring.res(sqe::read_fixed(r, at, SIZE as u32, 0, index))
}

fn all_buffers(abi: &Abi) {
    let (mut dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    let memory = with_buffers(&src, 3, &[]);
    check_eq!(clone(&dst, arg(&src)), Res(0));
    for i in 0..3 {
        check_eq!(usable(&mut dst, i, memory, i as usize), Res(1));
    }
    check_eq!(usable(&mut dst, 3, memory, 0), err(EFAULT), "no more than that");
    check_eq!(usable(&mut dst, 0, memory, 1), err(EFAULT), "each in its slot");
    check_eq!(clone(&dst, arg(&src)), err(EBUSY), "there are some");
    check_eq!(src.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(usable(&mut dst, 2, memory, 2), Res(1), "a clone stands by itself");
    check_eq!(dst.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(usable(&mut dst, 2, memory, 2), err(EFAULT));
}

fn ranges(abi: &Abi) {
    let (mut dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    let memory = with_buffers(&src, 4, &[]);
    let range = |src_off, dst_off, nr| CloneBuffers { src_off, dst_off, nr, ..arg(&src) };
    check_eq!(clone(&dst, range(0, 0, 5)), err(EINVAL), "more than there are");
    check_eq!(clone(&dst, range(2, 0, 4)), err(EOVERFLOW), "over the end");
    check_eq!(clone(&dst, range(4, 0, 1)), err(EOVERFLOW), "behind the end");
    check_eq!(clone(&dst, range(u32::MAX, 0, 1)), err(EOVERFLOW));
    check_eq!(clone(&dst, range(0, u32::MAX, 1)), err(EOVERFLOW));
    check_eq!(clone(&dst, range(0, 1 << 14, 1)), err(EINVAL), "too large a table");
    check_eq!(clone(&dst, range(1, 0, 0)), err(EINVAL), "an offset without a count");
    check_eq!(clone(&dst, range(0, 1, 0)), err(EINVAL), "the same");
    check_eq!(usable(&mut dst, 0, memory, 0), err(EFAULT), "nothing was done");
    check_eq!(clone(&dst, range(2, 3, 2)), Res(0));
    check_eq!(usable(&mut dst, 2, memory, 2), err(EFAULT), "an empty slot");
    check_eq!(usable(&mut dst, 3, memory, 2), Res(1));
    check_eq!(usable(&mut dst, 4, memory, 3), Res(1));
    check_eq!(usable(&mut dst, 5, memory, 3), err(EFAULT), "beyond the table");
}

fn replacing(abi: &Abi) {
    let (mut dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    let memory = with_buffers(&src, 4, &[]);
    let own = with_buffers(&dst, 3, &[11, 12, 13]);
    let range = |src_off, dst_off, nr| CloneBuffers { src_off, dst_off, nr, ..arg(&src) };
    let replace = |c: CloneBuffers| CloneBuffers { flags: REPLACE, ..c };
    check_eq!(clone(&dst, range(0, 1, 1)), err(EBUSY));
    check_eq!(clone(&dst, replace(range(0, 1, 1))), Res(0));
    check_eq!(dst.wait().ud, 12, "the tag of the one that is gone");
    check!(dst.quiet(), "the others stay");
    check_eq!(usable(&mut dst, 0, own, 0), Res(1));
    check_eq!(usable(&mut dst, 1, memory, 0), Res(1));
    check_eq!(usable(&mut dst, 2, own, 2), Res(1));
    check_eq!(clone(&dst, replace(range(0, 2, 4))), Res(0), "the table grows");
    check_eq!(dst.wait().ud, 13);
    check_eq!(usable(&mut dst, 5, memory, 3), Res(1));
    check_eq!(usable(&mut dst, 0, own, 0), Res(1));
    check_eq!(dst.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(dst.wait().ud, 11);
    check!(dst.quiet(), "nothing more");
}

fn an_empty_slot_replaces_too(abi: &Abi) {
    let (mut dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    let sparse = RsrcRegister { nr: 2, flags: 1, resv2: 0, data: 0, tags: 0 };
    check_eq!(src.register(BUFFERS2, &sparse, size_of::<RsrcRegister>() as u32), Res(0));
    let own = with_buffers(&dst, 3, &[41, 42, 43]);
    let c = CloneBuffers { flags: REPLACE, src_off: 0, dst_off: 1, nr: 1, ..arg(&src) };
    check_eq!(clone(&dst, c), Res(0));
    check_eq!(dst.wait().ud, 42, "the tag of the one that is gone");
    check_eq!(usable(&mut dst, 1, own, 1), err(EFAULT), "nothing there");
    check_eq!(usable(&mut dst, 2, own, 2), Res(1), "the next one stays");
}

fn tags_stay_with_their_ring(abi: &Abi) {
    let (dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    with_buffers(&src, 2, &[21, 22]);
    check_eq!(clone(&dst, arg(&src)), Res(0));
    check_eq!(dst.register(UNREGISTER, NULL, 0), Res(0));
    check!(dst.quiet() && src.quiet(), "clones have no tags");
    check_eq!(clone(&dst, arg(&src)), Res(0));
    check_eq!(src.register(UNREGISTER, NULL, 0), Res(0));
    check_eq!(src.results(2), vec![(21, Res(0)), (22, Res(0))]);
}

fn within_one_ring(abi: &Abi) {
    let mut ring = Ring::new(abi, 8);
    let memory = with_buffers(&ring, 2, &[31, 32]);
    check_eq!(clone(&ring, arg(&ring)), err(EBUSY));
    let c = CloneBuffers { flags: REPLACE, src_off: 0, dst_off: 1, nr: 2, ..arg(&ring) };
    check_eq!(clone(&ring, c), Res(0));
    check_eq!(ring.wait().ud, 32);
    check_eq!(usable(&mut ring, 1, memory, 0), Res(1));
    check_eq!(usable(&mut ring, 2, memory, 1), Res(1));
}

fn bad_arguments(abi: &Abi) {
    let (dst, src) = (Ring::new(abi, 8), Ring::new(abi, 8));
    check_eq!(clone(&dst, arg(&src)), err(ENXIO), "nothing to clone");
    check_eq!(clone(&dst, CloneBuffers { nr: 1, ..arg(&src) }), err(ENXIO), "one of none");
    with_buffers(&src, 2, &[]);
    check_eq!(dst.register(CLONE, &arg(&src), 0), err(EINVAL), "nr_args");
    check_eq!(dst.register(CLONE, &arg(&src), 2), err(EINVAL), "nr_args");
    check_eq!(dst.register(CLONE, NULL, 1), err(EINVAL), "null");
    check_eq!(dst.register(CLONE, sys::BAD, 1), err(EFAULT), "bad pointer");
    check_eq!(clone(&dst, CloneBuffers { flags: 4, ..arg(&src) }), err(EINVAL), "flags");
    check_eq!(clone(&dst, CloneBuffers { pad: [0, 1, 0], ..arg(&src) }), err(EINVAL), "padding");
    let from = |fd: i32| CloneBuffers { src_fd: fd as u32, ..arg(&src) };
    check_eq!(clone(&dst, from(-1)), err(EBADF), "-1");
    check_eq!(clone(&dst, from(sys::unused_fd())), err(EBADF), "closed");
    check_eq!(clone(&dst, from(sys::pipe().0)), err(EOPNOTSUPP), "a pipe");
    let registered = |i| CloneBuffers { src_fd: i, flags: SRC_REGISTERED, ..arg(&src) };
    check_eq!(clone(&dst, registered(3)), err(EBADF), "no ring registered there");
    check_eq!(clone(&dst, registered(16)), err(EINVAL), "beyond the table");
    let mut entry = [u32::MAX, 0, src.fd as u32, 0];
    check_eq!(src.register(RING_FDS, entry.as_mut_ptr(), 1), Res(1));
    check_eq!(clone(&dst, registered(entry[0])), Res(0), "a registered ring");
}

fn who_may(abi: &Abi) {
    let (dst, src) = (Ring::build(abi, 8, params(0)), Ring::build(abi, 8, params(0)));
    with_buffers(&src, 2, &[]);
    let (single, full) = (Ring::build(abi, 8, params(SINGLE)), Ring::build(abi, 8, params(SINGLE)));
    with_buffers(&full, 2, &[]);
    let (dst_fd, single_fd) = (dst.fd, single.fd);
    let (from_src, from_full) = (arg(&src), arg(&full));
    std::thread::scope(|s| {
        s.spawn(|| {
            let call = |fd, c: &CloneBuffers| abi.register(fd, CLONE, c, 1);
            check_eq!(call(single_fd, &from_src), err(EEXIST), "into another thread's ring");
            check_eq!(call(dst_fd, &from_full), err(EEXIST), "out of another thread's ring");
            check_eq!(call(single_fd, &from_full), err(EEXIST), "both");
            check_eq!(call(dst_fd, &from_src), Res(0), "rings of nobody");
        });
    });
    check_eq!(clone(&single, from_full), Res(0), "the submitter of both");
}

family!["clone", modes;
    all_buffers,
    ranges,
    replacing,
    an_empty_slot_replaces_too,
    tags_stay_with_their_ring,
    within_one_ring,
    bad_arguments,
    who_may,
];

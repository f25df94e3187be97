//! Ring memory: offsets, sizes, mmap of the three areas, memory that the program supplies.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params, rings_len, sqes_len};
use crate::sqe::{SqeExt, nop};
use crate::sys;
use libc::{EACCES, EBADF, EBUSY, EFAULT, EINVAL, ENOMEM};
use soloring_abi::{Params, raw};
use std::sync::atomic::Ordering;

const RINGS: i64 = raw::IORING_OFF_SQ_RING as i64;
const CQ: i64 = raw::IORING_OFF_CQ_RING as i64;
const SQES: i64 = raw::IORING_OFF_SQES as i64;
const NO_MMAP: u32 = raw::IORING_SETUP_NO_MMAP;
const NO_SQARRAY: u32 = raw::IORING_SETUP_NO_SQARRAY;
const CQE32: u32 = raw::IORING_SETUP_CQE32;
const SQE128: u32 = raw::IORING_SETUP_SQE128;

fn ring_and_params(abi: &Abi, entries: u32, flags: u32) -> (i32, Params) {
    let mut p = params(flags);
    let fd = abi.setup(entries, &mut p);
    assert!(!fd.is_err(), "setup = {fd}");
    (fd.0 as i32, p)
}

fn offsets_are_the_kernels(abi: &Abi) {
    let (_, p) = ring_and_params(abi, 8, 0);
    let sq = p.sq_off;
    check_eq!(
        (sq.head, sq.tail, sq.ring_mask, sq.ring_entries, sq.flags, sq.dropped),
        (0, 4, 16, 24, 36, 32),
        "sq_off"
    );
    let cq = p.cq_off;
    check_eq!(
        (cq.head, cq.tail, cq.ring_mask, cq.ring_entries, cq.overflow, cq.cqes, cq.flags),
        (8, 12, 20, 28, 44, 64, 40),
        "cq_off"
    );
    check_eq!(sq.array, 64 + 16 * 16, "sq_off.array of 8 entries");
}

fn array_offset_by_size(abi: &Abi) {
    for (entries, flags, array) in [
        (1, 0, 128),
        (2, 0, 128),
        (4, 0, 192),
        (64, 0, 64 + 128 * 16),
        (8, CQE32, 64 + 16 * 32 + 64),
        (8, NO_SQARRAY, 0),
        (8, SQE128, 64 + 16 * 16),
    ] {
        let (_, p) = ring_and_params(abi, entries, flags);
        check_eq!(p.sq_off.array, array, "entries {entries}, flags {flags:#x}");
    }
}

fn masks_and_entry_counts_stand_in_the_ring(abi: &Abi) {
    let ring = Ring::build(abi, 5, params(0));
    let load = |offset| ring.word(offset).load(Ordering::Relaxed);
    check_eq!(load(ring.params.sq_off.ring_mask), 7);
    check_eq!(load(ring.params.sq_off.ring_entries), 8);
    check_eq!(load(ring.params.cq_off.ring_mask), 15);
    check_eq!(load(ring.params.cq_off.ring_entries), 16);
    for (name, offset) in [
        ("sq head", ring.params.sq_off.head),
        ("sq tail", ring.params.sq_off.tail),
        ("sq flags", ring.params.sq_off.flags),
        ("sq dropped", ring.params.sq_off.dropped),
        ("cq head", ring.params.cq_off.head),
        ("cq tail", ring.params.cq_off.tail),
        ("cq overflow", ring.params.cq_off.overflow),
        ("cq flags", ring.params.cq_off.flags),
    ] {
        check_eq!(load(offset), 0, "{name} of a new ring");
    }
}

fn sq_and_cq_share_one_mapping(abi: &Abi) {
    let ring = Ring::build(abi, 4, params(0));
    let len = rings_len(&ring.params);
    let at = abi.mmap(ring.fd, len, CQ);
    assert!(!at.is_err(), "mmap at IORING_OFF_CQ_RING = {at}");
    let mut ring = ring;
    check_eq!(ring.abi.enter(ring.fd, 0, 0, 0), Res(0));
    ring.submit_all(&[nop().ud(1)]);
    let second = Ring::map(abi, ring.fd, ring.params);
    check_eq!(second.cq_tail(), 1, "tail seen through another mapping");
    check_eq!(second.pop().map(|d| d.ud), Some(1), "completion through another mapping");
    check_eq!(ring.cq_head(), 1, "head seen through the first mapping");
    second.leave_open();
}

fn mapping_sizes(abi: &Abi) {
    let (fd, p) = ring_and_params(abi, 512, 0);
    let pages = |n: usize| n.div_ceil(4096) * 4096;
    // The rings may be mapped in part, the entries only as a whole; a longer mapping is no error.
    for (off, len, part) in [
        (RINGS, rings_len(&p), None),
        (CQ, rings_len(&p), None),
        (SQES, sqes_len(&p), Some(err(EFAULT))),
    ] {
        for (asked, want) in [
            (1, part),
            (4096, part),
            (len, None),
            (pages(len), None),
            (pages(len) + 1, None),
            (pages(len) + 8192, None),
            (0, Some(err(EINVAL))),
        ] {
            let at = abi.mmap(fd, asked, off);
            match want {
                None => check!(!at.is_err(), "mmap of {asked} of {len} at {off:#x} = {at}"),
                Some(want) => check_eq!(at, want, "mmap of {asked} of {len} at {off:#x}"),
            }
        }
    }
}

fn offsets_between_the_areas(abi: &Abi) {
    let (fd, _) = ring_and_params(abi, 8, 0);
    // Bits 27 to 31 of the offset choose the area, the others mean nothing.
    for off in [4096, 1 << 20, CQ + 4096, SQES + 4096, 1 << 32] {
        let at = abi.mmap(fd, 4096, off);
        check!(!at.is_err(), "mmap at {off:#x} = {at}");
    }
    for off in [0x1800_0000, 0x2000_0000, 0x4000_0000] {
        check_eq!(abi.mmap(fd, 4096, off), err(ENOMEM), "mmap at {off:#x}");
    }
    check_eq!(abi.mmap(fd, 4096, 100), err(EINVAL), "offset inside a page");
    // Provided-buffer rings that nobody registered.
    check_eq!(abi.mmap(fd, 4096, 0x8000_0000), err(ENOMEM), "no such buffer ring");
    check_eq!(abi.mmap(fd, 4096, 0x8000_0000 + (7 << 16)), err(ENOMEM), "no such buffer ring");
}

fn mmap_wants_a_shared_mapping_or_takes_private(abi: &Abi) {
    let (fd, p) = ring_and_params(abi, 8, 0);
    let both = libc::PROT_READ | libc::PROT_WRITE;
    let len = rings_len(&p);
    let read_only = abi.mmap_as(fd, len, libc::PROT_READ, libc::MAP_SHARED, RINGS);
    check!(!read_only.is_err(), "read-only = {read_only}");
    let populated = abi.mmap_as(fd, len, both, libc::MAP_SHARED | libc::MAP_POPULATE, RINGS);
    check!(!populated.is_err(), "populated = {populated}");
    check_eq!(abi.mmap_as(fd, len, both, 0, RINGS), err(EINVAL), "neither shared nor private");
    let private = abi.mmap_as(fd, len, both, libc::MAP_PRIVATE, RINGS);
    check_eq!(private.is_err(), false, "a private mapping");
    check!(private != err(EACCES), "no access check");
}

fn memory_outlives_the_descriptor(abi: &Abi) {
    let mut ring = Ring::build(abi, 4, params(0));
    ring.submit_all(&[nop().ud(9)]);
    check_eq!(abi.close(ring.fd), Res(0));
    check_eq!(ring.pop().map(|d| d.ud), Some(9), "completion read after close");
    ring.leave_open();
}

/// User memory for a ring, and its parameters: 64 KiB for each area.
fn user_memory(flags: u32) -> Params {
    let mut p = params(NO_MMAP | flags);
    p.cq_off.user_addr = sys::buffer(1 << 16).as_ptr() as u64;
    p.sq_off.user_addr = sys::buffer(1 << 16).as_ptr() as u64;
    p
}

fn no_mmap_works_in_the_programs_memory(abi: &Abi) {
    for flags in [0, NO_SQARRAY, raw::IORING_SETUP_SINGLE_ISSUER | NO_SQARRAY] {
        let mut p = user_memory(flags);
        let fd = abi.setup(16, &mut p);
        assert!(!fd.is_err(), "setup with NO_MMAP = {fd}");
        let mut ring = Ring::in_user_memory(abi, fd.0 as i32, p);
        for ud in 0..50 {
            check_eq!(ring.run(nop().ud(ud)).ud, ud, "flags {flags:#x}");
        }
    }
}

fn no_mmap_keeps_user_addresses_in_params(abi: &Abi) {
    let mut p = user_memory(0);
    let (sq, cq) = (p.sq_off.user_addr, p.cq_off.user_addr);
    let fd = abi.setup(4, &mut p);
    check!(!fd.is_err(), "setup = {fd}");
    check_eq!(p.sq_off.user_addr == sq, true, "sq user_addr written back");
    check_eq!(p.cq_off.user_addr == cq, true, "cq user_addr written back");
}

fn no_mmap_refuses_bad_memory(abi: &Abi) {
    let good = sys::buffer(1 << 16).as_ptr() as u64;
    for (sq, cq, want) in [
        (0, 0, err(EFAULT)),
        (good, 0, err(EFAULT)),
        (0, good, err(EFAULT)),
        (good, good + 64, err(EINVAL)),
        (good + 64, good, err(EINVAL)),
        (sys::forbidden_page(), good, err(EFAULT)),
        (good, sys::forbidden_page(), err(EFAULT)),
        (good, sys::read_only_page(), err(EFAULT)),
        (0xffff_8000_0000_0000, good, err(EFAULT)),
    ] {
        let mut p = params(NO_MMAP);
        (p.sq_off.user_addr, p.cq_off.user_addr) = (sq, cq);
        check_eq!(abi.setup(4, &mut p), want, "sq ok {}, cq ok {}", sq == good, cq == good);
    }
}

fn no_mmap_ring_cannot_be_mapped(abi: &Abi) {
    let mut p = user_memory(0);
    let fd = abi.setup(4, &mut p).0 as i32;
    for off in [RINGS, CQ, SQES] {
        check_eq!(abi.mmap(fd, 4096, off), err(ENOMEM), "mmap at {off:#x}");
    }
}

fn registered_ring_without_a_descriptor(abi: &Abi) {
    let mut p = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    let free = sys::dup(0);
    let index = abi.setup(4, &mut p);
    check_eq!(index, Res(0), "the first index");
    check_eq!(sys::dup(0), free + 1, "a descriptor was used");
    let mut ring = Ring::in_user_memory(abi, sys::unused_fd(), p);
    let flags = raw::IORING_ENTER_REGISTERED_RING | raw::IORING_ENTER_GETEVENTS;
    ring.push(nop().ud(8));
    check_eq!(abi.enter(0, 1, 1, flags), Res(1), "enter by index");
    check_eq!(ring.pop().map(|d| d.ud), Some(8));
    let mut q = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    check_eq!(abi.setup(4, &mut q), Res(1), "the second index");
    ring.leave_open();
}

fn registered_rings_run_out(abi: &Abi) {
    let single = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    for (want, flags) in (0..16).zip([0, raw::IORING_SETUP_SQPOLL, single].iter().cycle()) {
        let mut p = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY | flags);
        check_eq!(abi.setup(4, &mut p), Res(want), "flags {flags:#x}");
    }
    let mut p = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    check_eq!(abi.setup(4, &mut p), err(EBUSY), "the seventeenth");
    let mut q = params(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    check_eq!(abi.setup(4, &mut q), err(EINVAL), "without NO_MMAP");
    let (use_registered, unregister) =
        (1u32 << 31, raw::io_uring_register_op::IORING_UNREGISTER_RING_FDS as u32);
    // Offset and reserved word, then data: the ring at index 5 goes by its own index.
    let fifth = [5u64, 0];
    check_eq!(abi.register(5, use_registered | unregister, fifth.as_ptr(), 1), Res(1));
    let registered = raw::IORING_ENTER_REGISTERED_RING;
    check_eq!(abi.enter(5, 0, 0, registered), err(EBADF), "the ring that was given up");
    let mut p = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    check_eq!(abi.setup(4, &mut p), Res(5), "its index is free again");
    check_eq!(abi.enter(5, 0, 0, registered), Res(0));
}

fn a_forked_child_has_registered_nothing(abi: &Abi) {
    let mut p = user_memory(raw::IORING_SETUP_REGISTERED_FD_ONLY);
    check_eq!(abi.setup(4, &mut p), Res(0));
    let registered = raw::IORING_ENTER_REGISTERED_RING;
    let status = sys::in_child(10, || {
        i32::from(![err(EINVAL), err(EBADF)].contains(&abi.enter(0, 0, 0, registered)))
    });
    check_eq!(status, 0, "the child has the ring");
    check_eq!(abi.enter(0, 0, 0, registered), Res(0), "the parent has it still");
}

fn no_sqarray_takes_entries_in_order(abi: &Abi) {
    let mut ring = Ring::build(abi, 4, params(NO_SQARRAY));
    for round in 0..5 {
        let sqes: Vec<_> = (0..4).map(|i| nop().ud(round * 4 + i)).collect();
        ring.submit_all(&sqes);
        for i in 0..4 {
            check_eq!(ring.wait().ud, round * 4 + i);
        }
    }
}

fn wide_entries_have_their_stride(abi: &Abi) {
    for flags in [SQE128, CQE32, SQE128 | CQE32, SQE128 | CQE32 | NO_SQARRAY] {
        let mut ring = Ring::build(abi, 4, params(flags));
        for round in 0..5u64 {
            for i in 0..4 {
                // The second half of an entry means nothing to a NOP.
                ring.push_wide(nop().ud(round * 4 + i), [u64::MAX; 8]);
            }
            check_eq!(ring.submit(), Res(4), "flags {flags:#x}");
            for i in 0..4 {
                let done = ring.wait();
                check_eq!((done.ud, done.res), (round * 4 + i, Res(0)), "flags {flags:#x}");
            }
        }
    }
}

fn nop_fills_a_wide_completion(abi: &Abi) {
    let mut ring = Ring::build(abi, 4, params(CQE32));
    let done = ring.run(nop().ud(5).with(|s| (s.off, s.addr) = (0x1111, 0x2222)));
    check_eq!((done.ud, done.res), (5, Res(0)));
    check_eq!(done.extra, [0, 0], "second half of a plain NOP's completion");
}

fn resized_rings_wrap_many_times(abi: &Abi) {
    let mut p = params(raw::IORING_SETUP_CQSIZE);
    p.cq_entries = 4;
    let mut ring = Ring::build(abi, 1, p);
    for ud in 0..1000 {
        check_eq!(ring.run(nop().ud(ud)).ud, ud);
    }
    check_eq!((ring.sq_head(), ring.cq_tail()), (1000, 1000), "heads run on without a mask");
}

family!["memory", once;
    offsets_are_the_kernels,
    array_offset_by_size,
    masks_and_entry_counts_stand_in_the_ring,
    sq_and_cq_share_one_mapping,
    mapping_sizes,
    offsets_between_the_areas,
    mmap_wants_a_shared_mapping_or_takes_private,
    memory_outlives_the_descriptor,
    no_mmap_works_in_the_programs_memory,
    no_mmap_keeps_user_addresses_in_params,
    no_mmap_refuses_bad_memory,
    no_mmap_ring_cannot_be_mapped,
    registered_ring_without_a_descriptor,
    registered_rings_run_out,
    a_forked_child_has_registered_nothing,
    no_sqarray_takes_entries_in_order,
    wide_entries_have_their_stride,
    nop_fills_a_wide_completion,
    resized_rings_wrap_many_times,
];

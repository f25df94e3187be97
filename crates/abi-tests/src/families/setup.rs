//! io_uring_setup: sizes, flags one by one and in combination, refusals.

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::{Ring, params};
use crate::sqe::nop;
use crate::sys;
use libc::{EBADF, EFAULT, EINVAL, ENXIO};
use soloring_abi::extra::IORING_SETUP_CQE_MIXED;
use soloring_abi::{Params, raw};

const COOP: u32 = raw::IORING_SETUP_COOP_TASKRUN;
const TASKRUN_FLAG: u32 = raw::IORING_SETUP_TASKRUN_FLAG;
const DEFER: u32 = raw::IORING_SETUP_DEFER_TASKRUN;
const SINGLE: u32 = raw::IORING_SETUP_SINGLE_ISSUER;
const SQPOLL: u32 = raw::IORING_SETUP_SQPOLL;
const SQ_AFF: u32 = raw::IORING_SETUP_SQ_AFF;
const IOPOLL: u32 = raw::IORING_SETUP_IOPOLL;
const HYBRID: u32 = raw::IORING_SETUP_HYBRID_IOPOLL;
const CLAMP: u32 = raw::IORING_SETUP_CLAMP;
const CQSIZE: u32 = raw::IORING_SETUP_CQSIZE;
const ATTACH: u32 = raw::IORING_SETUP_ATTACH_WQ;
const R_DISABLED: u32 = raw::IORING_SETUP_R_DISABLED;
const SUBMIT_ALL: u32 = raw::IORING_SETUP_SUBMIT_ALL;
const SQE128: u32 = raw::IORING_SETUP_SQE128;
const CQE32: u32 = raw::IORING_SETUP_CQE32;
const NO_SQARRAY: u32 = raw::IORING_SETUP_NO_SQARRAY;
const NO_MMAP: u32 = raw::IORING_SETUP_NO_MMAP;
const FD_ONLY: u32 = raw::IORING_SETUP_REGISTERED_FD_ONLY;

/// Sets up and closes at once: the error, or 0.
fn outcome(abi: &Abi, entries: u32, p: &mut Params) -> Res {
    let res = abi.setup(entries, p);
    if res.is_err() {
        return res;
    }
    abi.close(res.0 as i32);
    Res(0)
}

fn flags_outcome(abi: &Abi, flags: u32) -> Res {
    outcome(abi, 8, &mut params(flags))
}

/// Flags that this side refuses as a whole, with EINVAL; none on the kernel. A user-space ring may
/// do that with what only a kernel can offer, but then in every combination.
fn refused_flags(abi: &Abi) -> u32 {
    if abi.is_kernel() {
        return 0;
    }
    let mut refused = 0;
    for (flag, because) in
        [(IOPOLL, 0), (SQPOLL, 0), (ATTACH, 0), (IORING_SETUP_CQE_MIXED, 0), (HYBRID, IOPOLL)]
    {
        let mut p = params(flag | because);
        p.wq_fd = sys::unused_fd() as u32;
        if outcome(abi, 8, &mut p) == err(EINVAL) {
            refused |= flag;
        }
    }
    refused
}

fn entries_are_rounded_up_to_a_power_of_two(abi: &Abi) {
    for (asked, sq) in [(1, 1), (2, 2), (3, 4), (5, 8), (100, 128), (4095, 4096), (32768, 32768)] {
        let mut p = params(0);
        check_eq!(outcome(abi, asked, &mut p), Res(0), "setup({asked})");
        check_eq!((p.sq_entries, p.cq_entries), (sq, 2 * sq), "entries for {asked}");
    }
}

fn zero_entries_are_refused(abi: &Abi) {
    for flags in [0, CLAMP, CQSIZE | CLAMP, NO_SQARRAY] {
        check_eq!(outcome(abi, 0, &mut params(flags)), err(EINVAL), "flags {flags:#x}");
    }
}

fn too_many_entries_are_refused_or_clamped(abi: &Abi) {
    for entries in [32769, 65536, 1 << 20, u32::MAX] {
        check_eq!(outcome(abi, entries, &mut params(0)), err(EINVAL), "{entries}");
        let mut p = params(CLAMP);
        check_eq!(outcome(abi, entries, &mut p), Res(0), "{entries} with CLAMP");
        check_eq!((p.sq_entries, p.cq_entries), (32768, 65536), "clamped from {entries}");
    }
}

fn cqsize_is_taken_and_rounded_up(abi: &Abi) {
    for (sq, cq, got) in [(4, 4, 4), (4, 5, 8), (4, 64, 64), (8, 1000, 1024), (1, 65536, 65536)] {
        let mut p = params(CQSIZE);
        p.cq_entries = cq;
        check_eq!(outcome(abi, sq, &mut p), Res(0), "sq {sq}, cq {cq}");
        check_eq!((p.sq_entries, p.cq_entries), (sq, got), "sq {sq}, cq {cq}");
    }
}

fn cqsize_has_bounds(abi: &Abi) {
    for (sq, cq, flags, want, got) in [
        (4, 0, 0, err(EINVAL), 0),
        (4, 0, CLAMP, err(EINVAL), 0),
        (8, 4, 0, err(EINVAL), 0),
        (5, 5, 0, Res(0), 8),
        (8, 5, 0, Res(0), 8),
        (4, 65537, 0, err(EINVAL), 0),
        (4, u32::MAX, 0, err(EINVAL), 0),
        (4, 65537, CLAMP, Res(0), 65536),
        (4, u32::MAX, CLAMP, Res(0), 65536),
        (4, 1 << 31, CLAMP, Res(0), 65536),
    ] {
        let mut p = params(CQSIZE | flags);
        p.cq_entries = cq;
        check_eq!(outcome(abi, sq, &mut p), want, "sq {sq}, cq {cq}, flags {flags:#x}");
        if !want.is_err() {
            check_eq!(p.cq_entries, got, "sq {sq}, cq {cq}, flags {flags:#x}");
        }
    }
}

fn cq_entries_are_ignored_without_cqsize(abi: &Abi) {
    let mut p = params(0);
    (p.cq_entries, p.sq_entries) = (7777, 9999);
    check_eq!(outcome(abi, 4, &mut p), Res(0));
    check_eq!((p.sq_entries, p.cq_entries), (4, 8));
}

fn each_flag_alone(abi: &Abi) {
    let refused = refused_flags(abi);
    for (flag, want) in [
        (0, Res(0)),
        (IOPOLL, Res(0)),
        (SQPOLL, Res(0)),
        (SQ_AFF, err(EINVAL)),
        (CQSIZE, err(EINVAL)),
        (CLAMP, Res(0)),
        (ATTACH, err(ENXIO)),
        (R_DISABLED, Res(0)),
        (SUBMIT_ALL, Res(0)),
        (COOP, Res(0)),
        (TASKRUN_FLAG, err(EINVAL)),
        (SQE128, Res(0)),
        (CQE32, Res(0)),
        (SINGLE, Res(0)),
        (DEFER, err(EINVAL)),
        (NO_MMAP, err(EFAULT)),
        (FD_ONLY, err(EINVAL)),
        (NO_SQARRAY, Res(0)),
        (HYBRID, err(EINVAL)),
        (IORING_SETUP_CQE_MIXED, Res(0)),
    ] {
        let mut p = params(flag);
        p.wq_fd = sys::unused_fd() as u32;
        let want = if flag & refused != 0 { err(EINVAL) } else { want };
        check_eq!(outcome(abi, 8, &mut p), want, "flag {flag:#x}");
    }
}

fn unknown_flags_are_refused(abi: &Abi) {
    for bit in 19..32 {
        check_eq!(flags_outcome(abi, 1 << bit), err(EINVAL), "flag bit {bit}");
        check_eq!(flags_outcome(abi, SINGLE | 1 << bit), err(EINVAL), "flag bit {bit} and another");
    }
    check_eq!(flags_outcome(abi, u32::MAX), err(EINVAL));
}

fn task_run_flags_in_combination(abi: &Abi) {
    let refused = refused_flags(abi);
    for (flags, want) in [
        (DEFER | SINGLE, Res(0)),
        (DEFER | COOP, err(EINVAL)),
        (DEFER | SINGLE | COOP, Res(0)),
        (DEFER | TASKRUN_FLAG, err(EINVAL)),
        (DEFER | SINGLE | TASKRUN_FLAG, Res(0)),
        (COOP | TASKRUN_FLAG, Res(0)),
        (SINGLE | TASKRUN_FLAG, err(EINVAL)),
        (COOP | SINGLE, Res(0)),
        (COOP | SINGLE | TASKRUN_FLAG | DEFER, Res(0)),
        (SQPOLL | COOP, err(EINVAL)),
        (SQPOLL | TASKRUN_FLAG, err(EINVAL)),
        (SQPOLL | DEFER, err(EINVAL)),
        (SQPOLL | DEFER | SINGLE, err(EINVAL)),
        (SQPOLL | COOP | TASKRUN_FLAG, err(EINVAL)),
        (SQPOLL | SINGLE, Res(0)),
        (IOPOLL | DEFER | SINGLE, Res(0)),
        (IOPOLL | HYBRID, Res(0)),
        (HYBRID | SQPOLL, err(EINVAL)),
        (R_DISABLED | SINGLE, Res(0)),
        (R_DISABLED | SINGLE | DEFER, Res(0)),
        (R_DISABLED | DEFER, err(EINVAL)),
    ] {
        let want = if flags & refused != 0 { err(EINVAL) } else { want };
        check_eq!(flags_outcome(abi, flags), want, "flags {flags:#x}");
    }
}

fn entry_size_flags_in_combination(abi: &Abi) {
    let refused = refused_flags(abi);
    let mixed = IORING_SETUP_CQE_MIXED;
    for (flags, want) in [
        (SQE128 | CQE32, Res(0)),
        (SQE128 | CQE32 | NO_SQARRAY, Res(0)),
        (CQE32 | mixed, err(EINVAL)),
        (SQE128 | mixed, Res(0)),
        (SQE128 | CQE32 | mixed, err(EINVAL)),
        (SUBMIT_ALL | CLAMP | R_DISABLED | NO_SQARRAY, Res(0)),
    ] {
        let want = if flags & refused != 0 { err(EINVAL) } else { want };
        check_eq!(flags_outcome(abi, flags), want, "flags {flags:#x}");
    }
}

fn every_pair_of_flags(abi: &Abi) {
    let refused_as_a_whole = refused_flags(abi);
    // The rules, as the pairs show them on the kernel; NO_MMAP, ATTACH_WQ and CQSIZE have cases of
    // their own because they need more than a flag.
    let bits = [
        IOPOLL,
        SQPOLL,
        SQ_AFF,
        CLAMP,
        R_DISABLED,
        SUBMIT_ALL,
        COOP,
        TASKRUN_FLAG,
        SQE128,
        CQE32,
        SINGLE,
        DEFER,
        FD_ONLY,
        NO_SQARRAY,
        HYBRID,
        IORING_SETUP_CQE_MIXED,
    ];
    for a in bits {
        for b in bits {
            let flags = a | b;
            let has = |f: u32| flags & f != 0;
            let refused = has(refused_as_a_whole)
                || has(FD_ONLY)
                || (has(SQPOLL) && has(COOP | TASKRUN_FLAG | DEFER))
                || (has(TASKRUN_FLAG) && !has(COOP | DEFER))
                || (has(HYBRID) && !has(IOPOLL))
                || (has(DEFER) && !has(SINGLE))
                || (has(CQE32) && has(IORING_SETUP_CQE_MIXED))
                || (has(SQ_AFF) && !has(SQPOLL));
            let want = if refused { err(EINVAL) } else { Res(0) };
            check_eq!(flags_outcome(abi, flags), want, "flags {flags:#x}");
        }
    }
}

fn sq_affinity_needs_a_cpu_that_exists(abi: &Abi) {
    let with_sqpoll = if refused_flags(abi) & SQPOLL != 0 { err(EINVAL) } else { Res(0) };
    let mut p = params(SQPOLL | SQ_AFF);
    p.sq_thread_cpu = 0;
    check_eq!(outcome(abi, 4, &mut p), with_sqpoll, "cpu 0");
    for cpu in [4095, 1 << 20, u32::MAX] {
        let mut p = params(SQPOLL | SQ_AFF);
        p.sq_thread_cpu = cpu;
        check_eq!(outcome(abi, 4, &mut p), err(EINVAL), "cpu {cpu}");
    }
    // Without SQ_AFF the number is not looked at.
    let mut p = params(SQPOLL);
    p.sq_thread_cpu = u32::MAX;
    check_eq!(outcome(abi, 4, &mut p), with_sqpoll, "cpu without SQ_AFF");
    let mut p = params(0);
    (p.sq_thread_cpu, p.sq_thread_idle) = (u32::MAX, u32::MAX);
    check_eq!(outcome(abi, 4, &mut p), Res(0), "cpu and idle without SQPOLL");
}

fn reserved_words_must_be_zero(abi: &Abi) {
    for word in 0..3 {
        let mut p = params(0);
        p.resv[word] = 1;
        check_eq!(outcome(abi, 4, &mut p), err(EINVAL), "resv[{word}]");
    }
}

fn output_words_may_hold_garbage(abi: &Abi) {
    let mut p = params(0);
    p.features = u32::MAX;
    p.sq_off.array = 77;
    p.sq_off.resv1 = 78;
    p.sq_off.user_addr = 79;
    p.cq_off.cqes = 80;
    p.cq_off.resv1 = 81;
    p.cq_off.user_addr = 82;
    check_eq!(outcome(abi, 4, &mut p), Res(0));
    check_eq!((p.sq_off.resv1, p.cq_off.resv1), (0, 0), "reserved words of the offsets");
    check_eq!((p.sq_off.user_addr, p.cq_off.user_addr), (0, 0), "user addresses");
}

fn params_must_be_readable_and_writable(abi: &Abi) {
    let forbidden = sys::forbidden_page();
    for at in [0, 1, forbidden, forbidden - 60, 0xffff_8000_0000_0000, u64::MAX - 8] {
        if at == forbidden - 60 {
            continue;
        }
        check_eq!(abi.setup_at(4, at as *mut Params), err(EFAULT), "params at a bad place");
    }
    check_eq!(abi.setup_at(4, sys::read_only_page() as *mut Params), err(EFAULT), "read-only");
}

fn params_across_the_end_of_a_mapping(abi: &Abi) {
    let at = sys::map(8192, libc::PROT_READ | libc::PROT_WRITE) as u64;
    sys::unmap(at as usize + 4096, 4096);
    for inside in [8, 60, 119] {
        let p = (at + 4096 - inside) as *mut Params;
        check_eq!(abi.setup_at(4, p), err(EFAULT), "{inside} bytes inside");
    }
    check_eq!(abi.setup_at(4, (at + 4096 - 120) as *mut Params).is_err(), false, "just inside");
}

fn bad_params_leak_no_descriptor(abi: &Abi) {
    let before = sys::dup(0);
    for _ in 0..8 {
        check_eq!(abi.setup_at(4, sys::read_only_page() as *mut Params), err(EFAULT));
        check_eq!(flags_outcome(abi, DEFER), err(EINVAL));
    }
    check_eq!(sys::dup(0), before + 1, "lowest free descriptor");
}

fn bad_flags_come_before_bad_entries(abi: &Abi) {
    check_eq!(outcome(abi, 0, &mut params(1 << 31)), err(EINVAL));
    let mut p = params(ATTACH);
    p.wq_fd = sys::unused_fd() as u32;
    check_eq!(outcome(abi, 0, &mut p), err(EINVAL), "entries before the work queue's descriptor");
}

fn attach_wq_wants_a_ring(abi: &Abi) {
    let refused = refused_flags(abi);
    if refused & ATTACH != 0 {
        let first = Ring::build(abi, 4, params(0));
        let mut p = params(ATTACH);
        p.wq_fd = first.fd as u32;
        check_eq!(outcome(abi, 4, &mut p), err(EINVAL), "refused with a ring, too");
        return;
    }
    let (r, _w) = sys::pipe();
    for (fd, want) in
        [(sys::unused_fd(), err(ENXIO)), (-1, err(ENXIO)), (r, err(EINVAL)), (0, err(EINVAL))]
    {
        let mut p = params(ATTACH);
        p.wq_fd = fd as u32;
        check_eq!(outcome(abi, 4, &mut p), want, "ATTACH_WQ");
        let mut p = params(ATTACH | SQPOLL);
        p.wq_fd = fd as u32;
        let want = if refused & SQPOLL != 0 { err(EINVAL) } else { want };
        check_eq!(outcome(abi, 4, &mut p), want, "ATTACH_WQ with SQPOLL");
    }
    let first = Ring::build(abi, 4, params(0));
    let mut p = params(ATTACH);
    p.wq_fd = first.fd as u32;
    let mut second = Ring::build(abi, 4, p);
    check_eq!(second.res(nop()), Res(0), "NOP on the attached ring");
    let mut p = params(ATTACH | SQPOLL);
    p.wq_fd = first.fd as u32;
    check_eq!(outcome(abi, 4, &mut p), err(EINVAL), "SQPOLL attached to a ring without");
}

fn wq_fd_is_ignored_without_attach_wq(abi: &Abi) {
    let mut p = params(0);
    p.wq_fd = u32::MAX;
    check_eq!(outcome(abi, 4, &mut p), Res(0));
}

fn features_of_this_kernel(abi: &Abi) {
    let mut p = params(0);
    check_eq!(outcome(abi, 4, &mut p), Res(0));
    for (name, bit) in [
        ("SINGLE_MMAP", raw::IORING_FEAT_SINGLE_MMAP),
        ("NODROP", raw::IORING_FEAT_NODROP),
        ("SUBMIT_STABLE", raw::IORING_FEAT_SUBMIT_STABLE),
        ("RW_CUR_POS", raw::IORING_FEAT_RW_CUR_POS),
        ("CUR_PERSONALITY", raw::IORING_FEAT_CUR_PERSONALITY),
        ("FAST_POLL", raw::IORING_FEAT_FAST_POLL),
        ("POLL_32BITS", raw::IORING_FEAT_POLL_32BITS),
        ("EXT_ARG", raw::IORING_FEAT_EXT_ARG),
        ("NATIVE_WORKERS", raw::IORING_FEAT_NATIVE_WORKERS),
        ("RSRC_TAGS", raw::IORING_FEAT_RSRC_TAGS),
        ("CQE_SKIP", raw::IORING_FEAT_CQE_SKIP),
        ("LINKED_FILE", raw::IORING_FEAT_LINKED_FILE),
        ("REG_REG_RING", raw::IORING_FEAT_REG_REG_RING),
        ("MIN_TIMEOUT", raw::IORING_FEAT_MIN_TIMEOUT),
        ("NO_IOWAIT", raw::IORING_FEAT_NO_IOWAIT),
    ] {
        check!(p.features & bit != 0, "feature {name} is missing");
    }
    if abi.is_kernel() {
        // Features that a user-space ring may lack, as long as it does not claim them.
        let more = raw::IORING_FEAT_RECVSEND_BUNDLE
            | raw::IORING_FEAT_RW_ATTR
            | raw::IORING_FEAT_SQPOLL_NONFIXED;
        check_eq!(p.features & more, more, "the kernel's other features");
    }
}

fn flags_are_written_back(abi: &Abi) {
    for flags in [0, CLAMP, COOP, DEFER | SINGLE, SQE128 | CQE32, NO_SQARRAY, R_DISABLED] {
        let mut p = params(flags);
        check_eq!(outcome(abi, 4, &mut p), Res(0), "flags {flags:#x}");
        check_eq!(p.flags, flags, "flags written back");
    }
    let mut p = params(CQSIZE | CLAMP);
    p.cq_entries = 1 << 20;
    check_eq!(outcome(abi, 4, &mut p), Res(0));
    check_eq!(p.flags, CQSIZE | CLAMP, "flags written back");
}

fn a_refusal_leaves_params_alone(abi: &Abi) {
    let mut p = params(DEFER);
    (p.sq_entries, p.cq_entries, p.features) = (123, 456, 789);
    check_eq!(outcome(abi, 4, &mut p), err(EINVAL));
    check_eq!((p.sq_entries, p.cq_entries, p.features, p.flags), (123, 456, 789, DEFER));
}

fn descriptor_is_close_on_exec(abi: &Abi) {
    let ring = Ring::build(abi, 4, params(0));
    check_eq!(sys::fcntl(ring.fd, libc::F_GETFD, 0), Res(libc::FD_CLOEXEC as i64));
}

fn descriptor_closes_once(abi: &Abi) {
    let mut p = params(0);
    let fd = abi.setup(4, &mut p).0 as i32;
    check_eq!(abi.enter(fd, 0, 0, 0), Res(0), "while open");
    check_eq!(abi.close(fd), Res(0));
    check_eq!(abi.close(fd), err(EBADF));
    check_eq!(abi.enter(fd, 0, 0, 0), err(EBADF), "after close");
    check_eq!(abi.register(fd, 0, std::ptr::null::<u8>(), 0), err(EBADF), "register after close");
}

fn many_rings_at_once(abi: &Abi) {
    let mut rings: Vec<Ring> = (0..64).map(|_| Ring::build(abi, 2, params(0))).collect();
    for (i, ring) in rings.iter_mut().enumerate() {
        check_eq!(ring.run(crate::sqe::SqeExt::ud(nop(), i as u64)).ud, i as u64);
    }
}

fn rings_are_made_and_closed_without_end(abi: &Abi) {
    for i in 0..300 {
        let mut ring = Ring::build(abi, 8, params(if i % 2 == 0 { 0 } else { DEFER | SINGLE }));
        check_eq!(ring.res(nop()), Res(0), "ring {i}");
    }
}

family!["setup", once;
    entries_are_rounded_up_to_a_power_of_two,
    zero_entries_are_refused,
    too_many_entries_are_refused_or_clamped,
    cqsize_is_taken_and_rounded_up,
    cqsize_has_bounds,
    cq_entries_are_ignored_without_cqsize,
    each_flag_alone,
    unknown_flags_are_refused,
    task_run_flags_in_combination,
    entry_size_flags_in_combination,
    every_pair_of_flags,
    sq_affinity_needs_a_cpu_that_exists,
    reserved_words_must_be_zero,
    output_words_may_hold_garbage,
    params_must_be_readable_and_writable,
    params_across_the_end_of_a_mapping,
    bad_params_leak_no_descriptor,
    bad_flags_come_before_bad_entries,
    attach_wq_wants_a_ring,
    wq_fd_is_ignored_without_attach_wq,
    features_of_this_kernel,
    flags_are_written_back,
    a_refusal_leaves_params_alone,
    descriptor_is_close_on_exec,
    descriptor_closes_once,
    many_rings_at_once,
    rings_are_made_and_closed_without_end,
];

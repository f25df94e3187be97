//! Rings that may do some things only (REGISTER_RESTRICTIONS).

use crate::backend::Abi;
use crate::res::{Res, err};
use crate::ring::Ring;
use crate::sqe::{SqeExt, nop, poll_remove};
use libc::{EACCES, EBADFD, EBUSY, EINVAL};
use soloring_abi::raw::io_uring_register_op as reg;
use soloring_abi::{Opcode, raw};

const RESTRICTIONS: u32 = reg::IORING_REGISTER_RESTRICTIONS as u32;
const ENABLE: u32 = reg::IORING_REGISTER_ENABLE_RINGS as u32;
const PROBE: u32 = reg::IORING_REGISTER_PROBE as u32;
const EVENTFD: u32 = reg::IORING_REGISTER_EVENTFD as u32;
const NULL: *const u8 = std::ptr::null();

/// `struct io_uring_restriction`: what is allowed, its number, and what has to be zero.
fn rule(what: u16, number: u8) -> [u16; 8] {
    [what, number as u16, 0, 0, 0, 0, 0, 0]
}

const REGISTER_OP: u16 = 0;
const SQE_OP: u16 = 1;
const FLAGS_ALLOWED: u16 = 2;
const FLAGS_REQUIRED: u16 = 3;

fn restricted<'a>(abi: &'a Abi, rules: &[[u16; 8]]) -> Ring<'a> {
    let ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_R_DISABLED);
    check_eq!(ring.register(RESTRICTIONS, rules.as_ptr(), rules.len() as u32), Res(0));
    ring
}

fn operations(abi: &Abi) {
    let mut ring = restricted(abi, &[rule(SQE_OP, Opcode::Nop as u8)]);
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0), "as long as it is disabled");
    check_eq!(ring.res(nop()), Res(0), "allowed");
    check_eq!(ring.res(poll_remove(1)), err(EACCES), "not named");
    check_eq!(ring.res(nop().forced_async()), err(EACCES), "nor its flags");
    ring.submit_all(&[nop().ud(1).link()]);
    check_eq!(ring.wait().res, err(EACCES), "a link is a flag");
    check_eq!(ring.register(PROBE, NULL, 0), err(EACCES), "no call of register is named");
    check_eq!(ring.res(nop()), Res(0), "and still");
}

fn flags(abi: &Abi) {
    let link = soloring_abi::sqe_flags::IO_LINK;
    let asynchronous = soloring_abi::sqe_flags::ASYNC;
    let rules = [
        rule(SQE_OP, Opcode::Nop as u8),
        rule(FLAGS_ALLOWED, link),
        rule(FLAGS_REQUIRED, asynchronous),
    ];
    let mut ring = restricted(abi, &rules);
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0));
    check_eq!(ring.res(nop()), err(EACCES), "without what is required");
    check_eq!(ring.res(nop().forced_async()), Res(0), "with it");
    check_eq!(ring.res(nop().forced_async().drain()), err(EACCES), "with one more");
    ring.submit_all(&[nop().forced_async().ud(1).link(), nop().forced_async().ud(2)]);
    check_eq!(ring.results(2), [(1, Res(0)), (2, Res(0))], "with what is allowed");
}

fn calls(abi: &Abi) {
    let rules = [rule(REGISTER_OP, EVENTFD as u8), rule(REGISTER_OP, ENABLE as u8)];
    let mut ring = restricted(abi, &rules);
    check_eq!(ring.register(RESTRICTIONS, rules.as_ptr(), 2), err(EBUSY), "twice");
    check_eq!(ring.register(ENABLE, NULL, 0), Res(0));
    check_eq!(ring.register(PROBE, NULL, 0), err(EACCES), "not named");
    check_eq!(ring.register(EVENTFD, &crate::sys::eventfd(0, 0), 1), Res(0), "named");
    check_eq!(ring.register(ENABLE, NULL, 0), err(EBADFD), "named, and too late");
    check_eq!(ring.res(nop()), err(EACCES), "no operation is named");
}

fn bad_rules(abi: &Abi) {
    let ring = Ring::with_flags(abi, 8, raw::IORING_SETUP_R_DISABLED);
    let register =
        |rules: &[[u16; 8]]| ring.register(RESTRICTIONS, rules.as_ptr(), rules.len() as u32);
    check_eq!(register(&[rule(9, 0)]), err(EINVAL), "no such kind");
    check_eq!(register(&[rule(SQE_OP, 200)]), err(EINVAL), "no such operation");
    check_eq!(register(&[rule(REGISTER_OP, 200)]), err(EINVAL), "no such call");
    check_eq!(register(&[rule(SQE_OP, 0)]), Res(0), "and then good ones");
    let enabled = Ring::new(abi, 8);
    let one = [rule(SQE_OP, 0)];
    check_eq!(enabled.register(RESTRICTIONS, one.as_ptr(), 1), err(EBADFD), "enabled already");
}

family!["restricted", modes;
    operations,
    flags,
    calls,
    bad_rules,
];

//! Asks one backend what it offers, by trying: the same questions to the kernel and to us.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::mem::zeroed;

use soloring_abi::{Params, Probe, ProbeOp, raw};

use super::trial::{Answer, Ring};
use super::{enter, register};
use crate::backend::Backend;

/// Everything that one side answered. `Err` of `open` leaves the rest empty.
#[derive(Debug)]
pub struct Offer {
    /// Whether a ring without flags can be made; the error number if not.
    pub open: Result<(), i32>,
    /// IORING_FEAT_* bits.
    pub features: u32,
    /// By bit number, all 32.
    pub setup: BTreeMap<u32, Answer>,
    /// By bit number.
    pub enter: BTreeMap<u32, Answer>,
    /// By operation code, as far as the side knows them.
    pub opcodes: Vec<bool>,
    /// By register opcode.
    pub register: BTreeMap<u32, Answer>,
}

/// Asks everything.
pub fn everything<B: Backend>(backend: B) -> Offer {
    let mut offer = Offer {
        open: Ok(()),
        features: 0,
        setup: BTreeMap::new(),
        enter: BTreeMap::new(),
        opcodes: Vec::new(),
        register: BTreeMap::new(),
    };
    match Ring::open(backend, 0) {
        Err(errno) => {
            offer.open = Err(errno);
            return offer;
        }
        Ok(ring) => {
            offer.features = ring.params.features;
            offer.opcodes = opcodes(&ring);
        }
    }
    offer.setup = (0..32).map(|bit| (bit, setup_flag(backend, 1 << bit))).collect();
    offer.enter = (0..32).map(|bit| (bit, enter::flag(backend, 1 << bit))).collect();
    offer.register = register::all(backend);
    offer
}

/// What REGISTER_PROBE says of each operation code.
fn opcodes<B: Backend>(ring: &Ring<B>) -> Vec<bool> {
    const OPS: usize = 256;
    let mut buffer = vec![0u64; (size_of::<Probe>() + OPS * size_of::<ProbeOp>()).div_ceil(8)];
    let arg: *mut c_void = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer is as large as a probe of `OPS` operations.
    let result = unsafe {
        ring.backend.register(ring.fd, register::op::IORING_REGISTER_PROBE as u32, arg, OPS as u32)
    };
    if result < 0 {
        return Vec::new();
    }
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let known = usize::from(bytes[std::mem::offset_of!(Probe, ops_len)]);
    let flags_at = std::mem::offset_of!(ProbeOp, flags);
    (0..known)
        .map(|index| size_of::<Probe>() + index * size_of::<ProbeOp>() + flags_at)
        .map(|at| u16::from_ne_bytes([bytes[at], bytes[at + 1]]))
        .map(|flags| u32::from(flags) & raw::IO_URING_OP_SUPPORTED != 0)
        .collect()
}

/// Makes a ring with one flag, and with the flags without which that one is never accepted.
fn setup_flag<B: Backend>(backend: B, flag: u32) -> Answer {
    // SAFETY: all-zero bytes are valid parameters.
    let mut params: Params = unsafe { zeroed() };
    params.flags = flag;
    let mut other = None;
    match flag {
        raw::IORING_SETUP_SQ_AFF => params.flags |= raw::IORING_SETUP_SQPOLL,
        raw::IORING_SETUP_CQSIZE => params.cq_entries = 64,
        raw::IORING_SETUP_ATTACH_WQ => match Ring::open(backend, 0) {
            Ok(ring) => params.wq_fd = other.insert(ring).fd,
            Err(errno) => return Answer::No(errno),
        },
        raw::IORING_SETUP_TASKRUN_FLAG => params.flags |= raw::IORING_SETUP_COOP_TASKRUN,
        raw::IORING_SETUP_DEFER_TASKRUN => params.flags |= raw::IORING_SETUP_SINGLE_ISSUER,
        raw::IORING_SETUP_HYBRID_IOPOLL => params.flags |= raw::IORING_SETUP_IOPOLL,
        raw::IORING_SETUP_NO_MMAP | raw::IORING_SETUP_REGISTERED_FD_ONLY => {
            params.flags |= raw::IORING_SETUP_NO_MMAP;
            params.sq_off.user_addr = register::page() as u64;
            params.cq_off.user_addr = register::page() as u64;
        }
        _ => {}
    }
    // SAFETY: `params` is a local; the pages it may name are never freed.
    let result = unsafe { backend.setup(8, &mut params) };
    if result >= 0 {
        if flag == raw::IORING_SETUP_REGISTERED_FD_ONLY {
            register::forget_registered(backend, result as u32);
        } else {
            backend.close(result as i32);
        }
    }
    Answer::of(result)
}

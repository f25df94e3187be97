//! Tries each register opcode with an argument that a ring which knows it accepts.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use soloring_abi::raw::io_uring_register_op as op_type;
use soloring_abi::{
    CloneBuffers, FileIndexRange, FilesUpdate, IoVec, Opcode, Params, RsrcRegister, RsrcUpdate2,
    Sqe, SyncCancelReg, extra, raw,
};

use super::trial::{Answer, Ring};
use crate::backend::Backend;

/// The register opcodes, as the kernel's header numbers them.
pub mod op {
    pub use soloring_abi::raw::io_uring_register_op::*;
}

const PAGE: usize = 4096;
/// `io_uring_region_desc.flags`: the memory is the program's.
const REGION_TYPE_USER: u32 = 1;
/// `io_uring_mem_region_reg.flags`: the region holds arguments for waits.
pub const REGION_REG_WAIT_ARG: u32 = 1;

/// A fresh page that is never freed: a ring may keep it as long as it likes.
pub fn page() -> usize {
    #[repr(align(4096))]
    struct Page(#[allow(dead_code)] [u8; PAGE]);
    std::ptr::from_mut(Box::leak(Box::new(Page([0; PAGE])))).addr()
}

fn ok(result: isize) -> Result<isize, i32> {
    if result >= 0 { Ok(result) } else { Err(-result as i32) }
}

fn zero<T: Copy>() -> T {
    // SAFETY: used for plain structures of the kernel's header only, where zeroes are valid.
    unsafe { zeroed() }
}

/// Register opcodes from 0 on, each on a ring of its own.
pub fn all<B: Backend>(backend: B) -> BTreeMap<u32, Answer> {
    (0..extra::IORING_REGISTER_LAST + 8)
        .map(|opcode| (opcode, attempt(backend, opcode).map_or_else(Answer::No, Answer::of)))
        .collect()
}

fn null_file() -> Result<OwnedFd, i32> {
    std::fs::File::open("/dev/null")
        .map(OwnedFd::from)
        .map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

fn buffers<B: Backend>(ring: &Ring<B>) -> isize {
    let mut iovec = IoVec { base: page() as u64, len: PAGE as u64 };
    ring.register(op::IORING_REGISTER_BUFFERS as u32, &mut iovec, 1)
}

fn buffers2<B: Backend>(ring: &Ring<B>) -> isize {
    let iovec = IoVec { base: page() as u64, len: PAGE as u64 };
    let mut arg: RsrcRegister = zero();
    (arg.nr, arg.data) = (1, (&raw const iovec) as u64);
    ring.register_sized(op::IORING_REGISTER_BUFFERS2 as u32, &mut arg)
}

fn files<B: Backend>(ring: &Ring<B>, opcode: op_type) -> Result<isize, i32> {
    let file = null_file()?;
    let mut fd = file.as_raw_fd();
    if opcode == op::IORING_REGISTER_FILES {
        return Ok(ring.register(opcode as u32, &mut fd, 1));
    }
    let mut arg: RsrcRegister = zero();
    (arg.nr, arg.data) = (1, (&raw const fd) as u64);
    Ok(ring.register_sized(opcode as u32, &mut arg))
}

fn eventfd<B: Backend>(ring: &Ring<B>, opcode: op_type) -> Result<isize, i32> {
    // SAFETY: takes numbers only and gives a fresh descriptor.
    let fd = ok(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } as isize)? as i32;
    // SAFETY: as above; the ring keeps the file, not this descriptor.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut fd = file.as_raw_fd();
    Ok(ring.register(opcode as u32, &mut fd, 1))
}

fn buffer_ring<B: Backend>(ring: &Ring<B>) -> isize {
    let mut arg: raw::io_uring_buf_reg = zero();
    (arg.ring_addr, arg.ring_entries, arg.bgid) = (page() as u64, 8, 1);
    ring.register(op::IORING_REGISTER_PBUF_RING as u32, &mut arg, 1)
}

fn affinity<B: Backend>(ring: &Ring<B>) -> isize {
    let mut cpus = [0u64; 16];
    cpus[0] = 1;
    ring.register_sized(op::IORING_REGISTER_IOWQ_AFF as u32, &mut cpus)
}

fn napi<B: Backend>(ring: &Ring<B>, opcode: op_type) -> isize {
    let mut arg: raw::io_uring_napi = zero();
    arg.busy_poll_to = 1;
    ring.register(opcode as u32, &mut arg, 1)
}

/// Describes a fresh page as memory for a ring.
fn own_page() -> raw::io_uring_region_desc {
    let mut desc: raw::io_uring_region_desc = zero();
    (desc.user_addr, desc.size, desc.flags) = (page() as u64, PAGE as u64, REGION_TYPE_USER);
    desc
}

/// Registers a page of our own as the ring's memory region.
pub fn region<B: Backend>(ring: &Ring<B>, flags: u64) -> isize {
    let mut desc = own_page();
    let mut arg: raw::io_uring_mem_region_reg = zero();
    (arg.region_uptr, arg.flags) = ((&raw mut desc) as u64, flags);
    ring.register(op::IORING_REGISTER_MEM_REGION as u32, &mut arg, 1)
}

/// Registers the ring's own descriptor; the index it got.
pub fn add_registered<B: Backend>(ring: &Ring<B>) -> Result<u32, i32> {
    let mut arg: raw::io_uring_rsrc_update = zero();
    (arg.offset, arg.data) = (u32::MAX, u64::from(ring.fd));
    ok(ring.register(op::IORING_REGISTER_RING_FDS as u32, &mut arg, 1))?;
    Ok(arg.offset)
}

/// Takes a registered ring descriptor back, naming the ring by that descriptor itself.
pub fn forget_registered<B: Backend>(backend: B, index: u32) -> isize {
    let mut arg: raw::io_uring_rsrc_update = zero();
    arg.offset = index;
    let opcode =
        op::IORING_UNREGISTER_RING_FDS as u32 | op::IORING_REGISTER_USE_REGISTERED_RING as u32;
    // SAFETY: the argument is the structure that the opcode takes.
    unsafe { backend.register(index, opcode, (&raw mut arg).cast(), 1) }
}

/// A MSG_RING request without a ring of one's own, to `ring`.
fn message<B: Backend>(ring: &Ring<B>) -> isize {
    let mut sqe =
        Sqe { opcode: Opcode::MsgRing as u8, fd: ring.fd as i32, off: 1, ..Sqe::default() };
    let opcode = op::IORING_REGISTER_SEND_MSG_RING as u32;
    // SAFETY: the argument is the entry that the opcode takes.
    unsafe { ring.backend.register(u32::MAX, opcode, (&raw mut sqe).cast(), 1) }
}

/// `struct io_uring_query_hdr` and `struct io_uring_query_opcode` (Linux 6.18).
fn query<B: Backend>(ring: &Ring<B>) -> isize {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Header {
        next: u64,
        data: u64,
        query: u32,
        size: u32,
        result: i32,
        reserved: [u32; 3],
    }
    let mut data = [0u64; 6];
    let mut header: Header = zero();
    (header.data, header.size) = ((&raw mut data) as u64, size_of_val(&data) as u32);
    match ring.register(extra::IORING_REGISTER_QUERY, &mut header, 0) {
        result if result < 0 => result,
        _ => header.result.min(0) as isize,
    }
}

fn attempt<B: Backend>(backend: B, opcode: u32) -> Result<isize, i32> {
    let disabled = opcode == op::IORING_REGISTER_RESTRICTIONS as u32
        || opcode == op::IORING_REGISTER_ENABLE_RINGS as u32;
    let resizing = opcode == op::IORING_REGISTER_RESIZE_RINGS as u32;
    let deferred = raw::IORING_SETUP_SINGLE_ISSUER | raw::IORING_SETUP_DEFER_TASKRUN;
    let flags = match (disabled, resizing) {
        (true, _) => raw::IORING_SETUP_R_DISABLED,
        (_, true) => deferred,
        _ => 0,
    };
    let ring = &Ring::open(backend, flags)?;
    let Some(name) = known(opcode) else {
        return Ok(if opcode == extra::IORING_REGISTER_QUERY {
            query(ring)
        } else {
            ring.register_nothing(opcode, 0)
        });
    };
    Ok(match name {
        op::IORING_REGISTER_BUFFERS => buffers(ring),
        op::IORING_UNREGISTER_BUFFERS => {
            ok(buffers(ring))?;
            ring.register_nothing(opcode, 0)
        }
        op::IORING_REGISTER_FILES | op::IORING_REGISTER_FILES2 => files(ring, name)?,
        op::IORING_UNREGISTER_FILES => {
            ok(files(ring, op::IORING_REGISTER_FILES)?)?;
            ring.register_nothing(opcode, 0)
        }
        op::IORING_REGISTER_EVENTFD | op::IORING_REGISTER_EVENTFD_ASYNC => eventfd(ring, name)?,
        op::IORING_UNREGISTER_EVENTFD => {
            ok(eventfd(ring, op::IORING_REGISTER_EVENTFD)?)?;
            ring.register_nothing(opcode, 0)
        }
        op::IORING_REGISTER_FILES_UPDATE => {
            ok(files(ring, op::IORING_REGISTER_FILES)?)?;
            let file = null_file()?;
            let fd = file.as_raw_fd();
            let mut arg: FilesUpdate = zero();
            arg.fds = (&raw const fd) as u64;
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_FILES_UPDATE2 => {
            ok(files(ring, op::IORING_REGISTER_FILES2)?)?;
            let file = null_file()?;
            let fd = file.as_raw_fd();
            update2(ring, opcode, (&raw const fd) as u64)
        }
        op::IORING_REGISTER_BUFFERS2 => buffers2(ring),
        op::IORING_REGISTER_BUFFERS_UPDATE => {
            ok(buffers2(ring))?;
            let iovec = IoVec { base: page() as u64, len: PAGE as u64 };
            update2(ring, opcode, (&raw const iovec) as u64)
        }
        op::IORING_REGISTER_PROBE => {
            let mut probe = [0u64; 2 + 64];
            ring.register(opcode, &mut probe, 64)
        }
        op::IORING_REGISTER_PERSONALITY => ring.register_nothing(opcode, 0),
        op::IORING_UNREGISTER_PERSONALITY => {
            let id = ok(ring.register_nothing(op::IORING_REGISTER_PERSONALITY as u32, 0))?;
            ring.register_nothing(opcode, id as u32)
        }
        op::IORING_REGISTER_RESTRICTIONS => {
            // One entry: NOP may be submitted.
            let mut arg: raw::io_uring_restriction = zero();
            arg.opcode = 1;
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_ENABLE_RINGS => ring.register_nothing(opcode, 0),
        op::IORING_REGISTER_IOWQ_AFF => affinity(ring),
        op::IORING_UNREGISTER_IOWQ_AFF => {
            ok(affinity(ring))?;
            ring.register_nothing(opcode, 0)
        }
        op::IORING_REGISTER_IOWQ_MAX_WORKERS => ring.register(opcode, &mut [0u32; 2], 2),
        op::IORING_REGISTER_RING_FDS => {
            let index = add_registered(ring)?;
            forget_registered(backend, index);
            0
        }
        op::IORING_UNREGISTER_RING_FDS => {
            let index = add_registered(ring)?;
            forget_registered(backend, index)
        }
        op::IORING_REGISTER_PBUF_RING => buffer_ring(ring),
        op::IORING_UNREGISTER_PBUF_RING => {
            ok(buffer_ring(ring))?;
            let mut arg: raw::io_uring_buf_reg = zero();
            arg.bgid = 1;
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_PBUF_STATUS => {
            ok(buffer_ring(ring))?;
            let mut arg: raw::io_uring_buf_status = zero();
            arg.buf_group = 1;
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_SYNC_CANCEL => {
            let mut arg: SyncCancelReg = zero();
            (arg.addr, arg.fd) = (1, -1);
            (arg.timeout.tv_sec, arg.timeout.tv_nsec) = (-1, -1);
            // Nothing is in flight: "not found" is the answer of a ring that has looked.
            match ring.register(opcode, &mut arg, 1) {
                result if result == -(libc::ENOENT as isize) => 0,
                result => result,
            }
        }
        op::IORING_REGISTER_FILE_ALLOC_RANGE => {
            ok(files(ring, op::IORING_REGISTER_FILES)?)?;
            let mut arg: FileIndexRange = zero();
            arg.len = 1;
            ring.register(opcode, &mut arg, 0)
        }
        op::IORING_REGISTER_NAPI => napi(ring, name),
        op::IORING_UNREGISTER_NAPI => {
            ok(napi(ring, op::IORING_REGISTER_NAPI))?;
            napi(ring, name)
        }
        op::IORING_REGISTER_CLOCK => {
            let mut arg: raw::io_uring_clock_register = zero();
            arg.clockid = libc::CLOCK_MONOTONIC as u32;
            ring.register(opcode, &mut arg, 0)
        }
        op::IORING_REGISTER_CLONE_BUFFERS => {
            let source = Ring::open(backend, 0)?;
            ok(buffers(&source))?;
            let mut arg: CloneBuffers = zero();
            arg.src_fd = source.fd;
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_SEND_MSG_RING => message(ring),
        op::IORING_REGISTER_RESIZE_RINGS => {
            let mut arg: Params = zero();
            (arg.flags, arg.sq_entries, arg.cq_entries) = (raw::IORING_SETUP_CQSIZE, 16, 64);
            ring.register(opcode, &mut arg, 1)
        }
        op::IORING_REGISTER_MEM_REGION => region(ring, 0),
        // Receiving without copies needs a queue of a network card: without one there is no argument
        // that works, so this asks for a queue of the loopback device and shows the refusal.
        op::IORING_REGISTER_ZCRX_IFQ => {
            let ring = &Ring::open(backend, deferred | raw::IORING_SETUP_CQE32)?;
            let mut area: raw::io_uring_zcrx_area_reg = zero();
            (area.addr, area.len) = (page() as u64, PAGE as u64);
            let mut desc = own_page();
            let mut arg: raw::io_uring_zcrx_ifq_reg = zero();
            (arg.if_idx, arg.rq_entries) = (1, 8);
            (arg.area_ptr, arg.region_ptr) = ((&raw mut area) as u64, (&raw mut desc) as u64);
            ring.register(opcode, &mut arg, 1)
        }
        _ => ring.register_nothing(opcode, 0),
    })
}

fn update2<B: Backend>(ring: &Ring<B>, opcode: u32, data: u64) -> isize {
    let mut arg: RsrcUpdate2 = zero();
    (arg.nr, arg.data) = (1, data);
    ring.register_sized(opcode, &mut arg)
}

/// The opcode as the header's enumeration has it.
fn known(opcode: u32) -> Option<op_type> {
    super::names::REGISTER.iter().map(|(op, _)| *op).find(|op| *op as u32 == opcode)
}

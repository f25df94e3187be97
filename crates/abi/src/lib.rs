//! Kernel ABI of io_uring: entry layouts, constants and size checks. No logic.
//!
//! Constants come from `linux-raw-sys`; what its headers do not have yet (Linux 6.16 to 6.18) stands
//! in [`extra`]. The two hot entry types are spelled out flat, without unions, because the engine
//! copies them word by word out of shared memory.

pub use linux_raw_sys::io_uring as raw;
pub use linux_raw_sys::io_uring::{
    io_cqring_offsets as CqringOffsets, io_sqring_offsets as SqringOffsets,
    io_uring_clone_buffers as CloneBuffers, io_uring_file_index_range as FileIndexRange,
    io_uring_files_update as FilesUpdate, io_uring_getevents_arg as GeteventsArg,
    io_uring_params as Params, io_uring_probe as Probe, io_uring_probe_op as ProbeOp,
    io_uring_rsrc_register as RsrcRegister, io_uring_rsrc_update2 as RsrcUpdate2,
    io_uring_sync_cancel_reg as SyncCancelReg,
};

pub mod cookie;
pub mod errno;
pub mod extra;
pub mod op;

pub use errno::Errno;
pub use op::Opcode;

/// Submission queue entry: 64 bytes, all fields at the kernel's offsets, unions by their widest name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    /// `off`, `addr2`; `cmd_op` in the low half.
    pub off: u64,
    /// `addr`, `splice_off_in`; `level` and `optname`.
    pub addr: u64,
    pub len: u32,
    /// `rw_flags`, `poll32_events`, `msg_flags`, `timeout_flags`, ...: one word, named by the opcode.
    pub op_flags: u32,
    pub user_data: u64,
    /// `buf_index` or `buf_group`.
    pub buf_index: u16,
    pub personality: u16,
    /// `splice_fd_in`, `file_index`, `optlen`; `addr_len` in the low half.
    pub file_index: u32,
    /// `addr3`, `attr_ptr`, `optval`.
    pub addr3: u64,
    pub pad2: u64,
}

/// Completion queue entry: the 16 bytes every ring has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cqe {
    pub user_data: u64,
    pub res: i32,
    pub flags: u32,
}

/// `struct __kernel_timespec`: seconds and nanoseconds, 64 bits each.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timespec {
    pub tv_sec: i64,
    pub tv_nsec: i64,
}

/// `struct iovec`, as plain numbers: the engine never turns the program's pointers into references.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoVec {
    pub base: u64,
    pub len: u64,
}

const _: () = {
    assert!(size_of::<Sqe>() == 64 && align_of::<Sqe>() == 8);
    assert!(size_of::<Cqe>() == 16);
    assert!(size_of::<Params>() == 120);
    assert!(size_of::<Timespec>() == 16);
    assert!(size_of::<IoVec>() == 16);
    assert!(size_of::<GeteventsArg>() == 24);
    assert!(size_of::<RsrcRegister>() == 32);
    assert!(size_of::<RsrcUpdate2>() == 32);
    assert!(size_of::<CloneBuffers>() == 32);
    assert!(size_of::<SyncCancelReg>() == 64);
    assert!(std::mem::offset_of!(Sqe, user_data) == 32);
    assert!(std::mem::offset_of!(Sqe, file_index) == 44);
    assert!(std::mem::offset_of!(Sqe, addr3) == 48);
};

/// `sqe->flags` (`IOSQE_*`).
pub mod sqe_flags {
    pub const FIXED_FILE: u8 = 1 << 0;
    pub const IO_DRAIN: u8 = 1 << 1;
    pub const IO_LINK: u8 = 1 << 2;
    pub const IO_HARDLINK: u8 = 1 << 3;
    pub const ASYNC: u8 = 1 << 4;
    pub const BUFFER_SELECT: u8 = 1 << 5;
    pub const CQE_SKIP_SUCCESS: u8 = 1 << 6;
    pub const ALL: u8 = 0x7f;
}

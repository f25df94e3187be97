//! Constants of Linux 6.16 to 6.18 that `linux-raw-sys` does not have yet, from the kernel's UAPI header.

/// 16 and 32 byte completions in one ring (6.18).
pub const IORING_SETUP_CQE_MIXED: u32 = 1 << 18;
/// The program must ignore this completion: it fills the gap before a wrap (6.18).
pub const IORING_CQE_F_SKIP: u32 = 1 << 5;
/// This completion is 32 bytes long (6.18).
pub const IORING_CQE_F_32: u32 = 1 << 15;
/// NOP posts a 32-byte completion (6.18).
pub const IORING_NOP_CQE32: u32 = 1 << 5;
/// `io_uring_register` opcode: query what io_uring offers (6.18).
pub const IORING_REGISTER_QUERY: u32 = 35;
/// Number of register opcodes of Linux 6.18.
pub const IORING_REGISTER_LAST: u32 = 36;

//! The table of operations: every opcode has its entry, or this does not compile.

use crate::ops::{
    OpDef, UNSUPPORTED, buffers, cancel, cmd, epoll, file, fs, futex, msg, net, nop, path, pipe,
    poll, rw, rwmulti, slots, sock, splice, timeout, waitid, xattr,
};
use soloring_abi::Opcode;

const fn define(op: Opcode) -> OpDef {
    match op {
        Opcode::Nop => nop::NOP,
        Opcode::Readv => rw::READV,
        Opcode::Writev => rw::WRITEV,
        Opcode::Fsync => fs::FSYNC,
        Opcode::ReadFixed => rw::READ_FIXED,
        Opcode::WriteFixed => rw::WRITE_FIXED,
        Opcode::PollAdd => poll::POLL_ADD,
        Opcode::PollRemove => poll::POLL_REMOVE,
        Opcode::Sendmsg => net::SENDMSG,
        Opcode::Recvmsg => net::RECVMSG,
        Opcode::Timeout => timeout::TIMEOUT,
        Opcode::TimeoutRemove => timeout::TIMEOUT_REMOVE,
        Opcode::Accept => sock::ACCEPT,
        Opcode::AsyncCancel => cancel::ASYNC_CANCEL,
        Opcode::LinkTimeout => timeout::LINK_TIMEOUT,
        Opcode::Connect => sock::CONNECT,
        Opcode::Openat => fs::OPENAT,
        Opcode::Close => fs::CLOSE,
        Opcode::Statx => fs::STATX,
        Opcode::Read => rw::READ,
        Opcode::Write => rw::WRITE,
        Opcode::Send => net::SEND,
        Opcode::Recv => net::RECV,
        Opcode::Openat2 => fs::OPENAT2,
        Opcode::ProvideBuffers => buffers::PROVIDE_BUFFERS,
        Opcode::RemoveBuffers => buffers::REMOVE_BUFFERS,
        Opcode::SendZc => net::SEND_ZC,
        Opcode::SendmsgZc => net::SENDMSG_ZC,
        Opcode::ReadMultishot => rwmulti::READ_MULTISHOT,
        Opcode::ReadvFixed => rw::READV_FIXED,
        Opcode::WritevFixed => rw::WRITEV_FIXED,
        Opcode::Shutdown => sock::SHUTDOWN,
        Opcode::Socket => sock::SOCKET,
        Opcode::Bind => sock::BIND,
        Opcode::Listen => sock::LISTEN,
        Opcode::SyncFileRange => file::SYNC_FILE_RANGE,
        Opcode::Fallocate => file::FALLOCATE,
        Opcode::Fadvise => file::FADVISE,
        Opcode::Madvise => file::MADVISE,
        Opcode::Ftruncate => file::FTRUNCATE,
        Opcode::Renameat => path::RENAMEAT,
        Opcode::Unlinkat => path::UNLINKAT,
        Opcode::Mkdirat => path::MKDIRAT,
        Opcode::Symlinkat => path::SYMLINKAT,
        Opcode::Linkat => path::LINKAT,
        Opcode::Setxattr => xattr::SETXATTR,
        Opcode::Fsetxattr => xattr::FSETXATTR,
        Opcode::Getxattr => xattr::GETXATTR,
        Opcode::Fgetxattr => xattr::FGETXATTR,
        Opcode::FilesUpdate => slots::FILES_UPDATE,
        Opcode::EpollCtl => epoll::EPOLL_CTL,
        Opcode::Splice => splice::SPLICE,
        Opcode::Tee => splice::TEE,
        Opcode::UringCmd => cmd::URING_CMD,
        Opcode::FixedFdInstall => slots::FIXED_FD_INSTALL,
        Opcode::EpollWait => epoll::EPOLL_WAIT,
        Opcode::Pipe => pipe::PIPE,
        Opcode::Waitid => waitid::WAITID,
        Opcode::FutexWait => futex::FUTEX_WAIT,
        Opcode::FutexWake => futex::FUTEX_WAKE,
        Opcode::FutexWaitv => futex::FUTEX_WAITV,
        Opcode::MsgRing => msg::MSG_RING,
        Opcode::RecvZc => UNSUPPORTED,
    }
}

/// As many as a masked opcode can name.
const ENTRIES: usize = 64;
const _: () = assert!(Opcode::ALL.len() <= ENTRIES);

/// One definition per opcode, by number, and none that is supported behind the last.
static TABLE: [OpDef; ENTRIES] = {
    let mut table = [const { UNSUPPORTED }; ENTRIES];
    let mut i = 0;
    while i < Opcode::ALL.len() {
        table[i] = define(Opcode::ALL[i]);
        i += 1;
    }
    table
};

/// The definition of an opcode, which must be one that exists.
#[inline(always)]
pub fn definition(opcode: u8) -> &'static OpDef {
    debug_assert!((opcode as usize) < Opcode::ALL.len());
    &TABLE[opcode as usize % ENTRIES]
}

//! Names of bits and register opcodes, for the reader: what is offered is asked, never read off here.

use soloring_abi::raw::io_uring_register_op as op_type;
use soloring_abi::{extra, raw};

macro_rules! bits {
    ($(#[$doc:meta])* $table:ident: $source:path => $($name:ident)*) => {
        $(#[$doc])*
        pub const $table: &[(u32, &str)] = {
            use $source as source;
            &[$((source::$name, stringify!($name)),)*]
        };
    };
}

/// `IORING_SETUP_CLAMP` without its prefix: what follows the second underscore.
fn short(name: &'static str) -> &'static str {
    name.splitn(3, '_').nth(2).unwrap_or(name)
}

bits! {
    /// `params.features`.
    FEATURES: raw =>
    IORING_FEAT_SINGLE_MMAP IORING_FEAT_NODROP IORING_FEAT_SUBMIT_STABLE IORING_FEAT_RW_CUR_POS
    IORING_FEAT_CUR_PERSONALITY IORING_FEAT_FAST_POLL IORING_FEAT_POLL_32BITS
    IORING_FEAT_SQPOLL_NONFIXED IORING_FEAT_EXT_ARG IORING_FEAT_NATIVE_WORKERS IORING_FEAT_RSRC_TAGS
    IORING_FEAT_CQE_SKIP IORING_FEAT_LINKED_FILE IORING_FEAT_REG_REG_RING IORING_FEAT_RECVSEND_BUNDLE
    IORING_FEAT_MIN_TIMEOUT IORING_FEAT_RW_ATTR IORING_FEAT_NO_IOWAIT
}

bits! {
    SETUP_HEADER: raw =>
    IORING_SETUP_IOPOLL IORING_SETUP_SQPOLL IORING_SETUP_SQ_AFF IORING_SETUP_CQSIZE IORING_SETUP_CLAMP
    IORING_SETUP_ATTACH_WQ IORING_SETUP_R_DISABLED IORING_SETUP_SUBMIT_ALL IORING_SETUP_COOP_TASKRUN
    IORING_SETUP_TASKRUN_FLAG IORING_SETUP_SQE128 IORING_SETUP_CQE32 IORING_SETUP_SINGLE_ISSUER
    IORING_SETUP_DEFER_TASKRUN IORING_SETUP_NO_MMAP IORING_SETUP_REGISTERED_FD_ONLY
    IORING_SETUP_NO_SQARRAY IORING_SETUP_HYBRID_IOPOLL
}

bits! {
    SETUP_NEWER: extra => IORING_SETUP_CQE_MIXED
}

bits! {
    /// Flags of `io_uring_enter`.
    ENTER: raw =>
    IORING_ENTER_GETEVENTS IORING_ENTER_SQ_WAKEUP IORING_ENTER_SQ_WAIT IORING_ENTER_EXT_ARG
    IORING_ENTER_REGISTERED_RING IORING_ENTER_ABS_TIMER IORING_ENTER_EXT_ARG_REG IORING_ENTER_NO_IOWAIT
}

/// The name of a setup flag.
pub fn setup(flag: u32) -> Option<&'static str> {
    find(SETUP_HEADER, flag).or_else(|| find(SETUP_NEWER, flag))
}

/// The name of a bit in one of the tables.
pub fn find(table: &[(u32, &'static str)], flag: u32) -> Option<&'static str> {
    table.iter().find(|(bit, _)| *bit == flag).map(|(_, name)| short(name))
}

/// The name of a register opcode.
pub fn register(opcode: u32) -> Option<&'static str> {
    if opcode == extra::IORING_REGISTER_QUERY {
        return Some("REGISTER_QUERY");
    }
    REGISTER
        .iter()
        .find(|(op, _)| *op as u32 == opcode)
        .map(|(_, name)| name.trim_start_matches("IORING_"))
}

macro_rules! register {
    ($($name:ident)*) => {
        /// Register opcodes of the header.
        pub const REGISTER: &[(op_type, &str)] =
            &[$((op_type::$name, stringify!($name)),)*];
    };
}

register! {
    IORING_REGISTER_BUFFERS IORING_UNREGISTER_BUFFERS IORING_REGISTER_FILES IORING_UNREGISTER_FILES
    IORING_REGISTER_EVENTFD IORING_UNREGISTER_EVENTFD IORING_REGISTER_FILES_UPDATE
    IORING_REGISTER_EVENTFD_ASYNC IORING_REGISTER_PROBE IORING_REGISTER_PERSONALITY
    IORING_UNREGISTER_PERSONALITY IORING_REGISTER_RESTRICTIONS IORING_REGISTER_ENABLE_RINGS
    IORING_REGISTER_FILES2 IORING_REGISTER_FILES_UPDATE2 IORING_REGISTER_BUFFERS2
    IORING_REGISTER_BUFFERS_UPDATE IORING_REGISTER_IOWQ_AFF IORING_UNREGISTER_IOWQ_AFF
    IORING_REGISTER_IOWQ_MAX_WORKERS IORING_REGISTER_RING_FDS IORING_UNREGISTER_RING_FDS
    IORING_REGISTER_PBUF_RING IORING_UNREGISTER_PBUF_RING IORING_REGISTER_SYNC_CANCEL
    IORING_REGISTER_FILE_ALLOC_RANGE IORING_REGISTER_PBUF_STATUS IORING_REGISTER_NAPI
    IORING_UNREGISTER_NAPI IORING_REGISTER_CLOCK IORING_REGISTER_CLONE_BUFFERS
    IORING_REGISTER_SEND_MSG_RING IORING_REGISTER_ZCRX_IFQ IORING_REGISTER_RESIZE_RINGS
    IORING_REGISTER_MEM_REGION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_name() {
        for (table, count) in [(FEATURES, 18), (ENTER, 8)] {
            assert_eq!(table.iter().fold(0, |all, (bit, _)| all | bit), (1 << count) - 1);
        }
        for bit in 0..19 {
            assert!(setup(1 << bit).is_some(), "setup flag bit {bit}");
        }
        assert_eq!(setup(raw::IORING_SETUP_CLAMP), Some("CLAMP"));
        for opcode in 0..extra::IORING_REGISTER_LAST {
            assert!(register(opcode).is_some(), "register opcode {opcode}");
        }
        assert_eq!(register(extra::IORING_REGISTER_LAST), None);
    }
}

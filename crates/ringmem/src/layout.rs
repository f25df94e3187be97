//! Sizes and offsets of the two rings, as `io_uring_setup` hands them to the program.

use soloring_abi::{CqringOffsets, SqringOffsets};

/// Bytes of one submission entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SqeSize {
    B64,
    B128,
}

/// Bytes of one completion entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CqeSize {
    B16,
    B32,
    /// Slots of 16 bytes, of which a completion takes one or (IORING_CQE_F_32) two.
    Mixed,
}

/// Offsets of `struct io_rings` (Linux 5.4 to 6.18), bytes from the start of the ring region.
pub(crate) mod off {
    pub const SQ_HEAD: u32 = 0;
    pub const SQ_TAIL: u32 = 4;
    pub const CQ_HEAD: u32 = 8;
    pub const CQ_TAIL: u32 = 12;
    pub const SQ_MASK: u32 = 16;
    pub const CQ_MASK: u32 = 20;
    pub const SQ_ENTRIES: u32 = 24;
    pub const CQ_ENTRIES: u32 = 28;
    pub const SQ_DROPPED: u32 = 32;
    pub const SQ_FLAGS: u32 = 36;
    pub const CQ_FLAGS: u32 = 40;
    pub const CQ_OVERFLOW: u32 = 44;
    /// Padding of the kernel's structure, used by rings that several processes share.
    pub const SHARED: u32 = 48;
    pub const PROCESS_LOCK: u32 = 52;
    pub const CQES: u32 = 64;
}

/// Where everything lies in one ring's memory. All sizes in bytes, all counts in entries.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub sqe: SqeSize,
    pub cqe: CqeSize,
    pub sq_array: bool,
}

const CACHE_LINE: usize = 64;
const PAGE: usize = 4096;

fn page_align(bytes: usize) -> usize {
    (bytes + PAGE - 1) & !(PAGE - 1)
}

impl Layout {
    pub(crate) fn cqe_shift(&self) -> u32 {
        match self.cqe {
            CqeSize::B16 | CqeSize::Mixed => 4,
            CqeSize::B32 => 5,
        }
    }

    pub(crate) fn sqe_shift(&self) -> u32 {
        match self.sqe {
            SqeSize::B64 => 6,
            SqeSize::B128 => 7,
        }
    }

    /// Offset of the SQ index array in the ring region, 0 without one (as the kernel reports it).
    pub fn array_offset(&self) -> u32 {
        if !self.sq_array {
            return 0;
        }
        ((self.cqes_end() + CACHE_LINE - 1) & !(CACHE_LINE - 1)) as u32
    }

    /// Exact length of the ring region in bytes.
    pub fn rings_bytes(&self) -> usize {
        if self.sq_array {
            self.array_offset() as usize + self.sq_entries as usize * 4
        } else {
            self.cqes_end()
        }
    }

    /// End of header and completions. With 32-byte entries the kernel doubles the header as well.
    fn cqes_end(&self) -> usize {
        (off::CQES as usize + self.cq_entries as usize * 16) << (self.cqe_shift() - 4)
    }

    /// Length of the ring region rounded up to whole pages.
    pub fn rings_mapped(&self) -> usize {
        page_align(self.rings_bytes())
    }

    /// Length of the SQE region rounded up to whole pages.
    pub fn sqes_mapped(&self) -> usize {
        page_align((self.sq_entries as usize) << self.sqe_shift())
    }

    /// `params->sq_off`.
    pub fn sq_offsets(&self) -> SqringOffsets {
        SqringOffsets {
            head: off::SQ_HEAD,
            tail: off::SQ_TAIL,
            ring_mask: off::SQ_MASK,
            ring_entries: off::SQ_ENTRIES,
            flags: off::SQ_FLAGS,
            dropped: off::SQ_DROPPED,
            array: self.array_offset(),
            resv1: 0,
            user_addr: 0,
        }
    }

    /// `params->cq_off`.
    pub fn cq_offsets(&self) -> CqringOffsets {
        CqringOffsets {
            head: off::CQ_HEAD,
            tail: off::CQ_TAIL,
            ring_mask: off::CQ_MASK,
            ring_entries: off::CQ_ENTRIES,
            overflow: off::CQ_OVERFLOW,
            cqes: off::CQES,
            flags: off::CQ_FLAGS,
            resv1: 0,
            user_addr: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_the_kernels() {
        let l = Layout {
            sq_entries: 8,
            cq_entries: 16,
            sqe: SqeSize::B64,
            cqe: CqeSize::B16,
            sq_array: true,
        };
        assert_eq!(l.array_offset(), 320);
        assert_eq!(Layout { cqe: CqeSize::B32, ..l }.array_offset(), 640);
        assert_eq!(Layout { sq_array: false, ..l }.array_offset(), 0);
        assert_eq!(l.rings_bytes(), 320 + 32);
        assert_eq!(l.sqes_mapped(), 4096);
    }
}

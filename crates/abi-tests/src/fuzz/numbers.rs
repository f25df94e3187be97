//! Numbers that tend to matter, and choosing among things.

use fastrand::Rng;

pub const NUMBERS: &[u64] = &[
    0,
    0,
    0,
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    16,
    24,
    32,
    64,
    128,
    4095,
    4096,
    (1 << 15) - 1,
    1 << 15,
    (1 << 16) - 1,
    1 << 16,
    1 << 20,
    1 << 30,
    (1 << 31) - 1,
    1 << 31,
    0xffff_fffe,
    0xffff_ffff,
    1 << 32,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// One of these.
pub fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// A number that tends to matter, a single bit, or any.
pub fn number(rng: &mut Rng) -> u64 {
    match rng.u8(..8) {
        0 => 1 << rng.u8(..64),
        1 => rng.u64(..),
        _ => pick(rng, NUMBERS),
    }
}

/// As [`number`], small more often than not: for words of flags.
pub fn flags(rng: &mut Rng) -> u32 {
    match rng.u8(..4) {
        0 => 0,
        1 => 1 << rng.u8(..32),
        2 => 1 << rng.u8(..32) | 1 << rng.u8(..8),
        _ => number(rng) as u32,
    }
}

/// True once in `n` times.
pub fn one_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

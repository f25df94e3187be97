//! Bytes that can be checked without keeping a copy: a pure function of a seed and a position.

use std::io;

use crate::part::differs;

/// One 64-bit step of splitmix64: a different seed gives unrelated bytes.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills `out` with the pattern of `seed`.
pub fn fill(seed: u64, out: &mut [u8]) {
    for (index, chunk) in out.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&word(seed, index as u64).to_le_bytes()[..chunk.len()]);
    }
}

/// Compares all of `got` with the pattern of `seed`.
///
/// # Errors
/// Names the first byte that differs.
pub fn check(seed: u64, got: &[u8], what: &str) -> io::Result<()> {
    for (index, chunk) in got.chunks(8).enumerate() {
        let want = word(seed, index as u64).to_le_bytes();
        if chunk != &want[..chunk.len()] {
            let byte = chunk.iter().zip(want).position(|(a, b)| *a != b).unwrap_or(0);
            return Err(differs(format!("{what}: byte {} differs", index * 8 + byte)));
        }
    }
    Ok(())
}

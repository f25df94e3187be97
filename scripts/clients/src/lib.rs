//! What every client does, whatever its runtime: sizes, contents and the line at the end.

use std::path::PathBuf;
use std::time::Duration;

pub const FILES: usize = 12;
pub const CHUNKS: usize = 40;
/// A multiple of 4096, for runtimes that read and write past the page cache.
pub const CHUNK: usize = 8192;
pub const CONNECTIONS: usize = 24;
pub const ROUNDS: usize = 60;
pub const DATAGRAMS: usize = 200;
/// How long a wait lasts that is given up.
pub const PATIENCE: Duration = Duration::from_millis(30);

/// The directory of the command line, where files may be made.
pub fn directory() -> PathBuf {
    std::env::args_os().nth(1).expect("usage: PROGRAM DIRECTORY").into()
}

/// Chunk `chunk` of file `file`.
pub fn content(file: usize, chunk: usize) -> Vec<u8> {
    pattern(file * CHUNKS + chunk, CHUNK)
}

/// What connection `connection` sends in round `round`: from one byte to some 50 KiB.
pub fn message(connection: usize, round: usize) -> Vec<u8> {
    pattern(connection * ROUNDS + round + 99, 1 + (connection * 131 + round * 877) % 51_000)
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u32 | 0x9e37_0001;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(step).collect()
}

/// What came back, counted and summed up: the same on every ring.
#[derive(Default)]
pub struct Sum {
    bytes: u64,
    hash: u64,
}

impl Sum {
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        // Order does not matter: tasks finish in any.
        let fnv = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        self.hash = self.hash.wrapping_add(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv));
    }

    pub fn join(&mut self, other: Sum) {
        self.bytes += other.bytes;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

/// Prints the one line that is compared.
pub fn finish(files: Sum, echoed: Sum, datagrams: Sum) {
    println!(
        "files {} bytes {:016x}, echoed {} bytes {:016x}, datagrams {} bytes {:016x}",
        files.bytes, files.hash, echoed.bytes, echoed.hash, datagrams.bytes, datagrams.hash
    );
}

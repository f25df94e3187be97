//! `io_uring_register` with bad arguments: every operation, with its structure's fields gone wild.

use super::mismatch::Mismatch;
use super::numbers::{flags, number, one_in, pick};
use super::pages::Pages;
use super::world::{World, open_now};
use crate::backend::{Abi, Kernel};
use fastrand::Rng;
use soloring_abi::raw::{self, io_uring_register_op as reg};
use soloring_abi::{Opcode, extra};

/// Calls in one world, and worlds of one seed.
const CALLS: usize = 14;
const WORLDS: u64 = 20;

/// Where an argument lies, when it is a good one.
const AT: usize = 1024;

pub fn mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut pages = Pages::new(b"file\0".to_vec());
    let mut found = Vec::new();
    for world in 0..WORLDS {
        let seed = seed * WORLDS + world;
        let (ours, theirs) = (play(abi, &mut pages, seed), play(&kernel, &mut pages, seed));
        let mut steps = ours.into_iter().zip(theirs);
        let Some(((input, ours), (_, theirs))) = steps.find(|((_, a), (_, b))| a != b) else {
            continue;
        };
        let short = |answer: &str| answer.split(" memory").next().unwrap_or("").to_string();
        let (theirs, ours) = (short(&theirs), short(&ours));
        let kind =
            format!("{}: kernel {theirs}, got {ours}", input.split('(').next().unwrap_or(""));
        found.push(Mismatch::new(kind, format!("(world {seed}) {input}")));
    }
    found
}

fn play(abi: &Abi, pages: &mut Pages, seed: u64) -> Vec<(String, String)> {
    let before = open_now();
    let mut rng = Rng::with_seed(seed);
    let disabled = one_in(&mut rng, 4);
    let setup = if disabled { raw::IORING_SETUP_R_DISABLED } else { 0 };
    let mut world = World::new(abi, pages, setup);
    let all = (0..CALLS).map(|_| call(&mut rng, &mut world, pages)).collect();
    world.sweep();
    let index: Vec<u64> = (0..16).flat_map(|i| [i, 0]).collect();
    world.other.register(reg::IORING_UNREGISTER_RING_FDS as u32, index.as_ptr(), 16);
    world.close(&before);
    all
}

/// An argument in 32-bit words and its count, as it makes sense for the operation.
struct Shape {
    words: Vec<u32>,
    nr: u32,
    /// What it leaves in memory is the same on both sides.
    comparable: bool,
}

fn halves(words: &[u64]) -> Vec<u32> {
    words.iter().flat_map(|w| [*w as u32, (*w >> 32) as u32]).collect()
}

fn shape(rng: &mut Rng, world: &World, pages: &Pages, opcode: u32) -> Shape {
    let at = |page: &[u8]| page.as_ptr() as u64;
    let (scratch, vectors, table) = (at(pages.scratch), at(pages.vectors), at(pages.table));
    let (ring, other) = (world.ring.fd as u64, world.other.fd as u64);
    let small = rng.u32(..5);
    let fd = pick(rng, &world.files).1;
    let mut comparable = true;
    let (words, nr) = match opcode {
        o if o == reg::IORING_REGISTER_BUFFERS as u32 => {
            (halves(&[scratch, 8, scratch + 100, 16, 0, 0, table, 4096]), small)
        }
        o if o == reg::IORING_REGISTER_FILES as u32 => {
            (world.list().iter().map(|fd| *fd as u32).collect(), small)
        }
        o if o == reg::IORING_REGISTER_EVENTFD as u32
            || o == reg::IORING_REGISTER_EVENTFD_ASYNC as u32 =>
        {
            comparable = !world.name(fd).contains("ring");
            (vec![if rng.bool() { world.fd("eventfd") } else { fd } as u32], 1)
        }
        o if o == reg::IORING_REGISTER_FILES_UPDATE as u32 => {
            (halves(&[small as u64, table]), rng.u32(..4))
        }
        o if o == reg::IORING_REGISTER_PROBE as u32 => {
            comparable = false;
            (vec![0; 200], pick(rng, &[0, 1, 63, 64, 256, 257]))
        }
        o if o == reg::IORING_REGISTER_RESTRICTIONS as u32 => {
            let word = rng.u32(..5) | rng.u32(..70) << 16;
            (vec![word, 0, 0, 0, 1, 0, 0, 0], rng.u32(..3))
        }
        o if o == reg::IORING_REGISTER_FILES2 as u32
            || o == reg::IORING_REGISTER_BUFFERS2 as u32 =>
        {
            let sparse = rng.u64(..2);
            let files = o == reg::IORING_REGISTER_FILES2 as u32;
            let data = if sparse == 1 {
                0
            } else if files {
                table
            } else {
                vectors
            };
            let tags = pick(rng, &[0, scratch + 512]);
            (halves(&[small as u64 | sparse << 32, 0, data, tags]), 32)
        }
        o if o == reg::IORING_REGISTER_FILES_UPDATE2 as u32
            || o == reg::IORING_REGISTER_BUFFERS_UPDATE as u32 =>
        {
            let files = o == reg::IORING_REGISTER_FILES_UPDATE2 as u32;
            let data = if files { table } else { vectors };
            (halves(&[small as u64, data, 0, rng.u64(..4)]), 32)
        }
        o if o == reg::IORING_REGISTER_IOWQ_AFF as u32 => {
            (vec![1, 0, 0, 0], pick(rng, &[1, 4, 8, 16, 128]))
        }
        o if o == reg::IORING_REGISTER_IOWQ_MAX_WORKERS as u32 => {
            comparable = false;
            (vec![rng.u32(..3), rng.u32(..3)], 2)
        }
        o if o == reg::IORING_REGISTER_RING_FDS as u32 => {
            comparable = false;
            let slot = pick(rng, &[u32::MAX, 0, 1, 15, 16]);
            (halves(&[slot as u64, ring, u32::MAX as u64, other]), rng.u32(..3))
        }
        o if o == reg::IORING_UNREGISTER_RING_FDS as u32 => {
            (halves(&[rng.u64(..17), 0, rng.u64(..17), 0]), rng.u32(..3))
        }
        o if o == reg::IORING_REGISTER_PBUF_RING as u32
            || o == reg::IORING_UNREGISTER_PBUF_RING as u32 =>
        {
            let group = pick(rng, World::GROUPS) as u64;
            let entries = pick(rng, &[1, 4, 64, 256, 3, 0]);
            let flags = if o == reg::IORING_REGISTER_PBUF_RING as u32 { rng.u64(..4) } else { 0 };
            let memory = if flags & 1 != 0 { 0 } else { table };
            (halves(&[memory, entries | group << 32 | flags << 48, 0, 0, 0]), 1)
        }
        o if o == reg::IORING_REGISTER_PBUF_STATUS as u32 => {
            let group = pick(rng, World::GROUPS) as u64;
            (halves(&[group, 0, 0, 0, 0]), 1)
        }
        o if o == reg::IORING_REGISTER_SYNC_CANCEL as u32 => {
            comparable = !world.name(fd).contains("ring");
            let flags = pick(rng, &[0, 1, 2, 4, 8, 16, 32]);
            (halves(&[1, fd as u32 as u64 | flags << 32, 0, 1000, 0, 0, 0, 0]), 1)
        }
        o if o == reg::IORING_REGISTER_FILE_ALLOC_RANGE as u32 => {
            (vec![small, rng.u32(..6), 0, 0], 0)
        }
        o if o == reg::IORING_REGISTER_CLOCK as u32 => (vec![pick(rng, &[0, 1, 7, 4]), 0, 0, 0], 0),
        o if o == reg::IORING_REGISTER_CLONE_BUFFERS as u32 => {
            comparable = false;
            let from = pick(rng, &[ring, other, other, fd as u32 as u64]);
            let flags = rng.u64(..4);
            let from = if flags & 1 != 0 { rng.u64(..17) } else { from };
            (halves(&[from | flags << 32, rng.u64(..3) | rng.u64(..3) << 32, rng.u64(..4), 0]), 1)
        }
        o if o == reg::IORING_REGISTER_SEND_MSG_RING as u32 => {
            comparable = false;
            (halves(&[Opcode::MsgRing as u64 | other << 32, 9, 0, 5, 77, 0, 0, 0]), 1)
        }
        o if o == reg::IORING_REGISTER_RESIZE_RINGS as u32 => {
            comparable = false;
            let mut words = vec![0; 30];
            (words[0], words[1]) = (pick(rng, &[0, 1, 8, 16]), pick(rng, &[0, 4, 32]));
            words[2] = pick(rng, &[0, raw::IORING_SETUP_CQSIZE, raw::IORING_SETUP_CLAMP]);
            (words, 1)
        }
        o if o == reg::IORING_REGISTER_MEM_REGION as u32 => {
            (halves(&[at(pages.message), rng.u64(..2), 0, 0]), 1)
        }
        o if o == extra::IORING_REGISTER_QUERY => {
            comparable = false;
            (halves(&[0, scratch, (48 << 32) | rng.u64(..2), 0, 0]), 0)
        }
        _ => (Vec::new(), 0),
    };
    Shape { words, nr, comparable }
}

/// Not offered here, which is no news.
fn is_refused(opcode: u32) -> bool {
    [
        reg::IORING_REGISTER_PERSONALITY as u32,
        reg::IORING_UNREGISTER_PERSONALITY as u32,
        reg::IORING_REGISTER_NAPI as u32,
        reg::IORING_UNREGISTER_NAPI as u32,
        reg::IORING_REGISTER_ZCRX_IFQ as u32,
    ]
    .contains(&opcode)
}

fn call(rng: &mut Rng, world: &mut World, pages: &mut Pages) -> (String, String) {
    pages.refresh(&world.list());
    let mut opcode = match rng.u8(..30) {
        0 => number(rng) as u32,
        _ => rng.u32(..extra::IORING_REGISTER_LAST),
    };
    if is_refused(opcode) {
        opcode = 99;
    }
    let Shape { mut words, mut nr, comparable } = shape(rng, world, pages, opcode);
    if opcode == reg::IORING_REGISTER_MEM_REGION as u32 {
        // A description of a region, mostly in memory of the ring's.
        let user = pages.table.as_ptr() as u64;
        let memory = pick(rng, &[0, 0, user, user + 8, 1]);
        let size = pick(rng, &[4096, 8192, 0, 100]);
        let kind = if memory == 0 { 0 } else { 1 };
        super::pages::put(pages.message, &[memory, size, kind, 0, 0, 0, 0, 0]);
        if one_in(rng, 4) {
            let word = rng.usize(..16);
            let value = (number(rng) as u32).to_ne_bytes();
            pages.message[word * 4..][..4].copy_from_slice(&value);
        }
    }
    let mut odd = String::new();
    // A small number in the place of a descriptor is the process's own.
    if words.len() > 1 && one_in(rng, 3) {
        let at = rng.usize(..words.len());
        words[at] = if rng.bool() { flags(rng) } else { number(rng) as u32 };
        odd.push_str(&format!(" word {at}={:#x}", words[at]));
    }
    if words.len() > 2 && one_in(rng, 4) {
        let at = rng.usize(..words.len() / 2) * 2;
        let address = pages.addresses[rng.usize(..pages.addresses.len())].1;
        (words[at], words[at + 1]) = (address as u32, (address >> 32) as u32);
        odd.push_str(&format!(" word {at}={}", pages.name(address)));
    }
    if opcode == reg::IORING_REGISTER_SYNC_CANCEL as u32 && words[8..12] != [0; 4] {
        // Not for ever.
        words[5..7].fill(0);
    }
    if one_in(rng, 6) {
        nr = if rng.bool() { number(rng) as u32 } else { rng.u32(..5) };
    }
    let mut arg = pages.table.as_ptr() as u64 + AT as u64;
    for (i, word) in words.iter().enumerate() {
        pages.table[AT + i * 4..][..4].copy_from_slice(&word.to_ne_bytes());
    }
    if words.is_empty() {
        arg = 0;
    }
    if one_in(rng, 8) {
        arg = pages.addresses[rng.usize(..pages.addresses.len())].1;
    } else if one_in(rng, 10) && words.len() > 1 {
        // The end is not there.
        let place = 4096 - 4 * rng.usize(1..words.len());
        for (i, byte) in words.iter().flat_map(|w| w.to_ne_bytes()).enumerate() {
            if place + i < 4096 {
                pages.table[place + i] = byte;
            }
        }
        arg = pages.table.as_ptr() as u64 + place as u64;
    }
    let who = rng.u8(..16);
    let fd = match who {
        0 => -1,
        1 => world.fd("eventfd"),
        2 => world.fd("unused"),
        3 => world.other.fd,
        _ => world.ring.fd,
    };
    let fd = if opcode >> 31 == 1 { rng.i32(-1..18) } else { fd };
    let shown: Vec<String> = words.iter().map(|w| format!("{w:x}")).collect();
    let text = format!(
        "register {opcode}({}, {}, nr={nr:#x}){odd} [{}]",
        world.name(fd),
        pages.name(arg),
        if words.len() < 20 { shown.join(" ") } else { String::new() }
    );
    let res = world.ring.abi.register(fd, opcode, arg as *const u8, nr);
    let mut answer = format!("{res}");
    if comparable {
        answer.push_str(&format!(" memory {:x}", pages.digest() ^ table_digest(pages)));
    }
    (text, answer)
}

/// As the other pages' digest, for the one that arguments lie in.
fn table_digest(pages: &Pages) -> u64 {
    pages.table.iter().fold(7, |h, b| (h ^ *b as u64).wrapping_mul(0x100_0000_01b3))
}

//! Garbage in the words that a ring shares, written between calls: what the ring then does, step by step.
//!
//! All words but three: how long a ring relies on a CQ head that it saw, and when it publishes CQ tail and SQ head
//! again, is its own affair, and shows when they are wrong. What wild ones do is looked at in the `garbage` family.

use super::mismatch::Mismatch;
use super::numbers::{number, one_in, pick};
use crate::backend::{Abi, Kernel};
use crate::ring::{Ring, params};
use crate::sqe::{SqeExt, nop, nop_result};
use fastrand::Rng;
use soloring_abi::{extra, raw, sqe_flags};
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// Steps of one story, and stories of one seed.
const STEPS: usize = 40;
const STORIES: u64 = 20;

const SHAPES: &[u32] = &[
    0,
    raw::IORING_SETUP_NO_SQARRAY,
    raw::IORING_SETUP_SQE128,
    raw::IORING_SETUP_CQE32,
    extra::IORING_SETUP_CQE_MIXED,
    raw::IORING_SETUP_SUBMIT_ALL,
];

pub fn mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut found = Vec::new();
    for story in 0..STORIES {
        let seed = seed * STORIES + story;
        let (ours, theirs) = (play(abi, seed), play(&kernel, seed));
        let steps = ours.iter().zip(&theirs);
        let Some(at) = steps.clone().position(|(a, b)| a != b) else { continue };
        let what = ours[at].split([' ', '(', ':']).next().unwrap_or("").to_string();
        let before = theirs[at.saturating_sub(6)..at].join("\n        ");
        let (ours, theirs) = (&ours[at], &theirs[at]);
        let input = format!("(story {seed}) got {ours}\n   kernel {theirs}\n  after {before}");
        found.push(Mismatch::new(what, input));
    }
    found
}

fn play(abi: &Abi, seed: u64) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let shape = pick(&mut rng, SHAPES);
    let mut ring = Ring::build(abi, 4, params(abi.mode_flags | shape));
    (0..STEPS).map(|i| step(&mut ring, &mut rng, i)).collect()
}

fn step(ring: &mut Ring, rng: &mut Rng, i: usize) -> String {
    let (sq, cq) = (ring.params.sq_off, ring.params.cq_off);
    let array = ring.params.flags & raw::IORING_SETUP_NO_SQARRAY == 0;
    let mut text = String::new();
    match rng.u8(..10) {
        0..=3 => {
            let words = [
                ("sq.tail", sq.tail),
                ("sq.tail", sq.tail),
                ("sq.mask", sq.ring_mask),
                ("sq.entries", sq.ring_entries),
                ("cq.mask", cq.ring_mask),
                ("cq.entries", cq.ring_entries),
                ("sq.dropped", sq.dropped),
                ("cq.overflow", cq.overflow),
                ("array", if array { sq.array + 4 * rng.u32(..4) } else { sq.tail }),
            ];
            let (name, at) = pick(rng, &words);
            let old = ring.word(at).load(Ordering::Relaxed);
            let new = match rng.u8(..3) {
                0 => number(rng) as u32,
                1 => old.wrapping_add(rng.u32(..6)),
                _ => old.wrapping_sub(rng.u32(..6)),
            };
            ring.word(at).store(new, Ordering::Relaxed);
            let _ = write!(text, "{name}: {old:#x} := {new:#x}");
        }
        4..=6 => {
            // Entries behind the tail that the ring has published, sane or not.
            let tail = ring.word(sq.tail).load(Ordering::Relaxed);
            let count = rng.u32(1..4);
            for k in 0..count {
                let slot = tail.wrapping_add(k) & (ring.params.sq_entries - 1);
                let mut s = if rng.bool() { nop() } else { nop_result(-5) };
                s.flags = pick(rng, &[0, 0, sqe_flags::CQE_SKIP_SUCCESS, 0x80]);
                if one_in(rng, 10) {
                    s.opcode = 200;
                }
                ring.write_entry(slot, s.ud((i * 8) as u64 + k as u64));
                if array {
                    let index = if one_in(rng, 6) { number(rng) as u32 } else { slot };
                    ring.set_array(slot, index);
                }
            }
            ring.set_tail(tail.wrapping_add(count));
            let _ = write!(text, "push({count})");
        }
        7 => {
            let mut n = 0;
            while n < 4 && ring.pop().is_some() {
                n += 1;
            }
            let _ = write!(text, "reap({n})");
        }
        _ => {
            let to_submit = if one_in(rng, 4) { number(rng) as u32 } else { rng.u32(..6) };
            // Never to wait: with a wild CQ head and an overflow Linux 6.18 then spins, deaf to signals.
            let min = 0;
            let flags = raw::IORING_ENTER_GETEVENTS;
            let res = ring.enter(to_submit, min, flags);
            // And what was left to task work.
            ring.enter(0, 0, flags);
            let _ = write!(text, "enter({to_submit:#x}, {min:#x}, {flags:#x}) = {res}");
        }
    }
    if !text.starts_with("enter") {
        // Completions may appear at any time, and are looked at behind calls.
        return text;
    }
    let word = |at: u32| ring.word(at).load(Ordering::Relaxed);
    let _ = write!(
        text,
        " -> sq {:x}..{:x} cq {:x}..{:x} dropped {:x} overflow {:x} flags {:x} {:x} cqes",
        word(sq.head),
        word(sq.tail),
        word(cq.head),
        word(cq.tail),
        word(sq.dropped),
        word(cq.overflow),
        word(sq.flags) & !raw::IORING_SQ_TASKRUN,
        word(cq.flags),
    );
    // In no order: what fails its checks may come later.
    let slots = (0..ring.params.cq_entries).map(|slot| ring.peek_slot(slot));
    let mut cqes: Vec<_> = slots.map(|cqe| (cqe.user_data, cqe.res)).collect();
    cqes.sort();
    let _ = write!(text, " {cqes:?}");
    text
}

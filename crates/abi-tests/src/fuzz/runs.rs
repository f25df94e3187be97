//! Worlds of entries on both sides: each batch run to its end, and what came of it compared.

use super::entries::{FIRST, batch, describe, makes_a_descriptor};
use super::excused::{EXCUSED, Seen, is_work};
use super::meddle::Meddle;
use super::mismatch::{Mismatch, Outcome};
use super::pages::Pages;
use super::world::{HINTS, Shape, World, open_now};
use crate::backend::{Abi, Kernel};
use crate::res::Res;
use crate::sys;
use fastrand::Rng;
use soloring_abi::{Opcode, Sqe, raw};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Batches of entries between two new worlds.
const BATCHES: usize = 6;
/// Worlds of one seed.
pub const WORLDS: usize = 8;
/// Completions of one batch that are looked at; one that repeats for ever must not keep us.
const COMPLETIONS_MAX: usize = 200;
/// How long they are looked at, before the cancellation and after it.
const TIME_MAX: Duration = Duration::from_millis(300);

/// How long the next completion may take, in milliseconds: before anything is cancelled, and after it.
type Patience = [u64; 2];
const SHORT: Patience = [12, 30];
/// On a busy machine a worker may take its time.
const LONG: Patience = [80, 120];

/// A batch and what came of it.
struct Story {
    input: String,
    batch: Vec<Sqe>,
    outcome: Outcome,
}

/// A result as far as both sides must agree.
fn result(s: &Sqe, res: Res, flags: u32, canceled: bool) -> String {
    if canceled && (res.is_err() || is_work(s)) {
        // Mostly it says that it was cancelled. Others were held up by what waited, and raced with the next
        // cancellation.
        return "waited".into();
    }
    let flags = flags & !HINTS;
    let flags = if flags == 0 { String::new() } else { format!("/{flags:#x}") };
    if makes_a_descriptor(s) && res.0 >= 0 {
        "a descriptor".into()
    } else {
        format!("{res}{flags}")
    }
}

/// Runs a batch to its end: waits a little, then cancels whatever is in flight.
fn run(
    world: &mut World,
    pages: &mut Pages,
    batch: &[Sqe],
    meddle: Meddle,
    patience: Patience,
) -> Outcome {
    let mut outcome = Outcome::default();
    world.crowd();
    world.ring.push_all(batch);
    let submitted = world.submit(batch.len());
    meddle.act(world, pages);
    let mut results: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut open: usize = batch.len();
    // What is drained may hold up the cancellation itself; a call is held up by nothing.
    for step in 0..3 {
        let canceled = step > 0;
        let limit = Duration::from_millis(patience[canceled as usize]);
        if open > 0 {
            match step {
                0 => {}
                1 => world.cancel_by_entry(),
                _ => world.cancel_by_call(),
            }
        }
        let begun = Instant::now();
        for _ in 0..COMPLETIONS_MAX {
            if open == 0 || begun.elapsed() > TIME_MAX + 2 * limit {
                break;
            }
            let Some(done) = world.next(limit) else { break };
            let Some(s) = batch.iter().find(|s| s.user_data == done.ud) else { continue };
            if done.flags & raw::IORING_CQE_F_NOTIF != 0 {
                // May come when nobody waits for it any more.
                continue;
            }
            let text = result(s, done.res, done.flags, canceled);
            results.entry(done.ud).or_default().push(text);
            open -= usize::from(!done.more() && open > 0);
        }
    }
    outcome.parts.push(("submit".into(), submitted));
    for s in batch {
        let name = Opcode::from_raw(s.opcode).map_or("?", Opcode::name);
        let results = results.remove(&s.user_data).unwrap_or_default();
        outcome.parts.push((name.into(), results.join(" ")));
    }
    outcome.parts.push(("words".into(), world.words()));
    let own = [Opcode::Statx, Opcode::Pipe, Opcode::FilesUpdate].map(|o| o as u8);
    if !batch.iter().any(|s| own.contains(&s.opcode)) {
        outcome.parts.push(("memory".into(), format!("{:x}", pages.digest())));
    }
    outcome
}

/// The batches of a world and what came of them.
fn play(abi: &Abi, pages: &mut Pages, seed: u64, patience: Patience) -> Vec<Story> {
    let before = open_now();
    let mut rng = Rng::with_seed(seed);
    let shape = Shape::choose(&mut rng);
    pages.refresh(&[]);
    let mut world = World::shaped(abi, pages, shape);
    let mut all = Vec::new();
    for i in 0..BATCHES as u64 {
        pages.refresh(&world.list());
        let batch = batch(&mut rng, &world, pages, seed, FIRST + 16 * i);
        let meddle = Meddle::choose(&mut rng, &batch);
        let words: Vec<String> = batch.iter().map(|s| describe(&world, pages, s)).collect();
        let input = format!("{} [{shape:?} {meddle:?}]", words.join(" ; "));
        let outcome = run(&mut world, pages, &batch, meddle, patience);
        while world.other.pop().is_some() {}
        world.sweep();
        all.push(Story { input, batch, outcome });
    }
    world.close(&before);
    all
}

/// Where the kernel's outcome is another: the first in each world, since the rest may follow from it.
pub fn mismatches(abi: &Abi, seed: u64) -> Vec<Mismatch> {
    sys::catch(libc::SIGPIPE);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut pages = Pages::new(b"file\0".to_vec());
    let mut found = Vec::new();
    for world in 0..WORLDS as u64 {
        let seed = seed * WORLDS as u64 + world;
        let mut once = |patience| first_difference(abi, &kernel, &mut pages, seed, patience);
        // What waits on a busy machine looks like what waits for ever: only what happens each time counts.
        let Some(first) = once(SHORT) else { continue };
        if first.excuse.is_some()
            || once(LONG).as_ref() == Some(&first) && once(LONG).as_ref() == Some(&first)
        {
            found.push(first);
        }
    }
    found
}

/// One world, batch by batch, with what both sides say of it.
pub fn story(abi: &Abi, world: u64) -> String {
    sys::catch(libc::SIGPIPE);
    let kernel = Abi::new(&Kernel, abi.mode_flags);
    let mut pages = Pages::new(b"file\0".to_vec());
    let ours = play(abi, &mut pages, world, LONG);
    let theirs = play(&kernel, &mut pages, world, LONG);
    let mut text = String::new();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        text.push_str(&format!("{}\n", ours.input.replace(" ; ", "\n")));
        for (a, b) in ours.outcome.parts.iter().zip(&theirs.outcome.parts) {
            let mark = if a == b { "  " } else { "!!" };
            text.push_str(&format!("  {mark} {}: kernel {}, got {}\n", a.0, b.1, a.1));
        }
    }
    text
}

fn first_difference(
    abi: &Abi,
    kernel: &Abi,
    pages: &mut Pages,
    seed: u64,
    patience: Patience,
) -> Option<Mismatch> {
    let ours = play(abi, pages, seed, patience);
    let theirs = play(kernel, pages, seed, patience);
    for (Story { input, batch, outcome: ours }, Story { outcome: theirs, .. }) in
        ours.iter().zip(&theirs)
    {
        let parts = ours.parts.iter().zip(&theirs.parts);
        let Some(at) = parts.clone().position(|(a, b)| a != b) else { continue };
        let (drained, full) = (seed.is_multiple_of(2), input.contains("[Full"));
        let seen = Seen { batch, ours, theirs, at, drained, full };
        let excuse = EXCUSED.iter().find(|(_, rule)| rule(&seen)).map(|(name, _)| *name);
        let (ours, theirs) = (&ours.parts[at], &theirs.parts[at]);
        let kind = match ours.0.as_str() {
            "memory" => format!("memory after {}", input.split(' ').next().unwrap_or("")),
            name => format!("{name}: kernel {}, got {}", theirs.1, ours.1),
        };
        return Some(Mismatch { kind, input: format!("(world {seed}) {input}"), excuse });
    }
    None
}

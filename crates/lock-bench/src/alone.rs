//! Nobody else is there: the time of one turn of three loops around each lock.

use std::hint::black_box;
use std::time::Instant;

use soloring_lock::LockMode;

use crate::figures::{Alone, percentile};
use crate::subject::{Lines, NoLock, Ours, ParkingLot, Std, Subject};

/// Turns of one loop between two looks at the clock.
const BATCH: u64 = 20_000;

/// Nanoseconds per turn of the three loops, one number a round.
#[derive(Default)]
struct Turns {
    nothing: Vec<f64>,
    once: Vec<f64>,
    writing: Vec<f64>,
}

fn timed(mut body: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..BATCH {
        body();
    }
    start.elapsed().as_nanos() as f64 / BATCH as f64
}

impl Turns {
    /// One round of all three loops. The subject's address goes through `black_box` at each turn.
    fn round<S: Subject>(&mut self, subject: &S, lines: &Lines) {
        self.nothing.push(timed(|| black_box(subject).nothing()));
        self.once.push(timed(|| black_box(subject).once()));
        self.writing.push(timed(|| black_box(subject).writing(black_box(lines))));
    }

    fn row(self, subject: &impl Subject) -> Alone {
        Alone {
            lock: subject.name().to_owned(),
            lock_unlock_ns: percentile(self.nothing, 50),
            around_count_ns: percentile(self.once, 50),
            around_8_lines_ns: percentile(self.writing, 50),
        }
    }
}

/// The medians over the rounds, measured in turns, so that a disturbance of the machine hits all
/// rows. The first row is the loops without a lock, the second std's mutex.
pub fn measure(rounds: u32) -> Result<Vec<Alone>, String> {
    let (none, standard, parking) = (NoLock::default(), Std::default(), ParkingLot::default());
    let (mutex, biased) = (Ours::mutex(), Ours::biased());
    mutex.begin();
    biased.begin();
    let is_biased = || match biased.stats().map(|stats| stats.mode) {
        Some(LockMode::Biased) => Ok(()),
        mode => Err(format!("the lock cannot be biased here: {}", mode.unwrap_or_default().name())),
    };
    is_biased()?;
    let lines = Lines::new();
    let mut turns: [Turns; 5] = Default::default();
    for _ in 0..rounds {
        turns[0].round(&none, &lines);
        turns[1].round(&standard, &lines);
        turns[2].round(&parking, &lines);
        turns[3].round(&mutex, &lines);
        turns[4].round(&biased, &lines);
    }
    is_biased()?;
    let [of_none, of_standard, of_parking, of_mutex, of_biased] = turns;
    Ok(vec![
        of_none.row(&none),
        of_standard.row(&standard),
        of_parking.row(&parking),
        of_mutex.row(&mutex),
        of_biased.row(&biased),
    ])
}

//! Random schedules over the simulated x86: more threads than loom can take, and the fences as they are.

use crate::trace::{
    Bounds, Depth, Kind, Verdict, begin_execution, explore, has_reported, report, say,
};
use crate::tso::{
    AtomicU64, CtxLock, Fences, Ordering, Steps, ThreadToken, boot, drain_own, set_thread,
};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::sync::Arc;

/// One model, and whether the exploration must find a failure.
pub struct TsoScenario {
    pub name: &'static str,
    pub story: &'static str,
    pub must_fail: bool,
    fences: Fences,
    model: fn(),
}

/// All of them.
pub const TSO_SCENARIOS: [TsoScenario; 4] = [
    TsoScenario {
        name: "owner-one-foreign",
        story: "owner and one foreign locker, store buffers and membarrier",
        must_fail: false,
        fences: Fences::Membarrier,
        model: || crowd(1, false),
    },
    TsoScenario {
        name: "owner-four-foreign",
        story: "one owner, four foreign lockers, policy giving up and taking back",
        must_fail: false,
        fences: Fences::Membarrier,
        model: || crowd(4, false),
    },
    TsoScenario {
        name: "bias-hand-over",
        story: "the same, and everybody makes itself or nobody the owner now and then",
        must_fail: false,
        fences: Fences::Membarrier,
        model: || crowd(4, true),
    },
    TsoScenario {
        name: "fence-of-its-own",
        story: "spoiled on purpose: an ordinary full fence in the place of membarrier",
        must_fail: true,
        fences: Fences::OwnBufferOnly,
        model: || crowd(1, false),
    },
];

/// The executions are the same in every run.
const SEED: u64 = 0x5010_0001;

impl TsoScenario {
    pub fn check(&self, depth: Depth) -> Verdict {
        let executions = depth.executions();
        let (fences, model) = (self.fences, self.model);
        explore(Bounds::Random { executions, seed: SEED }, move || {
            let quarter = executions / 4;
            for steps in [Steps::Prompt, Steps::Lazy] {
                let execution = move || {
                    if has_reported() {
                        return;
                    }
                    begin_execution();
                    boot(fences, steps);
                    model();
                };
                let random = RandomScheduler::new_from_seed(SEED, quarter);
                Runner::new(random, config()).run(execution);
                // Priorities that change at three points: schedules that plain chance hardly finds.
                let priorities = PctScheduler::new_from_seed(SEED, 3, quarter);
                Runner::new(priorities, config()).run(execution);
            }
        })
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(200_000);
    config.silence_warnings = true;
    config
}

/// State that is itself made of buffered words: an increment is lost when the lock's ordering is.
struct State {
    count: AtomicU64,
}

fn count(state: &State) {
    let seen = state.count.load(Ordering::Relaxed);
    state.count.store(seen + 1, Ordering::Relaxed);
}

const NAMES: [&str; 5] = ["owner", "foreign 1", "foreign 2", "foreign 3", "foreign 4"];
const ROUNDS: u64 = 4;

/// The owner and so many foreign lockers, each locking [`ROUNDS`] times.
fn crowd(foreign: usize, hand_over: bool) {
    set_thread(1, NAMES[0]);
    let lock = Arc::new(CtxLock::new(State { count: AtomicU64::new(0) }));
    lock.lock().expect("free").bias_to(token(1));
    let threads: Vec<_> = (1..=foreign)
        .map(|i| {
            let lock = lock.clone();
            shuttle::thread::spawn(move || {
                let id = i as u64 + 1;
                set_thread(id, NAMES[i]);
                let counted = rounds(&lock, id, hand_over);
                drain_own();
                counted
            })
        })
        .collect();
    let mut counted = rounds(&lock, 1, hand_over);
    for thread in threads {
        counted += thread.join().unwrap();
    }
    let found = lock.lock().expect("free").count.load(Ordering::Relaxed);
    if found != counted {
        report(
            Kind::TwoInside,
            format!("{counted} increments were made under the lock, the state has {found}"),
        );
    }
}

fn token(id: u64) -> ThreadToken {
    ThreadToken::from_number(id).expect("numbers start at 1")
}

fn rounds(lock: &CtxLock<State>, id: u64, hand_over: bool) -> u64 {
    let me = NAMES[id as usize - 1];
    let mut counted = 0;
    for _ in 0..ROUNDS {
        let chance = thread_rng().gen_range(0..8);
        let guard = if chance == 0 {
            lock.try_lock().expect("not entered twice")
        } else {
            Some(lock.lock().expect("not entered twice"))
        };
        let Some(mut guard) = guard else { continue };
        say(me, "is inside");
        count(&guard);
        counted += 1;
        match chance {
            1 if hand_over => guard.bias_to(token(id)),
            2 if hand_over => guard.unbias(),
            _ => {}
        }
        say(me, "leaves");
    }
    counted
}

//! Models of the real lock alone: what the table's scenarios do not reach, and that it needs its fences.

use crate::real::{
    BiasWord, CtxLock, Fences, Guard, LockMode, Mode, Reentered, SlotIndex, ThreadToken, Tuned,
    end_of_signals, expect_signal, owner_gone, set_fences, set_gates, set_signal_at, set_thread,
    set_tuning, signal_came,
};
use crate::trace::{Depth, Kind, Verdict, check, forget_steps, say, violate};
use loom::thread::JoinHandle;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// One model, what happens in it, and whether the exploration must find a failure.
pub struct LockScenario {
    pub name: &'static str,
    pub story: &'static str,
    /// The lock is spoiled on purpose here: a checker that passes it is broken.
    pub must_fail: bool,
    /// Preemptions explored, quick and deep: without gates, and with.
    plain: (usize, usize),
    gated: (usize, usize),
    fences: Fences,
    tuned: Tuned,
    /// The model is explored so often, with the owner's signal before another one of its steps each
    /// time; the last step is one that no execution comes to. 0: the model has no signal.
    signal_steps: usize,
    model: fn(),
}

impl LockScenario {
    pub fn check(&self, depth: Depth) -> Verdict {
        let (fences, tuned, model) = (self.fences, self.tuned, self.model);
        let last = self.signal_steps.saturating_sub(1);
        let explore_at = |step, preemptions, gates| {
            check(preemptions, move || {
                set_gates(gates);
                set_fences(fences);
                set_tuning(tuned);
                set_signal_at(step);
                model();
                if step > 0 && step == last && signal_came() {
                    violate(Kind::Other, "the owner takes more steps than were tried".into());
                }
            })
        };
        let explore = |preemptions, gates| {
            let first = explore_at(0, preemptions, gates);
            (1..=last).fold(first, |verdict, step| {
                verdict.and_then(|| explore_at(step, preemptions, gates))
            })
        };
        let gated = depth.of(self.gated);
        explore(depth.of(self.plain), false).and_with_gates(gated, || explore(gated, true))
    }
}

const SOUND: LockScenario = LockScenario {
    name: "",
    story: "",
    must_fail: false,
    plain: (2, 5),
    gated: (2, 3),
    fences: Fences::Both,
    tuned: Tuned::Steady,
    signal_steps: 0,
    model: || {},
};

/// All of them.
pub const LOCK_SCENARIOS: [LockScenario; 15] = [
    LockScenario {
        name: "owner-one-foreign",
        story: "owner and one foreign locker, twice each: exclusion, no lost wake-up",
        model: owner_one_foreign,
        ..SOUND
    },
    LockScenario {
        name: "owner-two-foreign",
        story: "owner and two foreign lockers: exclusion, no lost wake-up",
        plain: (2, 3),
        gated: (1, 3),
        model: owner_two_foreign,
        ..SOUND
    },
    LockScenario {
        name: "revoke-and-return",
        story: "the policy gives the bias up and takes it back while both keep locking",
        tuned: Tuned::Jumpy,
        model: owner_one_foreign,
        ..SOUND
    },
    LockScenario {
        name: "unbias-and-bias",
        story: "a foreign locker unbiases, and biases again, while the owner is on its way in",
        model: unbias_and_bias,
        ..SOUND
    },
    LockScenario {
        name: "hand-over",
        story: "a foreign locker makes itself the owner while the old owner is on its way in",
        model: hand_over,
        ..SOUND
    },
    LockScenario {
        name: "hand-over-third",
        story: "as hand-over, with a foreign locker beside the two owners",
        plain: (1, 3),
        gated: (1, 2),
        model: hand_over_third,
        ..SOUND
    },
    LockScenario {
        name: "owner-hands-over",
        story: "the owner gives the bias to the other thread from inside",
        plain: (1, 4),
        gated: (1, 2),
        model: owner_hands_over,
        ..SOUND
    },
    LockScenario {
        name: "try-lock",
        story: "both only try: whoever gets in is alone, and the owner's path opens again",
        model: try_lock,
        ..SOUND
    },
    LockScenario {
        name: "two-rings",
        story: "two owners lock both rings, named in opposite order",
        model: two_rings,
        ..SOUND
    },
    LockScenario {
        name: "answers-alone",
        story: "no fence at all: a foreign locker goes in only when the owner has answered",
        fences: Fences::OnlyAnswers,
        gated: (2, 4),
        model: answers_alone,
        ..SOUND
    },
    LockScenario {
        name: "numbered-closings",
        story: "the bias word alone: who has read the last closing's number finds the path closed",
        plain: (4, 5),
        gated: (4, 5),
        model: numbered_closings,
        ..SOUND
    },
    LockScenario {
        name: "signal",
        story: "a handler locks, wherever it interrupts the owner: it gets in, or Reentered",
        plain: (1, 2),
        gated: (1, 2),
        signal_steps: 56,
        model: signal,
        ..SOUND
    },
    LockScenario {
        name: "signal-answers",
        story: "no fence at all: a handler of the owner's answers, wherever it interrupts it",
        fences: Fences::OnlyAnswers,
        plain: (1, 3),
        gated: (1, 2),
        signal_steps: 32,
        model: signal_answers,
        ..SOUND
    },
    LockScenario {
        name: "no-light-fence",
        story: "spoiled on purpose: the owner's fence is left out",
        must_fail: true,
        fences: Fences::WithoutLight,
        model: owner_one_foreign,
        ..SOUND
    },
    LockScenario {
        name: "no-heavy-fence",
        story: "spoiled on purpose: the foreign locker's fence is left out",
        must_fail: true,
        fences: Fences::WithoutHeavy,
        model: owner_one_foreign,
        ..SOUND
    },
];

const OWNER: (u64, &str) = (1, "owner");
const FOREIGN: (u64, &str) = (2, "foreign locker");
const SECOND: (u64, &str) = (3, "second foreign locker");

fn token(who: (u64, &'static str)) -> ThreadToken {
    ThreadToken::from_number(who.0).expect("numbers start at 1")
}

/// A lock that is biased to the model's first thread.
fn owned() -> Arc<CtxLock<u64>> {
    set_thread(OWNER.0, OWNER.1);
    let lock = Arc::new(CtxLock::new(0));
    lock.lock().expect("free").bias_to(token(OWNER));
    forget_steps();
    lock
}

fn spawn(who: (u64, &'static str), body: impl FnOnce() + 'static) -> JoinHandle<()> {
    loom::thread::spawn(move || {
        set_thread(who.0, who.1);
        body();
    })
}

fn tell(who: &'static str, mode: Mode) {
    say(
        who,
        match mode {
            Mode::BiasedOwner => "is inside by the biased path",
            Mode::OwnerMutex => "is inside by the mutex, being the owner",
            Mode::BiasedForeign => "is inside, the owner's path closed",
            Mode::Mutex => "is inside by the mutex",
        },
    );
}

/// Locks and counts. What happens inside is checked by the cell that the value is in: loom fails an
/// execution in which two accesses overlap, or are not ordered.
fn count(lock: &CtxLock<u64>, who: (u64, &'static str)) {
    let mut guard = lock.lock().expect("not entered twice");
    tell(who.1, guard.mode());
    *guard += 1;
    say(who.1, "leaves");
}

/// Everybody has joined: so much must have been counted.
fn must_be(lock: &CtxLock<u64>, expected: u64) {
    let found = *lock.lock().expect("free");
    if found != expected {
        violate(
            Kind::TwoInside,
            format!("{expected} increments were made under the lock, the state has {found}"),
        );
    }
}

fn owner_one_foreign() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        count(&theirs, FOREIGN);
        count(&theirs, FOREIGN);
    });
    count(&lock, OWNER);
    count(&lock, OWNER);
    thread.join().unwrap();
    must_be(&lock, 4);
}

fn owner_two_foreign() {
    let lock = owned();
    let threads = [FOREIGN, SECOND].map(|who| {
        let theirs = lock.clone();
        spawn(who, move || count(&theirs, who))
    });
    count(&lock, OWNER);
    for thread in threads {
        thread.join().unwrap();
    }
    must_be(&lock, 3);
}

fn unbias_and_bias() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        theirs.lock().expect("not entered twice").unbias();
        say(FOREIGN.1, "has unbiased the lock");
        let mut guard = theirs.lock().expect("not entered twice");
        *guard += 1;
        guard.bias_to(token(OWNER));
        say(FOREIGN.1, "has biased it again");
    });
    count(&lock, OWNER);
    count(&lock, OWNER);
    thread.join().unwrap();
    must_be(&lock, 3);
    if lock.stats().mode != LockMode::Biased {
        violate(Kind::Other, "the bias did not come back".into());
    }
}

fn hand_over() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        theirs.lock().expect("not entered twice").bias_to(token(FOREIGN));
        say(FOREIGN.1, "is the owner now");
        count(&theirs, FOREIGN);
    });
    count(&lock, OWNER);
    thread.join().unwrap();
    must_be(&lock, 2);
}

fn hand_over_third() {
    let lock = owned();
    let theirs = lock.clone();
    let heir = spawn(FOREIGN, move || {
        theirs.lock().expect("not entered twice").bias_to(token(FOREIGN));
        say(FOREIGN.1, "is the owner now");
        count(&theirs, FOREIGN);
    });
    let theirs = lock.clone();
    let third = spawn(SECOND, move || count(&theirs, SECOND));
    count(&lock, OWNER);
    heir.join().unwrap();
    third.join().unwrap();
    must_be(&lock, 3);
}

fn owner_hands_over() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        count(&theirs, FOREIGN);
        count(&theirs, FOREIGN);
    });
    lock.lock().expect("not entered twice").bias_to(token(FOREIGN));
    say(OWNER.1, "has given the bias away");
    count(&lock, OWNER);
    thread.join().unwrap();
    must_be(&lock, 3);
    if lock.owner() != Some(token(FOREIGN)) {
        violate(Kind::Other, "the bias was not handed over".into());
    }
}

fn try_lock() {
    let lock = owned();
    let theirs = lock.clone();
    let (tell_done, done) = std::sync::mpsc::channel();
    let thread = spawn(FOREIGN, move || {
        for _ in 0..2 {
            if let Some(mut guard) = theirs.try_lock().expect("not entered twice") {
                tell(FOREIGN.1, guard.mode());
                *guard += 1;
                tell_done.send(()).expect("the model still runs");
            }
        }
    });
    let mut mine = 0;
    for _ in 0..2 {
        if let Some(mut guard) = lock.try_lock().expect("not entered twice") {
            tell(OWNER.1, guard.mode());
            *guard += 1;
            mine += 1;
        }
    }
    thread.join().unwrap();
    must_be(&lock, mine + done.try_iter().count() as u64);
    if lock.lock().expect("free").mode() != Mode::BiasedOwner {
        violate(Kind::Other, "the owner's path stayed closed".into());
    }
}

/// The owner only tries, so that it never waits for a foreign locker which waits for it to go.
fn answers_alone() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        count(&theirs, FOREIGN);
        count(&theirs, FOREIGN);
    });
    let mut mine = 0;
    for _ in 0..3 {
        if let Some(mut guard) = lock.try_lock().expect("not entered twice") {
            tell(OWNER.1, guard.mode());
            *guard += 1;
            mine += 1;
        }
    }
    say(OWNER.1, "has gone");
    owner_gone();
    thread.join().unwrap();
    must_be(&lock, mine + 2);
}

/// Without the lock around it, where four preemptions are needed before the number's Acquire shows.
fn numbered_closings() {
    const CLOSINGS: u64 = 3;
    let word = Arc::new(BiasWord::new());
    word.set(token(OWNER), SlotIndex::First);
    let theirs = word.clone();
    let thread = spawn(FOREIGN, move || {
        for _ in 0..CLOSINGS {
            theirs.reopen();
            say(FOREIGN.1, "opens the path");
            theirs.close(theirs.peek());
            theirs.number_closing();
            say(FOREIGN.1, "has closed and numbered it");
        }
    });
    for _ in 0..2 {
        let number = word.last_closing();
        if number.0 == CLOSINGS && !word.peek().is_closed() {
            violate(Kind::TwoInside, "the owner has answered the last closing and walks in".into());
        }
    }
    thread.join().unwrap();
}

/// How often handlers of the owner's got in.
#[derive(Clone, Default)]
struct Handled(Rc<Cell<u64>>);

impl Handled {
    /// What a handler does with a guard, if it gets one.
    fn count(&self, guard: Option<Guard<'_, u64>>) {
        if let Some(mut guard) = guard {
            tell("the handler", guard.mode());
            *guard += 1;
            self.0.set(self.0.get() + 1);
        }
    }
}

fn signal() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        count(&theirs, FOREIGN);
        count(&theirs, FOREIGN);
    });
    let (handled, theirs) = (Handled::default(), lock.clone());
    let by_handler = handled.clone();
    expect_signal(move || match theirs.lock() {
        Ok(guard) => by_handler.count(Some(guard)),
        Err(Reentered) => say("the handler", "is told that its thread is inside"),
    });
    count(&lock, OWNER);
    count(&lock, OWNER);
    end_of_signals();
    thread.join().unwrap();
    must_be(&lock, 4 + handled.0.get());
}

/// As [`answers_alone`].
fn signal_answers() {
    let lock = owned();
    let theirs = lock.clone();
    let thread = spawn(FOREIGN, move || {
        count(&theirs, FOREIGN);
        count(&theirs, FOREIGN);
    });
    let (handled, theirs) = (Handled::default(), lock.clone());
    let by_handler = handled.clone();
    expect_signal(move || by_handler.count(theirs.try_lock().unwrap_or(None)));
    let mut mine = 0;
    for _ in 0..2 {
        if let Some(mut guard) = lock.try_lock().expect("not entered twice") {
            tell(OWNER.1, guard.mode());
            *guard += 1;
            mine += 1;
        }
    }
    end_of_signals();
    say(OWNER.1, "has gone");
    owner_gone();
    thread.join().unwrap();
    must_be(&lock, mine + 2 + handled.0.get());
}

fn two_rings() {
    set_thread(OWNER.0, OWNER.1);
    let rings = Arc::new([CtxLock::new(0u64), CtxLock::new(0)]);
    rings[0].lock().expect("free").bias_to(token(OWNER));
    rings[1].lock().expect("free").bias_to(token(FOREIGN));
    forget_steps();
    let theirs = rings.clone();
    let thread = spawn(FOREIGN, move || {
        let (mut own, mut other) =
            CtxLock::lock_two(&theirs[1], &theirs[0]).expect("not entered twice");
        *own += 1;
        *other += 1;
    });
    let (mut own, mut other) = CtxLock::lock_two(&rings[0], &rings[1]).expect("not entered twice");
    *own += 1;
    *other += 1;
    drop((own, other));
    thread.join().unwrap();
    must_be(&rings[0], 2);
    must_be(&rings[1], 2);
}

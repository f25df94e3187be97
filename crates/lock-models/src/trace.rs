//! Runs one model under loom and tells, in the words of the model, how it failed.

use std::cell::RefCell;
use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// One step of an interleaving: who did what.
pub type Step = (&'static str, String);

/// What must not be, in the order of the letters of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Two threads are inside at once, or see each other's changes half done.
    TwoInside,
    /// The scheme needs a submitter and there is none.
    NullSubmitter,
    /// The scheme uses the submitter's task after it was freed.
    UseAfterFree,
    /// Everybody waits.
    Deadlock,
    /// Anything else, a mistake in a model included.
    Other,
}

impl Kind {
    /// For table cells.
    pub fn name(self) -> &'static str {
        match self {
            Kind::TwoInside => "two inside",
            Kind::NullSubmitter => "null submitter",
            Kind::UseAfterFree => "use after free",
            Kind::Deadlock => "deadlock",
            Kind::Other => "failure",
        }
    }
}

/// A kind and the words for it.
type Violation = (Kind, String);

#[derive(Default)]
struct Run {
    executions: u64,
    steps: Vec<(&'static str, &'static str)>,
    /// What [`report`] said, and the steps up to then.
    reported: Option<(Violation, Vec<(&'static str, &'static str)>)>,
}

thread_local! {
    /// Of the check that runs on this thread. Loom runs all threads of a model on one thread of the
    /// machine, so the steps are in the order of execution.
    static RUN: RefCell<Arc<Mutex<Run>>> = RefCell::default();
}

fn with_run(f: impl FnOnce(&mut Run)) {
    RUN.with_borrow(|run| f(&mut run.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// Notes a step of the model for the report.
pub fn say(who: &'static str, what: &'static str) {
    with_run(|run| run.steps.push((who, what)));
}

/// What happened so far was only preparation and is not for the report.
pub fn forget_steps() {
    with_run(|run| run.steps.clear());
}

/// The model has found what must not be.
pub fn violate(kind: Kind, what: String) -> ! {
    panic::panic_any((kind, what))
}

/// As [`violate`], for models that can go on: the first report of all executions counts.
pub fn report(kind: Kind, what: String) {
    with_run(|run| {
        if run.reported.is_none() {
            run.reported = Some(((kind, what), run.steps.clone()));
        }
    });
}

/// Something has been reported, in this execution or an earlier one.
pub fn has_reported() -> bool {
    let mut reported = false;
    with_run(|run| reported = run.reported.is_some());
    reported
}

/// How far a model is explored.
#[derive(Clone, Copy, Debug)]
pub enum Bounds {
    /// Every execution with at most so many interruptions of a running thread (loom): over the words
    /// as they are, and, if there is a second number, with so many over words with gates (`real::set_gates`).
    Preemptions(usize, Option<usize>),
    /// So many random executions from this seed (shuttle).
    Random { executions: usize, seed: u64 },
}

/// How long the exploration may take: seconds, or minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    Quick,
    Deep,
}

impl Depth {
    /// The first of the two, or the second.
    pub fn of(self, (quick, deep): (usize, usize)) -> usize {
        match self {
            Depth::Quick => quick,
            Depth::Deep => deep,
        }
    }

    /// For a random model.
    pub fn executions(self) -> usize {
        match self {
            Depth::Quick => 800,
            Depth::Deep => 100_000,
        }
    }
}

/// What the exploration came to.
#[derive(Debug)]
pub struct Verdict {
    /// Executions looked at, the failing one included.
    pub executions: u64,
    pub bounds: Bounds,
    pub elapsed: Duration,
    pub failure: Option<Failure>,
}

/// The first execution that went wrong.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub what: String,
    pub steps: Vec<Step>,
}

impl Verdict {
    /// This exploration, and if it has found nothing, another one of the same model with gates.
    pub fn and_with_gates(self, preemptions: usize, explore: impl FnOnce() -> Verdict) -> Verdict {
        let Bounds::Preemptions(plain, _) = self.bounds else { return self };
        if self.failure.is_some() {
            return self;
        }
        let gated = explore();
        Verdict {
            executions: self.executions + gated.executions,
            bounds: Bounds::Preemptions(plain, Some(preemptions)),
            elapsed: self.elapsed + gated.elapsed,
            failure: gated.failure,
        }
    }

    /// This exploration, and if it has found nothing, another one of the same model within the same
    /// bounds.
    pub fn and_then(self, explore: impl FnOnce() -> Verdict) -> Verdict {
        if self.failure.is_some() {
            return self;
        }
        let next = explore();
        Verdict {
            executions: self.executions + next.executions,
            bounds: self.bounds,
            elapsed: self.elapsed + next.elapsed,
            failure: next.failure,
        }
    }

    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// Explores `model` under loom: every execution within so many preemptions.
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> Verdict {
    explore(Bounds::Preemptions(preemptions, None), move || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 10_000;
        builder.check(move || {
            begin_execution();
            model();
        });
    })
}

/// To be called at the start of each execution.
pub fn begin_execution() {
    with_run(|run| {
        run.executions += 1;
        run.steps.clear();
    });
}

/// Runs the explorer `body` on a thread of its own: loom's and shuttle's state does not survive a
/// failed execution.
pub fn explore(bounds: Bounds, body: impl FnOnce() + Send + 'static) -> Verdict {
    quiet_model_panics();
    let run = Arc::<Mutex<Run>>::default();
    let start = Instant::now();
    let theirs = run.clone();
    let result = std::thread::Builder::new()
        .name(MODEL_THREAD.into())
        .spawn(move || {
            RUN.set(theirs);
            body();
        })
        .expect("a thread for the model")
        .join();
    let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = std::mem::take(&mut run.steps);
    let panicked = result.err().map(|payload| (in_words(&*payload), steps));
    let failure = run.reported.take().or(panicked).map(|((kind, what), steps)| Failure {
        kind,
        what,
        steps: steps.into_iter().map(|(who, what)| (who, what.to_string())).collect(),
    });
    Verdict { executions: run.executions, bounds, elapsed: start.elapsed(), failure }
}

fn in_words(payload: &(dyn std::any::Any + Send)) -> Violation {
    if let Some(violation) = payload.downcast_ref::<Violation>() {
        return violation.clone();
    }
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
        .unwrap_or_else(|| "the model panicked".into());
    let text = text.lines().next().unwrap_or_default();
    if text.starts_with("deadlock") {
        return (Kind::Deadlock, "everybody waits and nobody can go on".into());
    }
    if text.contains("Causality violation") {
        let what = "two threads reach the ring state with nothing that orders them";
        return (Kind::TwoInside, what.into());
    }
    (Kind::Other, text.to_string())
}

const MODEL_THREAD: &str = "lock-model";

/// A failing model is a result here, not a crash to be printed.
fn quiet_model_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        // Shuttle puts a hook of its own in place at its first execution, which prints. Let it do so now
        // and put ours over it.
        shuttle::check_random(|| {}, 1);
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(MODEL_THREAD) {
                before(info);
            }
        }));
    });
}

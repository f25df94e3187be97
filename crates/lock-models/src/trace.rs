//! Runs one model under loom and tells, in the words of the model, how it failed.

use std::cell::RefCell;
use std::panic;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// One step of an interleaving: who did what.
pub type Step = (&'static str, String);

#[derive(Default)]
struct Run {
    executions: u64,
    steps: Vec<(&'static str, &'static str)>,
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
pub fn violate(what: String) -> ! {
    panic::panic_any(what)
}

/// How far a model is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How often a running thread may be interrupted per execution; `None`: no bound, every interleaving.
    pub preemptions_max: Option<usize>,
}

/// How long the exploration may take: seconds, or minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    Quick,
    Deep,
}

impl Depth {
    /// For a model of so many threads.
    pub fn bounds(self, threads: usize) -> Bounds {
        let preemptions = match (self, threads) {
            (Depth::Quick, ..=2) => 3,
            (Depth::Quick, _) => 2,
            (Depth::Deep, ..=2) => 5,
            (Depth::Deep, _) => 3,
        };
        Bounds { preemptions_max: Some(preemptions) }
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
    pub what: String,
    pub steps: Vec<Step>,
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// Explores `model`, on a thread of its own: loom's state does not survive a failed execution.
pub fn check(bounds: Bounds, model: impl Fn() + Send + Sync + 'static) -> Verdict {
    quiet_model_panics();
    let run = Arc::<Mutex<Run>>::default();
    let start = Instant::now();
    let theirs = run.clone();
    let result = std::thread::Builder::new()
        .name(MODEL_THREAD.into())
        .spawn(move || {
            RUN.set(theirs);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = bounds.preemptions_max;
            builder.max_branches = 10_000;
            builder.check(move || {
                with_run(|run| {
                    run.executions += 1;
                    run.steps.clear();
                });
                model();
            });
        })
        .expect("a thread for the model")
        .join();
    let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = std::mem::take(&mut run.steps);
    let failure = result.err().map(|payload| Failure {
        what: in_words(&*payload),
        steps: steps.into_iter().map(|(who, what)| (who, what.to_string())).collect(),
    });
    Verdict { executions: run.executions, bounds, elapsed: start.elapsed(), failure }
}

fn in_words(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
        .unwrap_or_else(|| "the model panicked".into());
    let text = text.lines().next().unwrap_or_default().to_string();
    if text.starts_with("deadlock") {
        return "deadlock: everybody waits and nobody can go on".into();
    }
    if text.contains("maximum number of branches") {
        return "livelock: the execution does not end".into();
    }
    if text.starts_with("Causality violation") {
        return format!("two threads reach the ring state with nothing between them ({text})");
    }
    text
}

const MODEL_THREAD: &str = "lock-model";

/// A failing model is a result here, not a crash to be printed.
fn quiet_model_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some(MODEL_THREAD) {
                before(info);
            }
        }));
    });
}

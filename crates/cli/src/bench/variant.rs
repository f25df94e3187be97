//! The variants that are compared, and the worker process behind each.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::work::{Answer, Order};
use super::worker::Via;
use crate::{launch, stats};

/// Far above what any order takes: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);
/// The environment variable that chooses the ring lock's mode.
const LOCK_MODE: &str = "SOLORING_LOCK";

/// Whose ring serves the variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Our engine, called in the worker.
    InProcess,
    /// Our engine, the worker's system calls caught by `soloring run`.
    Run,
    Kernel,
    /// None.
    Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Key in the JSON and head of the column.
    pub name: &'static str,
    pub side: Side,
    pub via: Via,
    pub deferred: bool,
    pub mutex: bool,
}

const fn variant(name: &'static str, side: Side, via: Via, deferred: bool) -> Variant {
    Variant { name, side, via, deferred, mutex: false }
}

/// SINGLE_ISSUER|DEFER_TASKRUN is "SD" in the names.
pub const ALL: [Variant; 8] = [
    variant("ours SD", Side::InProcess, Via::Engine, true),
    variant("ours", Side::InProcess, Via::Engine, false),
    variant("run libc SD", Side::Run, Via::Libc, true),
    variant("run inline SD", Side::Run, Via::Inline, true),
    variant("kernel SD", Side::Kernel, Via::Inline, true),
    variant("kernel", Side::Kernel, Via::Inline, false),
    variant("plain calls", Side::Plain, Via::Plain, false),
    Variant { mutex: true, ..variant("ours SD mutex", Side::InProcess, Via::Engine, true) },
];

/// A running worker.
pub struct Worker {
    pub variant: Variant,
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    stats: Option<PathBuf>,
    /// Ring requests that it said it finished.
    requests: u64,
}

impl Worker {
    /// Starts a worker; what it leaves behind goes to `dir`.
    pub fn start(variant: Variant, dir: &Path) -> Result<Worker> {
        let mut args = vec!["__bench-worker", "--via", variant.via.name()];
        if variant.deferred {
            args.push("--deferred");
        }
        let stats =
            (variant.side == Side::Run).then(|| dir.join(format!("stats {}", variant.name)));
        let mut command: Command = match &stats {
            Some(stats) => launch::under_run(&args, stats)?,
            None => launch::plain(&args)?,
        };
        command.env_remove(LOCK_MODE);
        if variant.mutex {
            command.env(LOCK_MODE, "mutex");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the worker")?;
        let stdout = child.stdout.take().context("the worker has no standard output")?;
        let (tell, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let orders = child.stdin.take();
        Ok(Worker { variant, child, orders, answers, stats, requests: 0 })
    }

    /// Has the worker do one thing.
    ///
    /// # Errors
    /// The worker died, hung (it is killed), failed, or did its work on a ring that is not the variant's.
    pub fn order(&mut self, order: &Order) -> Result<Answer> {
        self.try_order(order).with_context(|| format!("{:?}", order.work))
    }

    fn try_order(&mut self, order: &Order) -> Result<Answer> {
        let orders = self.orders.as_mut().context("the worker has ended")?;
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        orders.write_all(line.as_bytes()).context("the worker has ended")?;
        let line = match self.answers.recv_timeout(LIMIT) {
            Ok(line) => line?,
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill()?;
                bail!("no answer within {} s", LIMIT.as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the worker died: {}", self.child.wait()?),
        };
        let answer: Answer =
            serde_json::from_str(&line).with_context(|| format!("the worker said: {line}"))?;
        let (requests, engine) = match &answer {
            Answer::Sample(sample) => (sample.requests, sample.engine_requests),
            Answer::Memory(memory) => (0, memory.engine_requests),
            Answer::Lock(_) => (0, 0),
            Answer::Failed { why, .. } => bail!("{why}"),
        };
        match self.variant.side {
            Side::InProcess if engine < requests => {
                bail!("{requests} requests finished, but our engine counted {engine}");
            }
            Side::Kernel | Side::Run | Side::Plain if engine != 0 => {
                bail!("our engine in the worker counted {engine} requests, and should have none");
            }
            _ => {}
        }
        match &answer {
            Answer::Sample(sample)
                if self.variant.mutex && (sample.lock_elided > 0 || sample.lock_taken == 0) =>
            {
                bail!("the ring lock was not a mutex: {sample:?}");
            }
            _ => {}
        }
        self.requests += requests;
        Ok(answer)
    }

    /// Lets the worker end, and looks whether a worker under `run` did its work on our ring.
    pub fn finish(mut self) -> Result<()> {
        drop(self.orders.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the worker failed: {status}");
        }
        if let Some(path) = &self.stats {
            let counted = stats::read(path)?.ops;
            if counted < self.requests {
                bail!("{} requests finished, but soloring counted {counted}", self.requests);
            }
        }
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After `finish` the child is reaped and this does nothing.
        drop(self.orders.take());
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

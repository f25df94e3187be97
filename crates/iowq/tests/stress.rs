//! A hundred thousand small works from several threads, cancelled at random.
//!
//! Each gets exactly one callback, and the outcome of a cancel agrees with it.
#![allow(unsafe_code)]

use soloring_iowq::{CancelOutcome, Class, Config, Interrupt, Ticket, Work, Wq};
use std::sync::Arc;
// SeqCst: each access of a word pairs with all others of the test's words, which are to have one order.
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use syscalls::{Errno, Sysno, syscall};

const WORKS: u32 = 100_000;
const THREADS: u32 = 2;
/// Works that are queued and have not ended.
const AHEAD_MAX: u32 = 32;
/// Works that a thread means to cancel later.
const LATER_MAX: usize = 4;
const HASHES: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(120);

const RAN: u8 = 1;
const INTERRUPTED: u8 = 2;
const CANCELLED: u8 = 3;

struct Board {
    /// How each work ended; 0 while it has not.
    ends: Vec<AtomicU8>,
    ended: AtomicU32,
    hash_busy: [AtomicU32; HASHES as usize],
    /// Of each thread that queues, and for each hash: the last of its works that ran.
    hash_last: Vec<AtomicU32>,
}

impl Board {
    fn end(&self, id: u32, how: u8) {
        let former = self.ends[id as usize].swap(how, SeqCst);
        assert_eq!(former, 0, "work {id} ended as {former} and again as {how}");
        self.ended.fetch_add(1, SeqCst);
    }
}

struct Job {
    id: u32,
    hash: Option<u64>,
    nap_ns: u32,
    board: Arc<Board>,
}

impl Job {
    /// Sleeps like a request that blocks; true when a cancel ended it.
    fn nap(&self, interrupt: &Interrupt) -> bool {
        let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(self.nap_ns) };
        // SAFETY: the timespec is live for the call, which is not asked for the rest.
        match unsafe { syscall!(Sysno::nanosleep, &raw const time, 0) } {
            Ok(_) => false,
            Err(Errno::EINTR) => {
                assert!(interrupt.cancelled(), "work {}: a signal without a cancel", self.id);
                true
            }
            Err(e) => panic!("nanosleep: {e}"),
        }
    }
}

impl Work for Job {
    fn run(self: Box<Self>, interrupt: &Interrupt) {
        if let Some(hash) = self.hash {
            let busy = &self.board.hash_busy[hash as usize];
            assert_eq!(busy.swap(1, SeqCst), 0, "two works with hash {hash} at once");
            let queued_by = self.id % THREADS;
            let last = &self.board.hash_last[(queued_by * HASHES as u32) as usize + hash as usize];
            assert!(last.swap(self.id + 1, SeqCst) <= self.id, "hash {hash} out of order");
        }
        let interrupted = self.nap_ns > 0 && self.nap(interrupt);
        if let Some(hash) = self.hash {
            self.board.hash_busy[hash as usize].store(0, SeqCst);
        }
        self.board.end(self.id, if interrupted { INTERRUPTED } else { RAN });
    }
    fn cancelled(self: Box<Self>) {
        self.board.end(self.id, CANCELLED);
    }
    fn failed(self: Box<Self>, errno: i32) {
        panic!("work {}: no worker, errno {errno}", self.id);
    }
}

/// splitmix64: the same works in every run; the schedule is what varies.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What cancels found, by outcome.
#[derive(Default)]
struct Tally {
    removed: AtomicU64,
    running: AtomicU64,
    not_found: AtomicU64,
}

fn cancel(wq: &Wq, board: &Board, id: u32, ticket: Ticket, tally: &Tally) {
    let outcome = wq.cancel(ticket);
    let end = board.ends[id as usize].load(SeqCst);
    match outcome {
        CancelOutcome::Removed => {
            assert_eq!(end, CANCELLED, "work {id} was removed");
            tally.removed.fetch_add(1, SeqCst);
        }
        // It may have ended meanwhile, in any way.
        CancelOutcome::Running => _ = tally.running.fetch_add(1, SeqCst),
        CancelOutcome::NotFound => {
            // A shutdown takes all out first and calls them back one after the other.
            assert!(end != 0 || wq.is_shut_down(), "work {id} was not found, and had not ended");
            tally.not_found.fetch_add(1, SeqCst);
        }
    }
}

/// Queues this thread's share, and cancels about a third of it: at once, or some works later.
fn drive(wq: &Wq, board: &Arc<Board>, thread: u32, works: u32, tally: &Tally) {
    let mut random = Random(u64::from(thread) + 1);
    let mut later: Vec<(u32, Ticket)> = Vec::new();
    let started = Instant::now();
    for id in (thread..works).step_by(THREADS as usize) {
        // Not so far ahead of the workers that every cancel finds its work still queued.
        while id.saturating_sub(board.ended.load(SeqCst)) > AHEAD_MAX {
            assert!(started.elapsed() < PATIENCE, "works are missing: {:?}", wq.stats());
            std::thread::yield_now();
        }
        let hash = (random.below(3) == 0).then(|| random.below(HASHES));
        let class = if random.below(2) == 0 { Class::Bounded } else { Class::Unbounded };
        let nap_ns = if random.below(16) == 0 { random.below(200_000) as u32 + 1 } else { 0 };
        let work = Box::new(Job { id, hash, nap_ns, board: Arc::clone(board) });
        let ticket = wq.queue(work, class, hash);
        match random.below(6) {
            0 => cancel(wq, board, id, ticket, tally),
            1 => later.push((id, ticket)),
            _ => {}
        }
        if later.len() > LATER_MAX {
            let (id, ticket) = later.swap_remove(random.below(later.len() as u64) as usize);
            cancel(wq, board, id, ticket, tally);
        }
    }
}

fn board(works: u32) -> Arc<Board> {
    Arc::new(Board {
        ends: (0..works).map(|_| AtomicU8::new(0)).collect(),
        ended: AtomicU32::new(0),
        hash_busy: Default::default(),
        hash_last: (0..THREADS * HASHES as u32).map(|_| AtomicU32::new(0)).collect(),
    })
}

fn wait_for_all(wq: &Wq, board: &Board, works: u32) {
    let deadline = Instant::now() + PATIENCE;
    while board.ended.load(SeqCst) < works {
        assert!(Instant::now() < deadline, "works are missing: {:?}", wq.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    let open = board.ends.iter().filter(|end| end.load(SeqCst) == 0).count();
    assert_eq!((open, board.ended.load(SeqCst)), (0, works));
    assert_eq!(wq.stats().panics, 0, "an assertion in a work failed");
}

fn count(board: &Board, how: u8) -> usize {
    board.ends.iter().filter(|end| end.load(SeqCst) == how).count()
}

#[test]
fn every_work_ends_once_whatever_is_cancelled() {
    let wq = Wq::new(Config { limit: [4, 8], idle_timeout: Duration::from_millis(2) });
    let board = board(WORKS);
    let tally = Tally::default();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (wq, board, tally) = (&wq, &board, &tally);
            scope.spawn(move || drive(wq, board, thread, WORKS, tally));
        }
    });
    wait_for_all(&wq, &board, WORKS);
    let stats = wq.stats();
    assert_eq!((stats.ready, stats.behind_hash, stats.queued), ([0, 0], 0, u64::from(WORKS)));
    let found = [&tally.removed, &tally.running, &tally.not_found].map(|n| n.load(SeqCst));
    let ends = [RAN, INTERRUPTED, CANCELLED].map(|how| count(&board, how));
    println!("cancels: removed, running, not found {found:?}");
    println!("ends: ran, interrupted, cancelled {ends:?}; {stats:?}");
    // A run in which nothing was cancelled would prove nothing.
    assert!(found.iter().chain(&ends.map(|n| n as u64)).all(|&n| n > 0));
    assert!(ends[2] as u64 >= found[0]);
}

#[test]
fn every_work_ends_once_when_the_pool_is_shut_down_under_way() {
    const ROUNDS: u32 = 20;
    for _ in 0..ROUNDS {
        let works = WORKS / 10 / ROUNDS;
        let wq = Wq::new(Config { limit: [2, 4], idle_timeout: Duration::from_millis(2) });
        let board = board(works);
        let tally = Tally::default();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (wq, board, tally) = (&wq, &board, &tally);
                scope.spawn(move || drive(wq, board, thread, works, tally));
            }
            while board.ended.load(SeqCst) < works / 3 {
                std::thread::yield_now();
            }
            wq.shutdown(true);
        });
        wait_for_all(&wq, &board, works);
        assert!(count(&board, CANCELLED) > 0);
    }
}

//! Differences that are known and reasoned: what is timing only, and what README.md says of purpose.
//!
//! Each has a name, which the fuzzer prints with its number, and a rule that looks at the whole batch.

use super::mismatch::Outcome;
use soloring_abi::{Opcode, Sqe, sqe_flags};

/// What one batch came to on both sides.
pub struct Seen<'a> {
    pub batch: &'a [Sqe],
    pub ours: &'a Outcome,
    pub theirs: &'a Outcome,
    /// The part of the outcomes that differs first; parts are: the submission, one per entry, others.
    pub at: usize,
    /// The world has drained requests.
    pub drained: bool,
    /// The CQ has hardly any room.
    pub full: bool,
}

type Rule = fn(&Seen) -> bool;

/// The exceptions, by name.
pub const EXCUSED: &[(&str, Rule)] = &[
    (
        "what is linked behind a work is carried out by the kernel's worker (README)",
        linked_behind_work,
    ),
    ("works of one submission run at once", works_race),
    ("a work is cancelled as it begins", cancelled_work),
    ("how long requests are held up behind what is drained", held_up),
    ("a silent request that was held up races with the cancellation", late_and_silent),
    ("a time is read from where another entry of its submission writes", time_overwritten),
    ("a limit expires beside its request", limit_beside),
    ("how much a request that repeats does in one turn, where completions do not fit", turn),
];

impl Seen<'_> {
    fn entry(&self) -> Option<&Sqe> {
        self.batch.get(self.at.checked_sub(1)?)
    }

    fn results(&self, i: usize) -> (&str, &str) {
        (&self.theirs.parts[i + 1].1, &self.ours.parts[i + 1].1)
    }
}

fn is(s: &Sqe, opcodes: &[Opcode]) -> bool {
    opcodes.iter().any(|o| *o as u8 == s.opcode)
}

const LINKS: u8 = sqe_flags::IO_LINK | sqe_flags::IO_HARDLINK;

/// Where a request completes on a worker, the kernel's goes on with what is linked behind it, which then may block instead of
/// waiting for readiness, gives -EAGAIN where it has no such form, and as a cancellation finds itself.
fn linked_behind_work(seen: &Seen) -> bool {
    let Some(i) = seen.at.checked_sub(1).filter(|i| *i < seen.batch.len()) else { return false };
    let chain = seen.batch[..i].iter().rev().take_while(|s| s.flags & LINKS != 0);
    let worked = chain.filter(|s| is_work(s)).count() > 0;
    worked && (seen.results(i).1 == "waited" || seen.results(i) == ("-EALREADY", "-ENOENT"))
}

/// A work is cancelled that has begun on one side, on a worker that was there already.
fn cancelled_work(seen: &Seen) -> bool {
    let cancels = |s: &Sqe| is(s, &[Opcode::AsyncCancel]);
    let Some(s) = seen.entry() else { return false };
    // A directory, for one, is refused at once here; the kernel has a worker find that out.
    let refused = is_transfer(s) && seen.results(seen.at - 1).0 == "-ECANCELED";
    let work = (is_work(s) || cancels(s)) && seen.batch.iter().any(is_work);
    (work || refused) && seen.batch.iter().any(cancels)
}

fn is_transfer(s: &Sqe) -> bool {
    use Opcode as O;
    let reads = [O::Read, O::Readv, O::ReadFixed, O::ReadvFixed];
    is(s, &reads) || is(s, &[O::Write, O::Writev, O::WriteFixed, O::WritevFixed])
}

/// A time is read before or after something else is read into its place.
fn time_overwritten(seen: &Seen) -> bool {
    let timed = |s: &Sqe| is(s, &[Opcode::Timeout, Opcode::LinkTimeout]);
    let before = &seen.batch[..seen.at.saturating_sub(1).min(seen.batch.len())];
    seen.entry().is_some_and(timed) && before.iter().any(is_transfer)
}

/// The time of a LINK_TIMEOUT is over while its request, which a worker has, ends.
fn limit_beside(seen: &Seen) -> bool {
    let ends = ["-ENOENT", "-ECANCELED", "-ETIME", "-EALREADY"];
    let Some(s) = seen.entry() else { return false };
    let (theirs, ours) = seen.results(seen.at - 1);
    is(s, &[Opcode::LinkTimeout]) && ends.contains(&theirs) && ends.contains(&ours)
}

/// A completion that does not fit ends the request; ours reads on while there is something, the kernel after each look
/// at the file.
fn turn(seen: &Seen) -> bool {
    let repeats = [Opcode::ReadMultishot, Opcode::PollAdd, Opcode::Recv, Opcode::Recvmsg];
    seen.full && seen.entry().is_some_and(|s| is(s, &repeats))
}

/// How long a drained request holds up those behind it depends, in the kernel, on when failed ones before it are let go.
fn held_up(seen: &Seen) -> bool {
    let Some(i) = seen.at.checked_sub(1).filter(|i| *i < seen.batch.len()) else { return false };
    // Or on whether that one was done before they came, behind one that waits on both sides.
    let both = ("waited", "waited");
    let behind = (0..i).any(|earlier| seen.results(earlier) == both);
    let (theirs, ours) = seen.results(i);
    seen.drained && i > 0 && (theirs == "waited" || behind && ours == "waited")
}

/// What was held up until the cancellation, and then raced with it, says nothing of its success.
fn late_and_silent(seen: &Seen) -> bool {
    let Some(s) = seen.entry() else { return false };
    let pair = seen.results(seen.at - 1);
    s.flags & sqe_flags::CQE_SKIP_SUCCESS != 0 && [("", "waited"), ("waited", "")].contains(&pair)
}

/// Operations that workers do, and that see what others of them do.
pub fn is_work(s: &Sqe) -> bool {
    use Opcode as O;
    let paths = [O::Renameat, O::Linkat, O::Symlinkat, O::Unlinkat, O::Mkdirat];
    let others = [O::Openat, O::Openat2, O::Statx, O::Setxattr, O::Fsetxattr, O::Getxattr];
    let rest = [O::Fgetxattr, O::Fallocate, O::Ftruncate, O::Splice, O::Tee];
    let data = [O::Fsync, O::SyncFileRange, O::Fadvise, O::Madvise, O::Close, O::Shutdown];
    let known = [&paths[..], &others, &rest, &data].iter().any(|of| is(s, of));
    known || s.flags & sqe_flags::ASYNC != 0
}

/// Works in different chains: the same results, in another order.
fn works_race(seen: &Seen) -> bool {
    let mut chain = 0;
    let mut works = Vec::new();
    for (i, s) in seen.batch.iter().enumerate() {
        if is_work(s) {
            works.push((chain, i));
        }
        chain += (s.flags & LINKS == 0) as usize;
    }
    let [first, .., last] = works[..] else { return false };
    let (mut theirs, mut ours): (Vec<_>, Vec<_>) =
        works.iter().map(|(_, i)| seen.results(*i)).unzip();
    theirs.sort();
    ours.sort();
    first.0 != last.0 && seen.entry().is_some_and(is_work) && theirs == ours
}

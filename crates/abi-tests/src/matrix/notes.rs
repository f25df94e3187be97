//! Why a cell of the matrix differs from the kernel's. A difference without a reason fails the test.

const SERIES: &str = "follows the series: SQPOLL clears SINGLE_ISSUER, visibly in the params";
const IOWQ: &str =
    "the kernel's workers belong to the task, which has none yet; ours belong to the ring";
const RING_FDS: &str = "the kernel counts nothing for a task that never used a ring";
const PERSONALITY: &str = "refused: a thread's credentials are not ours to change";
const TWO_SUBMITTERS: &str =
    "the child submits for itself, and the SQ thread of its parent as well: who is first differs";
const CLONE: &str =
    "the kernel refuses another address space; here the child has copies of buffers and ring alike";

/// Stands between the answers of a cell that has several.
const OR: &str = " or ";

/// All answers of a cell that does not always give the same, when `said` is one of them. These are
/// defects: a cell leaves this list when it is mended.
pub fn with_alternatives(flags: &str, caller: &str, action: &str, said: String) -> String {
    let all: &[&str] = match action {
        _ if !flags.starts_with("SQPOLL") || caller != "other process" => &[],
        "enter: submit" | "enter: submit and wait" => &["ok 1", "ok"],
        "msg_ring: out of it, data" | "msg_ring: out of it, file" => {
            &["EBADF", "ok", "no completion (-5000)"]
        }
        _ => &[],
    };
    if all.contains(&&*said) { all.join(OR) } else { said }
}

/// The reason, or an empty string where there is none.
pub fn note(flags: &str, caller: &str, action: &str, kernel: &str, ours: &str) -> &'static str {
    let stranger = caller != "submitter";
    if ours.contains(OR) {
        return TWO_SUBMITTERS;
    }
    if flags == "SQPOLL|SINGLE_ISSUER" {
        let given_back = action == "setup: flags given back" && ours == "SQPOLL";
        if given_back || (stranger && kernel == "EEXIST" && ours != "EEXIST") {
            return SERIES;
        }
    }
    match (action, kernel, ours) {
        ("register: iowq affinity", "EINVAL", "ok") if stranger => IOWQ,
        ("unregister: ring fds", "ok", "ok 1") if stranger => RING_FDS,
        ("register: personality", "ok 1", "EINVAL") => PERSONALITY,
        (_, "EINVAL", "ok") if caller == "other process" && action.starts_with("clone: ") => CLONE,
        _ => "",
    }
}

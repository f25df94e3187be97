//! Why a cell of the matrix differs from the kernel's. A difference without a reason fails the test.

const SERIES: &str = "follows the series: SQPOLL clears SINGLE_ISSUER, visibly in the params";
const IOWQ: &str =
    "the kernel's workers belong to the task, which has none yet; ours belong to the ring";
const RING_FDS: &str = "the kernel counts nothing for a task that never used a ring";
const CLONE: &str =
    "the kernel refuses another address space; here the child has copies of buffers and ring alike";

/// The reason, or an empty string where there is none.
pub fn note(flags: &str, caller: &str, action: &str, kernel: &str, ours: &str) -> &'static str {
    let stranger = caller != "submitter";
    if flags == "SQPOLL|SINGLE_ISSUER" {
        let given_back = action == "setup: flags given back" && ours == "SQPOLL";
        if given_back || (stranger && kernel == "EEXIST" && ours != "EEXIST") {
            return SERIES;
        }
    }
    match (action, kernel, ours) {
        ("register: iowq affinity", "EINVAL", "ok") if stranger => IOWQ,
        ("unregister: ring fds", "ok", "ok 1") if stranger => RING_FDS,
        (_, "EINVAL", "ok") if caller == "other process" && action.starts_with("clone: ") => CLONE,
        _ => "",
    }
}

#!/usr/bin/env bash
# Runs the stress of the rings, and the ABI cases in which several threads or rings meet, under ThreadSanitizer:
# every access to the state behind the ring lock is checked.
#
#   scripts/sanitize.sh [SECONDS]        the length of the stress, 30 unless told
#
# First it shows that it would notice: the same program with one promise of the lock taken away at a time
# must be reported (crates/lock/src/words.rs), and so must races beside each means of the standard library that
# the sanitizer is told about (std_edges). Then the sound programs must run through without
# a report. LOCKING.md says what is suppressed, why, and what this cannot see.
#
# Exits with 1 when something was found or a spoiled program was not, with 2 if something is missing. Needs
# an x86-64 Linux, Rust from rustup (any toolchain: the stable one is told to accept the sanitizer's flags), a C
# compiler and binutils; installs nothing. Works in target/sanitize/, about two minutes to build.
set -u -o pipefail

seconds=${1:-30}
cd "$(dirname "$0")/.." || exit 2
work=$PWD/target/sanitize
target=x86_64-unknown-linux-gnu
failures=0

say() { printf '%s\n' "$*"; }
missing() { printf 'sanitize.sh: %s\n' "$*" >&2; exit 2; }
fail() { printf 'FAILED   %s\n' "$*"; failures=$((failures + 1)); }

[[ $seconds =~ ^[1-9][0-9]*$ ]] || missing "not a number of seconds: $seconds"
[ "$(uname -sm)" = 'Linux x86_64' ] || missing 'ThreadSanitizer is set up for x86-64 Linux only'
for tool in cargo rustc cc readelf; do
    command -v "$tool" >/dev/null || missing "$tool is missing"
done
library=$(rustc --print sysroot)/lib/rustlib/$target/lib
compgen -G "$library/librustc-*_rt.tsan.a" >/dev/null ||
    missing 'this Rust comes without the sanitizer: install one with rustup'
mkdir -p "$work" || exit 2

# What the sanitizer is told of the standard library --------------------------------------------

readelf -sW "$library"/libstd-*.rlib 2>/dev/null |
    awk '$4 == "FUNC" && $5 == "GLOBAL" && $7 != "UND" { print $8 }' | sort -u >"$work/symbols"

# symbol PATTERN: the one function of the standard library whose mangled name matches.
symbol() {
    local found
    found=$(grep -E -- "$1" "$work/symbols") && [ "$(wc -l <<<"$found")" = 1 ] ||
        missing "this Rust's standard library is not as std_sync.c knows it: no single symbol $1"
    printf '%s' "$found"
}

wrapped=(__tsan_atomic64_fetch_sub __tsan_atomic_thread_fence)
defines=()
while read -r name pattern; do
    found=$(symbol "$pattern") || exit 2
    wrapped+=("$found")
    defines+=("-D$name=$found")
done <<'END'
LOCK_CONTENDED sync5mutex5futex.*Mutex14lock_contended
READ_CONTENDED sync6rwlock5futex.*RwLock14read_contended
WRITE_CONTENDED sync6rwlock5futex.*RwLock15write_contended
ONCE_CALL sync4once5futex.*Once4call
SCOPE_DECREMENT thread6scoped.*ScopeData29decrement_num_running_threads
END
# Named by its contents: cargo links anew only when the flags change.
object=$work/std_sync-$(cksum <scripts/sanitize/std_sync.c | cut -d' ' -f1).o
cc -O1 -Wall -Wextra -Werror "${defines[@]}" -c scripts/sanitize/std_sync.c -o "$object" ||
    missing 'scripts/sanitize/std_sync.c does not compile'

# Build ------------------------------------------------------------------------------------------

# The standard library has no sanitizer in it, which the compiler has to be told is meant.
flags=(-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg soloring_sanitize "-Clink-arg=$object")
for name in "${wrapped[@]}"; do
    flags+=("-Clink-arg=-Wl,--wrap=$name")
done
export RUSTC_BOOTSTRAP=1

say "ThreadSanitizer of $(rustc --version)"
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
export CARGO_TARGET_DIR=$work CARGO_ENCODED_RUSTFLAGS
abi_tests=(--release --quiet --target $target --package soloring-abi-tests)
cargo build "${abi_tests[@]}" --bin stress --bin std_edges && cargo test "${abi_tests[@]}" --test abi --no-run ||
    missing 'it does not build'
stress=$work/$target/release/stress
std_edges=$work/$target/release/std_edges

# Run --------------------------------------------------------------------------------------------

# Histories of earlier accesses as long as can be had: a report names both sides.
options="history_size=7 print_suppressions=1 suppressions='$PWD/scripts/sanitize/suppressions.txt'"

# sanitized HALT COMMAND...: runs it with its reports in $work/reports; HALT: end at the first (1) or not (0).
sanitized() {
    TSAN_OPTIONS="$options halt_on_error=$1" timeout $((seconds + 240)) "${@:2}" \
        >"$work/output" 2>"$work/reports"
}

# cases FAMILY: the same for ABI cases on our ring, each of which is a process of its own, forked from a single
# thread: only then the sanitizer goes on in the child.
cases() {
    local status=0
    rm -f "$work"/case.*
    TSAN_OPTIONS="$options die_after_fork=0 log_path='$work/case'" timeout 300 \
        cargo test "${abi_tests[@]}" --test abi -- --test-threads=1 "soloring::$1::" \
        >"$work/output" 2>&1 || status=$?
    cat "$work"/case.* >"$work/reports" 2>/dev/null
    return $status
}

reported() { grep -q '^WARNING: ThreadSanitizer: data race' "$work/reports"; }

for case in mutex rwlock once scope arc; do
    sanitized 1 "$std_edges" $case || { fail "std_edges $case: status $?"; cat "$work/reports"; }
    sanitized 1 "$std_edges" $case racy
    if reported; then say "noticed  a race beside std's $case"; else fail "a race beside std's $case was not noticed"; fi
done

for spoil in slot bias mutex blind; do
    SOLORING_SPOIL=$spoil sanitized 1 "$stress" --seconds 20
    if reported; then say "noticed  the lock without '$spoil'"; else fail "the lock without '$spoil' was not noticed"; fi
done

SOLORING_SPOIL=bias cases msg
if reported; then say "noticed  the lock without 'bias' in a case"; else fail "the lock without 'bias' was not noticed in a case"; fi

for family in sqpoll msg clone resize enter; do
    status=0
    cases $family || status=$?
    if [ $status -ne 0 ] || reported; then
        cat "$work/output" "$work/reports"
        fail "the ABI cases of $family: status $status"
    else
        say "clean    the ABI cases of $family: $(grep -o '[0-9]* passed' "$work/output")"
    fi
done

say "stress of $seconds s"
status=0
sanitized 0 "$stress" --seconds "$seconds" --patience 120 || status=$?
cat "$work/output"
if [ $status -ne 0 ] || reported; then
    cat "$work/reports"
    fail "the stress: status $status, $(grep -c '^WARNING: ThreadSanitizer' "$work/reports") report(s)"
else
    # How often each suppression was used.
    grep -A100 '^ThreadSanitizer: Matched' "$work/reports"
fi

[ $failures -eq 0 ] || { say "sanitize: $failures failure(s)"; exit 1; }
say 'sanitize: no report, and everything spoiled was noticed'

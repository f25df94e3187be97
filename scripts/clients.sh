#!/usr/bin/env bash
# Runs two real io_uring clients, fio and the io-uring crate's tcp_echo example, under
# `soloring run --deny-kernel` and on the kernel's ring, and compares what they did.
#
#   scripts/clients.sh [SIZE_MIB]
#
# Exits with 1 if a client fails or the two sides differ, with 2 if something is missing. Where the
# kernel's ring is refused, only our side runs and is checked by itself. Needs fio and cargo; installs
# nothing. Works in target/clients/.
set -u -o pipefail

size_mib=${1:-64}
cd "$(dirname "$0")/.." || exit 2
root=$PWD
work=$root/target/clients
port=3456 # fixed in the example
failures=0
server=

say() { printf '%s\n' "$*"; }
missing() { printf 'clients.sh: %s\n' "$*" >&2; exit 2; }
fail() { printf 'DIFFERS  %s\n' "$*"; failures=$((failures + 1)); }
end_server() { [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; server=; }
clean() { end_server; rm -rf "$work/files"; }
trap clean EXIT
trap 'exit 130' INT TERM

[[ $size_mib =~ ^[1-9][0-9]*$ ]] || missing "not a size in MiB: $size_mib"
command -v cargo >/dev/null || missing 'cargo is missing: install Rust'
command -v fio >/dev/null || missing 'fio is missing: install the Debian package fio'
fio --enghelp | grep -qw io_uring || missing 'this fio has no io_uring engine'

cargo build --release --quiet --package soloring-cli || missing 'soloring does not build'
soloring=$root/target/release/soloring
rm -rf "$work/files"
mkdir -p "$work/files" || exit 2

kernel=yes
offers=$("$soloring" probe --json 2>/dev/null)
grep -A3 '^  "kernel": {' <<<"$offers" | grep -q '"available": true' || kernel=no
[ $kernel = no ] && say "The kernel's ring is refused here: only ours runs, checked by itself."

# fio ------------------------------------------------------------------------------------------

# run_fio NAME ON FILE ARGS...: prints "error read_kib write_kib" of one fio run.
run_fio() {
    local name=$1 on=$2 file=$3 log=$work/fio-$1-$2.log
    shift 3
    local command=(fio --name="$name" --filename="$file" --ioengine=io_uring --bs=4k --iodepth=32
        --size="${size_mib}M" --randseed=42 --verify_state_save=0
        --minimal --terse-version=3 --output="$log" "$@")
    rm -f "$work/stats"
    if [ "$on" = ours ]; then
        command=(env SOLORING_STATS_FILE="$work/stats" "$soloring" run --deny-kernel -- "${command[@]}")
    fi
    local status=0
    timeout 300 "${command[@]}" >"$log.out" 2>&1 || status=$?
    if [ $status -ne 0 ]; then
        cat "$log.out" >&2
        echo "exit $status"
        return
    fi
    # Terse version 3: field 5 is the error, 6 and 47 are KiB read and written.
    awk -F';' 'NF > 100 { print $5, $6, $47 }' "$log"
}

# Requests that soloring counted in the last run, all processes together.
counted() {
    local one sum=0
    for one in $(grep -o '"ops": *[0-9]*' "$work/stats" 2>/dev/null | cut -d: -f2); do
        sum=$((sum + one))
    done
    echo $sum
}

compare_fio() {
    local name=$1 ours theirs expected
    shift
    ours=$(run_fio "$name" ours "$work/files/$name-ours" "$@")
    local count
    count=$(counted)
    if [ $kernel = yes ]; then
        theirs=$(run_fio "$name" kernel "$work/files/$name-kernel" "$@")
    else
        theirs=$ours
    fi
    read -r error read_kib write_kib <<<"$ours"
    if [ "$ours" != "$theirs" ]; then
        fail "fio $name: ours: $ours; kernel: $theirs (error, KiB read, KiB written)"
        return
    fi
    if [ "$error" != 0 ]; then
        fail "fio $name: $ours"
        return
    fi
    expected=$(((read_kib + write_kib) / 4))
    if [ "$count" -lt "$expected" ] || [ "$expected" -eq 0 ]; then
        fail "fio $name: $expected reads and writes, of which soloring counted $count"
        return
    fi
    say "same     fio $name: $read_kib KiB read, $write_kib KiB written, no error; $count requests"
}

registered=(--fixedbufs=1 --registerfiles=1)
write=(--rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1)
compare_fio randwrite "${write[@]}"
compare_fio randwrite-registered "${write[@]}" "${registered[@]}"
compare_fio randwrite-thread "${write[@]}" --thread
# Reads check the blocks that a verified write has left: the same file, written first.
for on in ours kernel; do
    [ $on = kernel ] && [ $kernel = no ] && continue
    for name in randread randread-registered; do
        fio --name=lay --filename="$work/files/$name-$on" --ioengine=psync --rw=write --bs=4k \
            --size="${size_mib}M" --verify=crc32c --do_verify=0 --verify_state_save=0 --minimal >/dev/null ||
            missing 'fio cannot write its file by plain calls'
    done
done
read_back=(--rw=randread --verify=crc32c --verify_fatal=1)
compare_fio randread "${read_back[@]}"
compare_fio randread-registered "${read_back[@]}" "${registered[@]}"

# tcp_echo -------------------------------------------------------------------------------------

manifest=$(cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/io-uring-[0-9.]*/Cargo.toml"' |
    head -1 | cut -d'"' -f4)
example=${manifest%/*}/examples/tcp_echo.rs
[ -f "$example" ] || missing "the io-uring crate's tcp_echo example is not in the registry's sources"
mkdir -p "$work/tcp_echo"
cat >"$work/tcp_echo/Cargo.toml" <<EOF
[workspace]
[package]
name = "tcp_echo"
version = "0.0.0"
edition = "2021"
[[bin]]
name = "tcp_echo"
path = "$example"
[dependencies]
io-uring = { path = "${manifest%/*}" }
anyhow = "1"
libc = "0.2"
slab = "0.4"
EOF
cargo build --release --quiet --manifest-path "$work/tcp_echo/Cargo.toml" --target-dir "$work/build" ||
    missing 'the tcp_echo example does not build'

# Waits until nobody listens on the port: a ring that is torn down holds its socket a little longer.
await_free_port() {
    local try
    for ((try = 0; try < 100; try++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return
        sleep 0.1
    done
    missing "port $port is in use: the example needs it"
}

# run_echo ON: serves on one side, prints what the checking client saw.
run_echo() {
    local on=$1 command=("$work/build/release/tcp_echo")
    [ "$on" = ours ] && command=("$soloring" run --deny-kernel -- "${command[@]}")
    await_free_port
    "${command[@]}" >"$work/tcp_echo-$on.log" 2>&1 &
    server=$!
    said=$(timeout 120 "$soloring" __echo-check "127.0.0.1:$port" 2>&1) || said="failed: $said; $(cat "$work/tcp_echo-$on.log")"
    end_server
}

run_echo ours
ours=$said
if [ $kernel = yes ]; then
    run_echo kernel
else
    said=$ours
fi
if [ "$ours" != "$said" ] || [[ $ours != *unchanged ]]; then
    fail "tcp_echo: ours: $ours; kernel: $said"
else
    say "same     tcp_echo: $ours"
fi

[ "$failures" -eq 0 ]

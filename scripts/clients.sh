#!/usr/bin/env bash
# Runs real io_uring clients under `soloring run --deny-kernel` and on the kernel's ring, and compares
# what they did.
#
#   scripts/clients.sh [-s SIZE_MIB] [CLIENT...]
#
# CLIENT is a name from the list at the end; all of them without one. A client whose program is missing is
# skipped, with a line that says what to install. Exits with 1 if a client fails or the two sides differ, with
# 2 if it cannot start. Where the kernel's ring is refused, only our side runs and is checked by itself.
# Needs cargo; installs nothing. Works in target/clients/ and, for sockets, in a temporary directory; servers listen
# on the loopback only and end with the script.
set -u -o pipefail

size_mib=64
if [ "${1-}" = -s ]; then
    size_mib=${2-}
    shift 2
fi
cd "$(dirname "$0")/.." || exit 2
root=$PWD
sources=$root/scripts/clients
work=$root/target/clients
port=3456 # fixed in the tcp_echo example
failures=0
server=
short= # a directory with a short name: socket paths have little room

say() { printf '%s\n' "$*"; }
missing() { printf 'clients.sh: %s\n' "$*" >&2; exit 2; }
fail() { printf 'DIFFERS  %s\n' "$*"; failures=$((failures + 1)); }
skip() { printf 'skipped  %s\n' "$*"; }
# needs CLIENT PROGRAM PACKAGE: whether the program is there.
needs() { command -v "$2" >/dev/null || { skip "$1: $2 is missing (package $3)"; return 1; }; }

end_server() { [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null; server=; }
clean() { end_server; rm -rf "$work/files" ${short:+"$short"}; }
trap clean EXIT
trap 'exit 130' INT TERM

[[ $size_mib =~ ^[1-9][0-9]*$ ]] || missing "not a size in MiB: $size_mib"
command -v cargo >/dev/null || missing 'cargo is missing: install Rust'

cargo build --release --quiet --package soloring-cli || missing 'soloring does not build'
soloring=$root/target/release/soloring
rm -rf "$work/files"
mkdir -p "$work/files" || exit 2
short=$(mktemp -d) || exit 2

kernel=yes
offers=$("$soloring" probe --json 2>/dev/null)
grep -A3 '^  "kernel": {' <<<"$offers" | grep -q '"available": true' || kernel=no
[ $kernel = no ] && say "The kernel's ring is refused here: only ours runs, checked by itself."

# Requests that soloring counted in the last run, all processes together.
counted() {
    local one sum=0
    for one in $(grep -o '"ops": *[0-9]*' "$work/stats" 2>/dev/null | cut -d: -f2); do
        sum=$((sum + one))
    done
    echo $sum
}

# on_ring ours|kernel: sets `run`, which stands in front of a program, and `files`, an empty directory.
on_ring() {
    run=()
    [ "$1" = ours ] && run=(env SOLORING_STATS_FILE="$work/stats" "$soloring" run --deny-kernel --)
    files=$work/files/$1
    rm -rf "$files" "$work/stats"
    mkdir -p "$files"
}

# compare NAME LEAST SECONDS FUNCTION ARGS...: has the function run its program on both rings, and compares what
# it prints. LEAST is the number of requests of ours below which the program has not used a ring.
compare() {
    local name=$1 least=$2 seconds=$3 ours theirs count run files word='same    '
    shift 3
    on_ring ours
    ours=$(bounded "$seconds" "$@" 2>"$work/$name-ours.log") || { fail "$name: ours failed: $ours $(tail -n 3 "$work/$name-ours.log")"; return; }
    count=$(counted)
    if [ $kernel = yes ]; then
        on_ring kernel
        theirs=$(bounded "$seconds" "$@" 2>"$work/$name-kernel.log") || { fail "$name: fails on the kernel's ring: $theirs $(tail -n 3 "$work/$name-kernel.log")"; return; }
    else
        theirs=$ours
        word='ours ran'
    fi
    if [ "$ours" != "$theirs" ]; then
        fail "$name: ours: $ours; kernel: $theirs"
    elif [ "$count" -lt "$least" ]; then
        fail "$name: soloring counted $count requests only: $ours"
    else
        # Who is ended by a signal does not come to tell its count.
        [ "$count" -gt 0 ] && count="$count requests" || count='requests not told'
        say "$word $name: ${ours//$'\n'/, }; $count"
    fi
}

# bounded SECONDS FUNCTION ARGS...: programs that it starts through `limited` have that long.
bounded() {
    seconds=$1
    shift
    "$@"
}
limited() { timeout -k 5 "$seconds" "${run[@]}" "$@"; }

# serve PROGRAM ARGS...: starts a server through `run`; `await_end` says whether it ended well.
serve() {
    setsid timeout -k 5 "$seconds" "${run[@]}" "$@" >&2 &
    server=$!
}
await_end() {
    local status=0
    wait "$server" || status=$?
    server=
    [ $status -eq 0 ] || echo "its server ended with $status"
}
# await COMMAND...: tries until it succeeds, for ten seconds.
await() {
    local try
    for ((try = 0; try < 100; try++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "not there in time: $*"
    return 1
}

# fio ------------------------------------------------------------------------------------------

# do_fio ARGS...: prints "error read_kib write_kib" of one run.
do_fio() {
    local log=$files/fio.out
    limited fio --name=x --filename="$files/data" --ioengine=io_uring --bs=4k --iodepth=32 \
        --size="${size_mib}M" --randseed=42 --verify_state_save=0 \
        --minimal --terse-version=3 --output="$log" "$@" >&2 || return
    # Terse version 3: field 5 is the error, 6 and 47 are KiB read and written.
    awk -F';' 'NF > 100 { print "error " $5 ", " $6 " KiB read, " $47 " KiB written" }' "$log"
}
# Reads check the blocks that a verified write has left.
do_fio_reads() {
    fio --name=lay --filename="$files/data" --ioengine=psync --rw=write --bs=4k --size="${size_mib}M" \
        --verify=crc32c --do_verify=0 --verify_state_save=0 --minimal >/dev/null || return
    do_fio --rw=randread --verify=crc32c --verify_fatal=1 "$@"
}
fio_write=(--rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1)
has_fio() {
    needs "$1" fio fio || return
    fio --enghelp | grep -qw io_uring || { skip "$1: this fio has no io_uring engine"; return 1; }
}

client_fio() {
    has_fio fio || return
    local registered=(--fixedbufs=1 --registerfiles=1) least=$((size_mib * 256))
    compare fio-randwrite $((2 * least)) 300 do_fio "${fio_write[@]}"
    compare fio-randwrite-registered $((2 * least)) 300 do_fio "${fio_write[@]}" "${registered[@]}"
    compare fio-randwrite-thread $((2 * least)) 300 do_fio "${fio_write[@]}" --thread
    size_mib=8 compare fio-sqpoll 4096 300 do_fio "${fio_write[@]}" --sqthread_poll=1
    compare fio-randread $least 300 do_fio_reads
    compare fio-randread-registered $least 300 do_fio_reads "${registered[@]}"
}

# Allocators are the first to call into the C library, before anything of ours has run.
client_allocators() {
    has_fio allocators || return
    local name path found=no size_mib=8
    for name in jemalloc tcmalloc_minimal mimalloc; do
        path=$(ldconfig -p | awk -v name="lib$name.so" 'index($1, name) == 1 { print $NF; exit }')
        [ -n "$path" ] || continue
        found=yes
        LD_PRELOAD=$path compare "fio-$name" 4096 120 do_fio "${fio_write[@]}"
    done
    [ $found = yes ] || skip 'allocators: none is here (packages libjemalloc2, libtcmalloc-minimal4, libmimalloc2.0)'
}

# What stands between `run` and the program: it keeps or clears the environment, the process group, the namespaces.
do_wrapped() { limited "$@" fio --name=x --filename="$files/data" --ioengine=io_uring --bs=4k \
    --iodepth=8 --size=4M --rw=randread --minimal --output=/dev/null && echo ended well; }
client_wrappers() {
    has_fio wrappers || return
    compare wrapper-timeout 1000 60 do_wrapped timeout 50
    compare wrapper-setsid 1000 60 do_wrapped setsid -w
    compare wrapper-env 1000 60 do_wrapped env -i PATH="$PATH"
    compare wrapper-limits 1000 60 do_wrapped prlimit --nofile=256
    needs wrapper-strace strace strace && compare wrapper-strace 1000 60 do_wrapped strace -f -o /dev/null
    needs wrapper-bwrap bwrap bubblewrap || return
    bwrap --dev-bind / / true 2>/dev/null || { skip 'wrapper-bwrap: namespaces are refused here'; return; }
    compare wrapper-bwrap 1000 60 do_wrapped bwrap --unshare-pid --dev-bind / /
}

# stress-ng ------------------------------------------------------------------------------------

do_stress_ng() { (cd "$files" && limited stress-ng --quiet --io-uring 2 --timeout 3 --verify) && echo verified; }
client_stress_ng() {
    needs stress-ng stress-ng stress-ng || return
    compare stress-ng 1000 60 do_stress_ng
}

# tcp_echo of the io-uring crate ---------------------------------------------------------------

# Waits until nobody listens on the port: a ring that is torn down holds its socket a little longer.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

do_echo() {
    await port_is_free || return
    serve "$work/build/release/tcp_echo"
    timeout 120 "$soloring" __echo-check "127.0.0.1:$port"
    local status=$?
    end_server
    return $status
}
client_tcp_echo() {
    local manifest example
    manifest=$(cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/io-uring-[0-9.]*/Cargo.toml"' |
        head -1 | cut -d'"' -f4)
    example=${manifest%/*}/examples/tcp_echo.rs
    [ -f "$example" ] || { skip "tcp_echo: the io-uring crate's example is not in the registry's sources"; return; }
    mkdir -p "$work/tcp_echo"
    cat >"$work/tcp_echo/Cargo.toml" <<END
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
END
    cargo build --release --quiet --manifest-path "$work/tcp_echo/Cargo.toml" --target-dir "$work/build" ||
        { skip 'tcp_echo: the example does not build'; return; }
    # It ends by a signal, and counts nothing then.
    compare tcp_echo 0 180 do_echo
}

# The io_uring runtimes of the Rust world ------------------------------------------------------

do_runtime() { limited "$work/build/release/$1" "$files"; }
client_runtimes() {
    local name
    cargo build --release --quiet --manifest-path "$sources/Cargo.toml" --target-dir "$work/build" ||
        { skip 'runtimes: they do not build'; return; }
    for name in tokio-uring monoio compio glommio; do
        compare "$name" 10000 60 do_runtime "$name"
    done
}

# Asio, with its io_uring service --------------------------------------------------------------

do_asio() { limited "$work/asio" "$files"; }
client_asio() {
    needs asio g++ g++ || return
    g++ -std=c++17 -O1 -o "$work/asio" "$sources/asio.cpp" -luring -pthread 2>"$work/asio.log" ||
        { skip 'asio: it does not build (packages libasio-dev, liburing-dev)'; return; }
    compare asio 10000 60 do_asio
}

# Node -----------------------------------------------------------------------------------------

do_node() { UV_USE_IO_URING=1 limited node "$sources/node.js" "$files"; }
client_node() {
    needs node node nodejs || return
    local can='const [a, b] = process.versions.uv.split(".").map(Number); process.exit(a > 1 || b >= 45 ? 0 : 1)'
    node -e "$can" || { skip 'node: its libuv is too old for rings (1.45 or newer)'; return; }
    compare node 5000 120 do_node
}

# QEMU -----------------------------------------------------------------------------------------

do_qemu_io() {
    local image=$files/a.raw copy=$files/b.qcow2 socket=$short/nbd
    truncate -s 64M "$image"
    limited qemu-io -i io_uring -t none -f raw "$image" -c 'aio_write -P 7 0 1M' -c 'aio_write -P 9 4M 8M' -c aio_flush \
        -c 'write -P 3 12M 64k' -c 'discard 40M 4M' -c 'write -z 30M 2M' -c 'read -P 7 0 1M' -c 'read -P 9 4M 8M' \
        -c 'read -P 0 30M 2M' -c flush >&2 || return
    sha256sum <"$image" | cut -c1-16
    limited qemu-img bench -q -i io_uring -t none -f raw -c 3000 -d 64 -w --pattern=5 "$image" >&2 || return
    sha256sum <"$image" | cut -c1-16
    qemu-img create -q -f qcow2 "$copy" 64M >&2 || return
    limited qemu-img bench -q -i io_uring -t none -f qcow2 -c 3000 -d 64 -w --flush-interval=64 "$copy" >&2 || return
    limited qemu-io -i io_uring -f qcow2 "$copy" -c 'read 0 8M' >&2 || return
    serve qemu-nbd -t -k "$socket" --aio=io_uring --cache=none -f raw "$image"
    await test -S "$socket" || return
    timeout 60 qemu-img compare -f raw -F raw "$image" "nbd+unix:///?socket=$socket"
    timeout 60 qemu-img bench -q -f raw -c 3000 -d 64 -w "nbd+unix:///?socket=$socket" >&2
    kill "$server"
    await_end
    sha256sum <"$image" | cut -c1-16
}
client_qemu() {
    needs qemu qemu-io qemu-utils && needs qemu qemu-nbd qemu-utils || return
    compare qemu 9000 120 do_qemu_io
}

# MariaDB, whose InnoDB reads and writes through liburing --------------------------------------

mariadb_rows='
create database t; use t;
create table a (id int primary key auto_increment, k int, pad varchar(255), key (k)) engine=innodb;
create table b like a;
insert into a (k, pad) select (seq * 2654435761) % 1000003, repeat(char(65 + seq % 26), 100 + seq % 100) from seq_1_to_100000;
insert into b (k, pad) select k, pad from a order by k;
update a set k = k + 1 where id % 7 = 0;
delete from b where id % 11 = 3;'
do_mariadb() {
    local user=() socket=$short/mariadb phase server_args client
    [ "$(id -u)" = 0 ] && user=(--user=root)
    mariadb-install-db --no-defaults --auth-root-authentication-method=normal --skip-test-db "${user[@]}" \
        --datadir="$files/db" >&2 || return
    server_args=(--no-defaults "${user[@]}" --datadir="$files/db" --socket="$socket" --pid-file="$files/pid"
        --skip-networking --innodb-use-native-aio=ON --innodb-buffer-pool-size=16M --innodb-log-file-size=16M
        --innodb-flush-method=O_DIRECT --log-error="$files/log.err")
    client=(timeout 120 mariadb --no-defaults --socket="$socket" --user=root --batch --skip-column-names)
    for phase in write read; do
        serve mariadbd "${server_args[@]}"
        await "${client[@]}" -e 'select 1' || return
        if [ $phase = write ]; then
            "${client[@]}" <<<"$mariadb_rows" || return
            local w writers=()
            for w in 1 2 3 4; do
                "${client[@]}" t -e "update a set pad = concat('w$w', pad) where id % 8 = $w; delete from b where id % 101 = $w" >&2 &
                writers+=($!)
            done
            wait "${writers[@]}" || return
        fi
        "${client[@]}" t -e 'select count(*), sum(k), sum(crc32(pad)) from a; checksum table a, b; check table a extended; check table b extended' |
            tr '\t' ' '
        "${client[@]}" -e shutdown
        await_end
    done
    grep -o 'Using io_uring' "$files/log.err" | sort -u
}
client_mariadb() {
    needs mariadb mariadbd mariadb-server && needs mariadb mariadb mariadb-client || return
    compare mariadb 1000 240 do_mariadb
}

# Samba, with its vfs module io_uring ----------------------------------------------------------

do_samba() {
    local conf=$short/smb.conf dir
    for dir in share private lock state cache ncalrpc; do mkdir -p "$files/$dir"; done
    cat >"$conf" <<END
[global]
server role = standalone server
interfaces = lo
bind interfaces only = yes
smb ports = 4455
private dir = $files/private
lock directory = $files/lock
state directory = $files/state
cache directory = $files/cache
pid directory = $files/lock
ncalrpc dir = $files/ncalrpc
log file = $files/log
map to guest = bad user
guest account = $(id -un)
load printers = no
disable spoolss = yes
[s]
path = $files/share
guest ok = yes
guest only = yes
read only = no
vfs objects = io_uring
aio read size = 1
aio write size = 1
END
    head -c 20M /dev/zero | tr '\0' '\125' >"$files/source"
    head -c 1M /dev/urandom >"$short/tail"
    [ -f "$work/files/tail" ] || cp "$short/tail" "$work/files/tail"
    cat "$work/files/tail" >>"$files/source"
    serve smbd --foreground --no-process-group --configfile="$conf"
    local client=(timeout 60 smbclient --configfile="$conf" -p 4455 -N //127.0.0.1/s)
    await "${client[@]}" -c ls || return
    "${client[@]}" -c "put $files/source a; rename a b; get b $files/back; allinfo b" >&2 || return
    cmp "$files/source" "$files/back" && cmp "$files/source" "$files/share/b" && echo 'the same file there and back'
    end_server
}
client_samba() {
    needs samba smbd samba && needs samba smbclient smbclient || return
    [ "$(id -u)" = 0 ] || { skip 'samba: smbd needs root'; return; }
    find /usr/lib* -path '*samba/vfs/io_uring.so' 2>/dev/null | grep -q . ||
        { skip 'samba: no vfs module io_uring (package samba-vfs-modules)'; return; }
    compare samba 4 90 do_samba
}

# plocate: its database is read through a ring -------------------------------------------------

do_plocate() {
    mkdir "$files/tree"
    (cd "$files/tree" && printf 'name-%s\n' {1..4000} | xargs touch) || return
    updatedb -U "$files/tree" -o "$files/db" --require-visibility no --prunepaths '' --prune-bind-mounts no >&2 || return
    # A copy: the installed one is set-gid, for which the loader ignores preloads.
    cp "$(command -v plocate)" "$files/plocate" && chmod 755 "$files/plocate" "$files/db" || return
    limited "$files/plocate" -d "$files/db" -c name-3
    limited "$files/plocate" -d "$files/db" -r 'name-[12].*7$' | sed 's|.*/||' | sort | sha256sum | cut -c1-16
}
client_plocate() {
    needs plocate plocate plocate && needs plocate updatedb plocate || return
    compare plocate 10 60 do_plocate
}

# ----------------------------------------------------------------------------------------------

all=(fio allocators wrappers stress_ng tcp_echo runtimes asio node qemu mariadb samba plocate)
[ $# -gt 0 ] || set -- "${all[@]}"
for client in "$@"; do
    declare -F "client_$client" >/dev/null || missing "no client $client: ${all[*]}"
done
for client in "$@"; do "client_$client"; done

[ "$failures" -eq 0 ]

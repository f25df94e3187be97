#!/usr/bin/env bash
# Installs the command and the shared object that `soloring run` loads into programs.
#
#     scripts/install.sh PREFIX [BUILT]
#
# PREFIX/bin/soloring and PREFIX/lib/soloring/libsoloring_preload.so; the folder can be moved as a whole. BUILT is a
# folder in which cargo has built both; without it a release build is made.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ -z "$1" ]; then
    echo 'usage: scripts/install.sh PREFIX [BUILT]' >&2
    exit 2
fi
prefix=$1
built=${2:-}
if [ -z "$built" ]; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    cargo build --release --manifest-path "$root/Cargo.toml" -p soloring-cli
    built=${CARGO_TARGET_DIR:-$root/target}/release
fi
object=$built/deps/libsoloring_preload.so
[ -e "$object" ] || object=$built/libsoloring_preload.so
# The object goes first: a command that finds none would refuse to run anything.
install -D -m 755 "$object" "$prefix/lib/soloring/libsoloring_preload.so"
install -D -m 755 "$built/soloring" "$prefix/bin/soloring"

#!/usr/bin/env bash
# The program of a portable build that becomes another one: which of them, with the same arguments, installed and built,
# through links, and what it says where it cannot. The others are scripts here that print who they are.
set -euo pipefail

[ -n "${SNRQ_CHOOSER:-}" ] || {
    echo "this is for x86-64"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset SNRQ_CPU

# put FOLDER: the three programs.
put() {
    local name
    mkdir -p "$1"
    for name in generic avx2 avx512; do
        # shellcheck disable=SC2016 # for the script
        printf '#!/bin/sh\necho %s "$@"\nexit 7\n' "$name" >"$1/snrq-$name"
        chmod +x "$1/snrq-$name"
    done
}
# expect CODE TEXT COMMAND...: how it ends, and what its output holds.
expect() {
    local code=0 text=$2 wanted=$1
    shift 2
    "$@" >"$work/said" 2>&1 || code=$?
    if [ "$code" -ne "$wanted" ] || ! grep -qF -e "$text" "$work/said"; then
        echo "$*: expected $wanted and '$text', found $code and:"
        cat "$work/said"
        exit 1
    fi
}
# has FLAG...: of this CPU, by the system's own account.
has() {
    local flag
    for flag in "$@"; do
        grep -m1 '^flags' /proc/cpuinfo | grep -qw "$flag" || return 1
    done
}

best=generic missing=avx2
if has avx2 fma; then best=avx2 missing=avx512; fi
if has avx2 fma avx512f avx512bw avx512dq avx512vl; then best=avx512 missing=; fi

mkdir -p "$work/a prefix/bin"
cp "$SNRQ_CHOOSER" "$work/a prefix/bin/snrq"
snrq="$work/a prefix/bin/snrq"
expect 66 "$work/a prefix/bin/kernels/snrq-$best cannot be started" "$snrq" --version
put "$work/a prefix/libexec/snrq"
expect 7 "$best one two words" "$snrq" one "two words"
expect 7 "generic x" env SNRQ_CPU=generic "$snrq" x
expect 7 "$best x" env SNRQ_CPU= "$snrq" x
expect 64 "expected generic, avx2 or avx512, found 'sse9'" env SNRQ_CPU=sse9 "$snrq" x
[ -z "$missing" ] || expect 64 "this CPU has no such instructions" env SNRQ_CPU=$missing "$snrq" x

ln -s "$snrq" "$work/link"
expect 7 "$best x" "$work/link" x
(PATH="$work/a prefix/bin:$PATH" && expect 7 "$best x" snrq x)
mkdir "$work/build"
cp "$SNRQ_CHOOSER" "$work/build/snrq"
put "$work/build/kernels"
expect 7 "$best x" "$work/build/snrq" x

#!/usr/bin/env bash
# cmake --install, into a path with spaces: the program runs from there, and every header that an installed header
# includes is installed too.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/some prefix"

cmake --install "$(dirname "$SNRQ")" --prefix "$prefix" >"$work/log" || {
    cat "$work/log"
    exit 1
}
"$prefix/bin/snrq" --help >"$work/help"
grep -q quantize "$work/help"
[ -s "$(find "$prefix" -name libsnrq.a)" ]
[ -s "$prefix/share/doc/snrq/LICENSE" ]

cd "$prefix/include/snrq"
[ -s mpi/status.h ]
grep -rhoE '^#include "[^"]+"' . | sort -u | cut -d'"' -f2 | while read -r header; do
    [ -s "$header" ] || {
        echo "$header is included by an installed header, but is not installed"
        exit 1
    }
done

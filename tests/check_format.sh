#!/usr/bin/env bash
# Every C file looks as .clang-format says. Skipped without clang-format 14: other versions break lines differently.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=14
formatter=
for candidate in "clang-format-$version" clang-format; do
    if "$candidate" --version 2>/dev/null | grep -q "version $version\."; then
        formatter=$candidate
        break
    fi
done
if [ -z "$formatter" ]; then
    echo "clang-format $version is not installed"
    exit 77
fi

find pipeline mpi io tests -name '*.[ch]' -print0 | xargs -0 "$formatter" --dry-run -Werror

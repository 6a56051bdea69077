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

mapfile -d '' files < <(find pipeline mpi io tests -name '*.[ch]' -print0 | sort -z)
if ! said=$("$formatter" --dry-run -Werror "${files[@]}" 2>&1); then
    echo "$said"
    echo "Some files do not look as .clang-format says; this command changes them:"
    echo "$formatter -i" $(sed -n 's/^\([^ ]*\.[ch]\):[0-9].*/\1/p' <<<"$said" | sort -u)
    exit 1
fi

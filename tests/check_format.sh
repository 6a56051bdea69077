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

bad=()
while read -r -d '' file; do
    "$formatter" --dry-run -Werror "$file" 2>/dev/null || bad+=("$file")
done < <(find pipeline mpi io tests -name '*.[ch]' -print0 | sort -z)
if [ ${#bad[@]} -gt 0 ]; then
    echo "These files do not look as .clang-format says; this command changes them:"
    echo "$formatter -i ${bad[*]}"
    exit 1
fi

#!/usr/bin/env bash
# Builds the asan preset in a folder and runs its unit and rank tests and the fuzz corpora there: memory errors, leaks,
# undefined behaviour.
# usage: check_sanitized.sh FOLDER GENERATOR COMPILER
# With 1 rank only: the start of MPI takes seconds for each rank here. -g1: lines for the reports, but no variables,
# which take half of the compiler's time. Without the three tests that compute longest, of Grams, searches and coupled
# rows: their shapes take a minute here. `cmake --workflow --preset asan` has them, and 2 to 4 ranks. Skipped where the
# compiler has no sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset LD_PRELOAD # the sanitizers want to be the first library
folder=$1 generator=$2 compiler=$3

mkdir -p "$folder"
if ! echo 'int main(void) { return 0; }' |
    "$compiler" -fsanitize=address,undefined -x c - -o "$folder/probe" 2>"$folder/probe.log"; then
    cat "$folder/probe.log"
    exit 77
fi
cmake --preset asan -B "$folder" -G "$generator" -DCMAKE_C_COMPILER="$compiler" -DSNRQ_TEST_RANKS=1 -DCMAKE_C_FLAGS_DEBUG="-O1 -g1"
cmake --build "$folder" --parallel 2 --target unit_and_rank_tests fuzz_replays
ctest --test-dir "$folder" -L 'unit|ranks|fuzz' -E 'ranks/test_(gram|search|coupled_rows)_' --no-tests=error --output-on-failure -j 2

#!/usr/bin/env bash
# Configuring stops where mpi.h is of one MPI and libraries are of another: here an mpi.h that says it is another's.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/other"
cat >"$work/other/mpi.h" <<'C'
#include_next <mpi.h>
#ifdef OPEN_MPI
#undef OPEN_MPI
#define MPICH_VERSION "4.0"
#else
#define OPEN_MPI 1
#endif
C

# configure FLAGS: output in $work/log, its code is how it ended
configure() {
    cmake -S "$SNRQ_SOURCE" -B "$work/build" --fresh -DSNRQ_TESTS=OFF -DCMAKE_C_COMPILER="$compiler" \
        -DCMAKE_C_FLAGS="$1" >"$work/log" 2>&1
}

compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$SNRQ_BUILD/CMakeCache.txt")
configure "" || {
    cat "$work/log"
    exit 1
}
if configure "-I$work/other"; then
    echo "a mixture of two MPIs was configured"
    exit 1
fi
tr -s ' \n' ' ' <"$work/log" >"$work/words"
for words in "Two MPIs would be mixed" "MPICH, or one of its kind" "Open MPI" "-DMPI_C_COMPILER="; do
    grep -qF -e "$words" "$work/words" || {
        cat "$work/log"
        echo "the message does not say: $words"
        exit 1
    }
done

#!/usr/bin/env bash
# cmake --install, into a path with spaces, which is then moved: the program runs from there, every header that an
# installed header includes is installed too, and a program builds against the library through pkg-config and CMake.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/some prefix"

# quietly COMMAND...: its output only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        echo "failed: $*"
        exit 1
    }
}

quietly cmake --install "$(dirname "$SNRQ")" --prefix "$work/first prefix"
mv "$work/first prefix" "$prefix"
"$prefix/bin/snrq" --help >"$work/help"
grep -q quantize "$work/help"
library=$(find "$prefix" -name libsnrq.a)
[ -s "$library" ]
[ -s "$prefix/share/doc/snrq/LICENSE" ]
# The two README.md are different pages, and one links to the other.
grep -q 'docs/README.md' "$prefix/share/doc/snrq/README.md"
[ -s "$prefix/share/doc/snrq/docs/README.md" ]
grep -q -- "calibration" "$prefix/share/man/man1/snrq-quantize.1"
bash -c '. "$1" && complete -p snrq' bash "$prefix/share/bash-completion/completions/snrq" >/dev/null
[ -s "$prefix/share/zsh/site-functions/_snrq" ]
for script in submit quantize.sbatch; do
    [ -x "$prefix/share/snrq/slurm/$script" ]
done

# The module puts this installation into the paths, wherever it was moved: through Lmod, where that is there. (Lmod itself
# reads no modules in paths with spaces.)
ln -s "$prefix" "$work/plain"
for lmod in "${LMOD_CMD:-}" /usr/share/lmod/lmod/libexec/lmod; do
    [ -x "$lmod" ] || continue
    found=$(MODULEPATH="$work/plain/share/snrq/modulefiles" "$lmod" bash load snrq 2>"$work/log") || true
    [ "$(eval "$found" >/dev/null && command -v snrq)" -ef "$prefix/bin/snrq" ] || {
        cat "$work/log"
        echo "the module does not lead to $prefix/bin/snrq: $found"
        exit 1
    }
    break
done

cd "$prefix/include/snrq"
[ -s mpi/status.h ]
grep -rhoE '^#include "[^"]+"' . | sort -u | cut -d'"' -f2 | while read -r header; do
    [ -s "$header" ] || {
        echo "$header is included by an installed header, but is not installed"
        exit 1
    }
done

case $(sed -n 's/^SNRQ_SANITIZE:BOOL=//p' "$SNRQ_BUILD/CMakeCache.txt") in
ON | 1) exit 0 ;; # its library needs the sanitizers' flags, which are nobody else's business
esac
mkdir "$work/user"
cd "$work/user"
cat >count.c <<'C'
/* Prints how many blocks a model has, through headers of all three layers and HDF5. */
#include <stdio.h>

#include "io/config.h"
#include "io/hdf5/start.h"
#include "mpi/context.h"
#include "pipeline/rounding/search.h"

int main(int argc, char **argv)
{
    snrq_context *context = NULL;
    snrq_config config;
    if (argc != 2 || snrq_hdf5_start() != SNRQ_OK || snrq_context_create_alone(&context) != SNRQ_OK) return 1;
    if (snrq_agree(context, snrq_config_read(argv[1], &config)) != SNRQ_OK) return 1;
    printf("%lld\n", (long long)config.layers);
    snrq_context_destroy(&context);
    return 0;
}
C
cat >CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(count LANGUAGES C)
find_package(snrq 0.2 REQUIRED)
add_executable(count count.c)
target_link_libraries(count PRIVATE snrq::snrq)
CMAKE
expected=$(sed -n 's/.*"num_hidden_layers": *\([0-9]*\).*/\1/p' "$SNRQ_TEST_DATA/model/config.json")
check() {
    local found
    found=$("$1" "$SNRQ_TEST_DATA/model")
    [ "$found" = "$expected" ] || {
        echo "$1: expected $expected blocks, found $found"
        exit 1
    }
}

compiler=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$SNRQ_BUILD/CMakeCache.txt")
quietly cmake -S . -B build -DCMAKE_C_COMPILER="$compiler" -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build build
check build/count
if grep -rq -e '-march=native' --include=flags.make --include=build.ninja build; then
    echo "the library's own flags reached a program that links it"
    exit 1
fi

export PKG_CONFIG_PATH="$(dirname "$library")/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
eval "flags=($(pkg-config --cflags --libs snrq))" # paths with spaces are quoted there
quietly "$compiler" -std=c11 -Wall -Wextra -Werror count.c -o count "${flags[@]}"
check ./count

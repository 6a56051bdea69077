#!/usr/bin/env bash
# Builds snrq on a machine of which nothing is known, and runs its demo or its tests.
# Not for clusters alone or workstations alone: where packages may be installed, what is missing is installed; where
# not, it is named as packages and as environment modules, and the build goes on with what is there.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

usage() {
    cat <<'TEXT'
usage: ./bootstrap.sh COMMAND

  demo               build, quantize the bundled model on 2 ranks, print one table (under 3 minutes)
  test [ARGUMENTS]   build and run all tests; ARGUMENTS go to ctest, e.g.  test -L unit
  test-engines [ARGUMENTS]
                     read exports with transformers, GPTQModel, vLLM and llama.cpp, which are installed below
                     build/engines (7 GB), and print a table; ARGUMENTS: --engine WORD, --model WORD, --help
  test-slow          tests that take minutes: SmolLM2 from quantize to exports
  build              build the program: build/release/snrq
  help               this text

What is missing is installed with apt-get where there is one and root or sudo without a password; SNRQ_INSTALL=no
never installs. CC chooses the compiler of a first build, CMAKE_BUILD_PARALLEL_LEVEL the number of jobs,
SNRQ_DEMO_DIR the (new) folder in which the demo keeps its checkpoints.
TEXT
}

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf '\nbootstrap.sh: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# links COMPILER CODE FLAGS...: a program of CODE compiles and links to $scratch/probe.
links() {
    local compiler=$1 code=$2
    shift 2
    printf '%s\n' "$code" >"$scratch/probe.c"
    # shellcheck disable=SC2086 # CC may be two words: ccache gcc
    $compiler "$scratch/probe.c" -o "$scratch/probe" "$@" >/dev/null 2>&1
}

finds_compiler() { links "${CC:-cc}" 'int main(void) { return 0; }'; }
finds_mpi() { have mpirun && links mpicc $'#include <mpi.h>\nint main(void) { return MPI_Finalize(); }'; }
cmake_needed=3.25
cmake_version() { cmake --version 2>/dev/null | sed -n 's/^cmake version //p'; }
finds_cmake() { have cmake && printf '%s\n' "$cmake_needed" "$(cmake_version)" | sort -V -C; }
finds_ninja() { have ninja; }
finds_pkg_config() { have pkg-config; }

finds_hdf5() {
    local code name flags
    code=$'#include <hdf5.h>\n#ifndef H5_HAVE_PARALLEL\n#error serial\n#endif\nint main(void) { return H5open(); }'
    for name in hdf5-openmpi hdf5-mpich hdf5; do
        flags=$(pkg-config --cflags --libs "$name" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # one word per flag
        links mpicc "$code" $flags && return
    done
    links mpicc "$code" -lhdf5 || { have h5pcc && links h5pcc "$code"; }
}

# Debian's reference BLAS does link, but is many times slower than what belongs here.
finds_blas() {
    local code='void dgemm_(void); void dpotrf_(void); int main(void) { dgemm_(); dpotrf_(); return 0; }' library
    for library in "-llapack -lblas" -lopenblas -lflexiblas; do
        # shellcheck disable=SC2086
        links "${CC:-cc}" "$code" $library || continue
        case $(ldd "$scratch/probe" | awk '/libblas/ { print $3 }' | xargs -r readlink -f) in
        */blas/libblas.so*) return 1 ;;
        *) return 0 ;;
        esac
    done
    [ -n "${MKLROOT:-}" ]
}

finds_scalapack() {
    local code library
    code='void pdpotrf_(void); int Csys2blacs_handle(void);
          int main(void) { pdpotrf_(); return Csys2blacs_handle(); }'
    for library in scalapack-openmpi scalapack scalapack-mpich; do
        links mpicc "$code" "-l$library" && return
        links mpicc "$code" "-l$library" -llapack -lblas -lgfortran -lm && return
        links mpicc "$code" "-l$library" -lopenblas -lgfortran -lm && return
    done
    [ -n "${MKLROOT:-}" ]
}

finds_jansson() { pkg-config --exists jansson 2>/dev/null; }
finds_xxhash() { pkg-config --exists libxxhash 2>/dev/null; }
finds_pcre2() { pkg-config --exists libpcre2-8 2>/dev/null; }
finds_utf8proc() { pkg-config --exists libutf8proc 2>/dev/null; }
finds_zlib() { pkg-config --exists zlib 2>/dev/null; }
finds_cunit() { pkg-config --exists cunit 2>/dev/null; }
finds_hdf5_tools() { have h5dump; }
finds_gnuplot() { have gnuplot; }
finds_clang_format() { have clang-format; }
# Only root can start the nodes of the tests; srun takes libpmix.so by that name.
finds_slurm() {
    [ "$(id -u)" -eq 0 ] || return 0
    have munged && have slurmctld && have slurmd && have sbatch && links "${CC:-cc}" 'int main(void) { return 0; }' -lpmix
}
finds_python() {
    for python in /usr/bin/python3 python3; do
        "$python" -c 'import numpy, h5py' >/dev/null 2>&1 && return
    done
    return 1
}

# What the build needs: finds_<first field> looks for it | what it is | Debian packages | modules
build_needs=(
    "compiler    | C compiler               | build-essential                  | gcc"
    "cmake       | CMake $cmake_needed or newer      | cmake                            | cmake"
    "ninja       | Ninja (or make)          | ninja-build                      | ninja"
    "pkg_config  | pkg-config               | pkg-config                       | pkgconf"
    "mpi         | MPI (mpicc, mpirun)      | openmpi-bin libopenmpi-dev       | openmpi"
    "blas        | fast BLAS and LAPACK     | libopenblas-dev                  | openblas"
    "scalapack   | ScaLAPACK for this MPI   | libscalapack-openmpi-dev         | scalapack"
    "hdf5        | parallel HDF5            | libhdf5-openmpi-dev              | hdf5-parallel"
    "jansson     | jansson (JSON)           | libjansson-dev                   | jansson"
    "xxhash      | xxHash                   | libxxhash-dev                    | xxhash"
    "pcre2       | PCRE2 (8 bit)            | libpcre2-dev                     | pcre2"
    "utf8proc    | utf8proc                 | libutf8proc-dev                  | utf8proc"
    "zlib        | zlib                     | zlib1g-dev                       | zlib"
)
test_needs=(
    "cunit       | CUnit                    | libcunit1-dev                    | cunit"
    "hdf5_tools  | h5dump                   | hdf5-tools                       | hdf5-parallel"
    "python      | python3, numpy and h5py  | python3 python3-numpy python3-h5py | scipy-stack"
    "gnuplot     | gnuplot                  | gnuplot-nox                      | gnuplot"
    "clang_format | clang-format            | clang-format                     | llvm"
    "slurm       | Slurm, for a cluster of the tests' own | slurm-wlm munge libpmix-dev | slurm"
)

# find_missing NEED...: fills the array `missing` with those whose probe fails.
find_missing() {
    local need name
    missing=()
    for need in "$@"; do
        read -r name _ <<<"$need"
        "finds_$name" || missing+=("$need")
    done
}

# field N NEED...: the N-th field of each need, one a line. words: the same as one line without repetitions.
field() {
    local n=$1
    shift
    printf '%s\n' "$@" | awk -F'|' -v n="$n" '{ gsub(/^ +| +$/, "", $n); print $n }'
}
words() { field "$@" | tr ' ' '\n' | awk '!seen[$0]++' | paste -sd ' ' -; }

can_install() {
    [ "${SNRQ_INSTALL:-yes}" != no ] && have apt-get && have dpkg || return 1
    if [ "$(id -u)" -eq 0 ]; then
        as_root=()
    else
        have sudo && sudo -n true </dev/null >/dev/null 2>&1 || return 1
        as_root=(sudo -n)
    fi
}

apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        "$@" </dev/null >>"$scratch/apt.log" 2>&1
}

# One package that does not exist here must not keep the others out.
install() {
    local package failed=
    apt_get update || echo "apt-get update had errors; going on with the package lists that are there"
    if ! apt_get install -y --no-install-recommends "$@"; then
        for package in "$@"; do
            apt_get install -y --no-install-recommends "$package" || failed+=" $package"
        done
    fi
    if [ -n "$failed" ]; then
        tail -n 20 "$scratch/apt.log"
        echo "could not be installed:$failed"
    fi
}

report_missing() {
    echo "Missing here:"
    field 2 "${missing[@]}" | sed 's/^/  /'
    echo "As Debian or Ubuntu packages:"
    echo "  sudo apt-get install --no-install-recommends $(words 3 "${missing[@]}")"
    echo "As environment modules (names differ from site to site; see \`module avail\`):"
    echo "  module load $(words 4 "${missing[@]}")"
}

# provide NEED...: installs what is missing if that is allowed, else names it and goes on.
provide() {
    say "Looking for what the build needs"
    find_missing "$@"
    if [ ${#missing[@]} -gt 0 ] && can_install; then
        local packages
        read -ra packages <<<"$(words 3 "${missing[@]}")"
        echo "installing ${packages[*]}"
        install "${packages[@]}"
        hash -r
        find_missing "$@"
    fi
    if [ ${#missing[@]} -eq 0 ]; then
        echo "everything is there"
        return
    fi
    report_missing
    finds_compiler || fail "nothing can be built without a C compiler (tried: ${CC:-cc})"
    finds_cmake ||
        fail "nothing can be built without CMake $cmake_needed or newer (found: $(cmake_version || echo none));" \
            "\`python3 -m pip install --user cmake\` brings one where packages and modules do not"
    echo "Going on with what is there."
}

# configure PRESET: into build/PRESET. A build folder that another tree, generator or failed attempt left is begun anew.
configure() {
    local preset=$1 folder=build/$1 generator=Ninja fresh=() cache
    cache=$folder/CMakeCache.txt
    finds_ninja || generator="Unix Makefiles"
    if [ -e "$folder" ] && ! [ -w "$folder" ]; then
        fail "$PWD/$folder belongs to another user; remove it or use a copy of the source"
    fi
    if [ -e "$cache" ] && ! { grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" "$cache" &&
        grep -qxF "CMAKE_GENERATOR:INTERNAL=$generator" "$cache" && [ -e "$folder/configured" ]; }; then
        fresh=(--fresh)
    fi
    rm -f "$folder/configured"
    say "Configuring $folder"
    if ! cmake --preset "$preset" -G "$generator" --log-level=NOTICE "${fresh[@]}"; then
        fail "the configuration failed, CMake says above at what. Install or load it and run this again;" \
            "the variable CMAKE_PREFIX_PATH tells CMake of unusual places."
    fi
    touch "$folder/configured"
}

build() {
    configure "$1"
    say "Building $PWD/build/$1"
    cmake --build --preset "$1" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" || fail "the build failed"
}

# What a laptop, a container and a login node have in common: fewer cores than ranks. Open MPI 5 does not start
# without a HOME, which need not exist.
prepare_mpi() {
    export HOME=${HOME:-/}
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_fs_ufs_lock_algorithm=3
}

main() {
    local command=${1:-}
    [ $# -eq 0 ] || shift
    case $command in
    demo | build | test-slow) [ $# -eq 0 ] || fail "$command takes no arguments; ./bootstrap.sh help shows what there is" ;;
    test | test-engines) ;;
    help | -h | --help) usage && return ;;
    '') usage >&2 && exit 64 ;;
    *) fail "there is no command '$command'; ./bootstrap.sh help shows what there is" ;;
    esac

    if ! [ -d "${TMPDIR:-/tmp}" ] || ! [ -w "${TMPDIR:-/tmp}" ]; then
        export TMPDIR=/tmp
    fi
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    prepare_mpi

    case $command in
    build)
        provide "${build_needs[@]}"
        build release
        say "Done: $PWD/build/release/snrq"
        ;;
    demo)
        provide "${build_needs[@]}"
        build demo
        say "Demo"
        SNRQ=$PWD/build/demo/snrq bash tests/end_to_end/demo.sh
        ;;
    test)
        provide "${build_needs[@]}" "${test_needs[@]}"
        build test
        say "Testing"
        ctest --preset test "$@"
        ;;
    test-slow)
        provide "${build_needs[@]}" "${test_needs[@]}"
        build test
        say "Testing"
        ctest --preset slow
        ;;
    test-engines)
        local python
        provide "${build_needs[@]}" "${test_needs[@]}"
        finds_python || fail "python3 with numpy and h5py is needed"
        build test
        say "Reading exports with engines"
        SNRQ=$PWD/build/test/snrq SNRQ_TOKEN_IDS=$PWD/build/test/tests/token_ids SNRQ_SHARED=${SNRQ_SHARED:-$PWD/../shared} \
            "$python" tests/engines/test_engines.py "$@"
        ;;
    esac
}

main "$@"
